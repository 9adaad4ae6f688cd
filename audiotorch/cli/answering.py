"""What commands that answer recordings with a model share: arguments, reading, lines."""

import argparse
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from audiotorch.audio.files import find_audio
from audiotorch.cli.arguments import (
    Commands,
    add_device,
    add_sources,
    check_device,
    find_model,
    positive,
    seconds,
)
from audiotorch.cli.terminal import Progress, complain, file_width
from audiotorch.errors import AudioTorchError, ParameterError, TruncationWarning, printable

if TYPE_CHECKING:
    from audiotorch.answers import Prediction, WindowPrediction

__all__ = ["Lines", "add_answering", "each_clip", "each_window", "open_model"]


def add_answering(
    commands: Commands, name: str, help: str, description: str
) -> argparse.ArgumentParser:
    """Add a command that answers recordings with a model, and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=description)
    parser.add_argument("model", metavar="MODEL", help="exported .ts file, or a run directory")
    add_sources(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--window", type=seconds, metavar="SECONDS", help="answer each window of this length"
    )
    parser.add_argument(
        "--hop", type=seconds, metavar="SECONDS", help="from window to window; default: its length"
    )
    add_device(parser)
    parser.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="clips at a time (16)"
    )
    return parser


def open_model(
    options: argparse.Namespace, check: Callable[[Any], None]
) -> tuple[Any, list[str], dict[str, Any]]:
    """Return the model, the files that it is to answer, and what the model says about itself."""
    if options.hop is not None and options.window is None:
        raise ParameterError("--hop: leads from window to window; give --window too")
    if options.explain and options.window is not None:
        raise ParameterError("--explain: is for whole recordings; leave out --window")
    model = find_model(options.model)
    files = find_audio(options.sources)
    # Imported here: the mistakes above are told before torch is loaded.
    from audiotorch.export import load_pipeline, read_metadata

    check_device(options.device)
    module = load_pipeline(model)
    check(module)
    return module, files, read_metadata(model)


class Lines:
    """Answers as a table, and errors on stderr; or both as JSON lines."""

    def __init__(self, options: argparse.Namespace, files: Sequence[str], columns: str) -> None:
        self.failed = False
        self._json = options.json
        self._width = file_width(files)
        if not self._json:
            times = "" if options.window is None else f"  {'start':>9}  {'end':>9}"
            print(f"{'file':{self._width}}{times}  {columns}")

    def answer(
        self,
        file: str,
        answer: "Prediction | WindowPrediction",
        fields: Mapping[str, Any],
        cells: str,
        because: str = "",
    ) -> None:
        """Print an answer: its fields as JSON, or its cells, and below them a reason."""
        start = getattr(answer, "start_seconds", None)
        times = {} if start is None else {"start_seconds": start, "end_seconds": answer.end_seconds}  # type: ignore[union-attr]
        if self._json:
            print(json.dumps({"file": file, **times, **_without_infinity(fields)}))
            return
        when = "".join(f"  {time:9.3f}" for time in times.values())
        print(f"{printable(file):{self._width}}{when}  {cells}")
        if because:
            print(f"{'':{self._width}}  because: {because}")

    def error(self, file: str, error: str) -> None:
        """Print what is wrong with a file."""
        self.failed = True
        if self._json:
            print(json.dumps({"file": file, "error": error}))
        else:
            complain(error)


def _without_infinity(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a threshold that none can exceed is none."""
    infinite = [k for k, v in fields.items() if isinstance(v, float) and not math.isfinite(v)]
    return {**fields, **dict.fromkeys(infinite)}


def each_clip(
    options: argparse.Namespace,
    files: Sequence[str],
    ask: Callable[[list[str]], "list[Prediction]"],
) -> "Iterator[tuple[str, Prediction | str]]":
    """Each file with its answer, or what is wrong with it; a batch of them at a time."""
    with Progress(len(files)) as progress:
        for start in range(0, len(files), options.batch_size):
            chunk = list(files[start : start + options.batch_size])
            answers = ask(chunk)
            progress.clear()
            for answer in answers:
                yield answer.file, answer if answer.error is None else answer.error
            sys.stdout.flush()
            progress.advance(len(chunk))


def each_window(
    options: argparse.Namespace, files: Sequence[str], module: Any
) -> "Iterator[tuple[str, WindowPrediction | str]]":
    """Each window's answer beside its file, and what ended a file's windows."""
    from audiotorch.answers import timeline

    settings = {"device": options.device, "batch_size": options.batch_size}
    # Nothing is read yet, but wrong sizes are told before the table begins.
    lines = [timeline(module, file, options.window, options.hop, **settings) for file in files]
    return _walk(files, lines, [_duration(file) for file in files])


def _walk(
    files: Sequence[str], lines: "Sequence[Iterator[WindowPrediction]]", durations: Sequence[int]
) -> "Iterator[tuple[str, WindowPrediction | str]]":
    with Progress(sum(durations), " s") as progress:
        for file, line, duration in zip(files, lines, durations, strict=True):
            done = 0
            for answer in _up_to_error(line):
                progress.clear()
                if isinstance(answer, Exception):
                    yield file, str(answer)
                    reached = duration
                else:
                    yield file, answer
                    reached = min(int(answer.end_seconds), duration)
                sys.stdout.flush()
                progress.advance(reached - done)
                done = reached
            progress.advance(duration - done)


def _up_to_error(
    line: Iterator["WindowPrediction"],
) -> Iterator["WindowPrediction | AudioTorchError | OSError"]:
    """The answers and, last, what ended them; not what goes wrong where they are printed."""
    try:
        yield from line
    except (AudioTorchError, OSError) as error:
        yield error


def _duration(file: str) -> int:
    """Seconds of a recording, for the bar alone."""
    from audiotorch.audio import info

    if not sys.stderr.isatty():
        return 0
    try:
        with warnings.catch_warnings():
            # Told when the recording is read.
            warnings.simplefilter("ignore", TruncationWarning)
            return int(info(file).duration_seconds)
    except (AudioTorchError, OSError):
        return 0
