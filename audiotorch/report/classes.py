"""What a part of the data tells of each class: matrix, reliability, tables."""

from typing import Any

from audiotorch.report.audio import Budget
from audiotorch.report.cards import picture_of
from audiotorch.report.clips import counted
from audiotorch.report.judged import JudgedPart
from audiotorch.report.page import Section, Table, Text
from audiotorch.report.record import RunRecord

__all__ = ["part_section"]


def part_section(part: JudgedPart, record: RunRecord, budget: Budget) -> Section:
    """Return the section of one part.

    Args:
        part: its figures.
        record: of the run.
        budget: of the page.
    """
    blocks: list[Any] = _pictures(part, budget)
    columns = ["class", "clips", "precision", "precision, 95 %", "recall", "recall, 95 %", "F1"]
    blocks.append(Table(columns, part.classes(), "Classes"))
    pairs = part.confusions()
    if pairs:
        columns = ["class", "answered as", "clips", "share of the class"]
        blocks.append(Table(columns, pairs, "Most confused"))
    else:
        blocks.append(Text(f"No errors: {counted(part.n)}, all answered right."))
    note = f"{counted(part.n)}{_about(part, record)} Intervals are Wilson's."
    return Section(part.title, blocks, note=note)


def _about(part: JudgedPart, record: RunRecord) -> str:
    """What the clips of a part are to the model."""
    if part.name == "val":
        chosen = record.metrics.get("fixed_schedule") is False
        told = " that chose the epoch, so that figures are a little too good" if chosen else ""
        by_clip = record.metrics.get("validation") == "clip"
        return (
            f"{told}; others of their groups may have been trained on." if by_clip else f"{told}."
        )
    return {
        "test": " that nothing was fitted or chosen on.",
        "cv_grouped": ", each answered by a model that had heard none of its group.",
        "cv": ", each answered by a model that was not fitted on it, but on others of its group.",
    }.get(part.name, ".")


def _pictures(part: JudgedPart, budget: Budget) -> list[Any]:
    """The confusion matrix and, where confidences are known, the reliability diagram."""
    from audiotorch import plot

    name, answers = part.title.lower(), part.answers
    found = [
        picture_of(
            lambda: plot.confusion_matrix(part.matrix, part.labels),
            f"confusion matrix, {name}",
            budget,
            f"{part.title}: which classes are taken for which",
        )
    ]
    if answers is not None:
        found.append(
            picture_of(
                lambda: plot.reliability(answers.probabilities, answers.targets),
                f"reliability diagram, {name}",
                budget,
                f"{part.title}: how far confidences can be believed; calibration error "
                f"{part.ece:.3f}",
            )
        )
    return found
