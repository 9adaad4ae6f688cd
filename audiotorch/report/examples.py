"""Which clips of a classifier's run are looked at: the worst errors and the surest hits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiotorch.answers.table import AnswerTable
from audiotorch.report.cards import Asked, Cards
from audiotorch.report.clips import counted
from audiotorch.report.judged import JudgedPart
from audiotorch.report.page import Clips, Section, Text

__all__ = ["N_EXAMPLES", "confident_hits", "errors_and_hits", "worst_errors"]

_N_ERRORS, _N_HITS = 8, 6
N_EXAMPLES = _N_ERRORS + _N_HITS
"""Cards of a classifier's report."""


def errors_and_hits(parts: Sequence[JudgedPart], cards: Cards) -> list[Section]:
    """Return the sections of the worst errors and of the most confident hits.

    Each is of the first part that has some.

    Args:
        parts: the one to believe most first.
        cards: makes the cards.
    """
    known = [(part, part.answers) for part in parts if part.answers is not None]
    if not known:
        return []
    sections = []
    for title, choose, n, tone, nothing in (
        ("Worst errors", worst_errors, _N_ERRORS, "bad", "No clip was answered wrongly."),
        ("Surest hits", confident_hits, _N_HITS, "good", "No clip was answered right."),
    ):
        chosen = next(((p, a, rows) for p, a in known if len(rows := choose(a, n))), None)
        if chosen is None:
            sections.append(Section(title, [Text(nothing)]))
            continue
        part, answers, rows = chosen
        asked = [_asked(answers, row, tone) for row in rows.tolist()]
        blocks: list[Any] = [*cards.remark(), Clips([cards.card(each) for each in asked])]
        note = _note(title, part, answers, reasons=not cards.mute)
        sections.append(Section(title, blocks, note=note))
    return sections


def worst_errors(answers: AnswerTable, n: int) -> NDArray[np.intp]:
    """Return the rows of the wrong answers with the largest loss, the worst first.

    Args:
        answers: of one part.
        n: at most so many.
    """
    wrong = np.flatnonzero(~answers.right)
    return wrong[np.argsort(-answers.losses[wrong], kind="stable")][:n]


def confident_hits(answers: AnswerTable, n: int) -> NDArray[np.intp]:
    """Return the rows of the most confident right answers, one a class, the surest first.

    Args:
        answers: of one part.
        n: at most so many.
    """
    right = np.flatnonzero(answers.right)
    right = right[np.argsort(-answers.confidence[right], kind="stable")]
    _, first = np.unique(answers.targets[right], return_index=True)
    return right[np.sort(first)][:n]


def _note(title: str, part: JudgedPart, answers: AnswerTable, reasons: bool) -> str:
    n_wrong = int((~answers.right).sum())
    if title == "Worst errors":
        told = f"{part.title}: {n_wrong:,} of {counted(part.n)} wrong; the largest loss first."
    else:
        told = f"{part.title}: the surest right answer of a class, the surest class first."
    if part.name.startswith("cv"):
        told += " The answers are of models that had not heard the clip."
        if reasons:
            told += (
                " The reasons are of the exported model, which was fitted on it and may answer "
                "otherwise."
            )
    return told


def _asked(answers: AnswerTable, row: int, tone: str) -> Asked:
    truth, answer = str(answers.truth[row]), str(answers.answers[row])
    sure = f"{answers.confidence[row]:.0%} sure"
    lines = [f"{truth}, {sure}" if truth == answer else f"is {truth}, heard as {answer}, {sure}"]
    more: list[Any] = [f"loss {answers.losses[row]:.2f}"]
    if answers.groups[row]:
        more.append(f"group {answers.groups[row]}")
    return Asked(str(answers.files[row]), [*lines, ", ".join(more)], tone, answer)
