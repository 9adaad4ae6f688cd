import json
import math

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from audiotorch.errors import ParameterError
from audiotorch.models.detection import evaluate_detection, table


def clips(
    n_normal: int = 60, n_anomaly: int = 40, *, ties: bool = False, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat([False, True], [n_normal, n_anomaly]))
    scores = generator.standard_normal(len(labels)) + labels
    return (np.round(2 * scores) if ties else scores), labels


def dcase_pauc(scores: np.ndarray, labels: np.ndarray, p: float = 0.1) -> float:
    """The formula of DCASE's task 2, but for equal scores, which count half."""
    highest = sorted(scores[~labels].tolist(), reverse=True)[: math.floor(p * (~labels).sum())]
    anomalies = scores[labels].tolist()
    pairs = [float(a > b) + 0.5 * (a == b) for a in anomalies for b in highest]
    return sum(pairs) / (len(highest) * len(anomalies))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_scikit_learn_and_dcase(ties, seed):
    scores, labels = clips(ties=ties, seed=seed)
    found = evaluate_detection(scores, labels, n_bootstrap=0).overall
    assert found.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found.pauc == pytest.approx(dcase_pauc(scores, labels), abs=1e-12)
    mcclish = roc_auc_score(labels, scores, max_fpr=0.1)
    assert found.pauc_mcclish == pytest.approx(mcclish, abs=1e-12)
    assert found.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert (found.n_normal, found.n_anomaly) == (60, 40)


def test_the_floor_of_the_rule_is_exact():
    # 0.29 * 100 is 28.999999999999996 in floats.
    scores, labels = clips(100, 20)
    found = evaluate_detection(scores, labels, max_fpr=0.29, n_bootstrap=0).overall
    highest = np.sort(scores[~labels])[-29:]
    expected = (scores[labels][:, None] > highest).mean()
    assert found.pauc == pytest.approx(expected, abs=1e-12)


def test_infinite_scores_are_the_highest():
    scores, labels = clips()
    expected = evaluate_detection(scores, labels, n_bootstrap=0).overall
    top = np.where(scores == scores.max(), np.inf, scores)
    assert evaluate_detection(top, labels, n_bootstrap=0).overall == expected


def test_thresholds_against_scikit_learn():
    scores, labels = clips(ties=True)
    found = evaluate_detection(scores, labels, thresholds={"alarm": 2.0, "never": 9.0})
    answers = scores > 2.0
    precision, recall, f1, _ = precision_recall_fscore_support(labels, answers, average="binary")
    at = found.thresholds["alarm"]
    assert (at.precision, at.recall) == (precision, recall)
    assert at.f1 == pytest.approx(f1, abs=1e-12)
    assert at.false_alarm_rate == answers[~labels].mean()
    assert (at.n_detected, at.n_false_alarms) == (
        (answers & labels).sum(),
        (answers & ~labels).sum(),
    )
    never = found.thresholds["never"]
    assert (never.precision, never.recall, never.f1, never.false_alarm_rate) == (0, 0, 0, 0)


def test_machines_and_their_harmonic_means():
    scores, labels = clips(90, 60)
    machines = [("fan", "pump", "valve")[i % 3] for i in range(150)]
    found = evaluate_detection(scores, labels, machines=machines)
    assert list(found.machines) == ["fan", "pump", "valve"]
    each = {}
    for name, figures in found.machines.items():
        own = np.array([machine == name for machine in machines])
        each[name] = roc_auc_score(labels[own], scores[own]), dcase_pauc(scores[own], labels[own])
        assert (figures.auc, figures.pauc) == pytest.approx(each[name], abs=1e-12)
    auc, pauc = scipy.stats.hmean(list(each.values()), axis=0)
    assert found.harmonic["auc"] == pytest.approx(auc, abs=1e-12)
    assert found.harmonic["pauc"] == pytest.approx(pauc, abs=1e-12)
    assert set(found.intervals) == {"auc", "pauc", "auc_harmonic", "pauc_harmonic"}
    for key in ("auc", "pauc"):
        low, high = found.intervals[f"{key}_harmonic"]
        assert low < found.harmonic[key] < high


def test_machines_with_one_kind_of_clips_are_left_out_and_told():
    scores, labels = clips(40, 20)
    machines = np.where(labels, "a", np.where(np.arange(60) % 2, "a", "b")).tolist()
    found = evaluate_detection(scores, labels, machines=machines)
    assert found.machines["b"].auc is None
    assert found.harmonic["auc"] == pytest.approx(found.machines["a"].auc)
    assert any("['b']" in note for note in found.notes)


