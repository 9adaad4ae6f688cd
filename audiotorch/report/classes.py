"""What a part of the data tells of each class: matrix, reliability, tables."""

from typing import Any

from audiotorch.report.audio import Budget
from audiotorch.report.cards import picture_of
from audiotorch.report.clips import counted
from audiotorch.report.judged import JudgedPart
from audiotorch.report.page import Section, Table, Text

__all__ = ["part_section"]

_ABOUT = {
    "test": "clips that nothing was fitted or chosen on.",
    "val": "clips that were not trained on; the epoch may have been chosen by them.",
    "cv_grouped": "each was answered by a model that had heard none of its group.",
    "cv": "each was answered by a model that was not fitted on it, but on others of its group.",
}


def part_section(part: JudgedPart, budget: Budget) -> Section:
    """Return the section of one part.

    Args:
        part: its figures.
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
    told = _ABOUT.get(part.name, "")
    return Section(part.title, blocks, note=f"{counted(part.n)}: {told} Intervals are Wilson's.")


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
