"""Recordings as the vectors of a recipe: read and summed up on several threads."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from audiotorch.audio import Source
from audiotorch.audio.clips import padded_batches, read_clip
from audiotorch.batch.pieces import Task, portions
from audiotorch.errors import printable
from audiotorch.features import SummaryVector
from audiotorch.recipes.clips import MIN_SECONDS

__all__ = ["skipped", "vectors_in_threads", "vectors_of"]

Array = npt.NDArray[Any]

_MAX_FILES = 32  # taken by a thread at a time, if they are small
_MAX_SAMPLES = 1 << 22  # of a padded batch


def vectors_in_threads(
    front_end: SummaryVector, files: Sequence[Path], duration: float | None
) -> Iterator[Array | Exception]:
    """Yield each file's vector, or what is wrong with it.

    Files are read and computed on as many threads as `torch.get_num_threads()` says, a few at a
    time.

    Args:
        front_end: gives the vectors.
        files: the recordings.
        duration: seconds read of each, from its start; `None` reads it whole.
    """
    n_threads = torch.get_num_threads()
    # One thread of torch for each of ours. That also holds for threads to come, so the caller's
    # number is set anew.
    pool = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        # What is computed together goes by the files alone, as then does the last digit.
        tasks = [Task(str(file), _size(file), 0) for file in files]
        parts = ([task.file for task in portion] for portion in portions(tasks, _MAX_FILES))
        for found in pool.map(lambda part: vectors_of(front_end, part, duration), parts):
            yield from found
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_threads)


def vectors_of(
    front_end: SummaryVector, files: Sequence[Source], duration: float | None
) -> list[Array | Exception]:
    """Return each file's vector `(270,)`, or what is wrong with it.

    Short clips are padded with zeros to 0.5 s, or to what the front end needs where that is more.

    Args:
        front_end: gives the vectors.
        files: the recordings.
        duration: seconds read of each, from its start; `None` reads it whole.
    """
    rate = front_end.sample_rate
    least = max(round(MIN_SECONDS * rate), front_end.min_samples)
    found: dict[int, Array | Exception] = {}
    clips: dict[int, Tensor] = {}
    for place, file in enumerate(files):
        clip = read_clip(file, rate, duration=duration)
        if isinstance(clip, Tensor):
            clips[place] = pad(clip, [0, max(0, least - len(clip))])
        else:
            found[place] = clip
    for places, waveform, lengths in _batches(clips):
        vectors = front_end(waveform, lengths).double().numpy()
        found.update(zip(places, vectors, strict=True))
    return [found[place] for place in range(len(files))]


def skipped(file: Path, error: Exception | str) -> str:
    """The warning of a file that is left out.

    Args:
        file: the recording.
        error: what is wrong with it.
    """
    told = str(error)
    return "skipped: " + printable(told if str(file) in told else f"{file}: {told}")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0  # told when it is read


def _batches(clips: Mapping[int, Tensor]) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
    """Batch clips: those of one length, as most of a set are, as they are, others padded.

    Padding costs the masks of every stage, half the time of a batch.
    """
    alike: dict[int, list[int]] = {}
    for place, clip in clips.items():
        alike.setdefault(len(clip), []).append(place)
    for places in alike.values():
        if len(places) > 1:
            yield places, torch.stack([clips[place] for place in places]), None
    single = {places[0]: clips[places[0]] for places in alike.values() if len(places) == 1}
    yield from padded_batches(single, _MAX_SAMPLES)
