"""How well a detector tells anomalies from normal clips, where labelled anomalies exist."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.stats
from sklearn.metrics import average_precision_score, roc_auc_score

from audiotorch.errors import ParameterError, printable
from audiotorch.models.conformal import rows_by_group

__all__ = ["Detection", "Figures", "Operating", "evaluate_detection", "table"]

_BLOCK = 2_000_000  # weights of a bootstrap held at once

Interval = tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """What needs no threshold. Each is None where there are no clips to tell it from.

    Args:
        n_normal: normal clips.
        n_anomaly: anomalies.
        auc: area under the ROC curve: how often an anomaly scores above a normal clip; equal scores
            count half.
        pauc: the partial area of DCASE's task 2: the AUC against the `floor(max_fpr * n_normal)`
            highest-scoring normal clips alone. None where that is no clip. Equal scores count half;
            DCASE counts them as missed.
        pauc_mcclish: another partial area, McClish's, up to the false-alarm rate `max_fpr`, scaled
            to 0.5 for chance and 1 for the best: `roc_auc_score(max_fpr=...)`. Never compare the
            two with each other.
        ap: average precision.
    """

    n_normal: int
    n_anomaly: int
    auc: float | None = None
    pauc: float | None = None
    pauc_mcclish: float | None = None
    ap: float | None = None


@dataclass(frozen=True)
class Operating:
    """What a threshold does; a clip is an anomaly where `score > threshold`.

    Args:
        threshold: the score.
        precision: share of anomalies among the clips that it reports; 0 where it reports none.
        recall: share of the anomalies that it reports.
        f1: harmonic mean of the two.
        false_alarm_rate: share of the normal clips that it reports.
        n_detected: anomalies reported.
        n_false_alarms: normal clips reported.
    """

    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None
    false_alarm_rate: float | None
    n_detected: int
    n_false_alarms: int


@dataclass(frozen=True)
class Detection:
    """Figures of a detector.

    Args:
        overall: of all clips together.
        machines: of each machine's clips alone; empty where none are known.
        harmonic: harmonic means of `auc` and `pauc` over the machines, as DCASE ranks by; None
            without machines that have both kinds of clips.
        thresholds: what each threshold does, over all clips.
        intervals: of `auc` and `pauc`, and of `auc_harmonic` and `pauc_harmonic`; what could not be
            told is not in it.
        max_fpr: the false-alarm rate of the partial areas.
        confidence: of the intervals.
        notes: what a reader of the figures has to know.
    """

    overall: Figures
    machines: Mapping[str, Figures]
    harmonic: Mapping[str, float | None]
    thresholds: Mapping[str, Operating]
    intervals: Mapping[str, Interval]
    max_fpr: float
    confidence: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON: no arrays, and nothing that is not a number."""
        intervals = {f"{key}_interval": list(pair) for key, pair in self.intervals.items()}
        return {
            **asdict(self.overall),
            **{f"{key}_harmonic": value for key, value in self.harmonic.items()},
            **intervals,
            "confidence": self.confidence,
            "max_fpr": self.max_fpr,
            "machines": {name: asdict(figures) for name, figures in self.machines.items()},
            "thresholds": {name: asdict(point) for name, point in self.thresholds.items()},
            "notes": list(self.notes),
        }


