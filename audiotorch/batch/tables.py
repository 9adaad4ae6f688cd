"""Tables of named columns as Parquet, CSV or NPZ files, written and read a block at a time."""

import csv
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, compress
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from audiotorch.batch.place import check_place
from audiotorch.errors import MissingDependencyError, ParameterError

__all__ = ["Block", "Table", "open_table"]

_SECONDS = ("seconds", "start_seconds", "end_seconds")  # columns of float64; the others are 32 bits
_BLOCK = 1 << 16  # numbers of a block; as text they take 200 bytes each
_ROW_GROUP = 1 << 20  # numbers of a Parquet row group


class Block(NamedTuple):
    """Some rows of a table.

    Args:
        file: the recording that each row is of.
        frame_or_rate: int32 `(rows,)`, the table's second column, `frame` or `sample_rate`.
        seconds: float64 `(rows, 1)`, the column `seconds`, or `(rows, 3)`, `start_seconds` and
            `end_seconds` too.
        values: float32 `(rows, columns)`.
    """

    file: list[str]
    frame_or_rate: npt.NDArray[np.int32]
    seconds: npt.NDArray[np.float64]
    values: npt.NDArray[np.float32]

    def keep(self, wanted: Sequence[bool]) -> "Block":
        """The rows where `wanted` is true.

        Args:
            wanted: for each row.
        """
        file = list(compress(self.file, wanted))
        mask = np.array(wanted, bool)
        return Block(file, self.frame_or_rate[mask], self.seconds[mask], self.values[mask])


class Table(Protocol):
    """A file format. `columns` are the names of all columns, `file` first."""

    def write(
        self, path: Path, columns: Sequence[str], n_rows: int, blocks: Iterable[Block]
    ) -> None:
        """Write `n_rows` rows, which come in small blocks."""

    def columns(self, path: Path) -> list[str]:
        """Read the names of the columns."""

    def files(self, path: Path) -> Iterator[list[str]]:
        """Read the first column alone, in parts."""

    def blocks(self, path: Path) -> Iterator[Block]:
        """Read all rows, in parts."""


class CSVTable:
    """Comma-separated text with one header line; each number as short as reads back the same."""

    _text: ClassVar[dict[str, Any]] = {"encoding": "utf-8", "newline": ""}

    def write(
        self, path: Path, columns: Sequence[str], n_rows: int, blocks: Iterable[Block]
    ) -> None:
        """Write rows as in `Table`."""
        with path.open("w", **self._text) as file:
            # Lines put together here: csv.writer would look for quotes in each number.
            file.write(",".join(columns) + "\n")
            for block in _larger(blocks, _BLOCK):
                numbers = block.values.astype("U16").tolist()
                parts = (block.file, block.frame_or_rate.tolist(), block.seconds.tolist(), numbers)
                for name, index, seconds, row in zip(*parts, strict=True):
                    times = ",".join(map(str, seconds))
                    file.write(f"{_quoted(name)},{index},{times},{','.join(row)}\n")

    def columns(self, path: Path) -> list[str]:
        """Read names as in `Table`."""
        with path.open(**self._text) as file:
            return next(csv.reader(file), [])

    def files(self, path: Path) -> Iterator[list[str]]:
        """Read files as in `Table`."""
        return ([row[0] for row in rows] for rows in self._rows(path))

    def blocks(self, path: Path) -> Iterator[Block]:
        """Read rows as in `Table`."""
        first = _first_value(self.columns(path))
        for rows in self._rows(path):
            yield Block(
                [row[0] for row in rows],
                np.array([row[1] for row in rows], np.int32),
                np.array([row[2:first] for row in rows], np.float64),
                np.array([row[first:] for row in rows], np.float32).reshape(len(rows), -1),
            )

    def _rows(self, path: Path) -> Iterator[list[list[str]]]:
        with path.open(**self._text) as file:
            lines = csv.reader(file)
            n_columns = len(next(lines, []))
            rows: list[list[str]] = []
            for row in lines:
                if len(row) != n_columns:
                    raise ValueError(
                        f"line {lines.line_num} has {len(row)} fields instead of {n_columns}"
                    )
                rows.append(row)
                if len(rows) * n_columns >= _BLOCK:
                    yield rows
                    rows = []
            if rows:
                yield rows


