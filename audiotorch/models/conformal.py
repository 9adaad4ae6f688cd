"""Thresholds from normal clips alone, with a bound on false alarms that holds for few clips."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from audiotorch.errors import ParameterError

__all__ = [
    "Threshold",
    "clips_needed",
    "conformal_threshold",
    "conformal_thresholds",
    "cross_thresholds",
    "mean_p_calibration",
    "n_held_back",
    "one_per_group",
    "p_values",
    "rows_by_group",
    "smallest_rate",
    "with_room",
]

_ROOM = 1e-5  # of the largest score: what batches, machines and exported files differ by at most


@dataclass(frozen=True)
class Threshold:
    """Score above which a clip is an anomaly, and what that promises.

    Args:
        value: the threshold; a float32, as the scores of a Pipeline are.
        rate: the rate of false alarms that was asked for.
        promised: the rate that holds: the probability that one more normal clip, exchangeable with
            those held back, scores above the threshold, is no higher.
        n: held-back clips that it was taken from.
        note: what a reader has to know where `promised` is above `rate`; None = nothing.
        name: of the threshold.
    """

    value: float
    rate: float
    promised: float
    n: int
    note: str | None = None
    name: str = "alarm"


def clips_needed(rate: float) -> int:
    """Return how many held-back clips it takes to promise a rate of false alarms.

    Args:
        rate: between 0 and 1.

    Example:
        >>> clips_needed(0.05), clips_needed(0.1)
        (19, 9)
    """
    _check_rate(rate)
    # The division may be a rounding off: step to where the promise is just kept.
    n = max(math.ceil(1 / rate) - 2, 1)
    while smallest_rate(n) > rate:
        n += 1
    return n


def smallest_rate(n: int) -> float:
    """Return the smallest rate of false alarms that `n` held-back clips can promise.

    Args:
        n: at least 1.
    """
    if n < 1:
        raise ParameterError(f"n={n}: must be at least 1 held-back clip")
    return 1 / (n + 1)


def n_held_back(n_clips: int, rate: float) -> int:
    """Choose how many normal clips to hold back from training for the threshold.

    Enough for the rate, and at least a fifth, because a threshold of few clips varies from draw to
    draw; but never more than half, which training needs. So fewer than `clips_needed(rate)` come
    back where there are fewer than twice as many clips.

    Args:
        n_clips: normal clips, or recordings where several clips are of one; at least 2.
        rate: the smallest rate of false alarms that is asked for, between 0 and 1.

    Raises:
        ParameterError: fewer than two clips, or a rate out of range.

    Example:
        >>> n_held_back(60, 0.05), n_held_back(60, 0.1), n_held_back(20, 0.05)
        (19, 12, 10)
    """
    if n_clips < 2:
        raise ParameterError(
            f"n_clips={n_clips}: a detector needs at least 2 normal clips, one to learn and one to "
            "hold back for the threshold; record more"
        )
    return min(max(clips_needed(rate), math.ceil(n_clips / 5)), n_clips // 2)


def conformal_threshold(scores: np.ndarray, rate: float) -> Threshold:
    """Take the threshold from the scores of held-back normal clips, which nothing was fitted on.

    It is the k-th smallest score, `k = ceil((n + 1) (1 - rate))`, and a clip is an anomaly where
    `score > value`: just where its p-value is at most the rate. For one more normal clip that is
    exchangeable with the held-back ones the probability of that is at most the rate, whatever the
    detector is and however the scores are distributed. It is a mean over the draws of the held-back
    clips: a single threshold can lie higher or lower, all the more with few of them.

    With too few clips for the rate, the threshold is their largest score, and promises `1 / (n+1)`.

    Args:
        scores: of the held-back clips, one of each recording, higher = more anomalous, `(n,)`.
        rate: wanted rate of false alarms, between 0 and 1.

    Raises:
        ParameterError: no scores, scores that are not finite, or a rate out of range.

    Reference:
        Vovk et al. (2005), Algorithmic learning in a random world; Angelopoulos and Bates (2021),
        A gentle introduction to conformal prediction.

    Example:
        >>> conformal_threshold(np.arange(19.0), 0.05).value
        18.0
        >>> conformal_threshold(np.arange(9.0), 0.05).note
        '9 normal clips were held back, which promises a rate of false alarms of 10 %, not the 5 % \
asked for; hold back 19.'
    """
    _check_rate(rate)
    calibration = _sorted_scores(scores, "scores")
    n = len(calibration)
    # How many of the n + 1 clips may lie above.
    n_above = _largest_count(rate, n + 1)
    if n_above:
        return Threshold(float(calibration[n - n_above]), rate, n_above / (n + 1), n)
    promised = smallest_rate(n)
    note = (
        f"{n} normal clip{'s were' if n > 1 else ' was'} held back, which promises a rate of false "
        f"alarms of {_percent(promised)}, not the {_percent(rate)} asked for; hold back "
        f"{clips_needed(rate)}."
    )
    return Threshold(float(calibration[-1]), rate, promised, n, note)


def conformal_thresholds(scores: np.ndarray, rates: Mapping[str, float]) -> list[Threshold]:
    """Take several thresholds from the same held-back clips.

    Args:
        scores: as of `conformal_threshold`.
        rates: rate of false alarms for each name, such as `{"warning": 0.1, "alarm": 0.05}`.

    Returns:
        The thresholds by name, mildest first: the highest rate and lowest score.

    Raises:
        ParameterError: as `conformal_threshold`; no rates, or two that are equal.
    """
    return [replace(conformal_threshold(scores, rate), name=name) for name, rate in _mildest(rates)]


def p_values(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Return the share of normal clips that score at least as high, with the usual plus one.

    It is what `Pipeline.p_value` gives, `(1 + #{calibration >= score}) / (n + 1)`, scores compared
    in float32. A p-value is at most a rate just where the score lies above the rate's threshold.

    Args:
        scores: anomaly scores of any shape; NaN gives NaN.
        calibration: scores of held-back normal clips, in any order, `(n,)`.

    Raises:
        ParameterError: no calibration scores, or some that are not finite.

    Example:
        >>> p_values(np.array([0.5, 3.0]), np.array([1.0, 2.0, 3.0])).tolist()
        [1.0, 0.5]
    """
    held_back = _sorted_scores(calibration, "calibration")
    values = np.asarray(scores, dtype=np.float32)
    n = len(held_back)
    share = (1 + n - np.searchsorted(held_back, values)) / (n + 1)
    return np.where(np.isnan(values), np.nan, share)