def test_intervals_are_those_of_a_bootstrap_one_by_one():
    scores, labels = clips(50, 30, ties=True)
    found = evaluate_detection(scores, labels, n_bootstrap=4000)
    generator = np.random.default_rng(7)
    normal, anomaly = scores[~labels], scores[labels]
    drawn = []
    for _ in range(1500):
        a, b = generator.choice(normal, 50), generator.choice(anomaly, 30)
        both = np.concatenate([a, b])
        drawn.append(
            (roc_auc_score(~(np.arange(80) < 50), both), dcase_pauc(both, np.arange(80) >= 50))
        )
    expected = np.percentile(drawn, [2.5, 97.5], axis=0)
    # The percentiles of 1,500 draws have an error of about 0.003 themselves.
    np.testing.assert_allclose(found.intervals["auc"], expected[:, 0], atol=0.01)
    np.testing.assert_allclose(found.intervals["pauc"], expected[:, 1], atol=0.025)


def test_whole_groups_are_drawn():
    scores, labels = clips(30, 20)
    once = evaluate_detection(scores, labels)
    ten = evaluate_detection(np.tile(scores, 10), np.tile(labels, 10))
    groups = [f"g{i}" for i in range(50)] * 10
    grouped = evaluate_detection(np.tile(scores, 10), np.tile(labels, 10), groups=groups)

    def width(found):
        return found.intervals["auc"][1] - found.intervals["auc"][0]

    assert width(ten) < 0.5 * width(once)
    assert width(grouped) == pytest.approx(width(once), rel=0.1)
    alone = evaluate_detection(scores, labels, groups=[None] * 50)
    assert alone.intervals == once.intervals


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth = scipy.stats.norm.cdf(1 / math.sqrt(2))
    held = 0
    for seed in range(200):
        scores, labels = clips(60, 40, seed=seed)
        found = evaluate_detection(scores, labels, n_bootstrap=200, confidence=0.9)
        low, high = found.intervals["auc"]
        held += low <= truth <= high
    # 180 expected, standard deviation 4.2; a percentile bootstrap is a little narrow.
    assert 165 <= held <= 195


@pytest.mark.parametrize(("kind", "word"), [(False, "normal clips"), (True, "anomalies")])
def test_one_kind_of_clips_has_a_note_and_no_figures(kind, word):
    labels = np.full(5, kind)
    found = evaluate_detection(np.arange(5.0), labels, thresholds={"alarm": 2.0})
    assert (found.overall.auc, found.overall.pauc, found.overall.ap) == (None, None, None)
    assert found.notes == (f"all clips are {word}: there is nothing to tell them from",)
    at = found.thresholds["alarm"]
    assert (at.recall, at.false_alarm_rate) == ((0.4, None) if kind else (None, 0.4))
    assert json.dumps(found.as_dict(), allow_nan=False)
    assert "note: all clips" in table(found)


def test_few_normal_clips_have_no_pauc():
    scores, labels = clips(9, 9)
    found = evaluate_detection(scores, labels)
    assert found.overall.auc is not None
    assert found.overall.pauc is None
    assert found.notes == ("no pAUC: 0.1 of 9 normal clips is not one; it takes 10",)
    assert set(found.intervals) == {"auc"}


def test_as_dict_and_table():
    scores, labels = clips(60, 40)
    machines = ["fan\x1b[31m", "pump"] * 50
    found = evaluate_detection(scores, labels, machines=machines, thresholds={"alarm": 1.5})
    figures = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert figures["auc"] == found.overall.auc
    assert figures["auc_interval"] == list(found.intervals["auc"])
    assert figures["machines"]["pump"]["pauc"] == found.machines["pump"].pauc
    assert figures["thresholds"]["alarm"]["recall"] == found.thresholds["alarm"].recall
    assert figures["pauc_harmonic"] == found.harmonic["pauc"]
    text = table(found)
    assert "\x1b" not in text
    assert f"{found.overall.auc:.3f}" in text
    assert "harmonic mean" in text
    assert "alarm" in text


def test_same_seed_same_intervals():
    scores, labels = clips()
    first, again, other = (evaluate_detection(scores, labels, seed=s).intervals for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.array([1.0, np.nan, 2.0])}, r"scores: 1 of 3 are NaN"),
        ({"scores": np.zeros(0), "is_anomaly": np.zeros(0)}, r"scores: has shape \(0,\)"),
        ({"is_anomaly": np.array([True])}, r"is_anomaly: 1 for 3 scores"),
        ({"is_anomaly": np.array(["ok", "ok", "bad"])}, r"is_anomaly: must be true or false"),
        ({"machines": ["a"]}, r"machines: 1 for 3 scores"),
        ({"groups": ["a"]}, r"groups: 1 for 3 scores"),
        ({"max_fpr": 0.0}, r"max_fpr=0.0: must be above 0"),
        ({"confidence": 1.0}, r"confidence=1.0"),
        ({"n_bootstrap": -1}, r"n_bootstrap=-1"),
    ],
)
def test_refusals(change, message):
    given = {"scores": np.arange(3.0), "is_anomaly": np.array([False, True, True])}
    with pytest.raises(ParameterError, match=message):
        evaluate_detection(**{**given, **change})
