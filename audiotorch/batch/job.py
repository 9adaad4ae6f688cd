"""Features of many files: on all cores, at bounded memory, and resumable."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from audiotorch.audio.chunks import n_cores
from audiotorch.batch.columns import SUMMARY, FeatureColumns
from audiotorch.batch.journal import Clip, Journal
from audiotorch.batch.output import Fingerprint, Kept, Output
from audiotorch.batch.pieces import Piece, Task, compute, decode, portions
from audiotorch.batch.place import telling
from audiotorch.batch.tables import Block
from audiotorch.errors import ParameterError

__all__ = ["Failure", "Report", "extract_features"]

_BLOCK = 1 << 16  # numbers read back at a time


@dataclass(frozen=True)
class Failure:
    """A file that the output has no result of.

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


def extract_features(
    files: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    features: str | Sequence[str] = SUMMARY,
    sample_rate: int = 22050,
    frames: bool = False,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
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

    With `window_seconds` there is a row for each window of each recording, of any length at
    bounded memory. Windows start at multiples of the hop until one reaches the recording's end;
    that last one is as long as the recording allows, and left out if it is shorter than the
    features need. Each has the numbers that it would have as a clip of its own. The columns
    `start_seconds` and `end_seconds` say where it lies, and `seconds` how long it is.

    Args:
        files: the recordings, of any rate, length and channel count.
        out: the table, `.parquet`, `.csv` or `.npz`.
        features: `"summary"`, the 270 numbers of `SummaryVector`, or names out of `FEATURES`.
        sample_rate: Hz that the recordings are brought to.
        frames: a row for each frame, instead of one a clip.
        window_seconds: a row for each window of this length, instead of one a clip.
        hop_seconds: from one window's start to the next; `None` = `window_seconds`.
        jobs: threads; `None` = as many as there are cores. The result does not depend on it.
        device: where to compute.
        overwrite: replace the table instead of adding to it.
        advance: is told how many more files are done.

    Raises:
        ParameterError: unknown features, windows too short for them or together with frames, a
            path that cannot be written to, a table or an unfinished job with other settings.
        MissingDependencyError: Parquet without pyarrow.
        DecodeError: the table cannot be read back.
        OSError: no room, or no rights; what was done so far is kept.
    """
    if jobs is not None and jobs < 1:
        raise ParameterError(f"jobs={jobs}: must be at least 1")
    output = Output(out)
    columns = FeatureColumns(
        features,
        sample_rate,
        frames=frames,
        device=device,
        window_seconds=window_seconds,
        hop_seconds=hop_seconds,
    )
    if not overwrite:
        output.check(columns)
    # As paths: `./a.wav` and `a.wav` are one file, and stand for one row.
    paths = [os.fspath(Path(file)) for file in files]
    names = list(dict.fromkeys(paths))
    n_columns = len(columns.names)
    with (
        telling(output.path),
        Journal(output.folder, columns.settings, n_columns, fresh=overwrite) as journal,
    ):
        kept = {} if journal.fresh else output.finished()
        earlier = {**({} if journal.fresh else output.failures()), **journal.failures}
        done = {file: known.state for file, known in kept.items()}
        tasks = _pending(names, {**done, **_states(journal)}, earlier)
        waiting = {task.file for task in tasks}
        n_skipped = sum(name not in waiting and name not in journal.entries for name in names)
        advance(len(paths) - len(tasks))
        failures = _run(journal, columns, tasks, jobs or n_cores(), advance)
        _finish(output, journal, columns, names, kept)
        told = {*names, *journal.entries}
        left = {file: error for file, error in earlier.items() if file not in told}
        output.write_failures({**left, **failures})
        journal.remove()
        found = [Failure(name, failures[name]) for name in names if name in failures]
        return Report(len(journal.entries), n_skipped, found, n_columns)


def _states(journal: Journal) -> dict[str, Fingerprint]:
    return {file: (entry.size, entry.mtime_ns) for file, entry in journal.entries.items()}


def _pending(
    names: Iterable[str], done: dict[str, Fingerprint | None], earlier: Iterable[str]
) -> list[Task]:
    """The files to compute; last those that failed before, so that the others go as they went."""
    tasks = []
    for name in names:
        try:
            state = os.stat(name)
            task = Task(name, state.st_size, state.st_mtime_ns)
        except (OSError, ValueError):
            task = Task(name, 0, 0)  # told when it is read
        if name not in done or done[name] not in (None, (task.size, task.mtime_ns)):
            tasks.append(task)
    failed = set(earlier)
    return sorted(tasks, key=lambda task: task.file in failed)


def _run(
    journal: Journal,
    columns: FeatureColumns,
    tasks: Sequence[Task],
    jobs: int,
    advance: Callable[[int], object],
) -> dict[str, str]:
    """Compute what is pending, and record it as it comes; return the failures."""
    failures: dict[str, str] = {}
    told: set[str] = set()
    n_threads = torch.get_num_threads()
    # One thread of torch for each of ours; as in features/feature.py, this also holds for threads
    # to come, so the caller's number is set anew.
    pool = ThreadPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,))
    known = {file: list(parts.values()) for file, parts in journal.parts.items()}
    decoded = (decode(columns, portion, known) for portion in portions(tasks))
    try:
        for clips, failed in _results(pool, columns, decoded, 2 * jobs):
            finished = journal.append(clips, failed)
            failures.update(failed)
            # A file with two bad windows is one file.
            ended = {*finished, *failed} - told
            told |= ended
            advance(len(ended))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_threads)
    return failures


_Result = tuple[list[Clip], dict[str, str]]


class _Step(NamedTuple):
    """A piece computed, and the step to the next one of its portion, in a thread meanwhile."""

    result: _Result
    following: "Future[_Step] | None"


def _results(
    pool: ThreadPoolExecutor,
    columns: FeatureColumns,
    portions: Iterable[Iterator[Piece]],
    ahead: int,
) -> Iterator[_Result]:
    """Compute portions in threads, at most `ahead` at a time, and give pieces as they come."""
    running: set[Future[_Step]] = set()
    for portion in portions:
        while len(running) == ahead:
            yield from _taken(running)
        running.add(pool.submit(_step, pool, columns, portion))
    while running:
        yield from _taken(running)


def _step(pool: ThreadPoolExecutor, columns: FeatureColumns, portion: Iterator[Piece]) -> _Step:
    """Decode a portion's next piece and compute it, while another thread decodes on."""
    piece = next(portion)
    following = pool.submit(_step, pool, columns, portion) if piece.more else None
    return _Step(compute(columns, piece), following)


def _taken(running: set[Future[_Step]]) -> Iterator[_Result]:
    """Wait for results and take them out; those before an error, so that they are recorded."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in sorted(done, key=lambda future: future.exception() is not None):
        step = future.result()
        running.remove(future)
        if step.following is not None:
            running.add(step.following)
        yield step.result


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
