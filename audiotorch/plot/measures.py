"""What pictures of recordings of any length are drawn from, gathered block by block.

Nothing here grows with the recording but by its columns, of which there are some thousand.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.features import MelSpectrogram, Spectrogram
from audiotorch.plot.recording import Recording

__all__ = [
    "COLUMNS",
    "EXACT",
    "Columns",
    "Density",
    "Envelope",
    "Measure",
    "Power",
    "frame_sizes",
    "gather",
    "threads_for",
]

COLUMNS = 1024
"""A picture has no more columns than this, about as many as a screen shows."""

EXACT = 1 << 23
"""Up to so many samples spectra are taken in float64, in longer recordings in float32."""

_MANY = 8  # frames of a column, beyond which half of them do


class Measure(Protocol):
    """Something that is measured while a recording passes by."""

    def add(self, block: Tensor) -> None:
        """Take the next samples, `(channels, time)`.

        Args:
            block: follows the one before.
        """

    def finish(self) -> None:
        """Take it that no more follow."""


class Envelope:
    """Lowest and highest sample, and root mean square, of columns of equal length.

    Every sample counts, so that no click is lost.

    Args:
        n_samples: of the recording, about.
        n_columns: to make of it, about; shorter recordings have a column a sample.

    Attributes:
        width: samples of a column; the last may have fewer.
    """

    def __init__(self, n_samples: int, n_columns: int = 2 * COLUMNS) -> None:
        self.width = max(1, -(-n_samples // n_columns))
        self.n_samples = 0
        self._rest: Tensor | None = None
        self._columns = Columns(n_columns)

    def add(self, block: Tensor) -> None:
        """Take the next samples `(channels, time)`."""
        self.n_samples += block.shape[-1]
        joined = block if self._rest is None else torch.cat([self._rest, block], dim=-1)
        n_whole = joined.shape[-1] // self.width
        whole = joined[:, : n_whole * self.width].unflatten(-1, (n_whole, self.width))
        self._rest = joined[:, n_whole * self.width :].clone()
        if n_whole:
            self._columns.add(_extent(whole))

    def finish(self) -> None:
        """Take what is left as the last column."""
        if self._rest is not None and self._rest.shape[-1]:
            self._columns.add(_extent(self._rest.unsqueeze(1)))
        self._rest = None

    @property
    def columns(self) -> np.ndarray:
        """Lowest, highest and root mean square, `(3, channels, columns)`."""
        return self._columns.all().numpy()


class Power:
    """Power spectrogram, or mel spectrogram, of the average of the channels.

    Frames are centred, the ends padded with zeros, as librosa does. Where there are more frames
    than columns, a column is the mean of as many as it takes. If these are more than 8, every other
    frame counts, as long as frames still overlap by half: each sample then has the same weight.

    Args:
        recording: what will pass by.
        n_fft: samples of the FFT.
        hop_length: samples between frames.
        n_columns: at most, about.
        mel: settings of `MelSpectrogram` where that is wanted, such as `n_mels`.

    Attributes:
        hop_length: samples between the frames that count.
        per_column: frames of a column; the last may have fewer.
    """

    def __init__(
        self,
        recording: Recording,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        n_columns: int = COLUMNS,
        mel: Mapping[str, Any] | None = None,
    ) -> None:
        rate = recording.sample_rate
        exact = recording.n_samples <= EXACT
        n_frames = 1 + recording.n_samples // hop_length
        if n_frames > _MANY * n_columns and 4 * hop_length <= n_fft:
            hop_length, n_frames = 2 * hop_length, 1 + recording.n_samples // (2 * hop_length)
        settings: dict[str, Any] = {"center": False, "single": not exact, **(mel or {})}
        kind = Spectrogram if mel is None else MelSpectrogram
        self._module = kind(rate, n_fft, hop_length, **settings)
        self.sample_rate, self.n_fft, self.hop_length = rate, n_fft, hop_length
        self.per_column = max(1, -(-n_frames // n_columns))
        self._before: Tensor | None = None
        self._skip = 0
        self._frames: Tensor | None = None
        self._columns = Columns(n_columns)

    def add(self, block: Tensor) -> None:
        """Take the next samples `(channels, time)`."""
        mono = block.mean(dim=0, keepdim=True)
        if self._before is None:
            self._before = mono.new_zeros(1, self.n_fft // 2)
        joined = torch.cat([self._before, mono], dim=-1)
        skipped = min(self._skip, joined.shape[-1])
        joined = joined[:, skipped:]
        self._skip -= skipped
        n_frames = max(0, 1 + (joined.shape[-1] - self.n_fft) // self.hop_length)
        end = n_frames * self.hop_length
        self._before = joined[:, end:].clone()
        if n_frames:
            self._skip = max(0, end - joined.shape[-1])  # where hops are longer than frames
            self._pool(self._module(joined[:, : end - self.hop_length + self.n_fft])[0])

    def finish(self) -> None:
        """Take zeros behind the end, and the last frames as the last column."""
        if self._before is not None:
            self.add(self._before.new_zeros(1, self.n_fft // 2))
        if self._frames is not None and len(self._frames):
            self._columns.add(self._frames.mean(dim=0)[:, None])
        self._frames = None

    @property
    def columns(self) -> np.ndarray:
        """Power, `(rows, columns)`."""
        return self._columns.all().numpy()

    def mel(self, n_mels: int) -> np.ndarray:
        """Return the mel spectrogram `(n_mels, columns)` of what was measured as a spectrogram.

        Columns are means of power, and so are mel bands sums: their order does not matter.

        Args:
            n_mels: bands.
        """
        settings: dict[str, Any] = {"n_mels": n_mels, "center": False}
        module = MelSpectrogram(self.sample_rate, self.n_fft, self.hop_length, **settings)
        return module.derive(self._columns.all()[None])[0].numpy()

    def _pool(self, power: Tensor) -> None:
        frames = power.t()  # as they lie in memory
        if self._frames is not None and len(self._frames):
            frames = torch.cat([self._frames, frames])
        n_whole = len(frames) // self.per_column
        size = n_whole * self.per_column
        self._frames = frames[size:].clone()
        if n_whole:
            whole = frames[:size].unflatten(0, (n_whole, self.per_column))
            self._columns.add(whole.mean(dim=1).t())


class Density:
    """Welch's power spectral density of the average of the channels, from all samples.

    Segments overlap by half; each loses its mean and is weighted by a Hann window. What is left at
    the end, less than a segment, does not count.

    Args:
        recording: what will pass by.
        n_fft: samples of a segment; `None` = a power of two that lasts about 0.2 s, or gives a
            short recording 7 segments.

    Reference:
        Same values as `scipy.signal.welch(x, sample_rate, nperseg=n_fft)` to 1e-9 of each, in
        recordings of more than 2**23 samples to 1e-12 of the largest.
    """

    def __init__(self, recording: Recording, n_fft: int | None = None) -> None:
        n_samples = recording.n_samples
        if n_fft is None:
            n_fft = 2 ** round(np.log2(max(256, recording.sample_rate / 5)))
            n_fft = max(min(256, n_samples), min(n_fft, 2 ** int(np.log2(max(1, n_samples // 4)))))
        self.n_fft = min(n_fft, n_samples)
        self.sample_rate = recording.sample_rate
        self.n_segments = 0
        self._dtype = torch.float64 if n_samples <= EXACT else torch.float32
        self._before: Tensor | None = None
        self._sum: Any = 0.0

    def add(self, block: Tensor) -> None:
        """Take the next samples `(channels, time)`."""
        mono = block.mean(dim=0)
        joined = mono if self._before is None else torch.cat([self._before, mono])
        hop = self.n_fft - self.n_fft // 2
        n_segments = max(0, 1 + (len(joined) - self.n_fft) // hop)
        self._before = joined[n_segments * hop :].clone()
        if not n_segments:
            return
        window = torch.hann_window(self.n_fft, dtype=torch.float64).to(self._dtype)
        # Few at a time, and in place: what fits the cache takes a third of the time.
        for part in joined.unfold(0, self.n_fft, hop).split(32):
            segments = part.to(self._dtype)
            segments = (segments - segments.mean(dim=-1, keepdim=True)).mul_(window)
            parts = torch.view_as_real(torch.fft.rfft(segments)).square_()
            self._sum = self._sum + parts.sum(dim=0).double().sum(dim=-1)
        self.n_segments += n_segments

    def finish(self) -> None:
        """Take a recording that proved shorter than a segment as one."""
        if not self.n_segments and self._before is not None:
            self.n_fft, left, self._before = len(self._before), self._before, None
            self.add(left[None])

    @property
    def frequencies(self) -> np.ndarray:
        """Hz of the bins."""
        return np.fft.rfftfreq(self.n_fft, 1 / self.sample_rate)

    @property
    def density(self) -> np.ndarray:
        """Power per Hz; that of a sine of full scale adds up to 0.5."""
        window = torch.hann_window(self.n_fft, dtype=torch.float64)
        total: Tensor = self._sum / (self.n_segments * self.sample_rate * window.square().sum())
        # The other half of the spectrum, but for what has no twin there.
        total[1 : (self.n_fft + 1) // 2] *= 2.0
        return total.numpy()


def frame_sizes(sample_rate: int, n_fft: int | None, hop_length: int | None) -> tuple[int, int]:
    """Return the FFT size and the hop, by default librosa's, twice as long from each octave on.

    Above 48 kHz, 2048 samples are too short for 128 mel bands.

    Args:
        sample_rate: Hz.
        n_fft: samples of the FFT; `None` = 2048 up to 48 kHz, 4096 up to 96 kHz and so on.
        hop_length: samples between frames; `None` = a quarter of `n_fft`.

    Raises:
        ParameterError: a size is no positive whole number.
    """
    for name, size in (("n_fft", n_fft), ("hop_length", hop_length)):
        whole = isinstance(size, int | np.integer) and size > 0
        if size is not None and not whole:
            raise ParameterError(f"{name}={size!r}: must be a whole number of samples, above 0")
    if n_fft is None:
        n_fft = 2048
        while sample_rate * 2048 > 48000 * n_fft:
            n_fft *= 2
    return n_fft, max(1, n_fft // 4) if hop_length is None else hop_length


def gather(recording: Recording, measures: Iterable[Measure]) -> None:
    """Let a recording pass by once.

    Args:
        recording: to be read.
        measures: all that is taken of it.
    """
    chosen = list(measures)
    with threads_for(recording):
        for block in recording.blocks():
            for measure in chosen:
                measure.add(block)
        for measure in chosen:
            measure.finish()


@contextmanager
def threads_for(recording: Recording) -> Iterator[None]:
    """Let torch use one thread for a long recording, then as many as before.

    Decoding has a thread of its own. More for the spectra gain a little on an idle machine; on a
    busy one they wait for each other, and an hour takes four times as long.

    Args:
        recording: to be measured.
    """
    n_threads = torch.get_num_threads()
    is_long = recording.n_samples > EXACT
    if is_long:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if is_long:
            torch.set_num_threads(n_threads)


class Columns:
    """Columns in one piece of memory.

    Small pieces, kept each, would come to lie between the blocks, and the gaps that these leave
    would fit no other: hundreds of MB an hour.

    Args:
        capacity: columns, about; where more come, the room is doubled.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity + 1
        self._n = 0
        self._room: Tensor | None = None

    def add(self, columns: Tensor) -> None:
        """Take the next columns, `(..., n)`."""
        end = self._n + columns.shape[-1]
        if self._room is None or end > self._room.shape[-1]:
            self._capacity = max(end, self._capacity if self._room is None else 2 * end)
            room = columns.new_zeros(*columns.shape[:-1], self._capacity)
            if self._room is not None:
                room[..., : self._n] = self._room[..., : self._n]
            self._room = room
        self._room[..., self._n : end] = columns
        self._n = end

    def all(self) -> Tensor:
        """Return what was taken, `(..., columns)`."""
        assert self._room is not None
        return self._room[..., : self._n]


def _extent(columns: Tensor) -> Tensor:
    """Lowest, highest and root mean square of `(channels, columns, width)`."""
    low, high = columns.aminmax(dim=-1)
    return torch.stack([low, high, columns.square().mean(dim=-1).sqrt()])
