"""Features of many files: on all cores, at bounded memory, and resumable."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from audiotorch.audio.clips import padded_batches, read_clip
from audiotorch.batch.columns import SUMMARY, FeatureColumns
from audiotorch.batch.journal import Clip, Journal
from audiotorch.batch.output import Fingerprint, Kept, Output
from audiotorch.batch.tables import Block
from audiotorch.errors import AudioTorchError, ParameterError

__all__ = ["Failure", "Report", "extract_features"]

# What one thread takes at a time. It goes by the files alone, never by the number of threads or
# their haste, so that the same files are computed together and give the same last digit.
_MAX_FILES = 16
_MAX_BYTES = 1 << 20
_MAX_SAMPLES = 1 << 22  # decoded at a time, but for a longer file
_BLOCK = 1 << 20  # numbers read back at a time


@dataclass(frozen=True)
class Failure:
    """A file that the table lacks.

    Args:
        file: its name.
        error: what is wrong with it and what to do, naming it.
    """

    file: str
    error: str


@dataclass(frozen=True)
class Report:
    """What a job did.

    Args:
        n_new: files computed, by this call or by one before it that was killed.
        n_skipped: files whose rows the table had already.
        failures: of the files asked for, in their order.
        n_columns: named numbers of a row.
    """

    n_new: int
    n_skipped: int
    failures: list[Failure]
    n_columns: int


class _Task(NamedTuple):
    file: str
    size: int
    mtime_ns: int


def extract_features(
    files: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    features: str | Sequence[str] = SUMMARY,
    sample_rate: int = 22050,
    frames: bool = False,
    jobs: int | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> Report:
    """Compute features of many recordings into one table.

    Finished work is recorded as it comes, beside the table: a job that was killed goes on where it
    was when it is started again. Files that the table holds already are skipped, unless they
    changed since; new ones are added. Bad files are recorded with their reasons, in
    `OUT.failures.jsonl`, and tried again the next time. The table is replaced at once, at the end.

    Args:
        files: the recordings, of any rate, length and channel count.
        out: the table, `.parquet`, `.csv` or `.npz`.
        features: `"summary"`, the 270 numbers of `SummaryVector`, or names out of `FEATURES`.
        sample_rate: Hz that the recordings are brought to.
        frames: a row for each frame, instead of one a clip.
        jobs: threads; `None` = as many as there are cores. The result does not depend on it.
        device: where to compute.
        overwrite: replace the table instead of adding to it.
        advance: is told how many more files are done.

    Raises:
        ParameterError: unknown features, a path that cannot be written to, a table or an
            unfinished job with other settings.
        MissingDependencyError: Parquet without pyarrow.
        DecodeError: the table cannot be read back.
        OSError: no room, or no rights; what was done so far is kept.
    """
    if jobs is not None and jobs < 1:
        raise ParameterError(f"jobs={jobs}: must be at least 1")
    output = Output(out)
    columns = FeatureColumns(features, sample_rate, frames=frames, device=device)
    if not overwrite:
        output.check(columns)
    # As paths: `./a.wav` and `a.wav` are one file, and stand for one row.
    paths = [os.fspath(Path(file)) for file in files]
    names = list(dict.fromkeys(paths))
    n_columns = len(columns.names)
    with (
        _telling(output.path),
        Journal(output.folder, columns.settings, n_columns, fresh=overwrite) as journal,
    ):
        kept = {} if journal.fresh else output.finished()
        earlier = {**({} if journal.fresh else output.failures()), **journal.failures}
        done = {file: known.state for file, known in kept.items()}
        tasks = _pending(names, {**done, **_states(journal)}, earlier)
        waiting = {task.file for task in tasks}
        n_skipped = sum(name not in waiting and name not in journal.entries for name in names)
        advance(len(paths) - len(tasks))
        failures = _run(journal, columns, tasks, jobs or _cores(), advance)
        _finish(output, journal, columns, names, kept)
        told = {*names, *journal.entries}
        left = {file: error for file, error in earlier.items() if file not in told}
        output.write_failures({**left, **failures})
        journal.remove()
        found = [Failure(name, failures[name]) for name in names if name in failures]
        return Report(len(journal.entries), n_skipped, found, n_columns)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Say what could not be written, which the system's own words may leave out."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: cannot be written ({error.strerror or error}); what was done is kept: give "
            "room or rights and start again"
        ) from error


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _states(journal: Journal) -> dict[str, Fingerprint]:
    return {file: (entry.size, entry.mtime_ns) for file, entry in journal.entries.items()}


def _pending(
    names: Iterable[str], done: dict[str, Fingerprint | None], earlier: Iterable[str]
) -> list[_Task]:
    """The files to compute; last those that failed before, so that the others go as they went."""
    tasks = []
    for name in names:
        try:
            state = os.stat(name)
            task = _Task(name, state.st_size, state.st_mtime_ns)
        except (OSError, ValueError):
            task = _Task(name, 0, 0)  # told when it is read
        if name not in done or done[name] not in (None, (task.size, task.mtime_ns)):
            tasks.append(task)
    failed = set(earlier)
    return sorted(tasks, key=lambda task: task.file in failed)


def _run(
    journal: Journal,
    columns: FeatureColumns,
    tasks: Sequence[_Task],
    jobs: int,
    advance: Callable[[int], object],
) -> dict[str, str]:
    """Compute what is pending, and record it as it comes; return the failures."""
    failures: dict[str, str] = {}
    n_threads = torch.get_num_threads()
    # One thread of torch for each of ours; as in features/feature.py, this also holds for threads
    # to come, so the caller's number is set anew.
    pool = ThreadPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for clips, failed in _results(pool, columns, _portions(tasks), 2 * jobs):
            journal.append(clips, failed)
            failures.update(failed)
            advance(len(clips) + len(failed))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_threads)
    return failures


_Result = tuple[list[Clip], dict[str, str]]


def _results(
    pool: ThreadPoolExecutor,
    columns: FeatureColumns,
    portions: Iterable[list[_Task]],
    ahead: int,
) -> Iterator[_Result]:
    """Compute portions in threads, at most `ahead` at a time, and give them as they come."""
    running: set[Future[_Result]] = set()
    for portion in portions:
        if len(running) == ahead:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from _taken(done)
        running.add(pool.submit(_compute, columns, portion))
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from _taken(done)


def _taken(done: Iterable[Future[_Result]]) -> Iterator[_Result]:
    """Give results before an error, so that they are recorded."""
    for future in sorted(done, key=lambda future: future.exception() is not None):
        yield future.result()


def _portions(tasks: Sequence[_Task]) -> Iterator[list[_Task]]:
    portion: list[_Task] = []
    n_bytes = 0
    for task in tasks:
        if portion and (len(portion) == _MAX_FILES or n_bytes + task.size > _MAX_BYTES):
            yield portion
            portion, n_bytes = [], 0
        portion.append(task)
        n_bytes += task.size
    if portion:
        yield portion


def _compute(columns: FeatureColumns, tasks: Sequence[_Task]) -> _Result:
    """Decode some files and compute their rows."""
    clips: list[Clip] = []
    failures: dict[str, str] = {}
    held: dict[int, Tensor] = {}
    for i, task in enumerate(tasks):
        waveform = _read(columns, task.file)
        if isinstance(waveform, str):
            failures[task.file] = waveform
        else:
            held[i] = waveform
        if i + 1 == len(tasks) or sum(map(len, held.values())) > _MAX_SAMPLES:
            _compute_held(columns, tasks, held, clips, failures)
            held = {}
    return clips, failures


def _read(columns: FeatureColumns, file: str) -> Tensor | str:
    """A waveform, or what is wrong with the file, in words that name it."""
    try:
        file.encode()
    except UnicodeEncodeError:
        return f"{file}: its name is not valid Unicode; rename it"
    try:
        clip = read_clip(file, columns.sample_rate, columns.min_samples / columns.sample_rate)
    except MemoryError:
        return f"{file}: too long for this machine's memory; cut it into parts"
    if isinstance(clip, Tensor):
        return clip
    return str(clip) if file in str(clip) else f"{file}: {clip}"


def _compute_held(
    columns: FeatureColumns,
    tasks: Sequence[_Task],
    held: dict[int, Tensor],
    clips: list[Clip],
    failures: dict[str, str],
) -> None:
    for keys, waveform, lengths in padded_batches(held, _MAX_SAMPLES):
        try:
            found = columns.rows(waveform, lengths)
        except (AudioTorchError, RuntimeError, MemoryError) as error:
            if len(keys) == 1:
                file, reason = tasks[keys[0]].file, str(error).splitlines() or ["out of memory"]
                failures[file] = f"{file}: no features: {reason[0]}; leave it out or cut it"
                continue
            # One of them is at fault, or they are too much together.
            for key in keys:
                _compute_held(columns, tasks, {key: held[key]}, clips, failures)
            continue
        for key, rows, length in zip(keys, found, lengths.tolist(), strict=True):
            clips.append(Clip(*tasks[key], length / columns.sample_rate, rows))


def _finish(
    output: Output,
    journal: Journal,
    columns: FeatureColumns,
    names: Sequence[str],
    kept: Mapping[str, Kept],
) -> None:
    """Write the table anew if there is anything to add, in the order in which files were named."""
    if not journal.entries and output.path.exists() and not journal.fresh:
        return
    # Files of the killed job that this one was not asked for are not lost either.
    asked = {*names}
    order = [name for name in names if name in journal.entries]
    order += [name for name in journal.entries if name not in asked]

    def blocks() -> Iterator[Block]:
        max_rows = max(1, _BLOCK // len(columns.names))
        for name in order:
            entry, start = journal.entries[name], 0
            for values in journal.rows(entry, max_rows):
                rows = np.arange(start, start + len(values), dtype=np.int32)
                position = columns.position(rows, entry.seconds)
                yield Block([name] * len(values), *position, values)
                start += len(values)

    n_rows = sum(journal.entries[name].n_rows for name in order)
    output.write(columns, blocks(), n_rows, _states(journal), kept)
