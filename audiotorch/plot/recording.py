"""A recording as pictures take it: a file or a waveform, read block by block."""

import os
import warnings
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiotorch.audio import info, stream
from audiotorch.audio.io import LOUDEST, check_part
from audiotorch.audio.source import Source, source_name
from audiotorch.errors import DecodeError, ParameterError, TruncationWarning

__all__ = ["Recording", "Sound"]

Sound = Source | Tensor | np.ndarray
"""What can be drawn: a path, a file's content, an open binary file, or a waveform."""

_BLOCK = 1 << 20  # samples, of all channels together


class Recording:
    """A part of a file or of a waveform, of any length, at its own rate.

    Args:
        source: path, a file's content as bytes, an open binary file, or samples of full scale 1,
            `(time,)` or `(channels, time)`.
        sample_rate: Hz; needed for samples. A file is brought to it, `None` keeps the file's own.
        offset: seconds to skip, at least 0.
        duration: seconds to take, above 0; `None` = to the end.

    Raises:
        ParameterError: samples without a rate, of another shape, not float, none, NaN or infinite;
            a part that is out of range.
        DecodeError: as `audiotorch.load`, and a file without samples.
    """

    def __init__(
        self,
        source: Sound,
        sample_rate: int | None = None,
        offset: float = 0.0,
        duration: float | None = None,
    ) -> None:
        self.name = ""
        self.offset = offset
        self.container = ""
        self._duration = duration
        self._samples: Tensor | None = None
        check_part(sample_rate, offset, duration)
        if isinstance(source, Tensor | np.ndarray):
            self._take_samples(source, sample_rate)
        else:
            self._take_file(source, sample_rate)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.n_samples / self.sample_rate

    @property
    def end(self) -> float:
        """Seconds from the start of the file to the end of the part."""
        return self.offset + self.seconds

    def blocks(self, size: int | None = None) -> Iterator[Tensor]:
        """Give the samples in blocks `(channels, time)`; the last may be shorter.

        `n_samples`, which of files is the header's word at first, is then counted.

        Args:
            size: samples of a block; `None` = some 1e6 of all channels together.

        Raises:
            DecodeError: as `audiotorch.load`, and no samples.
        """
        if size is None:
            size = max(1, _BLOCK // self.n_channels)
        if self._samples is not None:
            yield from self._samples.split(size, dim=-1)
            return
        n_samples = 0
        rate = self.sample_rate
        blocks = stream(
            self._source, size / rate, rate, offset=self.offset, duration=self._duration
        )
        with closing(_ahead(blocks)) as coming:
            for block in coming:
                n_samples += block.shape[-1]
                if block.shape[-1]:
                    yield block
        if not n_samples:
            raise _nothing(self._label)
        self.n_samples = n_samples

    def mono(self) -> Tensor:
        """Return the average of the channels as a whole, `(1, time)`."""
        return torch.cat([block.mean(dim=0, keepdim=True) for block in self.blocks()], dim=-1)

    def _take_samples(self, source: Tensor | np.ndarray, sample_rate: int | None) -> None:
        if sample_rate is None:
            raise ParameterError("sample_rate: is needed with samples; give it in Hz")
        samples = _as_tensor(source)
        start = _sample(self.offset, sample_rate)
        end = samples.shape[-1]
        if self._duration is not None:
            end = min(end, start + _sample(self._duration, sample_rate))
        if start and start >= samples.shape[-1]:
            raise ParameterError(
                f"offset={self.offset!r}: must lie inside the recording, which lasts "
                f"{samples.shape[-1] / sample_rate:.3f} s"
            )
        samples = samples[:, start:end]
        if not samples.numel():
            raise ParameterError("source: holds no samples; there is nothing to draw")
        low, high = samples.aminmax()
        if not -LOUDEST <= float(low) <= float(high) <= LOUDEST:  # as of files
            raise ParameterError("source: holds NaN or infinite samples; repair or leave them out")
        self._samples = samples
        self.sample_rate = int(sample_rate)
        self.n_channels, self.n_samples = samples.shape

    def _take_file(self, source: Source, sample_rate: int | None) -> None:
        self._label = source_name(source)
        if not isinstance(source, bytes | bytearray | memoryview):
            self.name = Path(self._label).name
            if not isinstance(source, str | os.PathLike) and not source.seekable():
                # It is read twice: its header, then its samples.
                source = source.read()
        self._source: Any = source
        with warnings.catch_warnings():
            # Told when the samples are read.
            warnings.simplefilter("ignore", TruncationWarning)
            header = info(source)
        self.sample_rate = sample_rate or header.sample_rate
        self.n_channels = header.n_channels
        self.container = header.container
        if not header.n_frames:
            raise _nothing(self._label)
        seconds = header.duration_seconds - self.offset
        if self._duration is not None:
            seconds = min(seconds, self._duration)
        self.n_samples = max(1, round(min(seconds, 1e9) * self.sample_rate))


def _as_tensor(source: Tensor | np.ndarray) -> Tensor:
    """Samples as `(channels, time)`."""
    if isinstance(source, np.ndarray):
        if source.dtype not in (np.float32, np.float64):
            raise ParameterError("source: must be float32 or float64; divide integers by 2**15")
        # Neither strides below 0 nor foreign byte orders are torch's.
        source = torch.from_numpy(np.ascontiguousarray(source, source.dtype.newbyteorder("=")))
    if source.dtype not in (torch.float32, torch.float64):
        source = source.float() if source.is_floating_point() else source
    if not source.is_floating_point():
        raise ParameterError("source: must be floating point; divide integers by full scale")
    if source.dim() not in (1, 2):
        raise ParameterError(
            f"source: must be (time,) or (channels, time), has {source.dim()} axes"
        )
    return torch.atleast_2d(source.detach().cpu())


def _sample(seconds: float, rate: int) -> int:
    return int(min(seconds, 1e9) * rate + 1e-6)


def _nothing(label: str) -> DecodeError:
    return DecodeError(f"{label}: holds no samples; there is nothing to draw")


def _ahead(blocks: Iterator[Tensor]) -> Generator[Tensor, None, None]:
    """The same blocks, each decoded while the one before is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = pool.submit(next, blocks, None)
            yield block
