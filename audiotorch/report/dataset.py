"""The page about a data set: what is wrong with it, what it holds, and how it sounds."""

import io
import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audiotorch.audio.files import common_folder
from audiotorch.data.doctor import DatasetFinding, DatasetReport, check_dataset
from audiotorch.data.examine import FileRecord
from audiotorch.data.findings import NOTES, PROBLEMS
from audiotorch.data.inventory import take_inventory
from audiotorch.plot.figure import NEUTRAL, new_figure
from audiotorch.report.audio import Budget
from audiotorch.report.page import Block, Clip, Clips, Facts, Picture, Section, Table, Text, render
from audiotorch.report.samples import clip_of, draw_samples, spread

__all__ = ["dataset_page"]

_WIDE = 50  # times the shortest length, from where on the axis of lengths is logarithmic
_TABLE_BYTES = 4_000_000  # of the table of files
_HEARD = 2  # files of a finding that can be heard
_HEARD_SECONDS = 6.0
_OF_SOUND = 0.25  # of the budget, at most, for the findings


def dataset_page(
    source: Path,
    *,
    title: str = "",
    root: Path | None = None,
    advance: Callable[[int, int], object] = lambda done, total: None,
    **columns: str | None,
) -> str:
    """Make the page about a data set.

    Args:
        source: a folder, with a folder for each class or none, or a `.csv`, `.tsv` or `.jsonl`
            table, as `audiotorch check` takes them.
        title: of the page; `""` = the name of the folder or table.
        root: folder that a table's relative names start from; its own by default.
        advance: is told how many steps are done, and of how many.
        **columns: of the table: `file_column label_column group_column split_column`.

    Raises:
        ParameterError: there is no recording, or the table cannot be read.
    """
    inventory = take_inventory([source], root=root, **columns)  # type: ignore[arg-type]
    steps = _Steps(len(inventory.clips), advance)
    report = check_dataset(inventory.clips, faults=inventory.faults, advance=steps.checked)
    facts, start = report.facts, common_folder([record.file for record in report.files])
    budget = Budget()
    files = _files_section(report, start, budget)
    sections = [
        Section("Overview", [Facts(_overview(report, inventory.passed_over))]),
        _findings_section(report, start, budget),
    ]
    if facts["labels"]:
        sections.append(_labels_section(report.files))
    if facts["n_readable"]:
        sections.append(_lengths_section(report, start))
    sample = draw_samples(report.files, start, budget, steps.heard)
    sections.append(Section("Listen", [Clips(sample.clips)] if sample.clips else [], sample.told))
    name = source.resolve().name or os.fspath(source)
    return render(title or name, _subtitle(facts, start), [*sections, files])


class _Steps:
    """One count for checking and for drawing cards."""

    def __init__(self, n_clips: int, advance: Callable[[int, int], object]) -> None:
        self._done, self._n_clips, self._advance = 0, n_clips, advance

    def checked(self, count: int) -> None:
        self._done += count
        self._advance(self._done, self._n_clips)

    def heard(self, n_cards: int) -> None:
        self._done += 1
        self._advance(self._done, self._n_clips + n_cards)


def _subtitle(facts: Mapping[str, Any], start: str) -> str:
    told = f"{facts['n_files']} recordings, {_span(facts['duration_seconds'])}"
    if facts["labels"]:
        told += f", {len(facts['labels'])} classes"
    return f"{told}. Names start from {start}" if start else told


def _overview(report: DatasetReport, passed_over: Mapping[str, int]) -> dict[str, str]:
    facts = report.facts
    pairs = {
        "Recordings": str(facts["n_files"]),
        "Cannot be read": str(facts["n_files"] - facts["n_readable"]),
        "Sound in all": _span(facts["duration_seconds"]),
        "Half are shorter than": _length(facts["median_seconds"]),
        "Classes": str(len(facts["labels"]) or "none"),
        "Sample rates, Hz": _counts(facts["sample_rates"]),
        "Channels": _counts(facts["channels"]),
        "Codecs": _counts(facts["codecs"]),
        "Bits a sample": _counts(facts["bit_depths"]),
        "Splits": _counts(facts["splits"]),
        "Files that are no audio": _counts({k or "no suffix": n for k, n in passed_over.items()}),
    }
    return {name: value for name, value in pairs.items() if value}


