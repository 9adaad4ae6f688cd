"""How far a classifier's confidence can be believed, and below which it had better not answer."""

from typing import NamedTuple

import numpy as np

from audiotorch.errors import ParameterError

__all__ = [
    "Coverage",
    "Reliability",
    "abstain_threshold",
    "calibration_error",
    "coverage",
    "reliability",
]


class Coverage(NamedTuple):
    """What is left when doubtful clips are not answered.

    Args:
        share: of the clips that are answered.
        acc: share of right answers among them; None when there are none.
    """

    share: float
    acc: float | None


class Reliability(NamedTuple):
    """The points of a reliability diagram: bins of confidence.

    Args:
        edges: `(n_bins + 1,)`; a bin holds its lower edge, and the last one 1 as well.
        confidence: mean confidence of a bin's clips, `(n_bins,)`; 0 in an empty one.
        accuracy: share of right answers in a bin, `(n_bins,)`; 0 in an empty one.
        size: clips in a bin, `(n_bins,)`.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    size: np.ndarray


def reliability(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15) -> Reliability:
    """Compare the confidence of the most probable class with how often it is right.

    Args:
        probabilities: `(n, n_classes)`, of clips that were not fitted on.
        targets: right class of each clip, `(n,)`.
        n_bins: bins of equal width from 0 to 1.

    Raises:
        ParameterError: shapes that do not fit, or fewer than one bin.
    """
    confidence, accuracy, count = _binned(probabilities, targets, n_bins)
    # Confidence 1 belongs to the last bin of a diagram.
    pair = np.maximum(count[-2:].sum(), 1)
    for values in (confidence, accuracy):
        values[-2] = (values[-2:] * count[-2:]).sum() / pair
    count[-2] = count[-2:].sum()
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    return Reliability(edges, confidence[:-1], accuracy[:-1], count[:-1])


def calibration_error(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy, by bins.

    Args:
        probabilities: `(n, n_classes)`, of clips that were not fitted on.
        targets: right class of each clip, `(n,)`.
        n_bins: bins of equal width from 0 to 1.

    Raises:
        ParameterError: as `reliability`.

    Reference:
        Guo et al. (2017), On calibration of modern neural networks. Same value as torchmetrics'
        `MulticlassCalibrationError(norm="l1")`: clips of confidence 1 have a bin of their own.
    """
    confidence, accuracy, count = _binned(probabilities, targets, n_bins)
    return float((np.abs(confidence - accuracy) * count).sum() / count.sum())


def coverage(probabilities: np.ndarray, targets: np.ndarray, threshold: float) -> Coverage:
    """Count the clips whose confidence reaches a threshold, and how many of them are right.

    Args:
        probabilities: `(n, n_classes)`, of clips that were not fitted on.
        targets: right class of each clip, `(n,)`.
        threshold: clips whose highest probability lies below it are not answered.

    Raises:
        ParameterError: shapes that do not fit.
    """
    confidence, right = _answers(probabilities, targets)
    answered = confidence >= threshold
    acc = float(right[answered].mean()) if answered.any() else None
    return Coverage(float(answered.mean()), acc)


def abstain_threshold(probabilities: np.ndarray, targets: np.ndarray, accuracy: float) -> float:
    """Find the lowest confidence from which on the answered clips are as accurate as wanted.

    A higher `accuracy` never gives a lower threshold. What it costs tells `coverage`. It holds for
    clips such as these: with a speaker's or machine's own clips among the fitted ones, a new
    speaker's answers are less accurate, so take the out-of-fold answers of grouped folds.

    Args:
        probabilities: `(n, n_classes)`, out of fold.
        targets: right class of each clip, `(n,)`.
        accuracy: wanted share of right answers among those given, above 0, at most 1.

    Returns:
        0 if it is reached by answering everything; else a confidence halfway between those of the
        last clip that is answered and the first that is not, which rounding cannot cross.

    Raises:
        ParameterError: an `accuracy` out of range or not reached at any threshold.

    Example:
        >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
        >>> round(abstain_threshold(p, np.array([0, 0, 0]), 0.9), 6)
        0.7
    """
    confidence, right = _answers(probabilities, targets)
    if not 0.0 < accuracy <= 1.0:
        raise ParameterError(f"accuracy={accuracy}: must be above 0, at most 1")
    order = np.argsort(-confidence, kind="stable")
    levels, hits = confidence[order], np.cumsum(right[order])
    # Clips of equal confidence are answered together: only the last of them ends a choice.
    last = np.append(levels[1:] < levels[:-1], True)
    rate = hits / np.arange(1, len(hits) + 1)
    reached = np.flatnonzero(last & (rate >= accuracy))
    if not len(reached):
        best = int(np.where(last, rate, -1.0).argmax())
        raise ParameterError(
            f"accuracy={accuracy}: cannot be reached by leaving doubtful clips out; the most is "
            f"{rate[best]:.3f}, when {(best + 1) / len(rate):.0%} of the clips are answered"
        )
    end = int(reached[-1])
    return 0.0 if end == len(levels) - 1 else float(levels[end] + levels[end + 1]) / 2


def _binned(
    probabilities: np.ndarray, targets: np.ndarray, n_bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of clips in each bin, and of those of confidence 1."""
    confidence, right = _answers(probabilities, targets)
    if n_bins < 1:
        raise ParameterError(f"n_bins={n_bins}: must be at least 1")
    # Summed rows can pass 1 by a rounding.
    confidence = np.minimum(confidence, 1.0)
    bins = np.searchsorted(np.linspace(0.0, 1.0, n_bins + 1), confidence, side="right") - 1
    count = np.bincount(bins, minlength=n_bins + 1)
    total = np.maximum(count, 1)
    means = [np.bincount(bins, values, n_bins + 1) / total for values in (confidence, right)]
    return means[0], means[1], count


def _answers(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of each clip, and whether its answer is right."""
    if probabilities.ndim != 2 or not probabilities.size:
        raise ParameterError(f"probabilities has shape {probabilities.shape}: need (n, n_classes)")
    if targets.shape != (len(probabilities),):
        raise ParameterError(f"targets has shape {targets.shape}: need ({len(probabilities)},)")
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
