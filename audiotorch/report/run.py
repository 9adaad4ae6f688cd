"""The report of a classifier's training run: how good it is, where it errs, and why."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotorch.answers.table import AnswerTable
from audiotorch.report.cards import Asked, Cards, picture_of
from audiotorch.report.clips import all_clips, counted, ranged, rounded
from audiotorch.report.judged import JudgedPart, judged_parts
from audiotorch.report.page import Clips, Facts, Picture, Section, Table, Text, render
from audiotorch.report.record import RunRecord, number, numbers
from audiotorch.report.settings import closing, kind_of_model, sizes

__all__ = ["run_report"]

_N_ERRORS, _N_HITS = 8, 6


def run_report(folder: str | Path) -> str:
    """Return the report of a classifier's run as one HTML page.

    Args:
        folder: the run's directory.

    Raises:
        ParameterError: it holds no `metrics.json` that can be read.
    """
    record = RunRecord.read(folder)
    parts, remarks = judged_parts(record)
    sections = [_glance(record, parts, remarks)]
    sections += [_part(part) for part in parts]
    judged = [part for part in parts if part.answers is not None]
    if judged:
        sections += _cards(record, judged)
    sections += _curves(record) + _importance(record)
    if record.answers is not None and len(record.answers):
        sections.append(all_clips(record.answers))
    sections += closing(record)
    kind = kind_of_model(record)
    return render(f"Run {record.name}", f"Classifier: {kind}" if kind else "Classifier", sections)


def _glance(record: RunRecord, parts: Sequence[JudgedPart], remarks: Sequence[str]) -> Section:
    """Headline figures, both cross-validations side by side, and what to make of them."""
    blocks: list[Any] = []
    if parts:
        first = parts[0]
        headline = {
            f"accuracy, {first.title.lower()}": f"{first.acc:.3f} (95 %: {ranged(first.acc_interval)})"
        }
        headline["judged by"] = f"{counted(first.n)} of {len(first.labels)} classes"
        blocks.append(Facts(headline | sizes(record)))
    else:
        blocks.append(Text("The run was judged on no clips: it had no validation and no test."))
    if isinstance(record.metrics.get("leakage"), str):
        blocks.append(Text(record.metrics["leakage"]))
    if parts:
        blocks.append(_side_by_side(record, parts))
    abstain = number(record.metrics, "abstain")
    if abstain is not None:
        blocks.append(
            Text(
                f"The model gives no label below a confidence of {abstain:.3f}: "
                "'answered' is the share of clips that get one, 'right of these' how many are right."
            )
        )
    blocks += [Text(text) for text in (*remarks, *record.gaps, *_notes(parts))]
    return Section("At a glance", blocks)


def _side_by_side(record: RunRecord, parts: Sequence[JudgedPart]) -> Table:
    columns = ["part", "clips", "accuracy", "95 %", "macro F1", "F1 95 %"]
    columns += ["calibration error", "log loss"]
    folds = any(_worst_fold(part) for part in parts)
    abstains = number(record.metrics, "abstain") is not None
    columns += ["worst fold"] * folds + ["answered", "right of these"] * abstains
    rows = []
    for part in parts:
        row = [part.title, part.n, round(part.acc, 3), ranged(part.acc_interval)]
        row += [round(part.f1, 3), ranged(part.f1_interval), rounded(part.ece)]
        row += [rounded(part.loss), *[_worst_fold(part)] * folds]
        if abstains:
            row += [rounded(number(part.told, key)) for key in ("answered", "answered_acc")]
        rows.append(row)
    caption = (
        "Intervals of accuracy are Wilson's, for clips drawn at random, and say nothing of new "
        "groups; with groups left out they are Student's t over the folds. Those of F1 are "
        "bootstrapped over clips."
    )
    return Table(columns, rows, caption)


def _notes(parts: Sequence[JudgedPart]) -> list[str]:
    found = []
    for part in parts:
        notes = part.told.get("notes")
        for note in notes if isinstance(notes, list) else []:
            found.append(f"{part.title}: {note}")
    return found


def _meaning(part: JudgedPart) -> str:
    """What clips the figures of a part are about."""
    return {
        "test": "Clips that nothing was fitted or chosen on.",
        "val": "Clips that were not trained on; the epoch may have been chosen by them.",
        "cv_grouped": "Each clip was answered by a model that had heard none of its group.",
        "cv": "Each clip was answered by a model that was not fitted on it, but on others of its "
        "group.",
    }.get(part.name, "")


def _part(part: JudgedPart) -> Section:
    """One part: classes, confusion matrix, reliability, most confused pairs."""
    blocks: list[Any] = [*_pictures(part)]
    columns = ["class", "clips", "precision", "precision 95 %", "recall", "recall 95 %", "F1"]
    blocks.append(Table(columns, part.classes(), "Classes; intervals are Wilson's"))
    pairs = part.confusions()
    if pairs:
        rows = [[true, answer, n, round(share, 3)] for true, answer, n, share in pairs]
        columns = ["class", "answered as", "clips", "share of the class"]
        blocks.append(Table(columns, rows, "Most confused"))
    else:
        blocks.append(Text(f"No errors: all of {counted(part.n)} are answered right."))
    return Section(f"{part.title}: {counted(part.n)}", blocks, note=_meaning(part))


def _cards(record: RunRecord, parts: Sequence[JudgedPart]) -> list[Section]:
    """The worst errors and the most confident hits, of the first part that has some."""
    wrong = next((part for part in parts if not _answers(part).right.all()), None)
    sections = []
    cards = Cards(record, _N_ERRORS + _N_HITS)
    if wrong is None:
        sections.append(Section("Worst errors", [Text("No clip was answered wrongly.")]))
    else:
        rows = worst_errors(_answers(wrong), _N_ERRORS)
        sections.append(_section("Worst errors", wrong, rows, cards, "bad"))
    right = next((part for part in parts if _answers(part).right.any()), None)
    if right is not None:
        rows = confident_hits(_answers(right), _N_HITS)
        sections.append(_section("Most confident hits", right, rows, cards, "good"))
    return sections


def worst_errors(answers: AnswerTable, n: int) -> np.ndarray:
    """Return the rows of the wrong answers with the largest loss, the worst first.

    Args:
        answers: of one part.
        n: at most so many.
    """
    wrong = np.flatnonzero(~answers.right)
    return wrong[np.argsort(-answers.losses[wrong], kind="stable")][:n]


def confident_hits(answers: AnswerTable, n: int) -> np.ndarray:
    """Return the rows of the most confident right answers, one a class, the surest first.

    Args:
        answers: of one part.
        n: at most so many.
    """
    right = np.flatnonzero(answers.right)
    right = right[np.argsort(-answers.confidence[right], kind="stable")]
    _, first = np.unique(answers.targets[right], return_index=True)
    return right[np.sort(first)][:n]


def _pictures(part: JudgedPart) -> list[Any]:
    """The confusion matrix, and of answers with confidences the reliability diagram."""
    from audiotorch import plot

    name = part.title.lower()
    found = [
        picture_of(
            lambda: plot.confusion_matrix(part.matrix, part.labels),
            f"confusion matrix, {name}",
            "Confusion matrix: rows are true classes, columns answers",
        )
    ]
    if part.answers is not None:
        answers = part.answers
        found.append(
            picture_of(
                lambda: plot.reliability(answers.probabilities, answers.targets),
                f"reliability diagram, {name}",
                f"Reliability: calibration error {part.ece:.3f}",
            )
        )
    return found


def _curves(record: RunRecord) -> list[Section]:
    """Training curves of networks."""
    from audiotorch import plot

    if number(record.metrics, "epochs") is None:
        return []
    picture = picture_of(lambda: plot.training_curves(record.folder), "training curves", "By epoch")
    return [Section("Training", [picture])]


def _importance(record: RunRecord) -> list[Section]:
    """What accuracy is lost without a feature; of classic models."""
    from audiotorch import plot

    drops = {}
    for name, pair in numbers(record.metrics, "importance").items():
        if isinstance(pair, list) and len(pair) == 2:
            mean, std = (number({"": value}, "") for value in pair)
            if mean is not None and std is not None:
                drops[str(name)] = (mean, std)
    if not drops:
        return []
    rows = [[name, round(mean, 4), round(std, 4)] for name, (mean, std) in drops.items()]
    picture = picture_of(lambda: plot.importance_bars(drops), "importance of features")
    table = Table(["feature", "accuracy lost without it", "standard deviation"], rows)
    note = "Permuted on clips that were not fitted on."
    return [Section("Importance of features", [picture, table], note=note)]


def _answers(part: JudgedPart) -> AnswerTable:
    assert part.answers is not None
    return part.answers


def _section(title: str, part: JudgedPart, rows: np.ndarray, cards: Cards, tone: str) -> Section:
    answers, clips = _answers(part), []
    losses = answers.losses
    for row in rows.tolist():
        truth, answer = str(answers.truth[row]), str(answers.answers[row])
        sure = f"{answers.confidence[row]:.0%}"
        text = f"{truth}, {sure} sure" if truth == answer else f"is {truth}, heard as {answer}, "
        lines = [text if truth == answer else f"{text}{sure} sure", f"loss {losses[row]:.2f}"]
        if answers.groups[row]:
            lines[1] += f", group {answers.groups[row]}"
        clips.append(cards.card(Asked(str(answers.files[row]), lines, tone, answer)))
    told = f"{part.title}, {counted(part.n)}."
    if part.name.startswith("cv"):
        told += (
            " The answers are of models that were not fitted on the clip; the reasons are of the "
            "exported one, which was, and may answer otherwise."
        )
    return Section(title, [Clips(clips)], note=told)


def _worst_fold(part: JudgedPart) -> str:
    """Accuracy of the worst fold, and what it held; empty where no folds are told."""
    folds = part.told.get("folds")
    known = [fold for fold in folds if isinstance(fold, dict)] if isinstance(folds, list) else []
    scored = [(acc, fold) for fold in known if (acc := number(fold, "acc")) is not None]
    if not scored:
        return ""
    acc, fold = min(scored, key=lambda each: each[0])
    names = [str(name) for name in fold.get("names") or []]
    told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if part.name == "cv":
        told = f"fold {told} of {len(known)}"
    return f"{acc:.3f} ({told})" if told else f"{acc:.3f}"
