"""Answers as users read them: classes by name, scores held against thresholds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from audiotorch.audio.source import Source, source_name
from audiotorch.errors import DecodeError

__all__ = ["Prediction", "WindowPrediction", "best_class", "named", "named_thresholds"]


@dataclass(frozen=True)
class Prediction:
    """The answer for one file, or the reason why there is none.

    Args:
        file: path or name of the file; `"<bytes>"` for bytes.
        label: most probable class, of a detector `"anomaly"` or `"normal"`; `None` where `error`
            says why, where the confidence lies below what the Pipeline asks for
            (`Pipeline.abstain_below`), or where a detector has no threshold.
        confidence: probability of the most probable class; `None` for a detector.
        probabilities: probability of each class by name.
        error: what was wrong with the file; `None` where there is an answer.
        contributions: where asked for, what features add to the most probable class, by name, the
            largest first: see `ClassicModel.contributions`.
        score: a detector's score, higher = more anomalous; `None` for classes, as is all below.
        threshold: the last and highest one; the file is an anomaly where its score lies above.
        p_value: what share of normal clips scores as high, see `Pipeline.p_value`; `None` where
            the detector holds no scores of normal clips.
        is_anomaly: whether the score lies above the threshold; `None` where there is none.
        level: name of the highest threshold that the score lies above.
    """

    file: str
    label: str | None = None
    confidence: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    contributions: dict[str, float] = field(default_factory=dict)
    score: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    is_anomaly: bool | None = None
    level: str | None = None


@dataclass(frozen=True)
class WindowPrediction:
    """The answer for one window of a recording.

    A detector's thresholds and p-values were made for whole clips, see `Pipeline.calibrate`: they
    say of a window only how it would stand as a clip of its own.

    Args:
        start_seconds: where the window starts.
        end_seconds: where it ends; the last one at the recording's end at the latest.
        label: most probable class, of a detector `"anomaly"` or `"normal"`; `None` where the
            Pipeline abstains, or has no threshold.
        confidence: probability of the most probable class; `None` for a detector.
        probabilities: probability of each class by name.
        score: a detector's score, higher = more anomalous; `None` for classes, as is all below.
        threshold: as of a `Prediction`.
        p_value: as of a `Prediction`.
        is_anomaly: as of a `Prediction`.
        level: as of a `Prediction`.
    """

    start_seconds: float
    end_seconds: float
    label: str | None = None
    confidence: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    score: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    is_anomaly: bool | None = None
    level: str | None = None


def named(module: Any, answer: Any, source: Source) -> dict[str, Any]:
    """Return what a Pipeline's answer to one clip says, as fields of a `Prediction`.

    Args:
        module: Pipeline, eager or exported.
        answer: probabilities, or a detector's score.
        source: what was answered, for the error.

    Raises:
        DecodeError: the score is not finite: what was heard is beyond the model's numbers.
    """
    return _judged(module, answer, source) if module.task == "anomaly" else _class(module, answer)


def named_thresholds(module: Any) -> dict[str, float]:
    """Return a Pipeline's thresholds by name, in their order.

    Args:
        module: Pipeline, eager or exported.
    """
    return dict(zip(module.threshold_names, module.thresholds.tolist(), strict=True))


def best_class(row: Sequence[float]) -> int:
    """Return the place of the most probable class.

    Args:
        row: probability of each class.
    """
    return max(range(len(row)), key=row.__getitem__)


def _class(module: Any, row: Sequence[float]) -> dict[str, Any]:
    """The most probable class if it is probable enough, its probability, that of every class."""
    best = best_class(row)
    least = named_thresholds(module).get("abstain", 0.0)
    return {
        "label": None if row[best] < least else module.labels[best],
        "confidence": row[best],
        "probabilities": dict(zip(module.labels, row, strict=True)),
    }


def _judged(module: Any, score: float, source: Source) -> dict[str, Any]:
    """A score against the detector's thresholds, in the numbers of the model's own dtype."""
    if not math.isfinite(score):
        raise DecodeError(f"{source_name(source)}: its score is {score}, no number to go by")
    found: dict[str, Any] = {"score": score}
    if len(module.calibration):
        # A count over n + 1; in float32 one of 20 would be more than 0.05.
        size = len(module.calibration) + 1
        p_value = module.p_value(torch.full_like(module.temperature, score))
        found["p_value"] = round(float(p_value) * size) / size
    thresholds = named_thresholds(module)
    if not thresholds:
        return found
    names = [name for name, threshold in thresholds.items() if score > threshold]
    last = list(thresholds.values())[-1]
    is_anomaly = score > last
    return {
        **found,
        "label": "anomaly" if is_anomaly else "normal",
        "threshold": last,
        "is_anomaly": is_anomaly,
        "level": names[-1] if names else None,
    }
