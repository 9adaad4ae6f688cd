"""The page about a detector: what it finds, what it misses, and when it raises false alarms."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiotorch.errors import ParameterError
from audiotorch.models.detection import evaluate_detection
from audiotorch.report.audio import Budget
from audiotorch.report.cards import Cards
from audiotorch.report.clips import all_clips, ranged
from audiotorch.report.findings import N_EXAMPLES, findings
from audiotorch.report.operating import AREAS, machines, scores, thresholds
from audiotorch.report.page import Facts, Section, Text, render
from audiotorch.report.record import RunRecord, number
from audiotorch.report.settings import closing, kind_of_model, sizes, training

__all__ = ["detector_page"]


def detector_page(
    run: str | Path | RunRecord,
    *,
    title: str = "",
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> str:
    """Return the report of a detector's run as one HTML page.

    Args:
        run: its directory, or what was read from it.
        title: of the page; `""` = the directory's name.
        advance: is told how many of the cards are done, and of how many.

    Raises:
        ParameterError: it holds no `metrics.json` that can be read.
    """
    record = run if isinstance(run, RunRecord) else RunRecord.read(run)
    budget = Budget()
    told, remarks = _told(record)
    sections = [_glance(record, told, remarks), thresholds(record, told), *machines(told)]
    curves = training(record, budget)
    answers = record.answers
    if answers is not None and len(answers):
        clips = all_clips(answers, budget)
        drawn = scores(answers, budget)
        cards = Cards(record, budget, N_EXAMPLES, advance)
        sections += [drawn, *findings(answers, cards, budget)]
        curves.append(clips)
    kind = kind_of_model(record)
    subtitle = "Training run of a detector" + (f": {kind}" if kind else "")
    return render(title or record.name, subtitle, [*sections, *curves, *closing(record)])


def _told(record: RunRecord) -> tuple[Mapping[str, Any], list[str]]:
    """Figures of the test, of `metrics.json` if they are of the same scores as `answers.csv`."""
    metrics = record.metrics
    told = {k.partition("/")[2]: value for k, value in metrics.items() if k.startswith("test/")}
    test = None if record.answers is None else record.answers.part("test")
    if test is None or not len(test):
        lost = test is not None and number(told, "n_normal") is not None
        remark = "answers.csv lacks the clips of the test: it is cut off, or of another run."
        return told, [remark] if lost else []
    known = [str(name) or None for name in test.machines]
    data: dict[str, Any] = {"machines": known if any(known) else None}
    data |= {"thresholds": test.thresholds, "max_fpr": number(told, "max_fpr") or 0.1}
    try:
        found = evaluate_detection(test.scores, test.targets, n_bootstrap=0, **data)
        same = [(found.overall.auc, "auc"), (found.overall.n_normal, "n_normal")]
        if all(_close(value, number(told, key)) for value, key in same):
            return told, []
        found = evaluate_detection(test.scores, test.targets, **data)
    except ParameterError as error:
        return told, [f"answers.csv: {error}."]
    told_nothing = number(told, "n_normal") is None
    remark = "answers.csv and metrics.json are not of the same scores; figures are of answers.csv."
    return found.as_dict(), [] if told_nothing else [remark]


def _close(value: float | None, told: float | None) -> bool:
    return value is told if value is None or told is None else abs(value - told) < 1e-6


def _glance(record: RunRecord, told: Mapping[str, Any], remarks: Sequence[str]) -> Section:
    """The areas with their intervals, or why there are none."""
    facts: dict[str, str] = {}
    max_fpr = number(told, "max_fpr")
    for key, name in AREAS.items():
        value = number(told, key)
        if value is None:
            continue
        if key.startswith("pauc") and max_fpr is not None:
            name += f" up to {max_fpr:g} false alarms"
        facts[name] = f"{value:.3f}{_interval(told, key)}"
    for key in ("auc_harmonic", "pauc_harmonic"):
        if (value := number(told, key)) is not None:
            name = f"harmonic mean of the machines' {AREAS[key.partition('_')[0]]}"
            facts[name] = f"{value:.3f}{_interval(told, key)}"
    n_normal, n_anomaly = (number(told, key) for key in ("n_normal", "n_anomaly"))
    if n_normal is not None and n_anomaly is not None:
        facts["judged on"] = f"{int(n_normal):,} normal clips, {int(n_anomaly):,} anomalies"
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
    if number(told, "auc") == 1.0:
        texts.append("an interval from 1 to 1 says only that no draw of these few clips errs")
    blocks += [Text(f"{text[:1].upper()}{text[1:]}.") for text in texts]
    blocks += [Text(text) for text in (*remarks, *record.gaps)]
    return Section("At a glance", blocks)


def _interval(told: Mapping[str, Any], key: str) -> str:
    pair = told.get(f"{key}_interval")
    if not isinstance(pair, list) or len(pair) != 2:
        return ""
    low, high = (number({key: value}, key) for value in pair)
    confidence = number(told, "confidence") or 0.95
    if low is None or high is None:
        return ""
    return f"\n{ranged((low, high))} ({100 * confidence:g} %)"
