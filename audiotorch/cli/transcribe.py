"""`audiotorch transcribe`: what is said in recordings."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from audiotorch.audio.files import find_audio
from audiotorch.cli.arguments import Commands, add_device, add_sources, check_device, positive
from audiotorch.cli.terminal import DONE, SOME_FAILED, Progress, complain, file_width
from audiotorch.errors import AudioTorchError, ParameterError, printable
from audiotorch.transcribe.backends import BACKENDS
from audiotorch.transcribe.recording import CHANNELS, TASKS
from audiotorch.transcribe.voice import GATES

if TYPE_CHECKING:
    from audiotorch.transcribe.scoring import Reference

__all__ = ["add_transcribe"]

_OPTIONS = "model language task word_timestamps device backend gate channels initial_prompt"
_OPTIONS += " beam_size"


def add_transcribe(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "transcribe",
        help="write down what is said in recordings",
        description="Transcribe recordings with Whisper. The texts are printed, or with --out "
        "written as JSON lines, one a file: filepath filename language text n_segments "
        "duration_s and more, or filepath filename error. Started again, a job skips what is "
        "finished, unless files or settings changed; a job that was killed loses the recordings "
        "that it was at and nothing else.",
    )
    add_sources(parser)
    _add_output(parser)
    _add_model(parser)
    parser.add_argument(
        "--detect-language", action="store_true", help="print the language alone, with how sure"
    )
    parser.add_argument(
        "--reference",
        metavar="TABLE",
        help="print word and character error rates instead of texts: against a table with the "
        "columns file and transcript",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=_transcribe)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="JSONL", help="file of JSON lines to write or to add to")
    parser.add_argument(
        "--format",
        default="",
        metavar="NAMES",
        help="further files a recording, in a folder beside --out: txt srt vtt tsv json, joined "
        "by commas",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="skip what --out holds already; --no-resume does all again, and what --out held goes "
        "when all is done",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="processes, each with its own model; default: one a core, if the memory allows, "
        "and 1 for a few short files",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="base", help="a name of Whisper's, or the path of a checkpoint (base)"
    )
    parser.add_argument("--language", metavar="CODE", help="spoken language; default: as heard")
    parser.add_argument("--task", choices=TASKS, default="transcribe")
    parser.add_argument("--word-timestamps", action="store_true", help="times of words, too")
    parser.add_argument("--backend", choices=BACKENDS, default="whisper")
    parser.add_argument(
        "--gate",
        choices=GATES,
        default="auto",
        help="what leaves out windows without speech; default: silero if installed, else energy",
    )
    parser.add_argument(
        "--channels",
        choices=CHANNELS,
        default="auto",
        help="average them, or each alone; auto: each where they have nothing in common (auto)",
    )
    parser.add_argument("--initial-prompt", metavar="TEXT", help="such as names spelt right")
    parser.add_argument(
        "--beam-size", type=positive, metavar="N", help="hypotheses; default: the best alone"
    )
    add_device(parser, None)


def _transcribe(options: argparse.Namespace) -> int:
    _check(options)
    # Imported here: the mistakes above are told before the packages for scores are loaded.
    from audiotorch.transcribe.scoring import read_references

    references = read_references(options.reference) if options.reference else None
    files = find_audio(options.sources)
    check_device(options.device)
    if options.detect_language:
        return _detect(options, files)
    if options.out is not None:
        return _into_file(options, files, references)
    return _to_terminal(options, files, references)


def _check(options: argparse.Namespace) -> None:
    if options.format and options.out is None:
        raise ParameterError("--format: its files lie beside an output; give --out too")
    if options.out in ("-", "/dev/stdout"):
        raise ParameterError(
            f"--out {options.out}: is a file that is started from again; to print texts leave it "
            "out, to print JSON lines give --json"
        )
    for name in ("out", "reference"):
        if options.detect_language and getattr(options, name) is not None:
            raise ParameterError(f"--detect-language: is printed alone; leave out --{name}")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in _OPTIONS.split()}


def _into_file(
    options: argparse.Namespace, files: list[str], references: "Mapping[str, Reference] | None"
) -> int:
    """Run a job, and tell what it did."""
    from audiotorch.transcribe.folder import transcribe_folder
    from audiotorch.transcribe.lines import read_lines

    formats = [name.strip() for name in options.format.split(",") if name.strip()]
    with _bar(len(files)) as (_, advance):
        report = transcribe_folder(
            files,
            options.out,
            formats=formats,
            workers=options.workers,
            resume=options.resume,
            advance=advance,
            **_settings(options),
        )
    for failure in report.failures:
        complain(failure.error.replace(failure.file, printable(failure.file)))
    if references is not None:
        _print_scores(read_lines(options.out, files), references, options.json)
    elif options.json:
        for line in read_lines(options.out, files):
            _print_json(line)
    else:
        told = f"{report.n_new} files transcribed, {report.n_skipped} skipped, "
        told += f"{len(report.failures)} failed"
        if report.real_time_factor is not None:
            told += f"; {_pace(report.audio_seconds, report.real_time_factor)}"
        print(f"{printable(os.fspath(options.out))}: {told}")
    return SOME_FAILED if report.failures else DONE


def _to_terminal(
    options: argparse.Namespace, files: list[str], references: "Mapping[str, Reference] | None"
) -> int:
    """Print what is said, or how right it is."""
    from audiotorch.transcribe.folder import transcribe_files

    lines, failed = [], False
    with _bar(len(files)) as (progress, advance):
        found = transcribe_files(files, workers=options.workers, **_settings(options))
        for line in found:
            progress.clear()
            if "error" in line:
                failed = True
                if not options.json or references is not None:
                    complain(line["error"].replace(line["filepath"], printable(line["filepath"])))
            if references is not None:
                lines.append(line)
            elif options.json:
                _print_json(line)
            elif "error" not in line:
                heading = f"{printable(line['filepath'])}:\n" if len(files) > 1 else ""
                print(f"{heading}{line['text']}" + ("\n" if heading else ""))
            sys.stdout.flush()
            advance(1, line.get("duration_s", 0.0))
    if references is not None:
        _print_scores(lines, references, options.json)
    return SOME_FAILED if failed else DONE


def _detect(options: argparse.Namespace, files: list[str]) -> int:
    """Print which language is spoken."""
    from audiotorch.transcribe.recording import Transcriber

    transcriber = Transcriber(**_settings(options))
    failed, width = False, file_width(files)
    if not options.json:
        print(f"{'file':{width}}  language  probability")
    with Progress(len(files)) as progress:
        for file in files:
            line: dict[str, Any] = {"filepath": file}
            try:
                guess = transcriber.detect_language(file)
                line |= {"language": guess.language, "probability": guess.probability}
            except (AudioTorchError, OSError) as error:
                line["error"] = str(error)
            progress.clear()
            if options.json:
                _print_json(line)
            elif "error" in line:
                complain(line["error"])
            else:
                name = f"{printable(file):{width}}"
                print(f"{name}  {guess.language:8}  {guess.probability:11.3f}")
            failed = failed or "error" in line
            sys.stdout.flush()
            progress.advance(1)
    return SOME_FAILED if failed else DONE


@contextmanager
def _bar(total: int) -> Iterator[tuple[Progress, Callable[[int, float], None]]]:
    """A bar, and what moves it: more files, and more seconds of audio."""
    begun = time.monotonic()
    heard = 0.0
    with Progress(total, " files") as progress:

        def advance(count: int, seconds: float) -> None:
            nonlocal heard
            heard += seconds
            factor = (time.monotonic() - begun) / heard if heard else 0.0
            progress.advance(count, f", {_pace(heard, factor)}" if heard else "")

        yield progress, advance


def _pace(seconds: float, factor: float) -> str:
    return f"{seconds / 3600:.3f} h of audio, real-time factor {factor:.3f}"


def _print_json(line: Mapping[str, Any]) -> None:
    from audiotorch.transcribe.lines import encode

    text = encode(line).decode()
    if sys.stdout.encoding.lower().replace("-", "") != "utf8":
        text = json.dumps(json.loads(text)) + "\n"
    sys.stdout.write(text)


def _print_scores(
    lines: Iterable[Mapping[str, Any]], references: "Mapping[str, Reference]", as_json: bool
) -> None:
    from audiotorch.transcribe.scoring import format_scores, score

    scores = score(lines, references)
    if not as_json:
        print(format_scores(scores))
        return
    for row in scores.rows:
        _print_json({**vars(row), "wer": row.wer, "cer": row.cer})
    _print_json({"wer": scores.wer, "cer": scores.cer})
