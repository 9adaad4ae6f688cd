"""`audiotorch predict`: label recordings with an exported model."""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from audiotorch.cli.arguments import (
    Commands,
    add_device,
    add_sources,
    check_device,
    find_audio,
    find_model,
    positive,
    seconds,
)
from audiotorch.cli.terminal import DONE, SOME_FAILED, Progress, complain, file_width
from audiotorch.errors import AudioTorchError, ParameterError, TruncationWarning, printable

if TYPE_CHECKING:
    from audiotorch.answers import Prediction, WindowPrediction

__all__ = ["add_predict"]

TOP = 3
UNSURE = "(unsure)"  # below the confidence that the model asks for


def add_predict(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="label recordings with an exported model",
        description="Label recordings, at any sample rate and channel count. A table, or with "
        "--json one object a line: file label confidence probabilities, or file error. With "
        "--window, a time line of recordings of any length: file start_seconds end_seconds label "
        "confidence probabilities. Files that cannot be read are reported, the others still "
        "answered; of one that breaks in the middle, the windows before.",
    )
    parser.add_argument("model", metavar="MODEL", help="exported .ts file, or a run directory")
    add_sources(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--window", type=seconds, metavar="SECONDS", help="answer each window of this length"
    )
    parser.add_argument(
        "--hop", type=seconds, metavar="SECONDS", help="from window to window; default: its length"
    )
    parser.add_argument(
        "--explain",
        type=positive,
        default=0,
        metavar="N",
        help="name the N features that weigh most in each answer: of scikit-learn's models",
    )
    add_device(parser)
    parser.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="clips at a time (16)"
    )
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    if options.hop is not None and options.window is None:
        raise ParameterError("--hop: leads from window to window; give --window too")
    if options.explain and options.window is not None:
        raise ParameterError("--explain: is for whole recordings; leave out --window")
    model = find_model(options.model)
    files = find_audio(options.sources)
    # Imported here: the mistakes above are told before torch is loaded.
    from audiotorch.answers import check_classes, check_explains
    from audiotorch.export import load_pipeline

    check_device(options.device)
    module = load_pipeline(model)
    check_classes(module)
    check_explains(module, options.explain)
    work = _label_clips if options.window is None else _label_windows
    return SOME_FAILED if work(options, module, files) else DONE


class _Output:
    """Answers as a table, and errors on stderr; or both as JSON lines."""

    def __init__(self, options: argparse.Namespace, files: list[str], labels: list[str]) -> None:
        self.failed = False
        self._json = options.json
        self._file_width = file_width(files)
        self._label_width = max(len(printable(label)) for label in ["label", UNSURE, *labels])
        if not self._json:
            times = "" if options.window is None else f"  {'start':>9}  {'end':>9}"
            label = f"{'label':{self._label_width}}"
            print(f"{'file':{self._file_width}}{times}  {label}  confidence  top {TOP}")

    def answer(self, file: str, answer: "Prediction | WindowPrediction", **times: float) -> None:
        """Print a line; `times` are the window's start and end."""
        contributions = getattr(answer, "contributions", {})
        if self._json:
            named = {"label": answer.label, "confidence": answer.confidence}
            line = {"file": file, **times, **named, "probabilities": answer.probabilities}
            if contributions:
                line["contributions"] = contributions
            print(json.dumps(line))
            return
        ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:TOP]
        top = "  ".join(f"{printable(label)} {probability:.3f}" for label, probability in ranked)
        label = f"{printable(answer.label or UNSURE):{self._label_width}}"
        when = "".join(f"  {time:9.3f}" for time in times.values())
        name = f"{printable(file):{self._file_width}}"
        print(f"{name}{when}  {label}  {answer.confidence:10.3f}  {top}")
        if contributions:
            parts = (f"{printable(key)} {value:+.3f}" for key, value in contributions.items())
            print(f"{'':{self._file_width}}  because: {'  '.join(parts)}")

    def error(self, file: str, error: str) -> None:
        """Print what is wrong with a file."""
        self.failed = True
        if self._json:
            print(json.dumps({"file": file, "error": error}))
        else:
            complain(error)


def _label_clips(options: argparse.Namespace, module: Any, files: list[str]) -> bool:
    """Answer each recording as a whole; return whether some failed."""
    from audiotorch.answers import predict

    output = _Output(options, files, module.labels)
    with Progress(len(files)) as progress:
        for start in range(0, len(files), options.batch_size):
            chunk = files[start : start + options.batch_size]
            answers = predict(
                module,
                chunk,
                device=options.device,
                batch_size=options.batch_size,
                explain=options.explain,
            )
            progress.clear()
            for answer in answers:
                if answer.error is None:
                    output.answer(answer.file, answer)
                else:
                    output.error(answer.file, answer.error)
            sys.stdout.flush()
            progress.advance(len(chunk))
    return output.failed


def _label_windows(options: argparse.Namespace, module: Any, files: list[str]) -> bool:
    """Answer each recording window by window; return whether some failed."""
    from audiotorch.answers import timeline

    settings = {"device": options.device, "batch_size": options.batch_size}
    # Nothing is read yet, but wrong sizes are told before the table begins.
    lines = [timeline(module, file, options.window, options.hop, **settings) for file in files]
    durations = [_duration(file) for file in files]
    output = _Output(options, files, module.labels)
    with Progress(sum(durations), " s") as progress:
        for file, line, duration in zip(files, lines, durations, strict=True):
            done = 0
            for answer in _up_to_error(line):
                progress.clear()
                if isinstance(answer, Exception):
                    output.error(file, str(answer))
                    reached = duration
                else:
                    start, end = answer.start_seconds, answer.end_seconds
                    output.answer(file, answer, start_seconds=start, end_seconds=end)
                    reached = min(int(end), duration)
                sys.stdout.flush()
                progress.advance(reached - done)
                done = reached
            progress.advance(duration - done)
    return output.failed


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
