"""What a job has done so far, on disk: a killed job loses only what it was computing."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from audiotorch.batch.place import lock, write_all
from audiotorch.errors import ParameterError

__all__ = ["Clip", "Entry", "Journal", "changes"]


class Clip(NamedTuple):
    """Rows of a file that are computed: all of it, or some windows.

    Args:
        file: its name, as the table has it.
        size: bytes.
        mtime_ns: when it was written; with the size, what a changed file is known by.
        seconds: where in the file the rows end.
        rows: `(rows, columns)`.
        first: number of the first of them among the file's rows.
        last: whether the file has no more.
    """

    file: str
    size: int
    mtime_ns: int
    seconds: float
    rows: npt.NDArray[np.float32]
    first: int = 0
    last: bool = True


class Entry(NamedTuple):
    """A finished file in the journal: `n_rows` rows, and the parts in which they were recorded."""

    size: int
    mtime_ns: int
    seconds: float
    n_rows: int
    parts: "list[Part]"


class Part(NamedTuple):
    """A recorded part of a file: `n_rows` rows that start at row `start` of the journal."""

    size: int
    mtime_ns: int
    seconds: float
    n_rows: int
    start: int
    first: int = 0
    last: bool = True


class Journal:
    """A folder that grows with a job: rows in one file, a line for each batch of them in another.

    A batch counts once its line is complete, and the line is written after its rows have reached
    the disk. What a killed job left half-written is cut off when the journal is opened again. A
    long file comes in parts, in any order, and is finished with the last that lacked.

    Args:
        folder: where; made if missing. Its parent must exist.
        settings: what the rows depend on.
        n_columns: of a row.
        fresh: begin anew, unless what was begun was such a fresh job too: the same command,
            started again after a kill, goes on.

    Attributes:
        entries: finished files, in the order in which they were finished.
        parts: of each unfinished file, what is recorded of it, by the number of its first row.
        failures: what was wrong with files that were tried and not finished since.
        fresh: whether the job replaces an earlier table instead of adding to it.

    Raises:
        ParameterError: another job works on it, or it was begun with other settings.
        OSError: no rights, or no room.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], n_columns: int, *, fresh: bool = False
    ) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self.parts: dict[str, dict[int, Part]] = {}
        self.failures: dict[str, str] = {}
        self._n_columns = n_columns
        self._end = 0  # rows, and
        self._valid = 0  # bytes of lines that are recorded
        folder.mkdir(exist_ok=True)
        self._lines: BinaryIO = open(folder / "done.jsonl", "a+b", buffering=0)
        try:
            lock(self._lines, folder)
            self._rows: BinaryIO = open(folder / "rows.f32", "a+b", buffering=0)
        except BaseException:
            self._lines.close()
            raise
        try:
            self.fresh = self._begin(dict(settings), fresh)
            self._resume()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, clips: Iterable[Clip], failures: Mapping[str, str]) -> list[str]:
        """Record a batch: files or parts that are finished, and what is wrong with others.

        Returns:
            The files of which nothing lacks any more.

        Raises:
            OSError: no room; the journal is as it was before.
        """
        clips = list(clips)
        row = self._end
        done = []
        for clip in clips:
            # From tuple to list and back through JSON.
            part = Part(*clip[1:4], len(clip.rows), row, clip.first, clip.last)
            done.append([clip.file, *part])
            row += len(clip.rows)
        line = json.dumps({"done": done, "failed": dict(failures)}).encode() + b"\n"
        try:
            for clip in clips:
                write_all(self._rows, np.ascontiguousarray(clip.rows, "<f4").tobytes())
            os.fsync(self._rows.fileno())
            write_all(self._lines, line)
        except OSError:
            self._cut()
            raise
        self._end = row
        self._valid += len(line)
        return self._take(json.loads(line))

    def rows(self, entry: Entry, max_rows: int) -> Iterator[npt.NDArray[np.float32]]:
        """Read the rows `(rows, columns)` of a finished file, in parts.

        Args:
            entry: one of `entries`.
            max_rows: of a part.
        """
        for part in entry.parts:
            for start in range(0, part.n_rows, max_rows):
                n_rows = min(max_rows, part.n_rows - start)
                self._rows.seek(4 * self._n_columns * (part.start + start))
                found = np.fromfile(self._rows, "<f4", n_rows * self._n_columns)
                yield found.reshape(n_rows, self._n_columns)

    def close(self) -> None:
        """Let go of the files, and so of the lock."""
        self._rows.close()
        self._lines.close()

    def remove(self) -> None:
        """Remove it from disk, once its rows are in the table."""
        self.close()
        shutil.rmtree(self.folder)

    def _begin(self, settings: dict[str, Any], fresh: bool) -> bool:
        """Compare with what was begun before, or begin anew; return whether the job is fresh."""
        begun = self._begun()
        if begun is not None and begun.get("settings") == settings:
            if begun.get("fresh") or not fresh:
                return bool(begun.get("fresh"))
        elif begun is not None and not fresh:
            raise ParameterError(
                f"{os.fspath(self.folder)!r}: an unfinished job was started with other settings "
                f"({changes(begun.get('settings'), settings)}); give the same to go on with it, "
                "--overwrite to start anew, or another --out"
            )
        for handle in (self._lines, self._rows):
            handle.truncate(0)
        partial = self.folder / "settings.part"
        partial.write_text(json.dumps({"settings": settings, "fresh": fresh}), encoding="utf-8")
        os.replace(partial, self.folder / "settings.json")
        return fresh

    def _begun(self) -> dict[str, Any] | None:
        """What the journal was begun with; None if it holds nothing yet."""
        if os.fstat(self._lines.fileno()).st_size == 0:
            return None
        try:
            begun = json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return begun if isinstance(begun, dict) else None

    def _resume(self) -> None:
        """Take in the complete lines whose rows are there, and cut off the rest."""
        n_rows = os.fstat(self._rows.fileno()).st_size // (4 * self._n_columns)
        self._lines.seek(0)
        *lines, _ = self._lines.read().split(b"\n")
        for line in lines:
            try:
                batch = json.loads(line)
                parts = [Part(*fields) for _, *fields in batch["done"]]
                end = max([self._end, *(part.start + part.n_rows for part in parts)])
            except (ValueError, KeyError, TypeError):
                break
            if end > n_rows:
                break
            self._take(batch)
            self._end = end
            self._valid += len(line) + 1
        self._cut()

    def _cut(self) -> None:
        """Cut off what is not recorded as done."""
        self._lines.truncate(self._valid)
        self._rows.truncate(4 * self._n_columns * self._end)

    def _take(self, batch: dict[str, Any]) -> list[str]:
        finished = []
        for file, *fields in batch["done"]:
            part = Part(*fields)
            parts = self.parts.setdefault(file, {})
            if any(earlier[:2] != part[:2] for earlier in parts.values()):
                parts.clear()  # the file changed since
            parts[part.first] = part
            if (whole := _whole(parts)) is not None:
                n_rows = sum(part.n_rows for part in whole)
                self.entries[file] = Entry(*whole[-1][:3], n_rows, whole)
                self.failures.pop(file, None)
                del self.parts[file]
                finished.append(file)
        self.failures.update(batch["failed"])
        return finished


def _whole(parts: Mapping[int, Part]) -> list[Part] | None:
    """A file's parts in their order, if none lacks."""
    found: list[Part] = []
    row = 0
    while row in parts:
        found.append(parts[row])
        if parts[row].last:
            return found
        row += parts[row].n_rows
    return None


def changes(old: Any, new: Mapping[str, Any]) -> str:
    """Say in what settings differ.

    Args:
        old: those of an earlier job, as they were found.
        new: those of this one.
    """
    old = old if isinstance(old, dict) else {}
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    told = [f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in differing]
    return "; ".join(told) or "of another version"