def with_room(scores: np.ndarray) -> np.ndarray:
    """Raise the scores of held-back clips by what rounding may make of them elsewhere.

    A clip alone, in a padded batch and in an exported file has the same score but for the last
    bits. Where clips score alike, such as silence does, one bit would put all of them above a
    threshold that one of them has set. Raised by 1e-5 of their largest absolute value, the scores
    count at least as high as these clips ever score again: a threshold or p-value of them promises
    no less.

    Args:
        scores: of held-back clips, finite, `(n,)`.

    Shape:
        - Output: `(n,)`, float32

    Example:
        >>> with_room(np.array([-100.0, 50.0])).round(4).tolist()
        [-99.9990005493164, 50.000999450683594]
    """
    found: np.ndarray = (scores + _ROOM * np.abs(scores).max()).astype(np.float32)
    return found


def one_per_group(groups: Sequence[str | None], seed: int = 42) -> np.ndarray:
    """Draw one clip of each recording, speaker or machine.

    Clips of one recording score alike, so that ten of them say little more than one: counted as
    ten they would promise more than holds on new recordings. The draw knows nothing of the scores.

    Args:
        groups: group of each clip; a clip with None is alone in its group.
        seed: of the draw.

    Returns:
        Rows of the drawn clips, ascending.

    Example:
        >>> one_per_group(["a", "a", None, None, "a"]).tolist()
        [0, 2, 3]
    """
    generator = np.random.default_rng(seed)
    return np.sort([int(generator.choice(rows)) for rows in rows_by_group(groups)])


def rows_by_group(groups: Sequence[str | None]) -> list[list[int]]:
    """Return the rows of each group, in the order of their first clips.

    Args:
        groups: group of each clip; a clip with None is alone in its group.

    Example:
        >>> rows_by_group(["a", None, "a", None])
        [[0, 2], [1], [3]]
    """
    rows: dict[tuple[str, bool], list[int]] = {}
    for i, group in enumerate(groups):
        key = (str(i), False) if group is None else (str(group), True)
        rows.setdefault(key, []).append(i)
    return list(rows.values())


