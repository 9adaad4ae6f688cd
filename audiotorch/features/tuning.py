"""How far a recording lies off the concert pitch A4 = 440 Hz."""

from typing import List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from audiotorch.audio.fourier import complex_dtype, transform
from audiotorch.audio.frames import is_plain_cpu, length_mask
from audiotorch.errors import ParameterError
from audiotorch.features import filters
from audiotorch.features.feature import Feature, check_positive

__all__ = ["PitchHistogram", "Tuning"]

_A0_HZ = 27.5  # four octaves below the concert pitch


class PitchHistogram(nn.Module):
    """Find the commonest deviation of spectral peaks from the steps of the scale.

    A bin of a frame is a peak where it exceeds its lower neighbour and `threshold` times the
    frame's maximum, and is not below its upper neighbour. A parabola through the three gives its
    pitch and height. Peaks of at least the median height of a clip are counted by the part of a
    step that their pitch lies off the scale.

    Args:
        sample_rate: Hz.
        n_fft: FFT size of the spectra.
        bins_per_octave: steps of the scale.
        resolution: width of the histogram's bins, in steps.
        fmin: lowest pitch, Hz.
        fmax: pitches lie below this, Hz, and below half the sample rate.
        threshold: share of a frame's maximum that peaks must exceed.

    Shape:
        - Input: spectra `(batch, 1 + n_fft // 2, frames)`, magnitude or power, and frame counts
          `(batch,)`
        - Output: `(batch,)` int64, the first of the fullest bins of each clip; bin `k` begins at
          `edges[k]`. Without any peak, the bin that begins at 0.

    Raises:
        ParameterError: a setting out of range, or no FFT bin between `fmin` and `fmax`.
    """

    edges: Tensor
    bins: Tensor

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        bins_per_octave: int = 12,
        *,
        resolution: float = 0.01,
        fmin: float = 150.0,
        fmax: float = 4000.0,
        threshold: float = 0.1,
    ) -> None:
        super().__init__()
        check_positive(sample_rate=sample_rate, n_fft=n_fft, bins_per_octave=bins_per_octave)
        if not 0 < resolution < 1:
            raise ParameterError(f"resolution={resolution}: must lie between 0 and 1")
        if not 0 <= threshold < 1:
            raise ParameterError(f"threshold={threshold}: must lie in [0, 1)")
        frequencies = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)
        inside = (frequencies >= fmin) & (frequencies < min(fmax, sample_rate / 2))
        # The outermost bins lack a neighbour.
        found = np.flatnonzero(inside[1:-1]) + 1
        if len(found) == 0:
            raise ParameterError(
                f"fmin={fmin}, fmax={fmax}: no bin of n_fft={n_fft} at sample_rate={sample_rate} "
                "lies between them"
            )
        self.bins_per_octave = bins_per_octave
        self.threshold = threshold
        self.hz_per_bin = sample_rate / n_fft
        self.lowest_hz = _A0_HZ
        self.first = int(found[0])
        self.n_bins = len(found)
        self.n_steps = int(np.ceil(1.0 / resolution))
        edges = torch.from_numpy(np.linspace(-0.5, 0.5, self.n_steps + 1))
        self.register_buffer("edges", edges, persistent=False)
        bins = self.first + torch.arange(self.n_bins, dtype=torch.float64)
        self.register_buffer("bins", bins, persistent=False)

    def forward(self, specgram: Tensor, frame_counts: Optional[Tensor] = None) -> Tensor:
        """Return the fullest bin's index; shapes as in the class docstring."""
        columns = specgram.detach().transpose(1, 2)
        band = columns[..., self.first - 1 : self.first + self.n_bins + 1]
        return self.count(band, columns.amax(dim=-1, keepdim=True), frame_counts)

    def count(self, band: Tensor, peak: Tensor, frame_counts: Optional[Tensor] = None) -> Tensor:
        """Return the fullest bin's index.

        Args:
            band: the FFT bins from `first - 1` to `first + n_bins`, `(batch, frames, n_bins + 2)`.
            peak: each frame's maximum over all FFT bins, `(batch, frames, 1)`.
            frame_counts: int64, frames of each clip, `(batch,)`; `None` = all full.
        """
        level = self.threshold * peak
        if frame_counts is not None:
            inside = length_mask(frame_counts, band.shape[1]).unsqueeze(-1)
            level = level.masked_fill(~inside, torch.inf)
        left, centre, right = band[..., :-2], band[..., 1:-1], band[..., 2:]
        # In floats: on CPUs comparisons that give bools take five times as long.
        peaks = torch.maximum(left, level).lt_(centre).mul_(right.clone().le_(centre))
        is_peak = peaks.to(torch.bool)
        # Few bins are peaks: the others are left out, but where shapes must not depend on values.
        is_sparse = band.device.type == "cpu"
        if not torch.jit.is_scripting():
            is_sparse = is_plain_cpu(band) and not torch.compiler.is_compiling()
        if is_sparse:
            return self._fullest_of_few(band.contiguous(), is_peak)
        depth, step = self._peaks(left, centre, right, self.bins)
        depth = depth.masked_fill(~is_peak, torch.nan).flatten(1)
        is_high = depth <= depth.nanmedian(dim=-1, keepdim=True)[0]
        counts = depth.new_zeros(band.shape[0], self.n_steps)
        return self._fullest(counts.scatter_add(1, step.flatten(1), is_high.to(depth.dtype)))

    def _fullest_of_few(self, band: Tensor, is_peak: Tensor) -> Tensor:
        """Return the same as `count` from the peaks `is_peak` `(batch, frames, n_bins)` alone."""
        place = is_peak.flatten().nonzero().squeeze(-1)
        frame = place // self.n_bins
        bin = place - frame * self.n_bins
        first = frame * (self.n_bins + 2) + bin
        flat = band.flatten()
        depth, step = self._peaks(flat[first], flat[first + 1], flat[first + 2], self.bins[bin])
        clip = frame // band.shape[1]
        sizes: List[int] = clip.bincount(minlength=band.shape[0]).tolist()
        middle = [part.nanmedian() for part in depth.split(sizes)]
        is_high = depth <= torch.stack(middle)[clip]
        counts = depth.new_zeros(band.shape[0] * self.n_steps)
        counts = counts.index_add(0, clip * self.n_steps + step, is_high.to(depth.dtype))
        return self._fullest(counts.unflatten(0, (-1, self.n_steps)))

    def _fullest(self, counts: Tensor) -> Tensor:
        return torch.where(counts.amax(dim=-1) > 0, counts.argmax(dim=-1), self.n_steps // 2)

    def _peaks(
        self, left: Tensor, centre: Tensor, right: Tensor, bins: Tensor
    ) -> Tuple[Tensor, Tensor]:
        """Return minus the height of peaks, and the steps of the histogram that they fall into."""
        slope = (right - left) * 0.5
        curve = 2.0 * centre - (left + right)
        # Where the three are equal but for rounding, no parabola tells more than the bin itself.
        shift = torch.where(slope.abs() < curve.abs(), slope / curve, torch.zeros_like(slope))
        # Rounded where librosa rounds: pitches fall near the edges of the histogram's bins.
        pitch = ((bins + shift) * self.hz_per_bin).to(centre.dtype)
        number = torch.log2(pitch / self.lowest_hz) * self.bins_per_octave + 0.5
        # Where no peak is, the step may be anything, also what NaN makes of an integer.
        step = ((number - number.floor()) * self.n_steps).long().clamp(0, self.n_steps - 1)
        # Minus: of two middle values medians here take the lower one, and librosa's mean of the two
        # keeps the same peaks as the upper one.
        return -(centre + 0.5 * slope * shift), step


class Tuning(Feature):
    """Deviation of a clip from the concert pitch A4 = 440 Hz, in steps of the scale.

    The magnitude spectrum's peaks are counted as `PitchHistogram` describes. Not differentiable:
    the answer is one of `1 / resolution` numbers. Spectra are taken in the waveform's own
    precision, unlike those of `Spectrogram`: peaks are far above float32's rounding.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        bins_per_octave: steps of the scale.
        resolution: distance of two answers, in steps.
        fmin: lowest pitch that counts, Hz.
        fmax: pitches that count lie below this, Hz.
        threshold: share of a frame's maximum that peaks must exceed.
        source: the stage that gives the waveform; `None` = what is given.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1)`, at least -0.5 and below 0.5; 0 without any peak.

    Raises:
        ParameterError: a setting out of range, no FFT bin between `fmin` and `fmax`, or no sample.

    Reference:
        Same values as `librosa.estimate_tuning`.

    Example:
        >>> time = torch.arange(22050, dtype=torch.float64) / 22050
        >>> Tuning()(torch.sin(2 * torch.pi * 1785.6 * time)).round(decimals=2)
        tensor([0.2500], dtype=torch.float64)
    """

    window: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        bins_per_octave: int = 12,
        resolution: float = 0.01,
        fmin: float = 150.0,
        fmax: float = 4000.0,
        threshold: float = 0.1,
        source: nn.Module | None = None,
    ) -> None:
        super().__init__(source)
        check_positive(hop_length=hop_length)
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.histogram = PitchHistogram(
            sample_rate,
            n_fft,
            bins_per_octave,
            resolution=resolution,
            fmin=fmin,
            fmax=fmax,
            threshold=threshold,
        )
        self.register_buffer("window", filters.window("hann", n_fft, n_fft), persistent=False)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths have.

        Args:
            lengths: int64, samples.

        Shape:
            - Input: any
            - Output: as the input.
        """
        return 1 + lengths // self.hop_length

    def index(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the answers' places on the histogram's grid, `(batch,)` int64."""
        if waveform.shape[-1] < 1:
            raise ParameterError("waveform: has 0 samples, needs at least 1; pad it")
        half = self.n_fft // 2
        frames = pad(waveform.detach(), [half, half]).unfold(-1, self.n_fft, self.hop_length)
        dtype = complex_dtype(waveform)
        # Scaled, which changes no pitch: else squares would vanish of frames that librosa counts.
        power = transform(frames, self.window * 2.0**20, dtype, power=True)
        peak = power.amax(dim=-1, keepdim=True).sqrt()
        first, n_bins = self.histogram.first, self.histogram.n_bins
        band = power[..., first - 1 : first + n_bins + 1].sqrt()
        counts = None if lengths is None else self.frame_counts(lengths)
        index: Tensor = self.histogram.count(band, peak, counts)
        return index

    def derive(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the deviation of waveforms `(batch, time)`."""
        index = self.index(waveform, lengths)
        answer = self.histogram.edges.to(waveform.dtype)[index]
        return answer.masked_fill(waveform.isnan().any(dim=-1), torch.nan).unsqueeze(-1)
