"""The output of a transcription job: one JSON line for each file, whole or not at all."""

import codecs
import json
import math
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from audiotorch.batch.place import check_place, held, partial_name, replace_file, telling, write_all
from audiotorch.errors import ParameterError
from audiotorch.transcribe.result import Segment, Transcript, Word

__all__ = [
    "Lines",
    "Task",
    "encode",
    "error_line",
    "key",
    "read_lines",
    "result_line",
    "transcript_of",
]

# In JSON, these may stand in a text as they are: UTF-8 has no surrogates, which stand for the bytes
# of broken file names, and for many programs the others end a line.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_START = b'{"filepath": '


class Task(NamedTuple):
    """A file, and how it was just before it was transcribed.

    Args:
        file: its name.
        size: bytes; 0 of what is not there.
        mtime_ns: when it was written; with the size, what a changed file is known by.
    """

    file: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: str) -> "Task":
        """Look at a file.

        Args:
            file: its name.
        """
        try:
            state = os.stat(file)
        except (OSError, ValueError):
            return cls(file, 0, 0)  # told when it is read
        return cls(file, state.st_size, state.st_mtime_ns)


def key(file: str) -> str:
    """What is the same for all spellings of a file's name.

    Args:
        file: its name.
    """
    return os.path.abspath(file)


def result_line(
    task: Task, transcript: Transcript, settings: Mapping[str, Any], words: bool = False
) -> dict[str, Any]:
    """The line of a file that was transcribed.

    Args:
        task: the file.
        transcript: what is said in it.
        settings: what the text depends on.
        words: whether words were asked for.
    """
    found = transcript.to_dict()
    segments = [dict(segment) for segment in found["segments"]]
    if not words:
        segments = [{k: v for k, v in s.items() if k != "words"} for s in segments]
    return {
        "filepath": task.file,
        "filename": os.path.basename(task.file),
        "language": found["language"],
        "text": found["text"],
        "n_segments": len(segments),
        "duration_s": found["duration_seconds"],
        "language_probability": found["language_probability"],
        "real_time_factor": found["real_time_factor"],
        "speech_s": found["speech_seconds"],
        "segments": segments,
        "task": found["task"],
        "model": found["model"],
        **_state(task, settings),
    }