def _counts(counts: Mapping[str, int]) -> str:
    """The most frequent values, with how often each is there if there are several."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    if len(ranked) == 1:
        return ranked[0][0]
    told = [f"{value} ({count})" for value, count in ranked[:6]]
    return ", ".join(told) + (f" and {len(ranked) - 6} more" if len(ranked) > 6 else "")


def _findings_section(report: DatasetReport, start: str, budget: Budget) -> Section:
    by_name: dict[str, list[DatasetFinding]] = defaultdict(list)
    for finding in report.findings:
        by_name[finding.name].append(finding)
    if not by_name:
        return Section("Findings", [Text("Nothing was found that is wrong with it.")])
    problems = [name for name in PROBLEMS if name in by_name]
    notes = [name for name in NOTES if name in by_name]
    note = f"Problems, which make a data set wrong: {len(problems) or 'none'}. "
    note += f"Notes, which a model may live with: {len(notes) or 'none'}."
    rows = [
        ("problem" if name in PROBLEMS else "note", name, *_meaning(name, by_name[name]))
        for name in (*problems, *notes)
    ]
    blocks: list[Block] = [Table(["Severity", "Finding", "Files", "What it is"], rows)]
    if detailed := _detail_rows(report.findings, start):
        columns = ["Finding", "File", "Why"]
        cost = sum(len("".join(row)) + 12 for row in detailed)
        kept = detailed[: int(len(detailed) * min(1, _TABLE_BYTES / 2 / cost))]
        told = "" if len(kept) == len(detailed) else f", the first {len(kept)} of {len(detailed)}"
        budget.take(min(cost, _TABLE_BYTES // 2), base64=False)
        blocks.append(Table(columns, kept, f"File by file{told}"))
    if clips := _heard(report, by_name, start, budget):
        blocks.append(Clips(clips, "How it sounds"))
    return Section("Findings", blocks, note)


def _meaning(name: str, found: Sequence[DatasetFinding]) -> tuple[int, str]:
    """How many files it concerns, and what it is; of labels and rates, which."""
    meaning = {**PROBLEMS, **NOTES}[name]
    n_files = len({file for finding in found for file in finding.files})
    if name == "bad_row":
        n_files = len(found[0].reasons)
    if "duplicate" in name:
        return n_files, f"{meaning}: {_plural(len(found), 'recording')}"
    if not found[0].reasons:
        meaning += ": " + "; ".join(finding.message for finding in found)
    return n_files, meaning if len(meaning) < 400 else meaning[:400] + "\u2026"


def _detail_rows(findings: Sequence[DatasetFinding], start: str) -> list[tuple[str, str, str]]:
    rows = []
    for finding in findings:
        if finding.reasons:
            files = finding.files or [""] * len(finding.reasons)
            for file, reason in zip(files, finding.reasons, strict=True):
                why = reason.removeprefix(f"{file}: ") if file else reason
                rows.append((finding.name, file[len(start) :], why))
        elif "duplicate" in finding.name:
            names = "\n".join(file[len(start) :] for file in finding.files)
            rows.append((finding.name, names, finding.message))
    return rows


def _heard(
    report: DatasetReport,
    by_name: Mapping[str, Sequence[DatasetFinding]],
    start: str,
    budget: Budget,
) -> list[Clip]:
    """Cards of files with findings; of duplicates, the first group."""
    records = {record.file: record for record in report.files}
    share = budget.part(_OF_SOUND)
    clips = []
    for name in (*PROBLEMS, *NOTES):
        finding = next(iter(by_name.get(name, ())), None)
        if finding is None or not (finding.reasons or "duplicate" in name):
            continue
        files = [records[file] for file in finding.files if records[file].n_frames]
        if not files:
            continue
        for record in spread(files, _HEARD):
            clip = clip_of(record, start, share, _HEARD_SECONDS, 32)
            lines = [*([record.label] if record.label else []), *clip.lines]
            heading = f"{name}: {({**PROBLEMS, **NOTES})[name]}"
            clips.append(replace(clip, lines=lines, group=heading))
    budget.give_back(share)
    return clips


def _labels_section(records: Sequence[FileRecord]) -> Section:
    labels: dict[str, list[FileRecord]] = defaultdict(list)
    rows: list[list[str | int | float | None]] = []
    for record in records:
        labels[record.label or "(none)"].append(record)
    splits = sorted({record.split for record in records if record.split})
    for label, own in sorted(labels.items(), key=lambda item: (-len(item[1]), item[0])):
        seconds = [r.duration_seconds for r in own if r.duration_seconds is not None]
        in_splits = [sum(r.split == split for r in own) for split in splits]
        row: list[str | int | float | None] = [label, len(own), *in_splits]
        row += [sum(seconds) / 60, float(np.median(seconds)) if seconds else None]
        rows.append(row)
    columns = ["Class", "Files", *splits, "Minutes", "Median length, s"]
    counts = [len(own) for own in labels.values()]
    each = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{max(counts)}"
    note = f"{_plural(len(labels), 'class')}, with {each} files each."
    return Section("Classes", [Table(columns, rows, bars="Files")], note)


def _lengths_section(report: DatasetReport, start: str) -> Section:
    seconds = {r.file: r.duration_seconds for r in report.files if r.duration_seconds is not None}
    values = np.array([*seconds.values()])
    blocks: list[Block] = [_length_picture(values)]
    far = sorted({*report.facts["far_shorter"], *report.facts["far_longer"]}, key=seconds.get)  # type: ignore[arg-type]
    if far:
        rows = [(file[len(start) :], seconds[file]) for file in far]
        if len(rows) > 1000:
            rows = [*rows[:500], *rows[-500:]]
        told = "A quarter of the median length or less, or four times that or more"
        blocks.append(Table(["File", "Seconds"], rows, told))
    low, median, high = (float(np.quantile(values, share)) for share in (0, 0.5, 1))
    note = f"From {_length(low)} to {_length(high)}, half of them below {_length(median)}."
    if _length(low) == _length(high):
        note = f"All last {_length(low)}."
    return Section("Lengths", blocks, note)


def _length_picture(seconds: np.ndarray) -> Picture:
    """The histogram of lengths; on a logarithmic axis if they are far apart."""
    from matplotlib.ticker import MaxNLocator

    low, high = float(seconds.min()), float(seconds.max())
    # A file without samples has no place on a logarithmic axis; the table below names it.
    some = float(seconds[seconds > 0].min(initial=math.inf))
    if wide := high > _WIDE * some:
        seconds, low = seconds[seconds > 0], some
    n_bars = int(np.clip(np.sqrt(len(seconds)), 10, 60))
    if wide:
        edges = np.geomspace(low, high, n_bars + 1)
        edges[0], edges[-1] = low, high  # which rounding may have moved inside
    elif high > 1.02 * low:
        edges = np.linspace(low, high, n_bars + 1)
    else:
        edges = np.linspace(max(0.0, low - 0.5), high + 0.5, 12)
    figure = new_figure(7.5, 2.8)
    axes = figure.add_subplot()
    axes.hist(seconds, [*edges], color=NEUTRAL, edgecolor="white", linewidth=0.5)
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="length in seconds" + (", logarithmic" if wide else ""), ylabel="recordings")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, dpi=144, format="png")
    return Picture(
        file.getvalue(), f"Histogram of lengths, from {_length(low)} to {_length(high)}", width=720
    )


def _files_section(report: DatasetReport, start: str, budget: Budget) -> Section:
    """The table of all files; what no file has is left out."""
    columns: dict[str, Callable[[FileRecord], Any]] = {
        "File": lambda r: r.file[len(start) :],
        "Class": lambda r: r.label,
        "Split": lambda r: r.split,
        "Group": lambda r: r.group,
        "Seconds": lambda r: r.duration_seconds,
        "Rate, Hz": lambda r: r.sample_rate,
        "Channels": lambda r: r.n_channels,
        "Codec": lambda r: r.codec,
        "Bits": lambda r: r.bit_depth,
        "Findings": lambda r: ", ".join(found.name for found in r.findings) or None,
    }
    used = {n: get for n, get in columns.items() if any(get(r) is not None for r in report.files)}
    rows = [[get(record) for get in used.values()] for record in report.files]
    size = sum(len(str(value)) + 3 for row in rows for value in row)
    note = ""
    if size > _TABLE_BYTES:
        kept = int(len(rows) * _TABLE_BYTES / size)
        # Those that something is wrong with are wanted most.
        order = sorted(range(len(rows)), key=lambda i: not report.files[i].findings)[:kept]
        rows = [rows[i] for i in sorted(order)]
        note = f"{kept} of {len(report.files)} files, those with findings first; `audiotorch check"
        note += " --json` lists all."
        size = _TABLE_BYTES
    budget.take(size, base64=False)
    return Section("Files", [Table([*used], rows)] if rows else [], note)


def _plural(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def _length(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 120 else _span(seconds)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
