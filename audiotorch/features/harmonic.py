"""Harmonic and percussive parts of a sound, and how much of it is harmonic."""

import math
from collections.abc import Sequence
from typing import Any, Optional, Tuple

import torch
from torch import Tensor, nn

from audiotorch.audio.fourier import istft, power_spectrum
from audiotorch.audio.frames import is_plain_cpu
from audiotorch.errors import ParameterError
from audiotorch.features import rounding
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import mask_samples, safe_sqrt
from audiotorch.features.median import MedianFilter
from audiotorch.features.spectrogram import STFT

__all__ = ["HPSS", "Harmonic", "HarmonicRatio", "Separation"]


class Separation(Feature):
    """The stage behind `HPSS`: each clip's harmonic part, its percussive part, and the clip itself.

    Args:
        sample_rate: Hz; kept for the features built on this one.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        kernel_size: frames and bins of the medians, or a pair of both.
        power: exponent of the masks.
        margin: how many times the other part's median a part must exceed, or a pair.
        stft: further settings of `Spectrogram`: `win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 3, time)`

    Raises:
        ParameterError: as `HPSS`.
    """

    passes_on_to = STFT

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        kernel_size: int | Sequence[int] = 31,
        power: float = 2.0,
        margin: float | Sequence[float] = 1.0,
        **stft: Any,
    ) -> None:
        super().__init__(STFT(sample_rate, n_fft, hop_length, **stft))
        check_positive(power=power)
        sizes = _pair("kernel_size", kernel_size)
        margins = _pair("margin", margin)
        if not min(margins) >= 1:
            raise ParameterError(f"margin={margin}: must be at least 1")
        self.along_time = MedianFilter(int(sizes[0]))
        self.along_frequency = MedianFilter(int(sizes[1]))
        self.power = float(power)
        self.harmonic_margin = float(margins[0])
        self.percussive_margin = float(margins[1])
        # float32's smallest normal number: where both medians lie below it, the bin is silent.
        self.silent = 2.0**-126
        # Then the masks sum to 1, and so do the parts to the clip: each sample is under the window
        # of the frame before it, well above 0.
        ahead = self.source.window[n_fft // 2 :][:hop_length]
        whole = self.source.center and len(ahead) == hop_length and bool(ahead.min() > 0.1)
        self.evenly = max(margins) == 1
        self.complementary = whole and self.evenly and math.isfinite(power)

    def derive_beside(
        self, spectrum: Tensor, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tensor:
        """Return the three from waveforms `(batch, time)` and their transform."""
        waveform = mask_samples(waveform, lengths)
        magnitude = safe_sqrt(power_spectrum(spectrum))
        counts = None if lengths is None else self.frame_counts(lengths)
        faint: Optional[Tensor] = None
        if not torch.jit.is_scripting():
            if is_plain_cpu(spectrum) and not torch.compiler.is_compiling():
                faint = rounding.is_faint(magnitude, counts)
                spectrum, magnitude = rounding.transform(
                    self.source, waveform, lengths, spectrum, magnitude, faint
                )
        lasting, broad = self.medians(magnitude, counts)
        mask = self._mask(lasting, broad, self.harmonic_margin)
        harmonic = self._invert(spectrum, mask, faint, waveform, lengths)
        if self.complementary:
            percussive = waveform - harmonic
        else:
            mask = self._mask(broad, lasting, self.percussive_margin)
            percussive = self._invert(spectrum, mask, faint, waveform, lengths)
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
        harmonic = self._mask(lasting, broad, self.harmonic_margin)
        return harmonic, self._mask(broad, lasting, self.percussive_margin)

    def medians(
        self, magnitude: Tensor, frame_counts: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        """Return medians of `(batch, freq, frames)` along time, and along frequency."""
        batch, n_bins, n_frames = magnitude.shape
        frames = magnitude.transpose(1, 2)  # as they lie in memory
        if frame_counts is None:
            frame_counts = torch.full((1,), n_frames, device=frames.device)
        lasting = self.along_time(frames, frame_counts)
        # The ends of the spectrum are the same for all clips: one clip of many frames.
        bins = frames.flatten(0, 1).t().contiguous().unsqueeze(0)
        broad = self.along_frequency(bins, torch.full((1,), n_bins, device=frames.device))
        broad = broad.squeeze(0).t().contiguous().unflatten(0, (batch, n_frames))
        return lasting.transpose(1, 2), broad.transpose(1, 2)

    def _mask(self, own: Tensor, other: Tensor, margin: float) -> Tensor:
        """Return `own^power / (own^power + (margin other)^power)`, without overflow or 0 / 0."""
        if margin != 1.0:
            other = other * margin
        if math.isinf(self.power):
            return (own > other).to(own.dtype)
        # Where both are silent, both count as the same: the bin is split evenly.
        x, y = own.clamp(min=self.silent), other.clamp(min=self.silent)
        # In units of the larger one, which changes nothing, so that neither power overflows.
        unit = torch.maximum(x, y).detach()
        x, y = self._raise(x / unit), self._raise(y / unit)
        # To exactly 0 where it is next to nothing: subnormal numbers would make the FFT slow.
        mask = nn.functional.threshold(x / (x + y), 1e-30, 0.0)
        if self.evenly:
            return mask
        return mask.masked_fill(unit == self.silent, 0.0)

    def _raise(self, x: Tensor) -> Tensor:
        return x.square() if self.power == 2.0 else x.pow(self.power)

    def _invert(
        self,
        spectrum: Tensor,
        mask: Tensor,
        faint: Optional[Tensor],
        waveform: Tensor,
        lengths: Optional[Tensor],
    ) -> Tensor:
        """Return the waveform of a masked spectrum."""
        inner = self.source
        counts = None if lengths is None else self.frame_counts(lengths)
        part = istft(
            spectrum * mask,
            inner.window,
            inner.hop_length,
            waveform.shape[-1],
            inner.center,
            counts,
        )
        part = mask_samples(part, lengths)
        if not torch.jit.is_scripting():
            if faint is not None:
                return rounding.invert(inner, part, lengths, spectrum, mask, faint)
        return part


class HPSS(nn.Module):
    """Harmonic and percussive parts of a waveform, as long as it.

    A spectrogram is smoothed by a running median, along time and along frequency: what lasts is
    left by the one, what is broad by the other. Each bin goes to the parts in the ratio of the two
    medians' powers, and the inverse transform makes waveforms of them. Windows of the medians are
    continued at the ends by the mirror image, of each clip's own frames. A bin where both medians
    are 0 is split evenly, or for margins above 1 goes to neither part. Differentiable, but for
    bins that are silent and infinite `power`.

    Args:
        sample_rate: Hz; changes nothing, as frames and bins are counted.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        kernel_size: frames and bins of the medians, or a pair of both.
        power: exponent of the masks; infinite = all or nothing.
        margin: how many times the other median, at least 1, a part's own must be to get half of a
            bin, or a pair, harmonic first. Above 1, the parts do not sum to the waveform.
        stft: further settings of `Spectrogram`: `win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: harmonic `(..., time)` and percussive `(..., time)`; 0 past a clip's own length.

    Raises:
        ParameterError: a kernel size or margin below 1, more than two of them, an exponent that is
            not positive, and as `Spectrogram`.

    Reference:
        Fitzgerald (2010), Harmonic/percussive separation using median filtering. Driedger, Müller
        and Disch (2014), Extending harmonic-percussive separation of audio signals, for margins.
        Same values as `librosa.effects.hpss`; but that takes a Hann window whatever its `window`
        says, and of clips of two or three frames it reads foreign memory.

    Example:
        >>> harmonic, percussive = HPSS()(torch.zeros(2, 22050))
        >>> harmonic.shape
        torch.Size([2, 22050])
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
        **stft: Any,
    ) -> None:
        super().__init__()
        self.separation = Separation(
            sample_rate,
            n_fft,
            hop_length,
            kernel_size=kernel_size,
            power=power,
            margin=margin,
            **stft,
        )

    @torch.jit.unused
    def compile(self, **options: Any) -> None:
        """Let `torch.compile` fuse the separation, as `Feature.compile` does; same arguments."""
        self.separation.compile(**options)

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Return both parts; shapes and errors as in the class docstring."""
        parts = self.separation(waveform, lengths)
        return parts[..., 0, :], parts[..., 1, :]


class Harmonic(Feature):
    """The harmonic part of a waveform: what `HPSS` returns first, for features to build on.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        hpss: further settings of `HPSS`, such as `margin`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., time)`; 0 past a clip's own length.

    Raises:
        ParameterError: as `HPSS`.

    Reference:
        Same values as `librosa.effects.harmonic`.

    Example:
        >>> Harmonic(margin=3.0)(torch.zeros(2, 22050)).shape
        torch.Size([2, 22050])
    """

    passes_on_to = Separation

    def __init__(
        self, sample_rate: int = 22050, n_fft: int = 2048, hop_length: int = 512, **hpss: Any
    ) -> None:
        super().__init__(Separation(sample_rate, n_fft, hop_length, **hpss))
        self.sample_rate = sample_rate

    def derive(self, parts: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the harmonic one of a separation `(batch, 3, time)`."""
        return parts[:, 0]


class HarmonicRatio(Feature):
    """Share of a clip's energy that is in its harmonic part: one number per clip.

    The sum of the harmonic part's squares over that of the clip's own; 0 for silence. The parts of
    `HPSS` overlap, so the shares of both do not sum to 1.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        hpss: further settings of `HPSS`, such as `margin`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1)`

    Raises:
        ParameterError: as `HPSS`.

    Reference:
        Same values as `librosa.effects.hpss` and sums of squares.

    Example:
        >>> time = torch.arange(22050) / 22050
        >>> HarmonicRatio()(torch.sin(2 * torch.pi * 440.0 * time)) > 0.9
        tensor([True])
    """

    passes_on_to = Separation

    def __init__(
        self, sample_rate: int = 22050, n_fft: int = 2048, hop_length: int = 512, **hpss: Any
    ) -> None:
        super().__init__(Separation(sample_rate, n_fft, hop_length, **hpss))
        self.sample_rate = sample_rate

    def derive(self, parts: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the ratio of a separation `(batch, 3, time)`."""
        energy = parts[:, 0::2].double().square().sum(dim=-1)
        harmonic, total = energy[:, :1], energy[:, 1:]
        ratio = harmonic / torch.where(total == 0, torch.ones_like(total), total)
        return ratio.to(parts.dtype)


def _pair(name: str, value: Any) -> list[Any]:
    """Return one setting for both directions, or a pair of them."""
    pair = list(value) if isinstance(value, Sequence) else [value, value]
    if len(pair) != 2:
        raise ParameterError(f"{name}={value}: must be one number, or a pair")
    return pair
