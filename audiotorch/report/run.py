"""The page about a classifier's training run: how good it is, where it errs, and why."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiotorch.report.audio import Budget
from audiotorch.report.cards import Cards, picture_of
from audiotorch.report.classes import part_section
from audiotorch.report.clips import all_clips, counted, ranged, rounded
from audiotorch.report.examples import N_EXAMPLES, errors_and_hits
from audiotorch.report.judged import JudgedPart, judged_parts
from audiotorch.report.page import Facts, Section, Table, Text, render
from audiotorch.report.record import RunRecord, number, numbers
from audiotorch.report.settings import closing, kind_of_model, sizes, training

__all__ = ["run_page"]

_INTERVALS = (
    "Intervals of accuracy are Wilson's, for clips drawn at random, and say nothing of new groups; "
    "where groups were left out, Student's t over the folds. Those of F1 are bootstrapped. ECE is "
    "the expected calibration error, in 15 bins."
)


def run_page(
    run: str | Path | RunRecord,
    *,
    title: str = "",
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> str:
    """Return the report of a classifier's run as one HTML page.

    Args:
        run: its directory, or what was read from it.
        title: of the page; `""` = the directory's name.
        advance: is told how many of the cards are done, and of how many.

    Raises:
        ParameterError: it holds no `metrics.json` that can be read.
    """
    record = run if isinstance(run, RunRecord) else RunRecord.read(run)
    budget = Budget()
    parts, remarks = judged_parts(record)
    figures = [part_section(part, record, budget) for part in parts]
    about_model = training(record, budget) + _importance(record, budget)
    answers = record.answers
    clips = [] if answers is None or not len(answers) else [all_clips(answers, budget)]
    cards = Cards(record, budget, N_EXAMPLES, advance)
    examples = errors_and_hits(parts, cards)
    glance = _glance(record, parts, remarks)
    kind = kind_of_model(record)
    subtitle = "Training run of a classifier" + (f": {kind}" if kind else "")
    sections = [glance, *figures[:1], *examples, *figures[1:], *about_model, *clips]
    return render(title or record.name, subtitle, [*sections, *closing(record)])


def _glance(record: RunRecord, parts: Sequence[JudgedPart], remarks: Sequence[str]) -> Section:
    """Headline figures, both cross-validations side by side, and what to make of them."""
    blocks: list[Any] = []
    if parts:
        first = parts[0]
        facts = {
            f"accuracy, {first.title.lower()}": f"{first.acc:.3f}",
            "95 % interval": ranged(first.acc_interval),
            "judged on": f"{counted(first.n)} of {_classes(len(first.labels))}",
        }
        blocks.append(Facts(facts | sizes(record)))
    else:
        blocks += [Text("The run was judged on no clips."), Facts(sizes(record))]
    blocks += _leakage(record, parts)
    if parts:
        blocks += [_side_by_side(parts), Text(_INTERVALS)]
    blocks += _abstention(record, parts)
    blocks += [Text(text) for text in (*remarks, *record.gaps, *_notes(parts))]
    return Section("At a glance", blocks)


def _leakage(record: RunRecord, parts: Sequence[JudgedPart]) -> list[Text]:
    """What the two cross-validations say of each other."""
    if isinstance(record.metrics.get("leakage"), str):
        return [Text(record.metrics["leakage"])]
    known = {part.name: part.acc for part in parts}
    if not {"cv", "cv_grouped"} <= known.keys():
        return []
    return [
        Text(
            f"Accuracy by clip {known['cv']:.3f}, with groups left out {known['cv_grouped']:.3f}: "
            "no clear leakage, which would be a gap that the draw of the clips does not explain."
        )
    ]


def _abstention(record: RunRecord, parts: Sequence[JudgedPart]) -> list[Any]:
    """How many clips get a label, of a model that gives none where it is in doubt."""
    threshold = number(record.metrics, "abstain")
    if threshold is None:
        return []
    rows = [
        [part.title, *(rounded(number(part.told, key)) for key in ("answered", "answered_acc"))]
        for part in parts
    ]
    told = f"Below a confidence of {threshold:.3f} the model gives no label."
    return [Text(told), Table(["judged on", "share that gets one", "right of these"], rows)]


def _side_by_side(parts: Sequence[JudgedPart]) -> Table:
    """A row a part."""
    rows: list[dict[str, Any]] = []
    for part in parts:
        row = {
            "judged on": part.title,
            "clips": part.n,
            "accuracy": rounded(part.acc),
            "95 %": ranged(part.acc_interval),
            "macro F1": rounded(part.f1),
            "F1, 95 %": ranged(part.f1_interval),
            "ECE": rounded(part.ece),
            "log loss": rounded(part.loss),
            "worst fold": _worst_fold(part),
        }
        rows.append(row)
    columns = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    cells = [[row[name] for name in columns] for row in rows]
    return Table(columns, cells)


def _notes(parts: Sequence[JudgedPart]) -> list[str]:
    """What the run noted of its folds."""
    found = []
    for part in parts:
        notes = part.told.get("notes")
        found += [f"{part.title}: {n}" for n in (notes if isinstance(notes, list) else [])]
    return found


def _worst_fold(part: JudgedPart) -> str:
    """Accuracy of the worst fold, and what it held; empty where no folds are told."""
    folds = part.told.get("folds")
    known = [fold for fold in folds if isinstance(fold, Mapping)] if isinstance(folds, list) else []
    scored = [(acc, fold) for fold in known if (acc := number(fold, "acc")) is not None]
    if not scored:
        return ""
    acc, fold = min(scored, key=lambda each: each[0])
    held = fold.get("names")
    names = [str(name) for name in held] if isinstance(held, list) else []
    told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if part.name == "cv":
        told = f"fold {told} of {len(known)}"
    elif told:
        told = f"group{'s' if len(names) > 1 else ''} {told}"
    return f"{acc:.3f} ({told})" if told else f"{acc:.3f}"


def _importance(record: RunRecord, budget: Budget) -> list[Section]:
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
    rows: list[list[str | float]] = [[name, mean, std] for name, (mean, std) in drops.items()]
    about = "how important features are"
    picture = picture_of(lambda: plot.importance_bars(drops), about, budget)
    table = Table(["feature", "accuracy lost without it", "standard deviation"], rows)
    note = "How much accuracy is lost when a feature is permuted, on clips not fitted on."
    return [Section("Features", [picture, table], note=note)]


def _classes(n: int) -> str:
    return f"{n:,} class{'' if n == 1 else 'es'}"
