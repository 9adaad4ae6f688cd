"""Transcribing one recording or ten thousand into a file of JSON lines, and losing none."""

import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from audiotorch.audio.files import find_audio
from audiotorch.audio.io import AUDIO_SUFFIXES
from audiotorch.batch.job import Failure
from audiotorch.batch.place import replace_file, telling
from audiotorch.errors import ParameterError
from audiotorch.transcribe.backends import Backend
from audiotorch.transcribe.formats import FORMATS
from audiotorch.transcribe.lines import (
    Lines,
    Task,
    encode,
    error_line,
    key,
    result_line,
    transcript_of,
)
from audiotorch.transcribe.recording import Transcriber
from audiotorch.transcribe.result import Transcript
from audiotorch.transcribe.voice import open_gate
from audiotorch.transcribe.workers import outcomes, sensible_workers

__all__ = ["FolderReport", "transcribe_files", "transcribe_folder"]

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class FolderReport:
    """What a transcription job did.

    Args:
        n_new: files transcribed.
        n_skipped: files that the output had already.
        failures: of the files asked for, in their order.
        audio_seconds: length of what was transcribed.
        real_time_factor: time that it took over that length, with all workers and the loading of
            the model; `None` if nothing was transcribed.
    """

    n_new: int
    n_skipped: int
    failures: list[Failure]
    audio_seconds: float
    real_time_factor: float | None


def transcribe_folder(
    sources: Path_ | Iterable[Path_],
    out: Path_,
    *,
    model: Path_ | Backend = "base",
    language: str | None = None,
    task: str = "transcribe",
    word_timestamps: bool = False,
    device: str | None = None,
    backend: str = "whisper",
    gate: str = "auto",
    formats: Sequence[str] = (),
    workers: int | None = None,
    resume: bool = True,
    extensions: str | Iterable[str] = AUDIO_SUFFIXES,
    advance: Callable[[int, float], object] = lambda count, seconds: None,
    **options: Any,
) -> FolderReport:
    """Transcribe recordings into a file of JSON lines, one for each, in UTF-8.

    A line holds `filepath filename language text n_segments duration_s language_probability
    real_time_factor speech_s segments task model`, or `filepath filename error` of a file that
    cannot be transcribed, while the job goes on; and `size mtime_ns settings`, by which it is
    known again. Lines come as files are done, and each is on the disk before the next; a killed
    job, or one whose disk is full, loses what it was transcribing and nothing else.

    Started again, the job skips what is finished: files with a text, of which neither size nor
    time of change nor the settings differ. Others are done again, errors too, and their new line
    counts; when the job ends, each file has one. Lines of files that it was not asked for stay.
    If a file is gone, its text stays, and the report tells of it.

    Args:
        sources: a recording or folder, or several; folders are searched at any depth.
        out: the output, such as `results.jsonl`. Anything there that is no such output is refused.
        model: name of a Whisper model, path of a checkpoint, or a loaded `Backend`.
        language: code of the language spoken; `None` = of each recording as the model hears it.
        task: `"transcribe"`, or `"translate"` to English.
        word_timestamps: whether segments get words with their times.
        device: as torch names it; `None` = CUDA where there is some, else the CPU.
        backend: `"whisper"`, or `"faster-whisper"`.
        gate: what leaves out windows without speech, as in `transcribe`.
        formats: of further files, out of `FORMATS`, such as `"srt"`. They lie in a folder beside
            the output, named as it without its suffix; `clips/a.wav` beside the output has
            `clips/a.wav.srt` there, and files from elsewhere their whole path under `_outside`.
            Each is there before its recording's line is, and made again from the line if missing.
        workers: processes, each with a model of its own, that share the machine's cores; 1 works
            in this process. `None` = one a core, if the memory allows; 1 for a few short files,
            and with CUDA.
        resume: `False` does all files again and leaves their lines alone in the output. What
            stood there before goes at the end, when the new lines are complete.
        extensions: suffixes of the files that folders are searched for, of all audio files if none
            are given.
        advance: is told how many more files are done, and of how many seconds of audio.
        **options: others of `Transcriber`.

    Raises:
        ParameterError: settings that no model takes, a path that cannot be written to, an output
            of something else, or another job that is writing it.
        MissingDependencyError: the backend is not installed.
        DecodeError: the model cannot be read.
        OSError: no room, or no rights; what was done so far is kept.
    """
    options |= {"model": model, "language": language, "task": task, "device": device}
    options |= {"word_timestamps": word_timestamps, "backend": backend, "gate": gate}
    texts = _Texts(Path(out), formats)
    given = _found(sources, extensions)
    by_key: dict[str, str] = {}
    for file in given:
        by_key.setdefault(key(file), file)
    files = list(by_key.values())
    _check_workers(workers)
    settings = _settings(options)
    with Lines(out, settings) as lines:
        pending = [file for file in files if not (resume and _is_done(lines, texts, file))]
        advance(len(given) - len(pending), 0.0)
        job = _Job(lines, texts, resume, word_timestamps, advance)
        # By all files: the one left, if it is what killed a worker before, is to kill but another.
        job.run(pending, options, workers or _workers(options, files))
        lines.finish(None if resume else {*by_key})
        return job.report(len(files) - len(pending), pending)


