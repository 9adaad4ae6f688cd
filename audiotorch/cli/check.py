"""`audiotorch check`: what is wrong with a data set, file by file and between files."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from audiotorch.cli.arguments import Commands, positive
from audiotorch.cli.terminal import DONE, SOME_FAILED, Progress
from audiotorch.data.findings import NOTES, PROBLEMS
from audiotorch.errors import ParameterError, printable

__all__ = ["add_check"]

_MOST = 10  # files or groups that are listed of one finding
_BAR = 40  # characters
_NO_LABELS = "-"


def add_check(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "check",
        help="find what is wrong with a data set: bad files, duplicates, leaks between splits",
        description="Decode every recording of a data set once, and tell what is wrong with single "
        "files and between them. Duplicates are found whatever became of the copy: other coding, "
        "rate or level, clipping, silence around it, a part cut off. They are compared by waveform "
        "before they are told.",
        epilog=_told_names(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="FOLDER_OR_TABLE_OR_FILE",
        help="folders (with one folder per class, or train/val/test folders of these, or none), "
        ".csv, .tsv or .jsonl tables, audio files",
    )
    parser.add_argument("--json", action="store_true", help="the whole report as one JSON object")
    parser.add_argument(
        "--fail-on",
        default="problems",
        metavar="NAMES",
        help="findings that make the exit status 1: names joined by commas, 'problems', 'any' or "
        "'none' (problems)",
    )
    parser.add_argument("--jobs", type=positive, metavar="N", help="threads; default: all cores")
    table = parser.add_argument_group("tables")
    table.add_argument("--file-column", default="file", metavar="NAME", help="files (file)")
    table.add_argument(
        "--label-column",
        default="label",
        metavar="NAME",
        help=f"classes (label); '{_NO_LABELS}' if there are none",
    )
    table.add_argument("--split-column", metavar="NAME", help="train, val or test")
    table.add_argument("--group-column", metavar="NAME", help="speaker, recording or machine")
    table.add_argument("--root", metavar="FOLDER", help="where relative file names start from")
    parser.set_defaults(run=_check)


def _told_names() -> str:
    lines = ["problems, which make the exit status 1 by default:"]
    lines += [f"  {name:24} {meaning}" for name, meaning in PROBLEMS.items()]
    lines += ["", "notes, which a model may live with:"]
    lines += [f"  {name:24} {meaning}" for name, meaning in NOTES.items()]
    lines += ["", "exit status: 0 nothing of --fail-on found, 1 something, 2 wrong use"]
    return "\n".join(lines)


def _check(options: argparse.Namespace) -> int:
    failing = _failing(options.fail_on)
    # Imported here: the mistake above is told before torch is there.
    from audiotorch.data.doctor import check_dataset
    from audiotorch.data.inventory import take_inventory

    inventory = take_inventory(
        options.sources,
        file_column=options.file_column,
        label_column=None if options.label_column == _NO_LABELS else options.label_column,
        group_column=options.group_column,
        split_column=options.split_column,
        root=options.root,
    )
    with Progress(len(inventory.clips)) as progress:
        report = check_dataset(
            inventory.clips,
            jobs=options.jobs,
            faults=inventory.faults,
            advance=progress.advance,
        ).as_dict()
    report["facts"]["passed_over"] = dict(sorted(inventory.passed_over.items()))
    failed = sorted({finding["name"] for finding in report["findings"]} & failing)
    if options.json:
        print(json.dumps({**report, "failed_on": failed}))
    else:
        for line in _lines(report, options.sources, failed):
            print(printable(line))
    return SOME_FAILED if failed else DONE


def _failing(text: str) -> set[str]:
    """The names of findings that --fail-on means."""
    sets = {"problems": {*PROBLEMS}, "any": {*PROBLEMS, *NOTES}, "none": set[str]()}
    failing: set[str] = set()
    for name in text.split(","):
        known = sets.get(name.strip(), {name.strip()})
        if not known <= sets["any"]:
            raise ParameterError(
                f"--fail-on {name.strip()!r}: must be 'problems', 'any', 'none' or names out of "
                f"{', '.join((*PROBLEMS, *NOTES))}"
            )
        failing |= known
    return failing


def _lines(report: Mapping[str, Any], sources: Sequence[str], failed: list[str]) -> Iterator[str]:
    from audiotorch.audio.files import common_folder

    facts, findings = report["facts"], report["findings"]
    start = common_folder([record["file"] for record in report["files"]])
    yield f"{', '.join(sources)}: {facts['n_files']} files, {_span(facts['duration_seconds'])}"
    if start:
        yield f"names below start from {start}"
    for title, names in (("PROBLEMS", PROBLEMS), ("NOTES", NOTES)):
        yield ""
        told = False
        for name, meaning in names.items():
            if found := [finding for finding in findings if finding["name"] == name]:
                yield from ([] if told else [title])
                told = True
                yield from _finding_lines(name, meaning, found, start)
        if not told:
            yield f"{title}: none"
    yield ""
    yield "FACTS"
    yield from _fact_lines(facts, start)
    yield ""
    yield f"fails on: {', '.join(failed)}" if failed else "nothing to fail on"


def _finding_lines(
    name: str, meaning: str, found: Sequence[Mapping[str, Any]], start: str
) -> Iterator[str]:
    """A finding of several files, or several findings of groups of files."""
    groups = name.startswith(("duplicate", "near_duplicate"))
    if groups:
        yield f"  {name}: {len(found)} x {meaning}"
        rows = [
            f"{finding['message']}: {_some([file[len(start) :] for file in finding['files']])}"
            for finding in found
        ]
    elif found[0]["reasons"]:
        finding = found[0]
        yield f"  {name}: {finding['message']}"
        files = finding["files"] or [""] * len(finding["reasons"])
        rows = [
            f"{file[len(start) :]}: {reason.removeprefix(f'{file}: ')}" if file else reason
            for file, reason in zip(files, finding["reasons"], strict=True)
        ]
    else:
        yield f"  {name}: {'; '.join(finding['message'] for finding in found)}"
        # Of labels with few clips it is these that one wants to know, not the clips.
        files = [] if name == "imbalanced_labels" else [f for x in found for f in x["files"]]
        rows = [file[len(start) :] for file in files]
    yield from (f"    {row}" for row in rows[:_MOST])
    if len(rows) > _MOST:
        yield f"    ... and {len(rows) - _MOST} more"


def _fact_lines(facts: Mapping[str, Any], start: str) -> Iterator[str]:
    for key, title in (
        ("sample_rates", "Hz"),
        ("channels", "channels"),
        ("codecs", "codecs"),
        ("bit_depths", "bits"),
        ("splits", "splits"),
    ):
        if facts[key]:
            counts = (f"{value} ({count})" for value, count in facts[key].items())
            yield f"  {title + ':':10} {', '.join(counts)}"
    if facts["passed_over"]:
        counts = (
            f"{count} {suffix or 'without suffix'}"
            for suffix, count in facts["passed_over"].items()
        )
        yield f"  not looked at, no audio by their suffix: {', '.join(counts)}"
    if labels := facts["labels"]:
        yield "  labels:"
        yield from _bar_lines([(label, count) for label, count in labels.items()])
    if facts["lengths"]:
        yield f"  lengths, half of them below {facts['median_seconds']:.3g} s:"
        yield from _bar_lines(
            [
                (f"{bar['from_seconds']:.3g} to {bar['to_seconds']:.3g} s", bar["n_files"])
                for bar in facts["lengths"]
            ]
        )
    for key, title in (("far_shorter", "a quarter of that"), ("far_longer", "four times that")):
        if facts[key]:
            more = "or less" if key == "far_shorter" else "or more"
            yield f"  {title} {more}: {_some([file[len(start) :] for file in facts[key]])}"


def _bar_lines(rows: Sequence[tuple[str, int]]) -> Iterator[str]:
    width = min(30, max(len(printable(name)) for name, _ in rows))
    most = max(count for _, count in rows)
    for name, count in rows:
        bar = "#" * -(-_BAR * count // most)
        yield f"    {name:{width}} {count:6d} {bar}".rstrip()


def _some(names: Sequence[str]) -> str:
    more = f" ... and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
