"""The table of every judged clip, and how figures are written in tables."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from audiotorch.answers.table import AnswerTable
from audiotorch.audio.files import common_folder
from audiotorch.report.audio import Budget
from audiotorch.report.judged import PARTS
from audiotorch.report.page import Section, Table

__all__ = ["DETECTOR_PARTS", "all_clips", "counted", "ranged", "rounded"]

DETECTOR_PARTS = {"train": "Fitted on", "held_back": "Held back", "test": "Test"}
"""What a reader calls the parts of a detector's clips."""

_ROWS = 25_000  # of the table: with more, a page is slow and large


def all_clips(answers: AnswerTable, budget: Budget, n_rows: int = _ROWS) -> Section:
    """Return the table of every judged clip, with what was answered.

    Args:
        answers: of the run.
        budget: of the page; the table takes a half of it at most.
        n_rows: at most so many: the errors, and of the rest those that are nearest to one.
    """
    root = common_folder([str(file) for file in answers.files])
    columns, cells = _columns(answers)
    rows = []
    order = np.argsort(_doubt(answers), kind="stable")[:n_rows].tolist()
    share = budget.part(0.5)
    for i in order:
        row = [str(answers.files[i])[len(root) :], *(column[i] for column in cells)]
        if not share.take(len(json.dumps(row)) + 1, base64=False):
            break
        rows.append((i, row))
    budget.give_back(share)
    told = [f"Files lie in {root}"] if root else []
    if len(rows) < len(answers):
        told.append(
            f"{len(rows):,} of {len(answers):,} rows: the errors, and the right answers that were "
            "the least sure; answers.csv has all of them"
        )
    # As answers.csv has them.
    table = Table(["file", *columns], [row for _, row in sorted(rows, key=lambda each: each[0])])
    return Section("All clips", [table], note=". ".join(told))


def counted(n: int) -> str:
    """Return a number of clips in words.

    Args:
        n: how many.
    """
    return f"{n:,} clip{'' if n == 1 else 's'}"


def ranged(interval: tuple[float, float] | None) -> str:
    """Return an interval in words, empty where there is none.

    Args:
        interval: its ends.
    """
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def rounded(value: float | None) -> float | None:
    """Return a figure as tables show it.

    Args:
        value: None where there is none.
    """
    return None if value is None else round(value, 3)


def _doubt(answers: AnswerTable) -> Any:
    """Small for what a reader wants to see first: errors, then what was nearly one."""
    if not answers.is_detector:
        return answers.confidence + 2.0 * answers.right
    limits = list(answers.thresholds.values())
    # The order of scores, for these have no bounds.
    far = np.abs(np.argsort(np.argsort(answers.scores)) - (answers.scores <= _last(limits)).sum())
    return far + len(answers) * answers.right


def _last(limits: Sequence[float]) -> float:
    return limits[-1] if limits else np.inf


def _columns(answers: AnswerTable) -> tuple[list[str], list[list[Any]]]:
    """Names and cells of all columns but the file's; those that say nothing are left out."""
    names = DETECTOR_PARTS if answers.is_detector else PARTS
    parts = [names.get(part, part) for part in answers.parts]
    found: dict[str, list[Any]] = {"label" if answers.is_detector else "class": list(answers.truth)}
    if answers.is_detector:
        found["score"] = [float(f"{score:.6g}") for score in answers.scores]
        found["p-value"] = [None if p != p else float(f"{p:.4g}") for p in answers.p_values]
        found["verdict"] = list(answers.answers)
    else:
        found["answer"] = list(answers.answers)
        found["confidence"] = [round(value, 3) for value in answers.confidence.tolist()]
    if not answers.is_detector or answers.thresholds:
        found["right"] = ["yes" if right else "NO" for right in answers.right]
    found |= {"part": parts, "machine": list(answers.machines), "group": list(answers.groups)}
    kept = {name: column for name, column in found.items() if any(c != "" for c in column)}
    return list(kept), list(kept.values())
