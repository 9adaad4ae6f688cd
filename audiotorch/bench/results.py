"""Results as tables."""

import statistics
from collections import Counter
from collections.abc import Sequence

from audiotorch.bench.anomaly import Figures
from audiotorch.bench.memory import LIMIT, MemoryRow
from audiotorch.bench.parity import Report, Task
from audiotorch.bench.peers import PEERS, PeerRow
from audiotorch.bench.recipe import RecipeRow
from audiotorch.bench.rules import Measured, Rule, judge
from audiotorch.bench.speech import MOST_MEMORY, MOST_OVERHEAD, LongRow, ModelReport
from audiotorch.bench.speed import Row, Timing
from audiotorch.bench.table import hardware, markdown, versions

__all__ = [
    "anomaly_tables",
    "failures_told",
    "memory_table",
    "parity_tables",
    "recipe_table",
    "speech_tables",
    "speed_tables",
]

_NUMBERS = ("torch", "librosa", "numpy", "scipy", "soxr")


def parity_tables(task: Task, report: Report) -> tuple[str, bool]:
    """Return what was compared as two tables, and whether everything holds.

    Args:
        task: what was to be compared.
        report: what was found.
    """
    rows, all_hold = [], True
    for rule in task.rules:
        row, holds = _row(rule, report.parity.get(rule, []), report)
        if n := report.refused[rule.quantity]:
            row[2] += f"; refused by both: {n}"
        rows.append(row)
        all_hold = all_hold and holds
    alone = []
    for rule, measured in report.batches.items():
        row, holds = _row(rule, measured, report)
        alone.append(row)
        all_hold = all_hold and holds
    rate = "each at its own sample rate" if task.sample_rate is None else f"{task.sample_rate} Hz"
    precision = "float64" if task.double else "float32"
    parts = [
        f"{report.n_clips} recordings, {rate}, {precision}; {versions(_NUMBERS)}; {hardware()}.\n",
        markdown(("quantity", "rule, against librosa", "worst clip, or share", "holds"), rows),
        "The same clips in padded batches of up to 16, against each alone:\n",
        markdown(("quantity", "rule", "worst clip, or share", "holds"), alone),
    ]
    return "\n".join(parts), all_hold and not report.failures


def _row(rule: Rule, measured: list[Measured], report: Report) -> tuple[list[str], bool]:
    outcome = judge(rule, measured)
    failed = sum(failure.quantity == rule.quantity for failure in report.failures)
    holds = outcome.holds and not failed
    told = "yes" if holds else "no"
    if failed:
        told += f" ({failed} failed)"
    found = outcome.figure + (f" ({outcome.where})" if outcome.where else "")
    return [f"`{rule.quantity}`", rule.text, found, told], holds


def failures_told(report: Report) -> list[str]:
    """Return a line for each kind of failure.

    Args:
        report: what was found.
    """
    kinds = Counter((failure.quantity, failure.error) for failure in report.failures)
    lines = []
    for (quantity, error), count in kinds.items():
        clip = next(x.clip for x in report.failures if (x.quantity, x.error) == (quantity, error))
        others = f" and {count - 1} more" if count > 1 else ""
        lines.append(f"{quantity}, {clip}{others}: {error}")
    return lines


def speed_tables(
    rows: Sequence[Row], peers: Sequence[PeerRow], n_clips: int, n_threads: int
) -> str:
    """Return times as tables: against librosa, and against others.

    Args:
        rows: against librosa.
        peers: against others.
        n_clips: clips that were timed.
        n_threads: threads on each side.
    """
    told = "one thread" if n_threads == 1 else f"{n_threads} threads"
    packages = dict.fromkeys(peer.package for peer in PEERS)
    parts = [
        f"{n_clips} clips of 5 s at 22,050 Hz, {told} on each side, one process, by turns; "
        f"{versions(_NUMBERS)}; {hardware()}. Times are medians over rounds, in ms a clip.\n"
    ]
    if rows:
        header = ["work", "librosa", "audiotorch", "times faster", "goal", "nearest to its rule"]
        cells = [[row.title, *_times(row.timing), f"{row.goal:g}", row.deviation] for row in rows]
        parts.append(markdown(header, cells))
    if peers:
        header = ["package", "work", "its time", "audiotorch", "times faster"]
        header += ["its difference from librosa", "audiotorch's"]
        cells = [
            [row.package, row.title, *_times(row.timing), row.theirs, row.ours] for row in peers
        ]
        parts += [f"Others: {versions(list(packages))}.\n", markdown(header, cells)]
    return "\n".join(parts)


