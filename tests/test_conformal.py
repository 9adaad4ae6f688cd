import csv
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from torch import nn

from audiotorch import Pipeline, load
from audiotorch.errors import ParameterError
from audiotorch.features import MFCC, SpectrogramImage
from audiotorch.models.conformal import (
    clips_needed,
    conformal_threshold,
    conformal_thresholds,
    cross_thresholds,
    mean_p_calibration,
    n_held_back,
    one_per_group,
    p_values,
    smallest_rate,
    with_room,
)
from audiotorch.models.fusion import cross_fit

RATES = [Fraction(k, 1000) for k in (*range(1, 100), *range(100, 1000, 10))]


@pytest.fixture(scope="session")
def digits(data_root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and deviation of 13 MFCC of 2,500 spoken digits, their digits and speakers."""
    with (data_root / "fsdd" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    mfcc, vectors = MFCC(8000, 512, 128, n_mfcc=13, n_mels=40), []
    for row in rows:
        rows_of_clip = mfcc(load(data_root / "fsdd" / row["file"], sample_rate=8000)[0])[0]
        vectors.append(torch.cat([rows_of_clip.mean(-1), rows_of_clip.std(-1)]))
    x = torch.stack(vectors).double().numpy()
    return x, np.array([row["digit"] for row in rows]), np.array([row["speaker"] for row in rows])


def mahalanobis(x: np.ndarray) -> LedoitWolf:
    return LedoitWolf().fit(x)


def distance(fitted: LedoitWolf, x: np.ndarray) -> np.ndarray:
    return fitted.mahalanobis(x)


def neighbours(x: np.ndarray) -> NearestNeighbors:
    return NearestNeighbors(n_neighbors=3).fit(x)


def neighbour_distance(fitted: NearestNeighbors, x: np.ndarray) -> np.ndarray:
    return fitted.kneighbors(x)[0].mean(axis=1)


DETECTORS = {"gaussian": (mahalanobis, distance), "knn": (neighbours, neighbour_distance)}


# --- exact arithmetic -----------------------------------------------------------------------------


def test_clips_needed_and_smallest_rate():
    assert [clips_needed(rate) for rate in (0.05, 0.1, 0.01, 0.2, 0.5)] == [19, 9, 99, 4, 1]
    for rate in RATES:
        exact = next(n for n in range(1, 2000) if Fraction(1, n + 1) <= rate)
        assert clips_needed(float(rate)) == exact
    # A rate that was computed means the fraction that it rounds.
    for n in range(1, 3000):
        assert clips_needed(smallest_rate(n)) == n


def test_the_order_statistic_is_that_of_exact_fractions():
    for n in (1, 2, 9, 18, 19, 20, 39, 49, 99, 100, 199, 999, 1999):
        scores = np.random.default_rng(n).permutation(n)
        for rate in RATES:
            k = -((-(n + 1) * (1 - rate)) // 1)  # ceil
            found = conformal_threshold(scores, float(rate))
            assert found.value == min(k, n) - 1
            assert (found.note is None) == (k <= n)
            assert found.promised == pytest.approx(max(1 - k / (n + 1), 1 / (n + 1)))


def test_too_few_clips_say_what_can_be_promised():
    found = conformal_threshold(np.arange(12.0), 0.05)
    assert (found.value, found.rate, found.promised, found.n) == (11.0, 0.05, 1 / 13, 12)
    assert found.note == (
        "12 normal clips were held back, which promises a rate of false alarms of 7.69 %, not the "
        "5 % asked for; hold back 19."
    )
    assert conformal_threshold(np.arange(1.0), 0.05).note.startswith("1 normal clip was held back")


def test_how_many_are_held_back():
    assert [n_held_back(60, rate) for rate in (0.05, 0.1)] == [19, 12]
    assert [n_held_back(n, 0.05) for n in (2, 3, 20, 38, 100, 10_000)] == [1, 1, 10, 19, 20, 2000]
    for n in range(2, 400):
        held_back = n_held_back(n, 0.05)
        assert 1 <= held_back <= n // 2
        assert held_back == n // 2 or held_back >= max(19, n / 5)


# --- against the Pipeline -------------------------------------------------------------------------


def pipeline(calibration: np.ndarray) -> Pipeline:
    features = SpectrogramImage(8000, 256, 80, n_mels=8)
    made = Pipeline(features, nn.Identity(), sample_rate=8000, task="anomaly")
    made.calibration = torch.as_tensor(np.sort(np.float32(calibration)))
    return made


@pytest.mark.parametrize("n", [1, 9, 19, 40, 333])
def test_p_values_are_those_of_the_pipeline_and_agree_with_the_threshold(n):
    generator = np.random.default_rng(n)
    # Rounded, so that many are equal; and as they are, where float32 rounds.
    for scores in (generator.integers(0, 30, n) / 7, generator.standard_normal(n)):
        new = np.concatenate([scores, generator.standard_normal(500), np.arange(210) / 7, [np.nan]])
        ours = p_values(new, scores)
        theirs = pipeline(scores).p_value(torch.from_numpy(new).float())
        np.testing.assert_array_equal(ours.astype(np.float32), theirs.numpy())
        brute = [(1 + sum(np.float32(scores) >= s)) / (n + 1) for s in np.float32(new[:-1])]
        np.testing.assert_array_equal(ours[:-1], brute)
        for rate in (0.01, 0.05, 0.1, 0.2, 0.25, 0.5):
            found = conformal_threshold(scores, rate)
            reported = new.astype(np.float32) > np.float32(found.value)
            np.testing.assert_array_equal(reported, ours <= max(rate, smallest_rate(n)))


def test_several_thresholds_stand_mildest_first():
    scores = np.random.default_rng(0).standard_normal(40)
    warning, alarm = conformal_thresholds(scores, {"alarm": 0.05, "warning": 0.1})
    assert (warning.name, alarm.name) == ("warning", "alarm")
    assert (warning.rate, alarm.rate) == (0.1, 0.05)
    assert warning.value < alarm.value
    assert alarm.value == conformal_threshold(scores, 0.05).value


def test_one_clip_of_each_group_is_drawn():
    groups = ["a", None, "b", "a", None, "b", "b", "None"]
    drawn = {tuple(one_per_group(groups, seed).tolist()) for seed in range(100)}
    assert all({1, 4, 7} < set(rows) and len(rows) == 5 for rows in drawn)
    assert len(drawn) == 2 * 3
    assert one_per_group(groups, 3).tolist() == one_per_group(groups, 3).tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clips_needed(0.0), r"rate=0.0: a rate of false alarms must be between 0 and 1"),
        (lambda: conformal_threshold(np.arange(3.0), 1.0), r"rate=1.0"),
        (lambda: conformal_threshold(np.zeros(0), 0.1), r"scores: has shape \(0,\)"),
        (lambda: conformal_threshold(np.array([1, np.nan]), 0.1), r"scores: 1 of 2 are not finite"),
        (lambda: p_values(np.zeros(1), np.array([np.inf])), r"calibration: 1 of 1 are not finite"),
        (lambda: conformal_thresholds(np.zeros(3), {}), r"rates: none given"),
        (lambda: conformal_thresholds(np.zeros(3), {"a": 0.1, "b": 0.1}), r"equal rates"),
        (lambda: n_held_back(1, 0.1), r"n_clips=1: a detector needs at least 2 normal clips"),
        (lambda: smallest_rate(0), r"n=0"),
        (lambda: mean_p_calibration(0, 3), r"n_members=0, n=3: must be at least 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ParameterError, match=message):
        call()


# --- the guarantee, on spoken digits --------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("rate", [0.05, 0.1])
@pytest.mark.parametrize("n", [None, 60])
def test_mean_false_alarm_rate_of_200_splits(digits, name, rate, n):
    x, digit, _ = digits
    fit, score = DETECTORS[name]
    n = n or clips_needed(rate)
    generator = np.random.default_rng(5)
    rates = []
    for split in range(200):
        rows = generator.permutation(np.flatnonzero(digit == str(split % 10)))
        fitted = fit(x[rows[:60]])
        held_back, new = (score(fitted, x[part]) for part in (rows[60 : 60 + n], rows[60 + n :]))
        found = conformal_threshold(held_back, rate)
        assert found.note is None
        rates.append((new > found.value).mean())
    print(f"{name}, {rate}, {n} held back: {np.mean(rates):.4f}")
    assert np.mean(rates) <= rate + 0.01
    # Nor is it bought by never reporting anything.
    assert np.mean(rates) >= 0.7 * rate


def by_speaker(digits, n_draws: int) -> float:
    """Mean false-alarm rate on a speaker that neither detector nor threshold has heard."""
    x, digit, speaker = digits
    names, rates = sorted(set(speaker)), []
    for word in map(str, range(10)):
        for learnt in names:
            scores = distance(mahalanobis(x[(digit == word) & (speaker == learnt)]), x)
            for new in set(names) - {learnt}:
                rows = np.flatnonzero((digit == word) & (speaker != new) & (speaker != learnt))
                own, others = scores[(digit == word) & (speaker == new)], speaker[rows].tolist()
                drawn = [rows[one_per_group(others, seed)] for seed in range(n_draws)] or [rows]
                found = [conformal_threshold(scores[each], 0.25).value for each in drawn]
                rates.append(np.mean([(own > value).mean() for value in found]))
    assert len(rates) == 200
    return float(np.mean(rates))


def test_mean_false_alarm_rate_on_new_speakers(digits):
    # Five speakers: one to learn, three held back, which promise 1 in 4, and one that is new. Each
    # choice of speakers stands once; of their clips, 30 draws, as a single one leaves a deviation
    # of 0.01 on the mean.
    grouped, by_clip = by_speaker(digits, 30), by_speaker(digits, 0)
    print(f"new speakers at 0.25: {grouped:.4f}, all clips counted: {by_clip:.4f}")
    assert grouped <= 0.25 + 0.01
    # What the clips of a speaker, counted one by one, promise does not hold.
    assert by_clip > 0.25 + 0.03


def test_cross_conformal_bound(digits):
    x, digit, _ = digits
    generator = np.random.default_rng(6)
    means = []
    for split in range(200):
        rows = generator.permutation(np.flatnonzero(digit == str(split % 10)))
        fitted = cross_fit(mahalanobis, distance, x[rows[:60]], n_folds=4, seed=split)
        p = [
            p_values(distance(member, x[rows[60:160]]), calibration)
            for member, calibration in zip(fitted.members, fitted.calibration, strict=True)
        ]
        means.append(np.mean(p, axis=0))
    for rate in (0.1, 0.2):
        false_alarms = (np.stack(means) <= rate + 1e-12).mean()
        print(f"cross-conformal, {rate}: {false_alarms:.4f}")
        assert false_alarms <= 2 * rate


# --- cross-conformal ------------------------------------------------------------------------------


def test_mean_p_calibration_makes_the_plain_formula_the_mean():
    for n_members, n in ((1, 19), (2, 1), (5, 12), (10, 400)):
        steps = n_members * (n + 1)
        calibration = mean_p_calibration(n_members, n)
        assert len(calibration) == steps - 1
        counted = np.arange(n_members * n + 1)
        mean_p = (n_members + counted) / steps
        for more in (0.0, 0.25, 0.5):
            p = p_values(1 - mean_p + more / steps, calibration)
            np.testing.assert_allclose(p, mean_p, rtol=1e-12)
            for rate in (0.06, 0.1, 0.25):
                (found,) = cross_thresholds(n_members, n, {"alarm": rate})
                reported = np.float32(1 - mean_p + more / steps) > np.float32(found.value)
                reachable = max(rate, 1 / (n + 1))
                np.testing.assert_array_equal(reported, mean_p <= reachable + 1e-12)


def test_cross_thresholds_tell_their_bound():
    warning, alarm = cross_thresholds(5, 12, {"alarm": 0.05, "warning": 0.1})
    assert (warning.name, alarm.name) == ("warning", "alarm")
    assert warning.promised == pytest.approx(2 * 6 / 65)
    assert warning.note == (
        "Cross-conformal, 5 folds of 12 clips: an anomaly has a mean p-value of at most 9.23 %, "
        "and only twice that is promised as the rate of false alarms, 18.5 %."
    )
    assert alarm.promised == pytest.approx(2 / 13)
    assert alarm.note.endswith("too small for the 5 % asked for; it takes 19 clips in each.")


def test_cross_fit_splits_no_group_and_scores_every_clip_once():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((47, 3))
    groups = [None if i % 5 == 0 else f"g{i // 4}" for i in range(47)]
    seen = []

    def fit(part: np.ndarray) -> set[float]:
        seen.append(part)
        return set(part[:, 0].tolist())

    def score(fitted: set[float], part: np.ndarray) -> np.ndarray:
        assert not fitted & set(part[:, 0].tolist())
        return part[:, 1]

    found = cross_fit(fit, score, x, groups=groups, n_folds=4)
    assert sorted(np.concatenate(found.folds).tolist()) == list(range(47))
    np.testing.assert_array_equal(found.scores, x[:, 1])
    folds = [{groups[i] for i in fold if groups[i]} for fold in found.folds]
    assert sum(map(len, folds)) == len(set.union(*folds))
    assert len({len(each) for each in found.calibration}) == 1
    for fold, each in zip(found.folds, found.calibration, strict=True):
        assert set(each) <= set(x[fold, 1])
        assert (np.diff(each) >= 0).all()
    with pytest.raises(ParameterError, match=r"n_folds=1, 1 groups of clips: need at least two"):
        cross_fit(fit, score, x, groups=["a"] * 47)
    with pytest.raises(ParameterError, match=r"groups: 2 for 47 clips"):
        partial(cross_fit, fit, score)(x, groups=["a", "b"])


@pytest.mark.parametrize("offset", [0.0, -1000.0, 50.0])
def test_rounding_puts_no_clip_above_the_threshold_that_its_equals_set(offset):
    rng = np.random.default_rng(0)
    alike = np.full(30, offset + 1.0)  # such as silence: a third of the clips, and the highest
    held_back = np.concatenate([offset - rng.random(60), alike]).astype(np.float32)
    rounded = np.nextafter(held_back, np.float32(np.inf))
    assert (rounded > conformal_threshold(held_back, 0.1).value).mean() > 0.3
    calibration = with_room(held_back)
    found = conformal_threshold(calibration, 0.1)
    assert not (rounded > found.value).any()
    above = np.linspace(offset - 1, offset + 2, 500)
    assert ((p_values(above, calibration) <= 0.1) == (above.astype(np.float32) > found.value)).all()
