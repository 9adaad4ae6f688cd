"""One or a few numbers a frame that tell a spectrum's shape."""

from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import mask_frames, safe_sqrt
from audiotorch.features.spectrogram import Spectrogram

__all__ = [
    "PolyFeatures",
    "SpectralBandwidth",
    "SpectralCentroid",
    "SpectralFlatness",
    "SpectralRolloff",
]


def _bin_frequencies(sample_rate: int, n_fft: int) -> Tensor:
    return torch.from_numpy(np.fft.rfftfreq(n_fft, 1.0 / sample_rate))


class _Moments(Feature):
    """Each frame's sum of magnitudes, its centroid, and its sum of squared deviations from that.

    Computed in float64: the variance of a tone, a millionth of the mean square, keeps ten digits.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        stft: further settings of `Spectrogram`.

    Shape:
        - Output: `(batch, 3, frames)`; silent frames have the sum 1, by which librosa divides.
    """

    powers: Tensor

    def __init__(self, sample_rate: int, n_fft: int, hop_length: int, **stft: Any) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, power=1.0, **stft))
        frequencies = _bin_frequencies(sample_rate, n_fft)
        powers = torch.stack([torch.ones_like(frequencies), frequencies, frequencies.square()])
        self.register_buffer("powers", powers, persistent=False)
        self.silent = 2.0**-126  # float32's smallest normal number, as in librosa

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the moments of magnitudes `(batch, freq, frames)`."""
        total, first, second = torch.matmul(self.powers.double(), specgram.double()).split(1, dim=1)
        total = total.masked_fill(total < self.silent, 1.0)
        centroid = first / total
        spread = (second - centroid * first).clamp(min=0.0)
        return torch.cat([total, centroid, spread], dim=1).to(specgram.dtype)


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

    passes_on_to = Spectrogram

    def __init__(
        self, sample_rate: int = 22050, n_fft: int = 2048, hop_length: int = 512, **stft: Any
    ) -> None:
        super().__init__(_Moments(sample_rate, n_fft, hop_length, **stft))
        self.sample_rate = sample_rate

    def derive(self, moments: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the centroid of frames' moments `(batch, 3, frames)`."""
        return moments[:, 1:2]


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

    passes_on_to = Spectrogram
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
        self.silent = 2.0**-126
        if p == 2:
            self.source = _Moments(sample_rate, n_fft, hop_length, **stft)
        self.register_buffer(
            "frequencies", _bin_frequencies(sample_rate, n_fft)[:, None], persistent=False
        )

    def derive(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the bandwidth of frames' moments, or for `p` other than 2 of magnitudes."""
        if self.p == 2.0:
            total, spread = x[:, :1], x[:, 2:]
        else:
            magnitude, frequencies = x.double(), self.frequencies.double()
            total = magnitude.sum(dim=1, keepdim=True)
            total = total.masked_fill(total < self.silent, 1.0)
            centroid = (frequencies * magnitude).sum(dim=1, keepdim=True) / total
            deviation = (frequencies - centroid).abs().pow(self.p)
            spread = (deviation * magnitude).sum(dim=1, keepdim=True)
        if self.norm:
            spread = spread / total
        root = safe_sqrt(spread) if self.p == 2.0 else spread.pow(1.0 / self.p)
        return root.to(x.dtype)


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

    passes_on_to = Spectrogram

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
        index = block.unsqueeze(-1).expand(-1, -1, -1, size)
        inside = blocks.gather(-2, index).squeeze(-2).cumsum(dim=-1) + before
        first = (inside < threshold).sum(dim=-1, keepdim=True).clamp(max=size - 1)
        rolloff = (block * size + first).to(rows.dtype) * (self.sample_rate / self.n_fft)
        # Comparisons know no NaN; a spoilt frame must not be answered as if it were sound.
        rolloff = torch.where(threshold.isnan(), threshold, rolloff)
        return rolloff.transpose(-1, -2)


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

    passes_on_to = Spectrogram

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
        # In float64: in float32 the order of a sum, and so a clip's padding, shows.
        logarithm = rows.log().mean(dim=-1, keepdim=True, dtype=torch.float64)
        mean = rows.mean(dim=-1, keepdim=True, dtype=torch.float64)
        flatness = (logarithm.exp() / mean).to(specgram.dtype).transpose(-1, -2)
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

    passes_on_to = Spectrogram
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
