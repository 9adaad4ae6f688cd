"""Vectors and what is known of them, from tables of features and TensorBoard's projector."""

import csv
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from audiotorch.answers.table import ANSWERS_FILE
from audiotorch.errors import DecodeError, MissingDependencyError, ParameterError

__all__ = ["Vectors", "read_vectors"]

# Columns of a table of features that say which clip, window or frame a row is of.
_PLACE = ("file", "frame", "sample_rate", "seconds", "start_seconds", "end_seconds")
_LABELS = ("label", "truth", "class", "target")
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
_DAMAGE = (ValueError, IndexError, KeyError, StopIteration, csv.Error, zipfile.BadZipFile)


class Vectors(NamedTuple):
    """Rows of numbers.

    Args:
        values: `(n, d)`, float64.
        columns: what is known of each row, by name.
        are_features: whether the numbers are features, each in its own unit.
    """

    values: np.ndarray
    columns: dict[str, list[str]]
    are_features: bool

    def labels(self, column: str | None) -> list[str] | None:
        """Return what the points are told apart by.

        Args:
            column: its name; None takes the label, else the folder of each file, else nothing.

        Raises:
            ParameterError: there is no such column.
        """
        if column is not None:
            if column not in self.columns:
                there = ", ".join(self.columns) or "none"
                raise ParameterError(f"labels={column!r}: is no column; there are: {there}")
            return self.columns[column]
        for name in _LABELS:
            if name in self.columns:
                return self.columns[name]
        if "file" in self.columns:
            folders = [PurePath(file).parent.name for file in self.columns["file"]]
            return folders if len(set(folders)) > 1 else None
        return next(iter(self.columns.values()), None)


def read_vectors(source: str | os.PathLike[str]) -> Vectors:
    """Read vectors from a file or a run.

    Args:
        source: a table of `audiotorch features`, `.csv .npz .parquet`, or another such table with
            columns of numbers; a `tensors.tsv` of TensorBoard's projector with its `metadata.tsv`
            beside it; or a run's directory, or its `answers.csv`, whose `tb/` holds one, of which
            the last is taken.

    Raises:
        ParameterError: there is none, or a file of another kind.
        DecodeError: it cannot be read.
        MissingDependencyError: pyarrow is needed and not installed.
    """
    path = Path(source)
    if path.is_dir() or path.name == ANSWERS_FILE:
        # A run by its answers, as the other pictures of runs take it.
        return _of_run(path if path.is_dir() else path.parent)
    readers = {".csv": _of_csv, ".npz": _of_npz, ".parquet": _of_parquet, ".tsv": _of_tsv}
    if path.suffix.lower() not in readers or not path.exists():
        raise ParameterError(
            f"{path}: must be a run's directory or a file that is there and ends in one of "
            f"{' '.join(readers)}"
        )
    try:
        return readers[path.suffix.lower()](path)
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DecodeError(f"{path}: cannot be read as a table of numbers; {reason}") from error


def _of_run(folder: Path) -> Vectors:
    """The embedding that TensorBoard's projector shows last."""
    found = sorted((folder / "tb").rglob("projector_config.pbtxt"))
    if not found:
        raise ParameterError(
            f"{folder}: its tb/ holds no embeddings; train a network, or give a table of features"
        )
    from google.protobuf import text_format  # type: ignore[import-untyped]
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = text_format.Parse(found[-1].read_text(encoding="utf-8"), ProjectorConfig())
    if not config.embeddings:
        raise ParameterError(f"{found[-1]}: names no embedding")
    last = config.embeddings[-1]
    metadata = found[-1].parent / last.metadata_path if last.metadata_path else None
    try:
        return _of_projector(found[-1].parent / last.tensor_path, metadata)
    except (*_DAMAGE, FileNotFoundError) as error:
        raise DecodeError(f"{found[-1]}: its embedding cannot be read; {error}") from error


def _of_tsv(path: Path) -> Vectors:
    return _of_projector(path, path.with_name("metadata.tsv"))


def _of_projector(tensors: Path, metadata: Path | None) -> Vectors:
    values = np.loadtxt(tensors, delimiter="\t", ndmin=2, comments=None)
    if metadata is None or not metadata.exists():
        return Vectors(values, {}, False)
    # As the projector takes it: a header where there is more than one column. Nothing is quoted.
    lines = metadata.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    rows = [line.split("\t") for line in (lines[:-1] if lines[-1] == "" else lines)]
    names = rows.pop(0) if rows and len(rows[0]) > 1 else ["label"]
    if len(rows) != len(values):
        raise ValueError(f"{metadata.name} describes {len(rows)} of {len(values)} vectors")
    columns = {
        name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)
    }
    return Vectors(values, columns, False)


def _of_csv(path: Path) -> Vectors:
    with path.open(**_TEXT) as file:
        lines = csv.reader(file)
        names = next(lines)
        return _split(names, list(_whole(lines, len(names))))


def _whole(lines: Iterator[list[str]], n_cells: int) -> Iterator[list[str]]:
    for i, row in enumerate(lines, start=1):
        if len(row) != n_cells:
            raise ValueError(f"row {i} has {len(row)} cells instead of {n_cells}")
        yield row


def _split(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Vectors:
    """Take apart the columns that say what a row is and those that are its numbers."""
    if not rows:
        raise ValueError("it has no rows")
    known = [
        i for i, n in enumerate(names) if n in (*_PLACE, *_LABELS) or not _is_number(rows[0][i])
    ]
    numbers = [i for i in range(len(names)) if i not in known]
    if not numbers:
        raise ValueError("no column holds numbers")
    values = np.array([[row[i] for i in numbers] for row in rows], dtype=np.float64)
    return Vectors(values, {names[i]: [row[i] for row in rows] for i in known}, True)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_npz(path: Path) -> Vectors:
    with np.load(path, allow_pickle=False) as arrays:
        values = np.asarray(arrays["values"], dtype=np.float64)
        names = [name for name in (*_PLACE, *_LABELS) if name in arrays]
        columns = {name: [str(cell) for cell in arrays[name]] for name in names}
    if values.ndim != 2 or any(len(cells) != len(values) for cells in columns.values()):
        raise ValueError("its arrays are not of one length")
    return Vectors(values, columns, True)


def _of_parquet(path: Path) -> Vectors:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: Parquet needs pyarrow: pip install 'audiotorch[table]'"
        ) from error
    table = parquet.read_table(path)
    kinds = dict(zip(table.schema.names, map(str, table.schema.types), strict=True))
    known = [n for n, kind in kinds.items() if n in (*_PLACE, *_LABELS) or kind == "string"]
    columns = {name: [str(cell) for cell in table[name].to_pylist()] for name in known}
    numbers = [table[name].to_numpy() for name in kinds if name not in known]
    return Vectors(np.stack(numbers, axis=1).astype(np.float64), columns, True)
