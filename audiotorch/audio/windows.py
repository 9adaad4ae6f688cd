"""Windows over a recording of any length: a few of them at a time in memory."""

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from audiotorch.audio.clips import check_seconds
from audiotorch.audio.io import stream
from audiotorch.audio.preprocess import check_rate
from audiotorch.audio.source import Source
from audiotorch.errors import ParameterError

__all__ = ["read_windows", "window_samples"]

_BLOCK_SECONDS = 1.0  # decoded at a time; of many channels, too, a bounded amount


def read_windows(
    source: Source, sample_rate: int, window_seconds: float, hop_seconds: float
) -> Iterator[tuple[float, Tensor]]:
    """Cut a recording into windows while it is decoded, and average its channels.

    Windows start at multiples of the hop until one reaches the recording's end; that last one
    keeps its own shorter length. With a hop beyond the window the recording may end in the gap.
    Both are rounded to samples: the windows are those of `Pipeline.timeline`. Each is a tensor of
    its own, and comes as soon as it is decoded: of a file that breaks in the middle, those before.

    Args:
        source: as `load`.
        sample_rate: Hz of the windows.
        window_seconds: length of a window, at least one sample.
        hop_seconds: from one start to the next, at least one sample.

    Yields:
        The window's start in seconds, and the window `(time,)`.

    Raises:
        ParameterError: at the call, `sample_rate`, window or hop is out of range.
        DecodeError: as `load`, when the bad place is reached; also of a file without samples.
    """
    window, hop = window_samples(sample_rate, window_seconds, hop_seconds)
    return _cut(source, int(sample_rate), window, hop)


def window_samples(sample_rate: int, window_seconds: float, hop_seconds: float) -> tuple[int, int]:
    """Return window and hop in samples.

    Args:
        sample_rate: Hz.
        window_seconds: length of a window, at least one sample.
        hop_seconds: from one start to the next, at least one sample.

    Raises:
        ParameterError: one of them is out of range.
    """
    check_rate("sample_rate", sample_rate)
    found = []
    for name, seconds in (("window_seconds", window_seconds), ("hop_seconds", hop_seconds)):
        # Written so that NaN is refused as well.
        if not 0.5 < seconds * sample_rate < float("inf"):
            raise ParameterError(
                f"{name}={seconds!r}: must be finite and at least one sample of {sample_rate} Hz"
            )
        found.append(round(seconds * sample_rate))
    return found[0], found[1]


def _cut(source: Source, sample_rate: int, window: int, hop: int) -> Iterator[tuple[float, Tensor]]:
    parts: deque[Tensor] = deque()
    first = end = start = 0  # what the parts begin and end with, and the next window, in samples
    for block in stream(source, _BLOCK_SECONDS, sample_rate, mono=True):
        parts.append(block[0])
        end += block.shape[1]
        while end >= start + window:
            yield start / sample_rate, _join(parts, start - first, window)
            start += hop
        # At once, so that a long gap is not kept while it is decoded.
        first += _drop(parts, start - first)
    check_seconds(source, end / sample_rate)
    # The recording goes on behind the window before, and does not end in the gap.
    if start == 0 or (end > start and end > start - hop + window):
        yield start / sample_rate, _join(parts, start - first, window)


def _join(parts: Iterable[Tensor], start: int, n_samples: int) -> Tensor:
    """The samples from `start` on, counted from the parts' first; a copy."""
    pieces = []
    for part in parts:
        pieces.append(part[max(start, 0) : max(start + n_samples, 0)])
        start -= len(part)
    return torch.cat(pieces)


def _drop(parts: deque[Tensor], start: int) -> int:
    """Drop the parts that end before `start`, and return how many samples those were."""
    dropped = 0
    while parts and dropped + len(parts[0]) <= start:
        dropped += len(parts.popleft())
    return dropped
