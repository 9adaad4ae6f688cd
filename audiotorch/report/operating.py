"""What a detector's thresholds promise and do, by machine, and how scores lie."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from audiotorch.answers.table import AnswerTable
from audiotorch.models.evaluation import wilson
from audiotorch.report.audio import Budget
from audiotorch.report.cards import picture_of
from audiotorch.report.clips import DETECTOR_PARTS, counted, ranged, rounded
from audiotorch.report.page import Section, Table, Text
from audiotorch.report.record import RunRecord, number, numbers

__all__ = ["AREAS", "machines", "scores", "thresholds"]

AREAS = {"auc": "AUC", "pauc": "partial AUC", "pauc_mcclish": "McClish's AUC", "ap": "AP"}
"""What a reader calls the figures that need no threshold."""


def thresholds(record: RunRecord, told: Mapping[str, Any]) -> Section:
    """Return what each threshold promises, and what it did on the test.

    Args:
        record: of the run.
        told: figures of the test; empty where there is none.
    """
    columns = ["threshold", "score above", "asked for", "promised", "seen"]
    columns += ["seen, 95 %", "precision", "recall", "F1"]
    rows, notes = [], []
    seen, n_normal = numbers(told, "thresholds"), number(told, "n_normal") or 0
    for name, promise in numbers(record.metrics, "thresholds").items():
        if not isinstance(promise, Mapping):
            continue
        at = numbers(seen, name)
        rate, alarms = number(at, "false_alarm_rate"), number(at, "n_false_alarms")
        interval = ""
        if rate is not None and alarms is not None and n_normal:
            interval = ranged(wilson(alarms / n_normal, int(n_normal)))
        row: list[str | float | None] = [str(name), _digits(number(promise, "score"))]
        row += [rounded(number(promise, key)) for key in ("false_alarm_rate", "promised_rate")]
        row += [rounded(rate), interval]
        row += [rounded(number(at, key)) for key in ("precision", "recall", "f1")]
        rows.append(row)
        if promise.get("note"):
            notes.append(Text(f"{name}: {promise['note']}"))
    if not rows:
        return Section("Thresholds", [Text("The run set no threshold.")])
    held_back = number(record.metrics, "held_back")
    kind = "held back" if record.metrics.get("conformal") == "split" else "cross-conformal"
    note = (
        "Of further normal clips, no more than the promised share raise a false alarm, on average "
        "over the draw of those held back. The share seen is of the test's normal clips, its "
        "interval Wilson's."
    )
    if held_back is not None:
        note = f"Calibrated on {counted(int(held_back))} ({kind}). {note}"
    return Section("Thresholds", [Table(columns, rows), *notes], note=note)


def machines(told: Mapping[str, Any]) -> list[Section]:
    """Return the figures of each machine; nothing where none are known.

    Args:
        told: figures of the test.
    """
    known = numbers(told, "machines")
    if not known:
        return []
    columns = ["machine", "normal", "anomalies", "AUC", "partial AUC", "McClish's AUC", "AP"]
    rows = []
    for name, figures in known.items():
        if isinstance(figures, Mapping):
            counts = [int(number(figures, key) or 0) for key in ("n_normal", "n_anomaly")]
            rows.append([str(name), *counts, *(rounded(number(figures, key)) for key in AREAS)])
    return [Section("Machines", [Table(columns, rows)], note="Of the test's clips.")]


def scores(answers: AnswerTable, budget: Budget) -> Section:
    """Return the histogram of scores, and the ROC curve where anomalies are known.

    Args:
        answers: of the run.
        budget: of the page.
    """
    from audiotorch import plot

    blocks = [
        picture_of(
            lambda: plot.score_histogram(
                _by_part(answers),
                dict(answers.thresholds),
                ax=plot.new_figure(6.2, 4.4).add_subplot(),
            ),
            "histogram of scores",
            budget,
            "Scores by part, with the thresholds",
        )
    ]
    test = answers.part("test")
    if len(np.unique(test.targets)) == 2:
        blocks.append(
            picture_of(
                lambda: plot.roc(
                    test.targets,
                    test.scores,
                    thresholds=dict(test.thresholds),
                    n_bootstrap=0,
                    ax=plot.new_figure(4.8, 4.4).add_subplot(),
                ),
                "ROC curve",
                budget,
                "ROC curve of the test",
            )
        )
    else:
        kind = (
            "no clips" if not len(test) else "anomalies only" if test.targets[0] else "no anomaly"
        )
        blocks.append(Text(f"The test has {kind}, so there is no ROC curve."))
    return Section("Scores", blocks, note="Higher is more anomalous.")


def _by_part(answers: AnswerTable) -> dict[str, np.ndarray]:
    """Finite scores by part and kind of clip."""
    found = {}
    for part in answers.parts_present:
        own = answers.part(part)
        for kind, name in ((0, "normal"), (1, "anomalies")):
            scores = own.scores[(own.targets == kind) & np.isfinite(own.scores)]
            if len(scores):
                found[f"{DETECTOR_PARTS.get(part, part).lower()}, {name}"] = scores
    return found


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