def evaluate_detection(
    scores: np.ndarray,
    is_anomaly: np.ndarray,
    *,
    machines: Sequence[str | None] | None = None,
    thresholds: Mapping[str, float] | None = None,
    max_fpr: float = 0.1,
    n_bootstrap: int = 1000,
    seed: int = 42,
    confidence: float = 0.95,
    groups: Sequence[str | None] | None = None,
) -> Detection:
    """Compare the scores of normal clips and anomalies.

    Intervals are percentiles of a bootstrap: normal clips and anomalies of each machine are drawn
    anew, as many as there are; where groups are known whole groups, for clips of one recording or
    subject are no news of each other. A bootstrap knows only what occurred: after an AUC of 1 it
    says 1 to 1, and with a handful of groups it is too narrow.

    Args:
        scores: `(n,)`, higher = more anomalous; infinite ones are taken.
        is_anomaly: `(n,)`, what each clip is.
        machines: machine of each clip, for figures of each and their harmonic means; a clip with
            None counts overall only.
        thresholds: scores to judge, by name.
        max_fpr: false-alarm rate of the partial areas, above 0, at most 1.
        n_bootstrap: draws; 0 = no intervals.
        seed: of the draws.
        confidence: of the intervals, between 0 and 1.
        groups: recording or subject of each clip; a clip with None is alone in its group.

    Raises:
        ParameterError: no clips, NaN, lists that do not fit, or a setting out of range.

    Reference:
        Koizumi et al. (2020), Description and discussion on DCASE2020 challenge task 2; McClish
        (1989), Analyzing a portion of the ROC curve.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(is_anomaly).astype(bool)
    known = [None] * len(labels) if machines is None else list(machines)
    units = [None] * len(labels) if groups is None else list(groups)
    _check(scores, labels, known, units)
    _check_settings(max_fpr, n_bootstrap, confidence)
    # All but the thresholds hangs on order alone, and places in it are finite.
    levels = np.unique(scores, return_inverse=True)[1]
    names = list(dict.fromkeys(name for name in known if name is not None))
    rows = {name: np.flatnonzero([each == name for each in known]) for name in names}
    figures = {name: _figures(levels[i], labels[i], max_fpr) for name, i in rows.items()}
    overall = _figures(levels, labels, max_fpr)
    both = [name for name in names if figures[name].auc is not None]
    harmonic = {
        "auc": _harmonic([figures[name].auc for name in both]),
        "pauc": _harmonic([figures[name].pauc for name in both]),
    }
    found: dict[str, np.ndarray] = {}
    if overall.auc is not None and n_bootstrap:
        strata = _strata(labels, known, units)
        draw = _Draws(levels, labels, strata, [rows[name] for name in both], max_fpr)
        found = draw.figures(n_bootstrap, seed)
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    intervals = {
        key: (float(low), float(high))
        for key, values in found.items()
        if not np.isnan(values).all()
        for low, high in [np.nanpercentile(values, tails)]
    }
    points = {name: _operating(scores, labels, t) for name, t in (thresholds or {}).items()}
    notes = _notes(overall, figures, max_fpr)
    return Detection(
        overall, figures, harmonic, points, intervals, max_fpr, confidence, tuple(notes)
    )


def table(detection: Detection) -> str:
    """Lay out the figures as text of fixed width: machines, then thresholds, then notes.

    Args:
        detection: from `evaluate_detection`.
    """
    p = f"{detection.max_fpr:g}"
    rows = [["", "normal", "anomalies", "AUC", f"pAUC {p}", f"McClish {p}", "AP"]]
    for name, each in detection.machines.items():
        rows.append([printable(name), *_cells(each)])
    rows.append(["all clips", *_cells(detection.overall)])
    if detection.machines:
        means = [detection.harmonic["auc"], detection.harmonic["pauc"]]
        rows.append(["harmonic mean", "", "", *map(_number, means), "", ""])
    lines = _columns(rows)
    shown = {"auc": "AUC", "pauc": "pAUC"}
    shown |= {f"{key}_harmonic": f"harmonic mean of {text}" for key, text in shown.items()}
    for key, (low, high) in detection.intervals.items():
        lines.append(f"{shown[key]}: {low:.3f} to {high:.3f} ({detection.confidence:.0%})")
    if detection.thresholds:
        rows = [["threshold", "score", "precision", "recall", "F1", "false alarms"]]
        for name, at in detection.thresholds.items():
            values = map(_number, (at.precision, at.recall, at.f1, at.false_alarm_rate))
            rows.append([printable(name), f"{at.threshold:.6g}", *values])
        lines += ["", *_columns(rows)]
    return "\n".join([*lines, *(f"note: {note}" for note in detection.notes)])


class _Draws:
    """Areas of many bootstrap draws at once: a draw is a weight of each clip."""

    def __init__(
        self,
        levels: np.ndarray,
        labels: np.ndarray,
        strata: Sequence[Sequence[Sequence[int]]],
        machines: Sequence[np.ndarray],
        max_fpr: float,
    ) -> None:
        self.levels, self.labels, self.strata = levels, labels, strata
        self.machines, self.max_fpr = machines, max_fpr

    def figures(self, n_draws: int, seed: int) -> dict[str, np.ndarray]:
        """Each figure of each draw, `(n_draws,)`."""
        generator = np.random.default_rng(seed)
        size = max(_BLOCK // len(self.labels), 1)
        found = [
            self._block(self._weights(min(size, n_draws - start), generator))
            for start in range(0, n_draws, size)
        ]
        return {key: np.concatenate([block[key] for block in found]) for key in found[0]}

    def _weights(self, n_draws: int, generator: np.random.Generator) -> np.ndarray:
        """How often each draw has each clip, `(n_draws, n)`: as often as its group."""
        weights = np.zeros((n_draws, len(self.labels)))
        for units in self.strata:
            chosen = generator.multinomial(len(units), [1 / len(units)] * len(units), n_draws)
            columns = np.concatenate([np.array(rows) for rows in units])
            weights[:, columns] = np.repeat(chosen, [len(rows) for rows in units], axis=1)
        return weights

    def _block(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        auc, pauc = _areas(self.levels, self.labels, weights, self.max_fpr)
        found = {"auc": auc, "pauc": pauc}
        if self.machines:
            each = [
                _areas(self.levels[rows], self.labels[rows], weights[:, rows], self.max_fpr)
                for rows in self.machines
            ]
            for key, values in zip(("auc", "pauc"), zip(*each, strict=True), strict=True):
                # An area of 0 makes the mean 0; one that is not told leaves it untold.
                with np.errstate(divide="ignore"):
                    found[f"{key}_harmonic"] = 1 / np.mean(1 / np.stack(values), axis=0)
        return found


def _areas(
    levels: np.ndarray, labels: np.ndarray, weights: np.ndarray, max_fpr: float
) -> tuple[np.ndarray, np.ndarray]:
    """AUC and DCASE's partial AUC of clips that count as often as `weights (n_draws, n)` say."""
    places = np.unique(levels, return_inverse=True)[1]
    # Highest level first.
    order = np.argsort(-places, kind="stable")
    starts = np.flatnonzero(np.diff(places[order], prepend=-1))
    normal, anomaly = [
        np.add.reduceat(np.where(kind, weights, 0.0)[:, order], starts, axis=1)
        for kind in (~labels, labels)
    ]
    n_normal = normal.sum(axis=1, keepdims=True)
    n_highest = np.floor(max_fpr * n_normal + 1e-9)
    above = np.cumsum(normal, axis=1) - normal
    highest = np.clip(n_highest - above, 0.0, normal)
    detected = np.cumsum(anomaly, axis=1) - anomaly / 2
    total = anomaly.sum(axis=1)
    with np.errstate(invalid="ignore"):
        auc = (normal * detected).sum(axis=1) / (n_normal[:, 0] * total)
        pauc = (highest * detected).sum(axis=1) / (n_highest[:, 0] * total)
    return auc, pauc


