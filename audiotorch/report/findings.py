"""Which clips of a detector's run are looked at: anomalies, false alarms and misses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiotorch.answers.table import AnswerTable
from audiotorch.report.audio import Budget
from audiotorch.report.cards import Asked, Cards, picture_of
from audiotorch.report.page import Clips, Section, Text
from audiotorch.report.timelines import time_lines

__all__ = ["N_EXAMPLES", "chosen_clips", "findings"]

_N_TOP, _N_FALSE, _N_MISSED = 6, 4, 4
N_EXAMPLES = _N_TOP + _N_FALSE + _N_MISSED
"""Cards of a detector's report."""

_ABOUT = {
    "Top anomalies": "Known anomalies of the test, the highest score first.",
    "Highest scores": "No anomalies are known: the highest scores of clips not fitted on.",
    "False alarms": "Normal clips above the threshold, the highest score first.",
    "Misses": "Known anomalies that are not above the threshold, the lowest score first.",
}
_TONES = {"Top anomalies": "", "Highest scores": "", "False alarms": "bad", "Misses": "bad"}


def findings(answers: AnswerTable, cards: Cards, budget: Budget) -> list[Section]:
    """Return sections of top anomalies, false alarms and misses, the scores over time first.

    Args:
        answers: of the run.
        cards: makes the cards.
        budget: of the page.
    """
    judged = _judged(answers)
    sections = []
    for title, rows in chosen_clips(judged).items():
        blocks: list[Any] = [Text("None.")]
        if len(rows):
            asked = [_asked(judged, row, _TONES[title]) for row in rows.tolist()]
            blocks = [*cards.remark(), Clips([cards.card(each) for each in asked])]
        sections.append(Section(title, blocks, note=_ABOUT[title]))
    return [*_time_lines(cards, budget), *sections]


def chosen_clips(answers: AnswerTable) -> dict[str, NDArray[np.intp]]:
    """Return rows by the title of their section.

    Args:
        answers: of the test, or of normal clips that were held back.
    """
    order = np.argsort(-answers.scores, kind="stable")
    above, anomalous = answers.answers[order] == "anomaly", answers.targets[order] == 1
    alarms = order[above & ~anomalous][:_N_FALSE]
    if not anomalous.any():
        return {"Highest scores": order[:_N_TOP], "False alarms": alarms}
    missed = order[~above & anomalous][::-1][:_N_MISSED]
    return {"Top anomalies": order[anomalous][:_N_TOP], "False alarms": alarms, "Misses": missed}


def _judged(answers: AnswerTable) -> AnswerTable:
    """The rows that tell of new clips: the test's, else those held back."""
    for name in ("test", "held_back"):
        part = answers.part(name)
        if len(part):
            return part
    return answers


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


def _time_lines(cards: Cards, budget: Budget) -> list[Section]:
    """Scores over time of the first clips that have reasons; one window each would say nothing."""
    shown = list(cards.found.items())[:_N_TOP]
    known: Mapping[str, Any] = {Path(file).name: found for file, found in shown}
    if not any(len(found.window_scores) > 1 for found in known.values()):
        return []
    picture = picture_of(lambda: time_lines(known), "scores over time", budget)
    return [Section("Time lines", [picture], note="Scores of windows; thresholds are of clips.")]