def recipe_table(rows: Sequence[RecipeRow], n_threads: int) -> str:
    """Return times of the article's recipe as a table.

    Args:
        rows: its parts.
        n_threads: threads on each side.
    """
    told = "one thread" if n_threads == 1 else f"{n_threads} threads"
    header = ["recordings", "work", "librosa", "recipes", "times faster", "answers"]
    cells = [
        [f"{row.corpus}, {row.n_clips}", row.title, *_times(row.timing), row.told] for row in rows
    ]
    return (
        f"The article's recipe: class folders, 270 numbers a clip, a model, 5 folds; {told} on "
        "each side, scikit-learn's included. Times are medians over rounds, in ms a clip; "
        f"{versions((*_NUMBERS, 'scikit-learn'))}; {hardware()}.\n\n" + markdown(header, cells)
    )


def _times(timing: Timing) -> list[str]:
    ratios = timing.ratios
    spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
    return [
        f"{statistics.median(timing.theirs):.2f}",
        f"{statistics.median(timing.ours):.2f}",
        f"{statistics.median(ratios):.1f} ({spread})",
    ]


def memory_table(rows: Sequence[MemoryRow]) -> tuple[str, bool]:
    """Return memory as a table, and whether it is bounded.

    Args:
        rows: works.
    """
    header = ("memory at the peak, beside the clips", "clips", "MB", "of it answers", "holds")
    cells = []
    for row in rows:
        told = "yes" if row.holds else f"no: at most {LIMIT / 1e6:g}, and the same for more clips"
        figures = [
            " and ".join(f"{x:g}" for x in row.n_clips),
            " and ".join(f"{x / 1e6:.0f}" for x in row.growth),
            " and ".join(f"{x / 1e6:.1f}" for x in row.answers),
        ]
        cells.append([row.work, *figures, told])
    return markdown(header, cells), all(row.holds for row in rows)


def anomaly_tables(figures: Sequence[Figures]) -> str:
    """Return how good detectors are as tables.

    Args:
        figures: of the protocols.
    """
    parts = [f"Detectors, trained on normal clips alone; {versions(('torch', 'scikit-learn'))}.\n"]
    for table in figures:
        cells = [
            [
                f"`{setting.features}`",
                f"`{setting.detector}`",
                "clip" if setting.window is None else f"{setting.window:g} s",
                *row,
            ]
            for setting, row in table.rows.items()
        ]
        header = ["features", "detector", "window", *table.header]
        parts += [table.title + "\n", markdown(header, cells)]
    return "\n".join(parts)


def speech_tables(reports: Sequence[ModelReport], long: Sequence[LongRow]) -> tuple[str, bool]:
    """Return transcripts and their times as tables, and whether the rules hold.

    Args:
        reports: models against bare Whisper.
        long: long recordings.
    """
    packages = ("openai-whisper", "faster-whisper", "ctranslate2", "torch")
    parts = [
        "`transcribe` beside `whisper.transcribe` on the same samples, in one process, by turns; "
        f"medians over rounds. {versions(packages)}; {hardware()}.\n"
    ]
    for report in reports:
        parts += [_speech_summary(report), markdown(_SPEECH, _speech_cells(report))]
    if long:
        header = ("model", "minutes", "took, s", "peak, MB", "words", "not as its parts", "holds")
        cells = [
            [
                f"`{row.weights}`",
                f"{row.seconds / 60:.1f}",
                f"{row.took:.0f}",
                f"{row.peak / 1e6:.0f}",
                f"{row.scores.n_words}",
                f"{row.scores.n_errors}",
                "yes" if row.holds else f"no: at most {MOST_MEMORY / 1e6:g} MB",
            ]
            for row in long
        ]
        told = "A long file, against the transcripts of its parts; memory is the whole process'.\n"
        parts += [told, markdown(header, cells)]
    return "\n".join(parts), all(each.holds for each in (*reports, *long))


_SPEECH = (
    *("recording", "language", "seconds", "CPU time, bare = 1", "by the clock"),
    *("words not as bare", "words wrong", "bare"),
)


def _speech_summary(report: ModelReport) -> str:
    right, spoken = report.languages
    rule = f" (at most {1 + MOST_OVERHEAD:g}: {'holds' if report.holds else 'DOES NOT HOLD'})"
    return (
        f"`{report.weights}`, {report.backend}: all recordings with speech take "
        f"{report.pooled('cpu'):.3f} of bare Whisper's CPU time"
        f"{rule if report.backend == 'whisper' else ''}, {report.pooled('wall'):.3f} by the clock; "
        f"language right in {right} of {spoken}; the same words as bare in {report.n_equal}; word "
        f"error rate of English {report.ours.languages['en'].wer:.4f}, bare "
        f"{report.bare.languages['en'].wer:.4f}.\n"
    )


def _speech_cells(report: ModelReport) -> list[list[str]]:
    ours, bare, apart = (
        {row.file: f"{row.n_errors} of {row.n_words}" for row in scores.rows}
        for scores in (report.ours, report.bare, report.apart)
    )
    return [
        [
            row.name,
            row.ours[0].language or "none",
            f"{row.seconds:.1f}",
            f"{row.ratio('cpu'):.3f}",
            f"{row.ratio('wall'):.3f}",
            *(scores.get(row.name, "") for scores in (apart, ours, bare)),
        ]
        for row in report.rows
    ]