class ParquetTable:
    """Apache Parquet, through pyarrow."""

    def write(
        self, path: Path, columns: Sequence[str], n_rows: int, blocks: Iterable[Block]
    ) -> None:
        """Write rows as in `Table`."""
        import pyarrow
        from pyarrow import parquet

        kinds = [pyarrow.string(), pyarrow.int32()]
        kinds += [pyarrow.float64()] * (_first_value(columns) - len(kinds))
        kinds += [pyarrow.float32()] * (len(columns) - len(kinds))
        schema = pyarrow.schema(list(zip(columns, kinds, strict=True)))
        # Numbers seldom repeat: a dictionary of theirs would take time and room.
        with parquet.ParquetWriter(path, schema, use_dictionary=["file"]) as writer:
            for block in _larger(blocks, _ROW_GROUP):
                # Arrow holds columns: one transposed copy, and views of it.
                numbers = (np.ascontiguousarray(part.T) for part in (block.seconds, block.values))
                columns_of_block = (block.file, block.frame_or_rate, *chain.from_iterable(numbers))
                arrays = [pyarrow.array(column) for column in columns_of_block]
                writer.write_table(pyarrow.table(arrays, schema=schema))

    def columns(self, path: Path) -> list[str]:
        """Read names as in `Table`."""
        from pyarrow import parquet

        return list(parquet.read_schema(path).names)

    def files(self, path: Path) -> Iterator[list[str]]:
        """Read files as in `Table`."""
        from pyarrow import parquet

        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(columns=["file"]):
                yield batch.column(0).to_pylist()

    def blocks(self, path: Path) -> Iterator[Block]:
        """Read rows as in `Table`."""
        from pyarrow import parquet

        with parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            first = _first_value(names)
            for batch in table.iter_batches(max(1, _BLOCK // len(names))):
                file, *others = batch.columns
                index, *numbers = (column.to_numpy(zero_copy_only=False) for column in others)
                seconds, values = numbers[: first - 2], numbers[first - 2 :]
                yield Block(
                    file.to_pylist(),
                    index,
                    np.stack(seconds, axis=1),
                    np.stack(values, axis=1).astype(np.float32, copy=False),
                )


class NPZTable:
    """NumPy arrays: `file`, `frame` or `sample_rate`, `seconds`, `values (rows, columns)`.

    Of windows also `start_seconds` and `end_seconds`. The array `columns` names the columns of
    `values`. Nothing in it is pickled.
    """

    def write(
        self, path: Path, columns: Sequence[str], n_rows: int, blocks: Iterable[Block]
    ) -> None:
        """Write rows as in `Table`."""
        first = _first_value(columns)
        names = np.array(columns[first:])
        files: list[str] = []
        index: list[npt.NDArray[np.int32]] = []
        seconds: list[npt.NDArray[np.float64]] = []
        with zipfile.ZipFile(path, "w") as archive:
            self._put(archive, "columns", names.shape, [names], names.dtype)

            def values() -> Iterator[npt.NDArray[np.float32]]:
                # An archive takes one member at a time: the small ones wait for the large one.
                for block in _larger(blocks, _BLOCK):
                    files.extend(block.file)
                    index.append(block.frame_or_rate)
                    seconds.append(block.seconds)
                    yield block.values

            self._put(archive, "values", (n_rows, len(names)), values(), np.dtype("<f4"))
            for i, name in enumerate(columns[2:first]):
                times = (part[:, i] for part in seconds)
                self._put(archive, name, (n_rows,), times, np.dtype("<f8"))
            self._put(archive, columns[1], (n_rows,), index, np.dtype("<i4"))
            # Names, frame by frame, in four bytes a letter: nothing packs better.
            kind = np.dtype(f"<U{max(map(len, files), default=1)}")
            parts = (np.array(files[i : i + _BLOCK], kind) for i in range(0, n_rows, _BLOCK))
            self._put(archive, "file", (n_rows,), parts, kind, zipfile.ZIP_DEFLATED)

    def columns(self, path: Path) -> list[str]:
        """Read names as in `Table`."""
        with zipfile.ZipFile(path) as archive:
            (names,) = self._get(archive, "columns", _BLOCK)
            there = archive.namelist()
        column = next(name for name in ("sample_rate", "frame") if f"{name}.npy" in there)
        times = [name for name in _SECONDS if f"{name}.npy" in there]
        return ["file", column, *times, *names.tolist()]

    def files(self, path: Path) -> Iterator[list[str]]:
        """Read files as in `Table`."""
        with zipfile.ZipFile(path) as archive:
            for part in self._get(archive, "file", _BLOCK):
                yield part.tolist()

    def blocks(self, path: Path) -> Iterator[Block]:
        """Read rows as in `Table`."""
        columns = self.columns(path)
        names = (*columns[: _first_value(columns)], "values")
        n_rows = max(1, _BLOCK // len(columns))
        with zipfile.ZipFile(path) as archive:
            parts = [self._get(archive, name, n_rows) for name in names]
            for file, index, *seconds, values in zip(*parts, strict=True):
                yield Block(file.tolist(), index, np.stack(seconds, axis=1), values)

    @staticmethod
    def _put(
        archive: zipfile.ZipFile,
        name: str,
        shape: tuple[int, ...],
        parts: Iterable[npt.NDArray[Any]],
        kind: np.dtype[Any],
        packing: int = zipfile.ZIP_STORED,
    ) -> None:
        """Write an array of known shape, part by part."""
        member = zipfile.ZipInfo(f"{name}.npy")
        member.compress_type = packing
        with archive.open(member, "w", force_zip64=True) as file:
            header = {"descr": kind.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, kind).tobytes())

    @staticmethod
    def _get(archive: zipfile.ZipFile, name: str, n_rows: int) -> Iterator[npt.NDArray[Any]]:
        """Read an array, `n_rows` rows at a time."""
        with archive.open(f"{name}.npy") as file:
            shape, fortran_order, kind = _read_header(file)
            if fortran_order or kind.hasobject:
                raise ValueError(f"array {name!r} is not laid out as this command writes it")
            size = kind.itemsize * int(np.prod(shape[1:]))
            for start in range(0, shape[0], n_rows):
                n = min(n_rows, shape[0] - start)
                data = file.read(n * size)
                yield np.frombuffer(data, kind, n * size // kind.itemsize).reshape(n, *shape[1:])


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"NPY version {version} is not what this command writes")
    return np.lib.format.read_array_header_1_0(file)


_TABLES: dict[str, type[Table]] = {
    ".parquet": ParquetTable,
    ".csv": CSVTable,
    ".npz": NPZTable,
}


def open_table(path: Path) -> Table:
    """Choose the format by a path's suffix, and check that a file can be written there.

    Raises:
        ParameterError: unknown suffix, a missing folder, or a folder or protected file in its
            place.
        MissingDependencyError: pyarrow is needed and not installed.
    """
    kind = _TABLES.get(path.suffix.lower())
    if kind is None:
        raise ParameterError(f"out={os.fspath(path)!r}: must end in one of {' '.join(_TABLES)}")
    if kind is ParquetTable:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                f"out={os.fspath(path)!r}: Parquet needs pyarrow; pip install "
                '"audiotorch[table]", or write .csv or .npz'
            ) from error
    check_place(path)
    return kind()


def _first_value(columns: Sequence[str]) -> int:
    """Number of the first column behind those that say which row it is."""
    return 2 + sum(name in _SECONDS for name in columns[2:5])


def _quoted(field: str) -> str:
    """Text as a field of CSV."""
    return '"' + field.replace('"', '""') + '"' if re.search('[",\r\n]', field) else field


def _larger(blocks: Iterable[Block], n_numbers: int) -> Iterator[Block]:
    """Join small blocks, as one file's rows are, to larger ones."""
    parts: list[Block] = []
    size = 0
    for block in blocks:
        parts.append(block)
        size += block.values.size
        if size >= n_numbers:
            yield _joined(parts)
            parts, size = [], 0
    if parts:
        yield _joined(parts)


def _joined(parts: list[Block]) -> Block:
    if len(parts) == 1:
        return parts[0]
    file, *arrays = zip(*parts, strict=True)
    return Block([name for part in file for name in part], *(np.concatenate(a) for a in arrays))
