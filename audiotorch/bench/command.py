"""`audiotorch bench` and `scripts/benchmark.py`: arguments, progress, tables, exit status."""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from audiotorch.errors import AudioTorchError, MissingDependencyError, ParameterError

__all__ = ["add_arguments", "add_bench", "main", "run"]

DONE, BROKEN, WRONG_USE = 0, 1, 2
_DESCRIPTION = (
    "Measure whether the numbers are librosa's and how fast they come, on the recordings below "
    "$AUDIOTORCH_DATA; or time an exported model. Tables are printed, and with --write put into "
    "a document. Exit status 1: a rule does not hold, or a clip failed."
)


def add_bench(commands: Any) -> None:
    """Add the command to the parser of `audiotorch`.

    Args:
        commands: what `ArgumentParser.add_subparsers` gave.
    """
    parser = commands.add_parser(
        "bench", help="measure equality with librosa, and speed", description=_DESCRIPTION
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen.

    Args:
        parser: takes the arguments.
    """
    parser.add_argument(
        "model", nargs="?", type=Path, metavar="MODEL", help="time this exported .ts file"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="length of the model's clip (1)"
    )
    parser.add_argument("--runs", type=_positive, default=200, help="timed calls of a model (200)")

    parity = parser.add_argument_group("equality with librosa")
    parity.add_argument("--parity", action="store_true", help="compare clip by clip")
    parity.add_argument(
        "--limit", type=_positive, metavar="N", help="at most N clips of each corpus"
    )
    parity.add_argument("--features", metavar="A,B", help="only these quantities")
    parity.add_argument("--double", action="store_true", help="in float64")
    parity.add_argument(
        "--native", action="store_true", help="at each clip's sample rate, not at 22050 Hz"
    )
    parity.add_argument("--jobs", type=_positive, default=2, metavar="N", help="processes (2)")

    speed = parser.add_argument_group("speed and memory")
    speed.add_argument("--speed", action="store_true", help="time against librosa and others")
    speed.add_argument("--clips", type=_positive, default=200, metavar="N", help="clips (200)")
    speed.add_argument("--work", metavar="A,B", help="only these rows")
    speed.add_argument(
        "--threads",
        type=_positive,
        nargs="+",
        default=[1],
        metavar="N",
        help="threads on each side; several numbers, several tables (1)",
    )
    speed.add_argument("--compile", action="store_true", help="rows of compiled modules too")
    speed.add_argument(
        "--memory", action="store_true", help="peak memory of extraction, for N and 2 N clips"
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="put tables between FILE's lines <!-- benchmark: parity --> or speed, and "
        "<!-- /benchmark: parity --> or speed",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number of at least 1")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program of its own.

    Args:
        argv: arguments; `None` takes those of the process.

    Returns:
        The exit status: 0 done, 1 a rule does not hold or a clip failed, 2 wrong use.
    """
    parser = argparse.ArgumentParser(description=_DESCRIPTION)
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except AudioTorchError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return WRONG_USE


def run(options: argparse.Namespace) -> int:
    """Measure what was asked for.

    Args:
        options: as `add_arguments` says.

    Returns:
        The exit status.
    """
    if not (options.model or options.parity or options.speed or options.memory):
        raise ParameterError("nothing to do: give a MODEL, --parity, --speed or --memory")
    if options.write is not None and not options.write.is_file():
        raise ParameterError(f"--write {str(options.write)!r}: there is no such file")
    if options.model:
        from audiotorch.bench.exported import time_exported

        print(time_exported(options.model, options.seconds, options.runs), end="")
    if options.parity or options.speed:
        _need_librosa()
    holds = _parity(options) if options.parity else True
    texts = []
    if options.speed:
        texts.append(_speed(options))
    if options.memory:
        text, bounded = _memory(options)
        texts.append(text)
        holds = holds and bounded
    if texts:
        _publish("\n".join(texts), "speed", options.write)
    return DONE if holds else BROKEN


def _need_librosa() -> None:
    if find_spec("librosa") is None:
        raise MissingDependencyError(
            "the benchmark compares with librosa: pip install 'audiotorch[bench]'"
        )


def _parity(options: argparse.Namespace) -> bool:
    from audiotorch.bench.clips import data_root, find_clips
    from audiotorch.bench.parity import Task, run_parity
    from audiotorch.bench.results import failures_told, parity_tables

    names = _names(options.features)
    task = Task.of(names, native=options.native, double=options.double)
    clips = find_clips(data_root(), options.limit)
    with _Progress(len(clips), "clips compared") as progress:
        report = run_parity(clips, task, options.jobs, progress.advance)
    text, holds = parity_tables(task, report)
    _publish(text, "parity", options.write)
    for line in failures_told(report):
        print(line, file=sys.stderr)
    return holds


def _speed(options: argparse.Namespace) -> str:
    from audiotorch.bench.clips import data_root, five_seconds
    from audiotorch.bench.peers import PEERS, run_peers
    from audiotorch.bench.results import speed_tables
    from audiotorch.bench.speed import run_speed
    from audiotorch.bench.works import WORKS

    names = _names(options.work) or list(WORKS)
    peers = PEERS if options.work is None else ()
    clips = five_seconds(data_root(), options.clips)
    texts = []
    for n_threads in options.threads:
        with _Progress(len(names) + len(peers), "rows timed") as progress:
            rows = run_speed(clips, names, n_threads, options.compile, progress.advance)
            others = run_peers(clips, peers, n_threads, progress.advance)
        texts.append(speed_tables(rows, others, len(clips), n_threads))
    return "\n".join(texts)


def _memory(options: argparse.Namespace) -> tuple[str, bool]:
    from audiotorch.bench.memory import run_memory
    from audiotorch.bench.results import memory_table

    rows = run_memory(options.clips, max(options.threads))
    return memory_table(rows)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _publish(text: str, section: str, document: Path | None) -> None:
    print(text)
    if document is not None:
        from audiotorch.bench.table import write_section

        write_section(document, section, text)


class _Progress:
    """How far it is, on stderr: in place on a terminal, elsewhere a line for each tenth."""

    def __init__(self, total: int, what: str) -> None:
        self.total = total
        self.what = what
        self.done = 0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")

    def advance(self, count: int) -> None:
        """Tell that so many more are done."""
        before, self.done = self.done, self.done + count
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{self.done}/{self.total} {self.what}")
            sys.stderr.flush()
        elif 10 * before // self.total < 10 * self.done // self.total:
            print(f"{self.done}/{self.total} {self.what}", file=sys.stderr, flush=True)
