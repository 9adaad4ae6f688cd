"""Harmonic and percussive parts of a sound, and how much of it is harmonic."""

import math
from collections.abc import Sequence
from typing import Any, Optional, Tuple

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import istft, mask_samples, stft
from audiotorch.features.median import MedianFilter
from audiotorch.features.spectrogram import Spectrogram

__all__ = ["HPSS", "Harmonic", "HarmonicRatio", "Separation"]

# float32's smallest normal number: where both medians lie below it, the bin is silent.
SILENT = 2.0**-126


class Separation(Feature):
    """The stage behind `HPSS`: each clip's harmonic part, its percussive part, and the clip itself.

    Args:
        sample_rate: Hz; kept for the features built on this one.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        kernel_size: frames and bins of the medians, or a pair of both.
        power: exponent of the masks.
        margin: how many times the other part's median a part must exceed, or a pair.
        spectrogram: further settings of `Spectrogram`: `win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 3, time)`

    Raises:
        ParameterError: as `HPSS`.
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        kernel_size: int | Sequence[int] = 31,
        power: float = 2.0,
        margin: float | Sequence[float] = 1.0,
        **spectrogram: Any,
    ) -> None:
        super().__init__()
        check_positive(power=power)
        sizes = _pair("kernel_size", kernel_size)
        margins = _pair("margin", margin)
        if min(margins) < 1:
            raise ParameterError(f"margin={margin}: must be at least 1")
        # For its window and its frames; the magnitudes come with the phases here.
        self.spectrogram = Spectrogram(sample_rate, n_fft, hop_length, **spectrogram)
        self.along_time = MedianFilter(int(sizes[0]))
        self.along_frequency = MedianFilter(int(sizes[1]))
        self.power = float(power)
        self.harmonic_margin = float(margins[0])
        self.percussive_margin = float(margins[1])
        # Beyond this ratio a mask is 0 for all purposes, and its power is still a float32.
        self.least = 10.0 ** (-36.0 / max(1.0, power))
        # Then the masks sum to 1, and so do the parts to the clip: each sample is under the window
        # of the frame before it, well above 0.
        ahead = self.spectrogram.window[n_fft // 2 :][:hop_length]
        whole = self.spectrogram.center and len(ahead) == hop_length and bool(ahead.min() > 0.1)
        self.evenly = max(margins) == 1
        self.complementary = whole and self.evenly and math.isfinite(power)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths have: those of the spectrogram."""
        return self.spectrogram.frame_counts(lengths)

    def derive(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the three of waveforms `(batch, time)`."""
        inner = self.spectrogram
        spectrum = stft(
            waveform, inner.window, inner.hop_length, inner.center, inner.pad_mode, lengths
        )
        # A square root has no slope at 0; what is added is lost in float32, and all but 0.
        least = torch.full((), 1e-300, dtype=torch.float64, device=spectrum.device)
        real, imag = spectrum.real, spectrum.imag
        magnitude = torch.addcmul(torch.addcmul(least, real, real), imag, imag).sqrt()
        magnitude = magnitude.to(waveform.dtype)
        if waveform.dtype == torch.float32:
            spectrum = spectrum.to(torch.complex64)
        counts = None if lengths is None else self.frame_counts(lengths)
        lasting, broad = self.medians(magnitude, counts)
        harmonic = self._invert(spectrum * self._harmonic_mask(lasting, broad), waveform, lengths)
        if self.complementary:
            percussive = waveform - harmonic
        else:
            mask = self._percussive_mask(lasting, broad)
            percussive = self._invert(spectrum * mask, waveform, lengths)
        return torch.stack((harmonic, percussive, waveform), dim=1)

    def masks(
        self, magnitude: Tensor, frame_counts: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        """Return the harmonic and the percussive mask of a spectrogram.

        Args:
            magnitude: at least 0.
            frame_counts: int64, frames of each clip; `None` = all full.

        Shape:
            - Input: `(batch, freq, frames)` and `(batch,)`
            - Output: `(batch, freq, frames)` twice, in 0 to 1

        Reference:
            Same values as `librosa.decompose.hpss(mask=True)`.
        """
        lasting, broad = self.medians(magnitude, frame_counts)
        return self._harmonic_mask(lasting, broad), self._percussive_mask(lasting, broad)

    def medians(
        self, magnitude: Tensor, frame_counts: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        """Return medians of `(batch, freq, frames)` along time, and along frequency.

        Whole frames are moved for the one, whole bins for the other, in whatever layout those lie
        in one piece.
        """
        batch, n_bins, n_frames = magnitude.shape
        frames = magnitude.transpose(1, 2).flatten(0, 1)
        if frame_counts is None:
            frame_counts = torch.full((1,), n_frames, device=frames.device)
        position = self.along_time.positions(n_frames, frame_counts)
        position = position + n_frames * torch.arange(batch, device=frames.device)
        rows = frames.index_select(0, position.flatten())
        rows = rows.unflatten(0, position.shape).flatten(1)
        lasting = self.along_time(rows, n_frames).unflatten(1, (batch, n_bins))

        bins = torch.full((1,), n_bins, device=frames.device)
        position = self.along_frequency.positions(n_bins, bins)
        rows = frames.t().contiguous().index_select(0, position.flatten())
        broad = self.along_frequency(rows, n_bins).t().contiguous().unflatten(0, (batch, n_frames))
        return lasting.permute(1, 2, 0), broad.transpose(1, 2)

    def _harmonic_mask(self, lasting: Tensor, broad: Tensor) -> Tensor:
        return self._mask(lasting, broad * self.harmonic_margin)

    def _percussive_mask(self, lasting: Tensor, broad: Tensor) -> Tensor:
        return self._mask(broad, lasting * self.percussive_margin)

    def _mask(self, own: Tensor, other: Tensor) -> Tensor:
        """Return `own^power / (own^power + other^power)`, without overflow or 0 / 0."""
        if math.isinf(self.power):
            return (own > other).to(own.dtype)
        # Where both are silent, the bin is split evenly.
        ratio = other.clamp(min=SILENT) / torch.maximum(own.clamp(min=SILENT), self.least * other)
        power = ratio.square() if self.power == 2.0 else ratio.pow(self.power)
        mask = (1.0 + power).reciprocal()
        if self.evenly:
            return mask
        return mask.masked_fill(torch.maximum(own, other) < SILENT, 0.0)

    def _invert(self, spectrum: Tensor, waveform: Tensor, lengths: Optional[Tensor]) -> Tensor:
        inner = self.spectrogram
        counts = None if lengths is None else self.frame_counts(lengths)
        part = istft(
            spectrum, inner.window, inner.hop_length, waveform.shape[-1], inner.center, counts
        )
        return mask_samples(part, lengths)


def _pair(name: str, value: Any) -> list[Any]:
    """Return one setting for both directions, or a pair of them."""
    pair = list(value) if isinstance(value, Sequence) else [value, value]
    if len(pair) != 2:
        raise ParameterError(f"{name}={value}: must be one number, or a pair")
    return pair
