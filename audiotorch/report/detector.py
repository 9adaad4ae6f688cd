"""The report of a detector: what it finds, what it misses, and when it raises false alarms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotorch.answers.table import AnswerTable
from audiotorch.models.evaluation import wilson
from audiotorch.report.cards import Asked, Cards, picture_of
from audiotorch.report.clips import DETECTOR_PARTS, all_clips, counted, ranged, rounded
from audiotorch.report.page import Clips, Facts, Picture, Section, Table, Text, render
from audiotorch.report.record import RunRecord, number, numbers
from audiotorch.report.settings import closing, kind_of_model, sizes
from audiotorch.report.timelines import time_lines

__all__ = ["detector_report"]

_N_TOP, _N_FALSE, _N_MISSED = 6, 4, 4
_ABOUT = {
    "Top anomalies": "Known anomalies of the test, the highest score first.",
    "Highest scores": "No anomalies are known: the highest scores among clips not fitted on.",
    "False alarms": "Normal clips above the threshold, the highest score first.",
    "Misses": "Known anomalies that are not above the threshold, the lowest score first.",
}
_AREAS = {"auc": "AUC", "pauc": "partial AUC", "pauc_mcclish": "McClish's AUC", "ap": "AP"}


def detector_report(folder: str | Path) -> str:
    """Return the report of a detector's run as one HTML page.

    Args:
        folder: the run's directory.

    Raises:
        ParameterError: it holds no `metrics.json` that can be read.
    """
    record = RunRecord.read(folder)
    told = {
        key.partition("/")[2]: value
        for key, value in record.metrics.items()
        if key.startswith("test/")
    }
    sections = [_glance(record, told), _thresholds(record, told)]
    sections += _machines(told)
    if record.answers is not None and len(record.answers):
        cards = Cards(record, _N_TOP + _N_FALSE + _N_MISSED)
        examples = _examples(record.answers, cards)
        sections += [_scores(record.answers), *_time_lines(record, cards), *examples]
        sections.append(all_clips(record.answers))
    sections += closing(record)
    kind = kind_of_model(record)
    return render(f"Run {record.name}", f"Detector: {kind}" if kind else "Detector", sections)


def _glance(record: RunRecord, told: Mapping[str, Any]) -> Section:
    """The areas with their intervals, or why there are none."""
    facts: dict[str, str] = {}
    max_fpr = number(told, "max_fpr")
    for key, name in _AREAS.items():
        value = number(told, key)
        if value is None:
            continue
        if key.startswith("pauc") and max_fpr is not None:
            name += f" up to {max_fpr:g} false alarms"
        facts[name] = f"{value:.3f}{_interval(told, key)}"
    for key in ("auc_harmonic", "pauc_harmonic"):
        if (value := number(told, key)) is not None:
            name = f"harmonic mean of the machines' {_AREAS[key.partition('_')[0]]}"
            facts[name] = f"{value:.3f}{_interval(told, key)}"
    n_normal, n_anomaly = (number(told, key) for key in ("n_normal", "n_anomaly"))
    if n_normal is not None and n_anomaly is not None:
        facts["judged by"] = (
            f"{counted(int(n_normal))} that are normal and {int(n_anomaly):,} anomalies, of the "
            "test; nothing was fitted or calibrated on them"
        )
    blocks: list[Any] = [Facts(facts | sizes(record))]
    if n_anomaly is None:
        blocks.append(
            Text(
                "The run had no test clips, so it is not known how well it finds anomalies; name "
                "some, in a folder or with a label of their own beside the normal ones."
            )
        )
    notes = told.get("notes")
    texts = [str(note) for note in notes] if isinstance(notes, list) else []
    blocks += [Text(f"{text[:1].upper()}{text[1:]}.") for text in texts]
    blocks += [Text(text) for text in record.gaps]
    return Section("At a glance", blocks)


def _interval(told: Mapping[str, Any], key: str) -> str:
    pair = told.get(f"{key}_interval")
    if not isinstance(pair, list) or len(pair) != 2:
        return ""
    low, high = (number({key: value}, key) for value in pair)
    confidence = number(told, "confidence") or 0.95
    if low is None or high is None:
        return ""
    return f" ({100 * confidence:g} %: {ranged((low, high))})"


def _thresholds(record: RunRecord, told: Mapping[str, Any]) -> Section:
    """What each threshold promises, and what it did on the test."""
    columns = ["threshold", "score above", "false alarms asked for", "promised", "seen in the test"]
    columns += ["seen 95 %", "precision", "recall", "F1"]
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
        "Of further normal clips, no more than the promised share raise an alarm, on average over "
        "the draw of the calibration's. Shares seen are of the test's normal clips; their "
        "interval is Wilson's."
    )
    if held_back is not None:
        note = f"Calibrated on {counted(int(held_back))} ({kind}). {note}"
    return Section("Thresholds", [Table(columns, rows), *notes], note=note)


def _machines(told: Mapping[str, Any]) -> list[Section]:
    machines = numbers(told, "machines")
    if not machines:
        return []
    columns = ["machine", "normal", "anomalies", "AUC", "partial AUC", "McClish's AUC", "AP"]
    rows = []
    for name, figures in machines.items():
        if isinstance(figures, Mapping):
            counts = [int(number(figures, key) or 0) for key in ("n_normal", "n_anomaly")]
            rows.append([str(name), *counts, *(rounded(number(figures, key)) for key in _AREAS)])
    return [Section("Machines", [Table(columns, rows)], note="Of the test's clips.")]


def _scores(answers: AnswerTable) -> Section:
    """The scores of each part with the thresholds, and the ROC curve where anomalies are known."""
    from audiotorch import plot

    blocks = [
        picture_of(
            lambda: plot.score_histogram(_by_part(answers), dict(answers.thresholds)),
            "histogram of scores",
            "Scores by part, with the thresholds",
        )
    ]
    test = answers.part("test")
    if len(np.unique(test.targets)) == 2:
        blocks.append(
            picture_of(
                lambda: plot.roc(test.targets, test.scores, thresholds=dict(test.thresholds)),
                "ROC curve",
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


def _examples(answers: AnswerTable, cards: Cards) -> list[Section]:
    """Top anomalies, false alarms and misses of the test, or of what else was held back."""
    test = answers.part("test")
    if not len(test):
        test = answers.part("held_back")
    order = np.argsort(-test.scores, kind="stable")
    above = test.answers[order] == "anomaly"
    anomalous = test.targets[order] == 1
    known = anomalous.any()
    top = order[anomalous] if known else order
    chosen = {
        "Top anomalies" if known else "Highest scores": (top[:_N_TOP], "good" if known else ""),
        "False alarms": (order[above & ~anomalous][:_N_FALSE], "bad"),
        "Misses": (order[~above & anomalous][::-1][:_N_MISSED], "bad"),
    }
    sections = []
    for title, (rows, tone) in chosen.items():
        note = _ABOUT[title]
        blocks: list[Any] = [Text("None.")]
        if len(rows):
            blocks = [Clips([cards.card(_asked(test, row, tone)) for row in rows.tolist()])]
        elif title == "Misses" and not known:
            blocks = [Text("No anomalies are known.")]
        sections.append(Section(title, blocks, note=note))
    return sections


def _asked(answers: AnswerTable, row: int, tone: str) -> Asked:
    score = f"score {answers.scores[row]:.4g}"
    if answers.thresholds:
        name, limit = list(answers.thresholds.items())[-1]
        sign = "above" if answers.scores[row] > limit else "not above"
        score += f", {sign} {name} {limit:.4g}"
    if not np.isnan(answers.p_values[row]):
        score += f", p = {answers.p_values[row]:.2g}"
    where = [str(answers.truth[row]), *(str(v[row]) for v in (answers.machines, answers.groups))]
    return Asked(str(answers.files[row]), [score, ", ".join(filter(None, where))], tone)


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _time_lines(record: RunRecord, cards: Cards) -> list[Section]:
    """Scores over time of the clips that have reasons; of one window each they say nothing new."""
    known = {Path(file).name: found for file, found in list(cards.found.items())[:_N_TOP]}
    if not any(len(found.window_scores) > 1 for found in known.values()):
        return []
    picture = picture_of(lambda: time_lines(known), "scores over time")
    return [
        Section("Time lines", [picture], note="Score of each window of the first cards' clips.")
    ]