def mean_p_calibration(n_members: int, n: int) -> np.ndarray:
    """Return the calibration scores with which a fused Pipeline's p-value is the mean of p-values.

    A `Fusion` with `combine="conformal"` scores a clip by its members' mean p-value. That has
    `n_members * (n + 1)` steps, and one entry for each of them makes the plain formula
    `(1 + #{calibration >= score}) / (len(calibration) + 1)` give it back, so that p-value,
    threshold and verdict agree.

    Args:
        n_members: detectors, at least 1.
        n: calibration scores that each has, at least 1.

    Shape:
        - Output: `(n_members * (n + 1) - 1,)`, ascending

    Example:
        >>> mean_p_calibration(2, 1)
        array([0.1875, 0.4375, 1.    ])
    """
    _check_sizes(n_members, n)
    steps = n_members * (n + 1)
    # With c calibration scores at least as high as the clip's, over all members, the mean p-value
    # is (n_members + c) / steps, and the score 1 minus that plus at most half a step. An entry a
    # quarter of a step above that range is below the next one, beyond any rounding to float32.
    counted = np.arange(n_members * n, 0, -1)
    entries = 1 - (n_members + counted - 0.75) / steps
    return np.concatenate([entries, np.ones(n_members - 1)])


def cross_thresholds(n_members: int, n: int, rates: Mapping[str, float]) -> list[Threshold]:
    """Take thresholds of a cross-conformal detector: an anomaly has a mean p-value of the rate.

    The mean of p-values that hang together is no p-value, but twice the mean is one. So what is
    promised is twice the rate, the price of learning from nearly all clips.

    Args:
        n_members: detectors, each calibrated on a fold of its own.
        n: calibration scores that each has.
        rates: mean p-value for each name, between 0 and 1.

    Returns:
        The thresholds by name, mildest first, each with the bound as a note. Where the folds are
        too small for a rate, the smallest one that they have stands for it.

    Raises:
        ParameterError: no rates, equal ones or such as are out of range, or fewer than one member
            or score.

    Reference:
        Vovk (2015), Cross-conformal predictors; Vovk and Wang (2020), Combining p-values via
        averaging.
    """
    calibration = mean_p_calibration(n_members, n).astype(np.float32)
    steps = n_members * (n + 1)
    found = []
    for name, rate in _mildest(rates):
        n_above = max(_largest_count(rate, steps), n_members)
        reached = n_above / steps
        promised = min(2 * reached, 1.0)
        note = (
            f"Cross-conformal, {n_members} folds of {n} clips: an anomaly has a mean p-value of at "
            f"most {_percent(reached)}, and only twice that is promised as the rate of false "
            f"alarms, {_percent(promised)}."
        )
        if reached > rate:
            note += (
                f" The folds are too small for the {_percent(rate)} asked for; it takes "
                f"{clips_needed(rate)} clips in each."
            )
        value = float(calibration[len(calibration) - n_above])
        found.append(Threshold(value, rate, promised, n_members * n, note, name))
    return found


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise ParameterError(f"rate={rate}: a rate of false alarms must be between 0 and 1")


def _check_sizes(n_members: int, n: int) -> None:
    if n_members < 1 or n < 1:
        raise ParameterError(f"n_members={n_members}, n={n}: must be at least 1")


def _mildest(rates: Mapping[str, float]) -> list[tuple[str, float]]:
    """Names and rates, the highest rate first."""
    if not rates:
        raise ParameterError('rates: none given; name at least one, such as {"alarm": 0.05}')
    for rate in rates.values():
        _check_rate(rate)
    if len(set(rates.values())) < len(rates):
        raise ParameterError(
            f"rates={dict(rates)}: equal rates are one threshold; give each name its own"
        )
    return sorted(rates.items(), key=lambda item: -item[1])


def _largest_count(rate: float, size: int) -> int:
    """The largest count whose share of `size`, rounded as a p-value is, does not pass the rate.

    `floor(rate * size)` would do, were 20 * 0.05 or 100 * 0.29 exact.
    """
    count = math.floor(rate * size)
    return next(k for k in (count + 1, count, count - 1) if k / size <= rate)


def _sorted_scores(scores: np.ndarray, name: str) -> np.ndarray:
    values = np.sort(np.asarray(scores, dtype=np.float32))
    if values.ndim != 1 or not len(values):
        raise ParameterError(f"{name}: has shape {values.shape}; need (n,), of one clip at least")
    n_wrong = int((~np.isfinite(values)).sum())
    if n_wrong:
        raise ParameterError(
            f"{name}: {n_wrong} of {len(values)} are not finite in float32; look for the clips"
        )
    return values


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
