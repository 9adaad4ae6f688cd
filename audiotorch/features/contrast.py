"""Spectral contrast: peaks against valleys, octave by octave."""

from itertools import pairwise
from typing import Any, List, Optional

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from audiotorch.errors import ParameterError
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import mask_frames, power_to_db
from audiotorch.features.spectrogram import Spectrogram

__all__ = ["SpectralContrast"]


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

    passes_on_to = Spectrogram

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
    """Mean over the `count` highest of the last axis of `(batch, frames, bins)`."""
    if count == 1:
        return band.amax(dim=-1)
    n_bins = band.shape[-1]
    if n_bins >= 8 * count:
        # The highest lie in the groups of the `count` highest maxima; so most need no sorting.
        n_groups = (n_bins + 3) // 4
        padded = pad(band, [0, 4 * n_groups - n_bins], value=-float("inf"))
        groups = padded.unflatten(-1, (4, n_groups))
        best = groups.amax(dim=-2).topk(count, dim=-1, sorted=False)[1]
        band = groups.gather(-1, best.unsqueeze(-2).expand(-1, -1, 4, -1)).flatten(-2)
    return band.topk(count, dim=-1, sorted=False)[0].mean(dim=-1)


def _octave_bands(
    sample_rate: int, n_fft: int, fmin: float, n_bands: int, quantile: float
) -> List[List[int]]:
    """First bin, end and number of bins averaged of each band, by librosa's rules."""
    frequencies = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)
    edges = np.concatenate([[0.0], fmin * 2.0 ** np.arange(n_bands + 1)])
    bands = []
    for k, (low, high) in enumerate(pairwise(edges)):
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