def transcribe_files(
    files: Iterable[Path_], *, workers: int | None = None, **options: Any
) -> Iterator[dict[str, Any]]:
    """Transcribe recordings and give the lines that `transcribe_folder` would write.

    Args:
        files: the recordings.
        workers: as in `transcribe_folder`.
        **options: of `Transcriber`.

    Raises:
        AudioTorchError: as `transcribe_folder`.
    """
    _check_workers(workers)
    settings = _settings(options)
    words = bool(options.get("word_timestamps"))
    names = [os.fspath(file) for file in files]
    for task, outcome in outcomes(names, options, workers or _workers(options, names)):
        yield _line(task, outcome, settings, words)


class _Job:
    """Files on their way into the output, and what is to be told of them."""

    def __init__(
        self,
        lines: Lines,
        texts: "_Texts",
        resume: bool,
        words: bool,
        advance: Callable[[int, float], object],
    ) -> None:
        self._lines = lines
        self._texts = texts
        self._resume = resume
        self._words = words
        self._advance = advance
        self._failures: dict[str, str] = {}
        self._n_new = 0
        self._audio_seconds = 0.0
        self._seconds = 0.0

    def run(self, files: Sequence[str], options: Mapping[str, Any], workers: int) -> None:
        """Transcribe, and record what comes as it comes."""
        begun = time.perf_counter()
        found = outcomes(files, options, workers)
        try:
            for task, outcome in found:
                self._advance(1, self._record(task, outcome))
        finally:
            found.close()  # workers are not to go on when a line cannot be written
        self._seconds = time.perf_counter() - begun

    def report(self, n_skipped: int, files: Iterable[str]) -> FolderReport:
        """Tell what was done of the files that were to be done, in their order."""
        failures = [Failure(f, self._failures[f]) for f in files if f in self._failures]
        factor = self._seconds / self._audio_seconds if self._audio_seconds else None
        return FolderReport(self._n_new, n_skipped, failures, self._audio_seconds, factor)

    def _record(self, task: Task, outcome: Transcript | str) -> float:
        """Write a file's texts and then its line; return the seconds transcribed."""
        line = _line(task, outcome, self._lines.settings, self._words)
        if "error" not in line:
            self._texts.write(line)
        else:
            self._failures[task.file] = line["error"]
            gone = not os.path.lexists(task.file)
            if self._resume and gone and self._lines.has_text(task.file):
                return 0.0  # the text is all that is left of it
            self._texts.remove(task.file)
        self._lines.append(line)
        seconds: float = line.get("duration_s", 0.0)
        self._n_new += "error" not in line
        self._audio_seconds += seconds
        return seconds


