"""`audiotorch features`: a table of named features of many recordings."""

import argparse
import os

from audiotorch.audio.files import find_audio
from audiotorch.cli.arguments import (
    Commands,
    add_device,
    add_sources,
    check_device,
    positive,
    seconds,
)
from audiotorch.cli.terminal import DONE, SOME_FAILED, Progress, complain
from audiotorch.errors import printable

__all__ = ["add_features"]


def add_features(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "features",
        help="write a table of features of recordings",
        description="Compute features of recordings into a table with named columns, one row a "
        "clip, or with --window one a window, or with --frames one a frame. All cores are used. A "
        "job that was killed goes on where it was, inside a long recording, too; recordings that "
        "the table holds already are skipped, unless they changed; "
        "new ones are added. Bad files are listed, recorded beside the table in "
        "OUT.failures.jsonl, and tried again the next time.",
    )
    add_sources(parser)
    parser.add_argument(
        "--out", required=True, metavar="TABLE", help="file to write: .parquet, .csv or .npz"
    )
    parser.add_argument(
        "--features",
        default="summary",
        metavar="NAMES",
        help="summary, 270 numbers a clip, or names joined by commas, such as mfcc,tempo, of which "
        "mean and standard deviation are written (summary)",
    )
    _add_rows(parser)
    parser.add_argument(
        "--sample-rate",
        type=positive,
        default=22050,
        metavar="HZ",
        help="rate that the recordings are brought to (22050)",
    )
    parser.add_argument("--jobs", type=positive, metavar="N", help="threads; default: all cores")
    add_device(parser)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the table instead of adding to it; killed, the same command goes on",
    )
    parser.set_defaults(run=_features)


def _add_rows(parser: argparse.ArgumentParser) -> None:
    """Add what a row may be of, if not of a whole clip."""
    parser.add_argument("--frames", action="store_true", help="one row a frame")
    parser.add_argument(
        "--window",
        type=seconds,
        metavar="SECONDS",
        help="one row a window of this length, of recordings of any length; the last may be "
        "shorter, and is left out where it is too short for the features",
    )
    parser.add_argument(
        "--hop", type=seconds, metavar="SECONDS", help="from window to window; default: its length"
    )


def _features(options: argparse.Namespace) -> int:
    files = find_audio(options.sources)
    # Imported here: the mistakes above are told before the features are.
    from audiotorch.batch import extract_features

    check_device(options.device)
    with Progress(len(files)) as progress:
        report = extract_features(
            files,
            options.out,
            features=[name.strip() for name in options.features.split(",")],
            sample_rate=options.sample_rate,
            frames=options.frames,
            window_seconds=options.window,
            hop_seconds=options.hop,
            jobs=options.jobs,
            device=options.device,
            overwrite=options.overwrite,
            advance=progress.advance,
        )
    for failure in report.failures:
        complain(failure.error.replace(failure.file, printable(failure.file)))
    told = f"{report.n_new} clips added, {report.n_skipped} skipped, {len(report.failures)} failed"
    print(f"{printable(os.fspath(options.out))}: {told}; {report.n_columns} columns")
    return SOME_FAILED if report.failures else DONE
