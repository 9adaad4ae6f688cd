"""A job's table and the two files beside it: which inputs it holds, and which failed."""

import csv
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from audiotorch.batch.columns import FeatureColumns
from audiotorch.batch.journal import changes
from audiotorch.batch.tables import Block, open_table
from audiotorch.errors import DecodeError, ParameterError

__all__ = ["Fingerprint", "Kept", "Output"]

Fingerprint = tuple[int, int]
"""A file's bytes and when it was written (ns): what a changed file is known by."""

# What readers of tables raise at files that are damaged, or not what their name says.
_DAMAGE = (
    *(ArithmeticError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(StopIteration, csv.Error, zipfile.BadZipFile, zlib.error),
)


class Kept(NamedTuple):
    """What a table holds of one recording.

    Args:
        n_rows: how many rows.
        state: how the file was when they were computed; None where nothing is known of that.
    """

    n_rows: int
    state: Fingerprint | None


class Output:
    """The table that a job adds to.

    Beside `x.csv` lie `.x.csv.inputs.jsonl`, the settings and each recording's size and time, by
    which changes are seen (without it, recordings count as unchanged), `x.csv.failures.jsonl`,
    while there are some, and, while the job runs, the folder `.x.csv.partial`.

    Args:
        path: of the table; its suffix chooses the format.

    Raises:
        ParameterError: a path that cannot be written to.
        MissingDependencyError: as `open_table`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.folder = self.path.with_name(f".{self.path.name}.partial")
        self.failures_path = self.path.with_name(f"{self.path.name}.failures.jsonl")
        self._inputs_path = self.path.with_name(f".{self.path.name}.inputs.jsonl")
        self._table = open_table(self.path)

    def check(self, columns: FeatureColumns) -> None:
        """Refuse to add to a table of other columns or settings.

        Raises:
            ParameterError: it is one.
            DecodeError: it cannot be read.
        """
        if not self.path.exists():
            return
        with self._reading():
            names = self._table.columns(self.path)
            alike = names == columns.all_names
            first = next(self._table.blocks(self.path), None) if alike else None
        settings = next(_read_lines(self._inputs_path), {}).get("settings")
        if settings is not None and settings != columns.settings:
            reason = changes(settings, columns.settings)
        elif not alike:
            reason = f"it has {len(names)} columns, {_first_difference(names, columns.all_names)}"
        elif first is not None and not columns.fits(first):
            reason = f"its sample rate was not {columns.sample_rate} Hz, or its windows others"
        else:
            return
        raise ParameterError(
            f"out={os.fspath(self.path)!r}: holds something else than what is to be added "
            f"({reason}); replace it with --overwrite, or name another --out"
        )

    def finished(self) -> dict[str, "Kept"]:
        """The recordings that the table holds."""
        lines = _read_lines(self._inputs_path)
        seen = {line["file"]: line for line in lines if {*line} >= {"file", "size", "mtime_ns"}}
        states = {file: (line["size"], line["mtime_ns"]) for file, line in seen.items()}
        return {file: Kept(count, states.get(file)) for file, count in self._counts().items()}

    def write(
        self,
        columns: FeatureColumns,
        blocks: Iterable[Block],
        n_rows: int,
        inputs: Mapping[str, Fingerprint],
        kept: Mapping[str, "Kept"],
    ) -> None:
        """Replace the table by one with more rows, at once.

        Args:
            columns: what it holds.
            blocks: the new rows.
            n_rows: how many they are.
            inputs: the recordings they are of.
            kept: what the table holds, whose rows come before the new ones, but for those of
                `inputs`.

        Raises:
            OSError: no room, or no rights; the table is as it was.
        """
        n_kept = sum(known.n_rows for file, known in kept.items() if file not in inputs)

        def rows() -> Iterator[Block]:
            if n_kept:
                with self._reading():
                    for block in self._table.blocks(self.path):
                        yield block.keep([file not in inputs for file in block.file])
            yield from blocks

        # In the job's folder, where what a kill leaves behind is cleared away.
        partial = self.folder / f"table{self.path.suffix}"
        self._table.write(partial, columns.all_names, n_kept + n_rows, rows())
        os.replace(partial, self.path)
        states = {file: known.state for file, known in kept.items() if known.state is not None}
        states.update(inputs)
        lines = [{"file": f, "size": s, "mtime_ns": t} for f, (s, t) in states.items()]
        self._write_lines(self._inputs_path, [{"settings": columns.settings}, *lines])

    def failures(self) -> dict[str, str]:
        """What was wrong with recordings that earlier jobs tried."""
        lines = _read_lines(self.failures_path)
        return {line["file"]: line["error"] for line in lines if {*line} >= {"file", "error"}}

    def write_failures(self, failures: Mapping[str, str]) -> None:
        """Record what is wrong with recordings that the table lacks; nothing leaves no file."""
        if failures:
            lines = [{"file": file, "error": error} for file, error in failures.items()]
            self._write_lines(self.failures_path, lines)
        else:
            self.failures_path.unlink(missing_ok=True)

    def _write_lines(self, path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
        partial = self.folder / f"{path.name}.part"
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        os.replace(partial, path)

    def _counts(self) -> Counter[str]:
        """Rows of each recording in the table."""
        counts: Counter[str] = Counter()
        if self.path.exists():
            with self._reading():
                for files in self._table.files(self.path):
                    counts.update(files)
        return counts

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise DecodeError(
                f"out={os.fspath(self.path)!r}: cannot be read back ({error}); restore it, replace "
                "it with --overwrite, or name another --out"
            ) from error


def _first_difference(old: list[str], new: list[str]) -> str:
    pairs = zip([*old, "none"], [*new, "none"], strict=False)
    name, wanted = next((pair for pair in pairs if pair[0] != pair[1]), ("none", "none"))
    return f"{name!r} where {wanted!r} is wanted"


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a JSON-lines file that are whole; none where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return
    for line in text.split("\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value
