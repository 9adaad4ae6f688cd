"""Files as threads take them: in portions, which are decoded and computed piece by piece."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from audiotorch.audio.clips import check_seconds, padded_batches, read_clip
from audiotorch.audio.windows import read_windows
from audiotorch.batch.columns import FeatureColumns
from audiotorch.batch.journal import Clip, Part
from audiotorch.errors import AudioTorchError, DecodeError

__all__ = ["Piece", "Task", "Waveforms", "compute", "decode", "portions", "told"]

# What one thread takes at a time. It goes by the files alone, never by the number of threads or
# their haste, so that the same files are computed together and give the same last digit.
_MAX_FILES = 16
_MAX_BYTES = 1 << 20
_MAX_SAMPLES = 1 << 22  # decoded at a time, but for a longer file; and
_MAX_WINDOWED = 1 << 20  # of windows: enough to be quick, and each open file holds as many

_Rows = npt.NDArray[np.float32]


class Task(NamedTuple):
    """A file to compute, and how it is now.

    Args:
        file: its name.
        size: bytes.
        mtime_ns: when it was written.
    """

    file: str
    size: int
    mtime_ns: int


class Waveforms(NamedTuple):
    """A file's only waveform, or some of its windows in a row.

    Args:
        task: the file.
        first: number of the first of them.
        last: whether the file has no more.
        seconds: where in the file they end.
        waveforms: each `(time,)`.
    """

    task: Task
    first: int
    last: bool
    seconds: float
    waveforms: list[Tensor]


class Piece(NamedTuple):
    """What of a portion is held at a time.

    Args:
        parts: what is decoded.
        failures: what is wrong with files that could not be.
        more: whether another piece follows.
    """

    parts: list[Waveforms]
    failures: dict[str, str]
    more: bool


def portions(tasks: Sequence[Task], max_files: int = _MAX_FILES) -> Iterator[list[Task]]:
    """Group files, so that small ones are taken together.

    Args:
        tasks: the files.
        max_files: of a portion.
    """
    portion: list[Task] = []
    n_bytes = 0
    for task in tasks:
        if portion and (len(portion) == max_files or n_bytes + task.size > _MAX_BYTES):
            yield portion
            portion, n_bytes = [], 0
        portion.append(task)
        n_bytes += task.size
    if portion:
        yield portion


def decode(
    columns: FeatureColumns, tasks: Sequence[Task], known: Mapping[str, Collection[Part]]
) -> Iterator[Piece]:
    """Decode a portion, as much at a time as is held at once.

    Args:
        columns: what is to be computed.
        tasks: the portion.
        known: parts of files that are computed already; they are left out, if the file is as it
            was.
    """
    parts: list[Waveforms] = []
    failures: dict[str, str] = {}
    n_held, n_most = 0, _MAX_SAMPLES if columns.windows is None else _MAX_WINDOWED
    for task in tasks:
        recorded = known.get(task.file, ())
        done = {(part.first, part.n_rows) for part in recorded if part[:2] == task[1:]}
        try:
            for part in _parts(columns, task):
                if (part.first, len(part.waveforms)) in done:
                    continue
                n_samples = sum(map(len, part.waveforms))
                if parts and n_held + n_samples > n_most:
                    yield Piece(parts, failures, more=True)
                    parts, failures, n_held = [], {}, 0
                parts.append(part)
                n_held += n_samples
        except (AudioTorchError, OSError, MemoryError) as error:
            failures[task.file] = told(task.file, error)
    yield Piece(parts, failures, more=False)


def compute(columns: FeatureColumns, piece: Piece) -> tuple[list[Clip], dict[str, str]]:
    """Compute the rows of a piece.

    Args:
        columns: what is to be computed.
        piece: of which files.

    Returns:
        The rows, and what is wrong with files that have none, decoded or not.
    """
    waveforms = [waveform for part in piece.parts for waveform in part.waveforms]
    found = _rows(columns, dict(enumerate(waveforms)))
    failures = dict(piece.failures)
    clips: list[Clip] = []
    start = 0
    for part in piece.parts:
        rows: list[_Rows] = []
        for key in range(start, start + len(part.waveforms)):
            part_of = found[key]
            if isinstance(part_of, str):
                file = part.task.file
                failures[file] = f"{file}: no features: {part_of}; leave it out or cut it"
            else:
                rows.append(part_of)
        start += len(part.waveforms)
        if len(rows) == len(part.waveforms):
            whole = rows[0] if len(rows) == 1 else np.concatenate(rows)
            clips.append(Clip(*part.task, part.seconds, whole, part.first, part.last))
    return clips, failures


def _parts(columns: FeatureColumns, task: Task) -> Iterator[Waveforms]:
    """Decode a file. Where it is cut into parts goes by the length of its windows alone."""
    held: list[Tensor] = []
    first, end = 0, 0.0
    for seconds, waveform in _waveforms(columns, task.file):
        if held and (len(held) + 1) * len(held[0]) > _MAX_WINDOWED:
            yield Waveforms(task, first, False, end, held)
            first, held = first + len(held), []
        held.append(waveform)
        end = seconds
    yield Waveforms(task, first, True, end, held)


def _waveforms(columns: FeatureColumns, file: str) -> Iterator[tuple[float, Tensor]]:
    """What the rows of a file are of, and where each ends: all of it, or each of its windows."""
    rate, min_seconds = columns.sample_rate, columns.min_samples / columns.sample_rate
    try:
        file.encode()
    except UnicodeEncodeError as error:
        raise DecodeError(f"{file}: its name is not valid Unicode; rename it") from error
    if columns.windows is None:
        clip = read_clip(file, rate, min_seconds)
        if not isinstance(clip, Tensor):
            raise clip
        yield len(clip) / rate, clip
        return
    for start, window in read_windows(file, rate, *columns.windows):
        if start == 0:
            check_seconds(file, len(window) / rate, min_seconds)
        # The last one may be shorter than the features need: it is left out.
        if len(window) >= columns.min_samples:
            yield start + len(window) / rate, window


def told(file: str, error: Exception) -> str:
    """What is wrong with a file, in words that name it.

    Args:
        file: its name.
        error: what was raised over it.
    """
    if isinstance(error, MemoryError):
        return f"{file}: too long for this machine's memory; cut it into parts"
    return str(error) if file in str(error) else f"{file}: {error}"


def _rows(columns: FeatureColumns, waveforms: Mapping[int, Tensor]) -> dict[int, _Rows | str]:
    """The rows of each waveform by its key, or why it has none."""
    found: dict[int, _Rows | str] = {}
    for keys, waveform, lengths in padded_batches(waveforms, _MAX_SAMPLES):
        try:
            found.update(zip(keys, columns.rows(waveform, lengths), strict=True))
        except (AudioTorchError, RuntimeError, MemoryError) as error:
            if len(keys) == 1:
                found[keys[0]] = (str(error).splitlines() or ["out of memory"])[0]
                continue
            # One of them is at fault, or they are too much together.
            for key in keys:
                found.update(_rows(columns, {key: waveforms[key]}))
    return found
