"""Many recordings at once: decoded without giving up at a bad one, and batched by length."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from audiotorch.audio.io import load
from audiotorch.audio.source import Source, source_name
from audiotorch.errors import AudioTorchError, DecodeError

__all__ = ["check_seconds", "group_by_length", "padded_batches", "read_clip"]


def read_clip(
    source: Source,
    sample_rate: int,
    min_seconds: float = 0.0,
    remedy: str = "pad the clip or leave it out",
    duration: float | None = None,
) -> Tensor | AudioTorchError | OSError:
    """Decode a recording as one clip, or return, not raise, what is wrong with it.

    Safe to call from several threads at a time; decoder and resampler release the interpreter lock.

    Args:
        source: as `load`.
        sample_rate: Hz of the clip.
        min_seconds: shorter clips are wrong, as empty ones are.
        remedy: what to do about a clip that is too short.
        duration: seconds to read; `None` reads to the end.

    Shape:
        - Output: `(time,)`, channels averaged
    """
    try:
        waveform, rate = load(source, sample_rate=sample_rate, mono=True, duration=duration)
        check_seconds(source, waveform.shape[1] / rate, min_seconds, remedy)
    except (AudioTorchError, OSError) as error:
        return error
    return waveform[0]


def check_seconds(
    source: Source,
    seconds: float,
    min_seconds: float = 0.0,
    remedy: str = "pad the clip or leave it out",
) -> None:
    """Refuse a recording that is empty or too short.

    Args:
        source: as `load`.
        seconds: how long it is.
        min_seconds: how long it must be.
        remedy: what to do about it.

    Raises:
        DecodeError: it is.
    """
    if seconds == 0:
        raise DecodeError(f"{source_name(source)}: holds no samples; leave it out")
    if seconds < min_seconds:
        raise DecodeError(
            f"{source_name(source)}: lasts {seconds:.3f} s, the features need "
            f"{min_seconds:.3f} s; {remedy}"
        )


def padded_batches(
    clips: Mapping[int, Tensor], max_samples: int
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Batch clips of like lengths, see `group_by_length`.

    Args:
        clips: waveforms `(time,)` by key.
        max_samples: of a padded batch.

    Yields:
        Keys, waveform `(batch, time)` with zeros behind each clip, and lengths `(batch,)`.
    """
    for keys in group_by_length({key: len(clip) for key, clip in clips.items()}, max_samples):
        rows = [clips[key] for key in keys]
        lengths = torch.tensor([len(row) for row in rows])
        yield keys, nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


def group_by_length(lengths: Mapping[int, int], max_samples: int) -> Iterator[list[int]]:
    """Group clips so that none is padded to more than twice its length, and memory is bounded.

    Args:
        lengths: samples by key.
        max_samples: of a padded batch; a longer clip is alone in its own.

    Example:
        >>> list(group_by_length({0: 30, 1: 9, 2: 10}, max_samples=100))
        [[1, 2], [0]]
    """
    group: list[int] = []
    for key in sorted(lengths, key=lengths.__getitem__):
        full = (len(group) + 1) * lengths[key] > max_samples
        if group and (full or lengths[key] > 2 * lengths[group[0]]):
            yield group
            group = []
        group.append(key)
    if group:
        yield group