class _Texts:
    """The folder of further files, beside the output."""

    def __init__(self, out: Path, formats: Sequence[str]) -> None:
        names = [formats] if isinstance(formats, str) else list(formats)
        if unknown := [name for name in names if name not in FORMATS]:
            raise ParameterError(
                f"formats: {', '.join(map(repr, unknown))} unknown; must be of {' '.join(FORMATS)}"
            )
        self._formats = {name: FORMATS[name] for name in names}
        self._base = os.path.abspath(out.parent)
        self._folder = out.with_suffix("") if out.suffix else out.with_name(f"{out.name}.texts")
        if names and os.path.lexists(self._folder) and not self._folder.is_dir():
            raise ParameterError(
                f"out={os.fspath(out)!r}: {os.fspath(self._folder)!r} is to be the folder of "
                f"{' '.join(names)} files, and is a file; name another --out"
            )

    def lack(self, file: str) -> bool:
        """Whether one of a file's texts is missing."""
        return not all(os.path.lexists(self._path(file, name)) for name in self._formats)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write the texts of a file's line."""
        file = line["filepath"]
        # From what is written: the same as when they are made again, and without NaN.
        transcript = transcript_of(json.loads(encode(line)))
        for name, text in self._formats.items():
            path = self._path(file, name)
            # JSON alone has names in it, whose broken letters this writes as JSON does.
            data = text(transcript).encode(errors="backslashreplace")
            with telling(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, [data])

    def remove(self, file: str) -> None:
        """Remove texts of what a file was before."""
        for name in self._formats:
            path = self._path(file, name)
            if os.path.lexists(path):
                path.unlink()

    def _path(self, file: str, name: str) -> Path:
        place = os.path.relpath(key(file), self._base)
        if place.split(os.sep)[0] == os.pardir:
            place = os.path.join("_outside", os.path.splitdrive(key(file))[1].lstrip(os.sep))
        folder, file_name = os.path.split(place)
        data = os.fsencode(file_name)
        if len(data) + len(name) + 1 > _LONGEST_NAME:
            # Cut, between letters; what was cut off is told apart by a checksum.
            rest = f"~{zlib.crc32(data):08x}"
            data = data[: _LONGEST_NAME - len(name) - 1 - len(rest)]
            file_name = data.decode(errors="ignore") + rest
        return self._folder / folder / f"{file_name}.{name}"


_LONGEST_NAME = 255  # bytes, in most file systems


def _found(sources: Path_ | Iterable[Path_], extensions: str | Iterable[str]) -> list[str]:
    several = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    # As paths: `./a.wav` and `a.wav` are one file.
    return [os.fspath(Path(file)) for file in find_audio(several, extensions)]


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise ParameterError(f"workers={workers}: must be at least 1")


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the texts depend on, as JSON has it: told without loading the model."""
    asked = signature(Transcriber).bind(**options)
    asked.apply_defaults()
    settings = {name: value for name, value in asked.arguments.items() if name != "device"}
    gate = open_gate(settings["gate"])
    settings["gate"] = None if gate is None else type(gate).__name__
    model = settings["model"]
    if not isinstance(model, str | os.PathLike):
        return settings | {"model": model.model, "backend": type(model).__name__}
    settings["model"] = os.fspath(model)
    if os.path.exists(model):
        state = os.stat(model)
        settings |= {"model": os.path.abspath(model), "model_size": state.st_size}
        settings["model_mtime_ns"] = state.st_mtime_ns
    return settings


def _is_done(lines: Lines, texts: _Texts, file: str) -> bool:
    """Whether nothing is to be transcribed; texts that are missing are made of the line."""
    if not lines.finished(Task.of(file)):
        return False
    if texts.lack(file):
        line = lines.read(file)
        try:
            if line is not None:
                texts.write(line)
        except (LookupError, TypeError):
            return False  # the line was edited: it is done again
    return True


def _workers(options: Mapping[str, Any], files: Sequence[str]) -> int:
    model = options.get("model", "base")
    if not isinstance(model, str | os.PathLike):
        return 1  # a loaded model stays where it is
    return sensible_workers(model, options.get("device"), files)


def _line(
    task: Task, outcome: Transcript | str, settings: Mapping[str, Any], words: bool
) -> dict[str, Any]:
    if isinstance(outcome, str):
        return error_line(task, outcome, settings)
    return result_line(task, outcome, settings, words)