def _figures(levels: np.ndarray, labels: np.ndarray, max_fpr: float) -> Figures:
    n_anomaly = int(labels.sum())
    n_normal = len(labels) - n_anomaly
    if not n_normal or not n_anomaly:
        return Figures(n_normal, n_anomaly)
    auc, pauc = (
        float(area[0]) for area in _areas(levels, labels, np.ones((1, len(labels))), max_fpr)
    )
    mcclish = float(roc_auc_score(labels, levels, max_fpr=max_fpr))
    ap = float(average_precision_score(labels, levels))
    return Figures(n_normal, n_anomaly, auc, None if math.isnan(pauc) else pauc, mcclish, ap)


def _harmonic(values: Sequence[float | None]) -> float | None:
    """The harmonic mean; None where a value is not told or there is none."""
    told = [value for value in values if value is not None]
    return float(scipy.stats.hmean(told)) if told and len(told) == len(values) else None


def _operating(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Operating:
    reported = scores > threshold
    hits, false = int((reported & labels).sum()), int((reported & ~labels).sum())
    n_anomaly, n_normal = int(labels.sum()), int((~labels).sum())
    rate = false / n_normal if n_normal else None
    if not n_anomaly:
        return Operating(float(threshold), None, None, None, rate, hits, false)
    precision = hits / (hits + false) if hits + false else 0.0
    f1 = 2 * hits / (hits + false + n_anomaly)
    return Operating(float(threshold), precision, hits / n_anomaly, f1, rate, hits, false)


def _strata(
    labels: np.ndarray, machines: Sequence[str | None], groups: Sequence[str | None]
) -> list[list[list[int]]]:
    """Normal clips and anomalies of each machine, as rows of each group in them."""
    members: dict[tuple[bool, str | None], list[int]] = {}
    for i, key in enumerate(zip(labels.tolist(), machines, strict=True)):
        members.setdefault(key, []).append(i)
    return [
        [[rows[k] for k in unit] for unit in rows_by_group([groups[i] for i in rows])]
        for rows in members.values()
    ]


def _notes(overall: Figures, machines: Mapping[str, Figures], max_fpr: float) -> list[str]:
    notes = []
    if overall.auc is None:
        kind = "normal clips" if overall.n_normal else "anomalies"
        notes.append(f"all clips are {kind}: there is nothing to tell them from")
    elif overall.pauc is None:
        notes.append(
            f"no pAUC: {max_fpr:g} of {overall.n_normal} normal clips is not one; it takes "
            f"{math.ceil(1 / max_fpr - 1e-9)}"
        )
    alone = [name for name, figures in machines.items() if figures.auc is None]
    if alone and overall.auc is not None:
        notes.append(f"machines with one kind of clips, left out of the harmonic means: {alone}")
    few = [name for name, each in machines.items() if each.auc is not None and each.pauc is None]
    if few:
        notes.append(f"machines with too few normal clips for a pAUC: {few}; no mean of it")
    return notes


def _check(
    scores: np.ndarray,
    labels: np.ndarray,
    machines: Sequence[str | None],
    groups: Sequence[str | None],
) -> None:
    if scores.ndim != 1 or not len(scores):
        raise ParameterError(f"scores: has shape {scores.shape}; need (n,), of one clip at least")
    for name, size in (
        ("is_anomaly", len(labels)),
        ("machines", len(machines)),
        ("groups", len(groups)),
    ):
        if size != len(scores):
            raise ParameterError(f"{name}: {size} for {len(scores)} scores; give one a clip")
    n_nan = int(np.isnan(scores).sum())
    if n_nan:
        raise ParameterError(f"scores: {n_nan} of {len(scores)} are NaN; leave those clips out")


def _check_settings(max_fpr: float, n_bootstrap: int, confidence: float) -> None:
    if not 0 < max_fpr <= 1:
        raise ParameterError(f"max_fpr={max_fpr}: must be above 0, at most 1")
    if n_bootstrap < 0 or not 0 < confidence < 1:
        raise ParameterError(
            f"n_bootstrap={n_bootstrap}, confidence={confidence}: need draws of at least 0, and a "
            "confidence between 0 and 1"
        )


def _cells(figures: Figures) -> list[str]:
    values = (figures.auc, figures.pauc, figures.pauc_mcclish, figures.ap)
    return [str(figures.n_normal), str(figures.n_anomaly), *map(_number, values)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines whose columns are as wide as their widest cell; the first is on the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines
