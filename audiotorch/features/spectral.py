"""One or a few numbers a frame: what a spectrum's shape, or the waveform itself, says."""

from typing import Any, List, Optional

import numpy as np
import torch
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import frame_sums, mask_frames, power_to_db, safe_sqrt
from audiotorch.features.spectrogram import Spectrogram

__all__ = [
    "RMS",
    "PolyFeatures",
    "SpectralBandwidth",
    "SpectralCentroid",
    "SpectralContrast",
    "SpectralFlatness",
    "SpectralRolloff",
    "ZeroCrossingRate",
]


def _bin_frequencies(sample_rate: int, n_fft: int) -> Tensor:
    return torch.from_numpy(np.fft.rfftfreq(n_fft, 1.0 / sample_rate))


def _moments(specgram: Tensor, frequencies: Tensor) -> List[Tensor]:
    """Return each frame's centroid and sum, both `(batch, frames, 1)`."""
    rows = specgram.transpose(-1, -2)
    total = rows.sum(dim=-1, keepdim=True)
    # Below float32's smallest normal number a frame counts as silent, and librosa divides by 1.
    total = total.masked_fill(total < 1.1754943508222875e-38, 1.0)
    # No matrix product: its order of summation depends on how many frames there are.
    weighted = (rows * frequencies.to(rows.dtype)).sum(dim=-1, keepdim=True)
    return [weighted / total, total]


class SpectralCentroid(Feature):
    """Mean frequency of each frame, weighted by magnitude.

    Differentiable. Silent frames give 0.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        stft: further settings of `Spectrogram`: `win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1, frames)`, Hz; frames past a clip's own are 0.

    Raises:
        ParameterError: as `Spectrogram`.

    Reference:
        Same values as `librosa.feature.spectral_centroid`.

    Example:
        >>> SpectralCentroid()(torch.zeros(2, 22050)).shape
        torch.Size([2, 1, 44])
    """

    frequencies: Tensor

    def __init__(
        self, sample_rate: int = 22050, n_fft: int = 2048, hop_length: int = 512, **stft: Any
    ) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, power=1.0, **stft))
        self.sample_rate = sample_rate
        frequencies = _bin_frequencies(sample_rate, n_fft)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the centroid of magnitudes `(batch, freq, frames)`."""
        return _moments(specgram, self.frequencies)[0].transpose(-1, -2)


class SpectralBandwidth(Feature):
    """Spread of each frame's spectrum about its centroid, weighted by magnitude.

    `(sum_k S[k] |f[k] - centroid| ** p) ** (1 / p)`, for `S` of unit sum. Differentiable; silent
    frames give 0 and a gradient of 0.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        norm: divide each frame by its sum first.
        p: exponent of the deviation.
        stft: further settings of `Spectrogram`: `win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1, frames)`, Hz; frames past a clip's own are 0.

    Raises:
        ParameterError: `p` not positive, and as `Spectrogram`.

    Reference:
        Same values as `librosa.feature.spectral_bandwidth`.

    Example:
        >>> SpectralBandwidth()(torch.zeros(2, 22050)).shape
        torch.Size([2, 1, 44])
    """

    frequencies: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        norm: bool = True,
        p: float = 2.0,
        **stft: Any,
    ) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, power=1.0, **stft))
        check_positive(p=p)
        self.sample_rate = sample_rate
        self.norm = norm
        self.p = float(p)
        frequencies = _bin_frequencies(sample_rate, n_fft)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the bandwidth of magnitudes `(batch, freq, frames)`."""
        rows = specgram.transpose(-1, -2)
        centroid, total = _moments(specgram, self.frequencies)
        # In two passes: mean square less squared mean would cancel on tones.
        deviation = self.frequencies.to(rows.dtype) - centroid
        if self.p == 2.0:
            deviation = deviation.square()
        else:
            deviation = deviation.abs().pow(self.p)
        spread = (deviation * rows).sum(dim=-1, keepdim=True)
        if self.norm:
            spread = spread / total
        root = safe_sqrt(spread) if self.p == 2.0 else spread.pow(1.0 / self.p)
        return root.transpose(-1, -2)


class SpectralRolloff(Feature):
    """Lowest frequency below which a share of each frame's magnitude lies.

    A bin's frequency, so its gradient is 0. Silent frames give 0.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        roll_percent: the share, between 0 and 1.
        stft: further settings of `Spectrogram`: `win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1, frames)`, Hz; frames past a clip's own are 0.

    Raises:
        ParameterError: `roll_percent` not between 0 and 1, and as `Spectrogram`.

    Reference:
        Same values as `librosa.feature.spectral_rolloff`, but for frames in which rounding of the
        running sum decides between two bins (fewer than one in a thousand).

    Example:
        >>> SpectralRolloff()(torch.zeros(2, 22050)).shape
        torch.Size([2, 1, 44])
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        roll_percent: float = 0.85,
        **stft: Any,
    ) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, power=1.0, **stft))
        if not 0 < roll_percent < 1:
            raise ParameterError(f"roll_percent={roll_percent}: must lie between 0 and 1")
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.roll_percent = float(roll_percent)
        self.block = 32  # bins that are summed before single ones are looked at
        self.padding = -(1 + n_fft // 2) % self.block

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the rolloff of magnitudes `(batch, freq, frames)`."""
        rows = specgram.transpose(-1, -2)
        size = self.block
        # Sums of blocks tell in which one the share is reached, a running sum there at which bin.
        rows = torch.nn.functional.pad(rows, [0, self.padding])
        blocks = rows.unflatten(-1, (-1, size))
        reached = blocks.sum(dim=-1).cumsum(dim=-1)
        threshold = self.roll_percent * reached[..., -1:]
        block = (reached < threshold).sum(dim=-1, keepdim=True)
        before = torch.nn.functional.pad(reached, [1, 0]).gather(-1, block)
        index = block.unsqueeze(-1).expand(block.shape + (size,))
        inside = blocks.gather(-2, index).squeeze(-2).cumsum(dim=-1) + before
        first = (inside < threshold).sum(dim=-1, keepdim=True).clamp(max=size - 1)
        rolloff = (block * size + first).to(rows.dtype) * (self.sample_rate / self.n_fft)
        # Comparisons know no NaN; a spoilt frame must not be answered as if it were sound.
        rolloff = torch.where(threshold.isnan(), threshold, rolloff)
        return rolloff.transpose(-1, -2)


class SpectralContrast(Feature):
    """Difference in dB between peaks and valleys of each octave band.

    A peak is the mean of the strongest `quantile` of a band's bins, a valley that of its weakest;
    each is floored 80 dB below the clip's own highest. Differentiable but where bins are equal.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        fmin: upper edge of the lowest band, Hz.
        n_bands: octave bands above it; the last one reaches up to half the sample rate.
        quantile: share of a band's bins, between 0 and 1; at least one bin is taken.
        linear: give the difference of magnitudes instead of dB.
        stft: further settings of `Spectrogram`: `win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_bands + 1, frames)`; frames past a clip's own are 0.

    Raises:
        ParameterError: `fmin` not positive, `quantile` not between 0 and 1, `n_bands` below 1 or
            above what half the sample rate holds, and as `Spectrogram`.

    Reference:
        Jiang et al. (2002), Music type classification by spectral contrast feature. Same values as
        `librosa.feature.spectral_contrast`.

    Example:
        >>> SpectralContrast()(torch.zeros(2, 22050)).shape
        torch.Size([2, 7, 44])
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        fmin: float = 200.0,
        n_bands: int = 6,
        quantile: float = 0.02,
        linear: bool = False,
        **stft: Any,
    ) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, power=1.0, **stft))
        check_positive(fmin=fmin, n_bands=n_bands)
        if not 0 < quantile < 1:
            raise ParameterError(f"quantile={quantile}: must lie between 0 and 1")
        if fmin * 2.0 ** (n_bands - 1) >= sample_rate / 2:
            raise ParameterError(
                f"n_bands={n_bands}: the last band starts at {fmin * 2.0 ** (n_bands - 1):g} Hz, "
                f"above half of sample_rate={sample_rate}; lower n_bands or fmin"
            )
        self.sample_rate = sample_rate
        self.linear = linear
        self.bands: List[List[int]] = _octave_bands(sample_rate, n_fft, fmin, n_bands, quantile)

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the contrast of magnitudes `(batch, freq, frames)`."""
        rows = specgram.transpose(-1, -2)
        peaks: List[Tensor] = []
        valleys: List[Tensor] = []
        for first, last, count in self.bands:
            band = rows[..., first:last]
            peaks.append(_mean_of_highest(band, count))
            valleys.append(-_mean_of_highest(-band, count))
        peak = torch.stack(peaks, dim=-2)
        valley = torch.stack(valleys, dim=-2)
        if self.linear:
            return peak - valley
        contrast = power_to_db(peak) - power_to_db(valley)
        return contrast if lengths is None else mask_frames(contrast, self.frame_counts(lengths))


def _mean_of_highest(band: Tensor, count: int) -> Tensor:
    """Mean over the `count` highest of the last axis."""
    if count == 1:
        return band.amax(dim=-1)
    return band.topk(count, dim=-1, sorted=False)[0].mean(dim=-1)


def _octave_bands(
    sample_rate: int, n_fft: int, fmin: float, n_bands: int, quantile: float
) -> List[List[int]]:
    """First bin, end and number of bins averaged of each band, by librosa's rules."""
    frequencies = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)
    edges = np.concatenate([[0.0], fmin * 2.0 ** np.arange(n_bands + 1)])
    bands = []
    for k, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        inside = np.flatnonzero((frequencies >= low) & (frequencies <= high))
        first, last = [int(inside[0]) - (k > 0), int(inside[-1]) + 1] if len(inside) else [0, 0]
        if k == n_bands:
            last = len(frequencies)
        # Counted before a band loses its last bin to the next one, which begins a bin lower.
        count = max(1, int(np.rint(quantile * (last - first))))
        last -= k < n_bands
        if last - first < count:
            raise ParameterError(
                f"n_fft={n_fft}: the band from {low:g} to {high:g} Hz has {max(0, last - first)} "
                f"bins, fewer than the {count} to average; raise n_fft or fmin, or lower quantile"
            )
        bands.append([first, last, count])
    return bands


class SpectralFlatness(Feature):
    """Geometric over arithmetic mean of each frame's power: 1 for noise, near 0 for a tone.

    Differentiable.

    Args:
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        sample_rate: Hz; changes nothing.
        amin: powers below this count as this.
        power: exponent of the magnitude.
        stft: further settings of `Spectrogram`: `win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1, frames)`, 0 to 1; frames past a clip's own are 0.

    Raises:
        ParameterError: `amin` not positive, and as `Spectrogram`.

    Reference:
        Dubnov (2004), Generalization of spectral flatness measure for non-Gaussian linear
        processes. Same values as `librosa.feature.spectral_flatness`.

    Example:
        >>> SpectralFlatness()(torch.zeros(2, 22050)).shape
        torch.Size([2, 1, 44])
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        amin: float = 1e-10,
        power: float = 2.0,
        **stft: Any,
    ) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, power=power, **stft))
        check_positive(amin=amin)
        self.sample_rate = sample_rate
        self.amin = amin

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the flatness of powers `(batch, freq, frames)`."""
        rows = specgram.transpose(-1, -2).clamp(min=self.amin)
        flatness = rows.log().mean(dim=-1, keepdim=True).exp() / rows.mean(dim=-1, keepdim=True)
        flatness = flatness.transpose(-1, -2)
        return flatness if lengths is None else mask_frames(flatness, self.frame_counts(lengths))


class PolyFeatures(Feature):
    """Coefficients of the polynomial in frequency that fits each frame's magnitudes best.

    Differentiable.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        order: degree of the polynomial; 1 = a line.
        stft: further settings of `Spectrogram`: `win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., order + 1, frames)`, the highest power's coefficient first; frames past a
          clip's own are 0.

    Raises:
        ParameterError: `order` outside 0 to `n_fft // 2`, and as `Spectrogram`.

    Reference:
        Same values as `librosa.feature.poly_features`.

    Example:
        >>> PolyFeatures()(torch.zeros(2, 22050)).shape
        torch.Size([2, 2, 44])
    """

    fit: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        order: int = 1,
        **stft: Any,
    ) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, power=1.0, **stft))
        if not 0 <= order <= n_fft // 2:
            raise ParameterError(f"order={order}: must lie in 0 to n_fft // 2 = {n_fft // 2}")
        self.sample_rate = sample_rate
        # Columns of unit length first: powers of 10 kHz would leave the inverse no digits.
        powers = np.vander(np.fft.rfftfreq(n_fft, 1.0 / sample_rate), order + 1)
        scale = np.sqrt((powers**2).sum(axis=0))
        fit = torch.from_numpy(np.linalg.pinv(powers / scale) / scale[:, None])
        self.register_buffer("fit", fit, persistent=False)

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the coefficients of magnitudes `(batch, freq, frames)`."""
        # In float64: the weights of a line change sign, and their sum may nearly cancel.
        return torch.matmul(self.fit.double(), specgram.double()).to(specgram.dtype)


class ZeroCrossingRate(Feature):
    """Share of each frame's samples at which the sign changes.

    Outside the clip its end samples are repeated. Samples up to `threshold` count as 0, which is
    positive; the first sample of a frame never counts. The gradient is 0.

    Args:
        sample_rate: Hz; changes nothing.
        frame_length: samples of a frame.
        hop_length: samples between frames.
        center: pad `frame_length // 2` samples on each side.
        threshold: magnitude that counts as 0.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1, frames)`, 0 to 1; frames past a clip's own are 0.

    Raises:
        ParameterError: a size that is not positive or a negative threshold; in `forward`, without
            centring, a clip shorter than a frame.

    Reference:
        Same values as `librosa.feature.zero_crossing_rate`.

    Example:
        >>> ZeroCrossingRate()(torch.zeros(2, 22050)).shape
        torch.Size([2, 1, 44])
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        frame_length: int = 2048,
        hop_length: int = 512,
        *,
        center: bool = True,
        threshold: float = 1e-10,
    ) -> None:
        super().__init__()
        check_positive(sample_rate=sample_rate, frame_length=frame_length, hop_length=hop_length)
        if threshold < 0:
            raise ParameterError(f"threshold={threshold}: must be at least 0")
        self.sample_rate = sample_rate
        self.frame_length = frame_length
        self.hop_length = hop_length
        self.center = center
        self.threshold = float(threshold)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        return _frame_counts(lengths, self.frame_length, self.hop_length, self.center)

    def derive(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the rate of waveforms `(batch, time)`."""
        _check_frames(waveform, self.frame_length, self.center)
        negative = waveform < -self.threshold
        crossing = negative[:, 1:] != negative[:, :-1]
        position = torch.arange(1, waveform.shape[-1], device=waveform.device)
        if lengths is not None:
            # The repeated end has no crossings, and neither has the zeros' start.
            crossing = crossing & (position < lengths.unsqueeze(-1))
        crossing = torch.nn.functional.pad(crossing.to(waveform.dtype), [1, 0])
        # Comparisons know no NaN; a spoilt clip must not be answered as if it were sound.
        crossing = torch.where(waveform.isnan(), waveform, crossing)
        padding = self.frame_length // 2 if self.center else 0
        sums = frame_sums(crossing, self.frame_length, self.hop_length, padding)
        first = torch.nn.functional.pad(crossing, [padding, padding])
        first = first[:, :: self.hop_length][:, : sums.shape[-1]]
        rate = ((sums - first) / self.frame_length).unsqueeze(-2)
        return rate if lengths is None else mask_frames(rate, self.frame_counts(lengths))


class RMS(Feature):
    """Root of each frame's mean square.

    Differentiable; the gradient of silent frames is 0.

    Args:
        sample_rate: Hz; changes nothing.
        frame_length: samples of a frame.
        hop_length: samples between frames.
        center: pad `frame_length // 2` zeros on each side.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1, frames)`; frames past a clip's own are 0.

    Raises:
        ParameterError: a size that is not positive; in `forward`, without centring, a clip shorter
            than a frame.

    Reference:
        Same values as `librosa.feature.rms`.

    Example:
        >>> RMS()(torch.zeros(2, 22050)).shape
        torch.Size([2, 1, 44])
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        frame_length: int = 2048,
        hop_length: int = 512,
        *,
        center: bool = True,
    ) -> None:
        super().__init__()
        check_positive(sample_rate=sample_rate, frame_length=frame_length, hop_length=hop_length)
        self.sample_rate = sample_rate
        self.frame_length = frame_length
        self.hop_length = hop_length
        self.center = center

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        return _frame_counts(lengths, self.frame_length, self.hop_length, self.center)

    def derive(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the level of waveforms `(batch, time)`."""
        _check_frames(waveform, self.frame_length, self.center)
        padding = self.frame_length // 2 if self.center else 0
        sums = frame_sums(waveform.square(), self.frame_length, self.hop_length, padding)
        level = safe_sqrt(sums / self.frame_length).unsqueeze(-2)
        return level if lengths is None else mask_frames(level, self.frame_counts(lengths))


def _frame_counts(lengths: Tensor, frame_length: int, hop_length: int, center: bool) -> Tensor:
    padded = lengths + 2 * (frame_length // 2) if center else lengths
    return (1 + (padded - frame_length) // hop_length).clamp(min=0)


def _check_frames(waveform: Tensor, frame_length: int, center: bool) -> None:
    shortest = 1 if center else frame_length
    if waveform.shape[-1] < shortest:
        raise ParameterError(
            f"waveform: has {waveform.shape[-1]} samples, needs at least {shortest}; pad it"
        )