def error_line(task: Task, error: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The line of a file that could not be transcribed.

    Args:
        task: the file.
        error: what is wrong with it, naming it.
        settings: of the job.
    """
    name = os.path.basename(task.file)
    return {"filepath": task.file, "filename": name, "error": error, **_state(task, settings)}


def _state(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"size": task.size, "mtime_ns": task.mtime_ns, "settings": dict(settings)}


def transcript_of(line: Mapping[str, Any]) -> Transcript:
    """The transcript that a line was made of.

    Args:
        line: as `result_line` gives it.
    """
    segments = [
        Segment(**{**segment, "words": tuple(Word(**word) for word in segment.get("words", ()))})
        for segment in line["segments"]
    ]
    return Transcript(
        file=line["filepath"],
        text=line["text"],
        language=line["language"],
        language_probability=line["language_probability"],
        duration_seconds=line["duration_s"],
        speech_seconds=line["speech_s"],
        real_time_factor=line["real_time_factor"],
        task=line["task"],
        model=line["model"],
        segments=tuple(segments),
    )


def encode(line: Mapping[str, Any]) -> bytes:
    """A line as it is written, in UTF-8. Numbers that JSON lacks, such as NaN, become null.

    Args:
        line: of JSON's values.
    """
    text = json.dumps(_finite(line), ensure_ascii=False, allow_nan=False)
    return (_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def read_lines(path: str | os.PathLike[str], files: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Read the lines of some files from an output.

    Args:
        path: of the output.
        files: whose lines are wanted.
    """
    wanted = {*map(key, files)}
    with open(path, "rb") as lines:
        for data in lines:
            line = json.loads(data)
            if key(line["filepath"]) in wanted:
                yield line


class _Entry(NamedTuple):
    """Where a file's line is, and what it says."""

    start: int
    length: int
    size: int
    mtime_ns: int
    current: bool  # of these settings
    has_text: bool


class Lines:
    """The file that lines are added to. A half-written last line is cut off when it is opened.

    A file that is done again gets a new line, and what it had before counts no more. `finish`
    leaves what counts, by replacing the file at once. So a kill at any moment loses no line.

    Args:
        path: of the output; made with the first line.
        settings: of the job.

    Raises:
        ParameterError: another job works on it, or it is not such an output.
        OSError: no rights.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        # What a link leads to is locked and replaced, not the link.
        self.path = Path(os.path.realpath(path))
        self.settings: dict[str, Any] = json.loads(encode(settings))
        self._entries: dict[str, _Entry] = {}
        self._end = 0
        self._n_lines = 0
        self._handle: BinaryIO | None = None
        # As it was given: what /dev/stdout leads to has no name when it is a pipe.
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            raise ParameterError(f"out={os.fspath(path)!r}: is no file that can be replaced")
        check_place(self.path)
        with telling(self.path), ExitStack() as stack:
            stack.enter_context(held(self.path))
            self._take_in()
            self._held = stack.pop_all()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def finished(self, task: Task) -> bool:
        """Whether the file has a text, and neither it nor the settings changed since.

        Args:
            task: the file as it is now.
        """
        entry = self._entries.get(key(task.file))
        return (
            entry is not None
            and entry.has_text
            and entry.current
            and (entry.size, entry.mtime_ns) == task[1:]
        )

    def has_text(self, file: str) -> bool:
        """Whether the file has a text, be it of what it was before.

        Args:
            file: its name.
        """
        entry = self._entries.get(key(file))
        return entry is not None and entry.has_text

    def read(self, file: str) -> dict[str, Any] | None:
        """The line of a file, if it has one.

        Args:
            file: its name.
        """
        entry = self._entries.get(key(file))
        if entry is None:
            return None
        line: dict[str, Any] = json.loads(next(self._data([entry])))
        return line

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line, which is on the disk when this returns.

        Args:
            line: as `result_line` or `error_line` gives it.

        Raises:
            OSError: no room; the file is as it was before.
        """
        data = encode(line)
        with telling(self.path):
            handle = self._opened()
            try:
                write_all(handle, data)
                os.fsync(handle.fileno())
            except BaseException as error:
                # Interrupted while the disk was waited for, the line is whole, and stays.
                whole = os.fstat(handle.fileno()).st_size == self._end + len(data)
                if isinstance(error, OSError) or not whole:
                    handle.truncate(self._end)
                raise
        self._take(json.loads(data), len(data))

    def finish(self, kept: Container[str] | None = None) -> None:
        """Leave each file's last line alone in the output.

        Args:
            kept: keys of the files whose lines stay; `None` = all.

        Raises:
            OSError: no room; the file is as it was before.
        """
        staying = [entry for name, entry in self._entries.items() if kept is None or name in kept]
        if len(staying) < self._n_lines:
            with telling(self.path):
                replace_file(self.path, self._data(staying))

    def close(self) -> None:
        """Let go of the file and of the lock."""
        if self._handle is not None:
            self._handle.close()
        self._held.close()

    def _opened(self) -> BinaryIO:
        if self._handle is None:
            self._handle = open(self.path, "ab", buffering=0)
        return self._handle

    def _data(self, entries: list[_Entry]) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            for entry in entries:
                file.seek(entry.start)
                data = file.read(entry.length).removeprefix(codecs.BOM_UTF8)
                yield data.rstrip() + b"\n"

    def _take_in(self) -> None:
        """Read what is there, and cut off what is half-written."""
        self.path.with_name(partial_name(self.path)).unlink(missing_ok=True)
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for number, data in enumerate(file, 1):
                line = _parsed(data)
                if line is not None:
                    self._take(line, len(data))
                    # An editor's mark, no part of JSON: to leave out, as blank lines are.
                    self._n_lines += data.startswith(codecs.BOM_UTF8)
                elif data.isspace():
                    self._end += len(data)
                    self._n_lines += 1
                elif data.endswith(b"\n") or not _half(data):
                    raise ParameterError(
                        f"out={os.fspath(self.path)!r}: line {number} is none of a transcription; "
                        "repair or delete it, or name another --out"
                    )
            length = file.tell()
            file.seek(max(0, self._end - 1))
            lacks_end = file.read(1) not in (b"\n", b"")
        if length > self._end:
            self._opened().truncate(self._end)
        elif lacks_end:
            write_all(self._opened(), b"\n")
            self._end += 1

    def _take(self, line: Mapping[str, Any], length: int) -> None:
        name = key(line["filepath"])
        self._entries.pop(name, None)
        state = (line["size"], line["mtime_ns"], line["settings"] == self.settings)
        self._entries[name] = _Entry(self._end, length, *state, "error" not in line)
        self._end += length
        self._n_lines += 1


def _parsed(data: bytes) -> dict[str, Any] | None:
    """A line of such an output; `None` if it is none."""
    try:
        line = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("filepath"), str):
        return None
    ours = {*line} >= {"filename", "size", "mtime_ns", "settings"} and bool(
        {*line} & {"text", "error"}
    )
    return line if ours else None


def _half(data: bytes) -> bool:
    """Whether this may be what a kill, or a power failure, left of a line."""
    with suppress(ValueError, RecursionError):
        json.loads(data)
        return False  # whole, and of something else
    return data.startswith(_START) or _START.startswith(data) or not data.strip(b"\0")
