"""`audiotorch report`: one HTML file about a run, a data set or transcripts, to mail."""

import argparse
import json
import os

from audiotorch.cli.arguments import Commands
from audiotorch.cli.terminal import DONE, Progress
from audiotorch.errors import printable

__all__ = ["add_report"]


def add_report(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "report",
        help="one HTML file about a run, a data set or transcripts, with sounds and pictures",
        description="Write one HTML file that one can mail: below 15 MB, with all sounds and "
        "pictures in it, and without a request to any other place. It shows a training run of a "
        "classifier or a detector, a data set, or transcripts.",
    )
    parser.add_argument(
        "source",
        metavar="RUN_OR_FOLDER",
        help="a run directory; the .jsonl of `audiotorch transcribe`; a folder of recordings, with "
        "a folder for each class or none; a .csv, .tsv or .jsonl table with the columns file and "
        "label",
    )
    parser.add_argument(
        "--out",
        metavar="HTML",
        help="the file; default: report.html in the run directory, or else in the current folder",
    )
    parser.add_argument("--title", default="", help="of the page; default: the name of the source")
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="where the recordings of transcripts and tables are that have relative names or were "
        "moved",
    )
    parser.add_argument("--json", action="store_true", help="print an object: file bytes")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from audiotorch.report import write_report

    with _Steps() as steps:
        out = write_report(
            options.source,
            options.out,
            title=options.title,
            root=options.root,
            advance=steps.advance,
        )
    size = os.stat(out).st_size
    if options.json:
        print(json.dumps({"file": str(out), "bytes": size}))
    else:
        print(f"{printable(str(out))}: {size / 1e6:.1f} MB")
    return DONE


class _Steps:
    """A progress bar whose end comes to be known on the way."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._done = self._total = 0

    def __enter__(self) -> "_Steps":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.clear()

    def advance(self, done: int, total: int) -> None:
        if self._bar is None or total != self._total:
            self._bar, self._total, self._done = Progress(total), total, 0
        self._bar.advance(done - self._done)
        self._done = done
