"""MFCC and their deltas.

torchaudio's deltas pad the ends where librosa fits a polynomial.
"""

from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.features import filters
from audiotorch.features.feature import Feature
from audiotorch.features.functional import check_feature, mask_frames
from audiotorch.features.spectrogram import MelDecibels

__all__ = ["MFCC", "Delta", "MFCCDelta"]


class MFCC(Feature):
    """Mel-frequency cepstral coefficients: the cosine transform of a mel spectrogram in dB.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        n_mfcc: coefficients kept.
        dct_type: 1, 2, 3 or 4.
        dct_norm: `"ortho"` or `None`; librosa calls it `norm`, which here is the mel bank's.
        lifter: sine lifter, 0 = none.
        mel: further settings of `MelSpectrogram`, such as `n_mels` and `fmax`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_mfcc, frames)`, frames past a clip's own are 0.

    Raises:
        ParameterError: `n_mfcc` above `n_mels`, a negative lifter, and as `MelSpectrogram`.

    Reference:
        Same values as `librosa.feature.mfcc`; dB is floored 80 dB below the clip's own maximum.

    Example:
        >>> MFCC()(torch.zeros(3, 22050)).shape
        torch.Size([3, 20, 44])
    """

    passes_on_to = MelDecibels
    dct: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        n_mfcc: int = 20,
        dct_type: int = 2,
        dct_norm: str | None = "ortho",
        lifter: float = 0.0,
        **mel: Any,
    ) -> None:
        super().__init__(MelDecibels(sample_rate, n_fft, hop_length, **mel))
        self.sample_rate = sample_rate
        self.n_mfcc = n_mfcc
        if lifter < 0:
            raise ParameterError(f"lifter={lifter}: must be at least 0")
        dct = filters.dct_matrix(n_mfcc, self.source.n_mels, dct_type=dct_type, norm=dct_norm)
        if lifter > 0:
            angle = np.pi * np.arange(1, n_mfcc + 1) / lifter
            dct = dct * torch.from_numpy(1 + (lifter / 2) * np.sin(angle))[:, None]
        self.register_buffer("dct", dct, persistent=False)

    def derive(self, db: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the coefficients of a mel spectrogram in dB, `(batch, n_mels, frames)`."""
        mfcc = _cepstrum(db, self.dct).to(db.dtype)
        return mfcc if lengths is None else mask_frames(mfcc, self.frame_counts(lengths))


def _cepstrum(db: Tensor, dct: Tensor) -> Tensor:
    """Cosine transform of decibels, float64.

    Sums of 128 equal numbers, as in silence, lose 1e-3 dB in float32.
    """
    return torch.matmul(dct.double(), db.double())


class Delta(nn.Module):
    """Savitzky-Golay derivative along time, of order 1 or 2.

    Each frame's value is the derivative of the polynomial (of degree `order`) that fits the `width`
    frames around it best. The first and last `width // 2` frames take theirs from the polynomial
    through the clip's first and last `width` frames; so order 2 is not a delta of a delta.

    Args:
        order: order of the derivative, 1 or more, below `width`.
        width: frames of the fit, odd, at least 3.

    Shape:
        - Input: `(..., rows, frames)` and frame counts `(...)`, each at least `width`
        - Output: as the input; frames past a clip's own are 0.

    Raises:
        ParameterError: even or too small `width`, `order` outside 1 to `width - 1`, or fewer frames
            than `width`.

    Reference:
        Savitzky and Golay (1964), Smoothing and differentiation of data by simplified least squares
        procedures. Same values as `librosa.feature.delta`, which uses `mode="interp"`.

    Example:
        >>> Delta()(torch.arange(10.0).reshape(1, 10)).round()
        tensor([[1., 1., 1., 1., 1., 1., 1., 1., 1., 1.]])
    """

    weights: Tensor

    def __init__(self, order: int = 1, width: int = 9) -> None:
        from scipy.signal import savgol_coeffs

        super().__init__()
        if width < 3 or width % 2 == 0:
            raise ParameterError(f"width={width}: must be odd and at least 3")
        if not 1 <= order < width:
            raise ParameterError(f"order={order}: must lie in 1 to width - 1 = {width - 1}")
        self.order = order
        self.width = width
        # Row o holds the weights that give the derivative at frame o of a window of `width` frames.
        # "dot" weights correlate with the window as it stands.
        rows = [savgol_coeffs(width, order, deriv=order, pos=o, use="dot") for o in range(width)]
        self.register_buffer("weights", torch.from_numpy(np.stack(rows)), persistent=False)

    def forward(self, feature: Tensor, frame_counts: Optional[Tensor] = None) -> Tensor:
        """Return the derivative per frame; shapes and errors as in the class docstring."""
        check_feature(feature, frame_counts)
        if feature.shape[-1] < self.width:
            raise ParameterError(
                f"feature: has {feature.shape[-1]} frames, Delta needs at least "
                f"width={self.width}; pad the clip, or lower width"
            )
        # In float64: where the terms nearly cancel, float32 leaves too little. The weights sum to
        # 0, so taking one frame off changes nothing, but keeps the delta of a constant at 0.
        x, weights, half = feature.double(), self.weights.double(), self.width // 2
        n_frames = feature.shape[-1]
        middle = x[..., half : n_frames - half]
        delta = torch.zeros_like(middle)
        for k in range(self.width):
            delta = delta + weights[half, k] * (x[..., k : n_frames - 2 * half + k] - middle)
        first = x[..., : self.width]
        head = torch.matmul(first - first[..., :1], weights[:half].transpose(0, 1))
        # The last frames are each clip's own.
        place = torch.arange(n_frames - self.width, n_frames, device=x.device)
        if frame_counts is not None:
            ahead = n_frames - frame_counts.clamp(min=self.width)
            place = place - ahead.unsqueeze(-1).unsqueeze(-1)
        last = x.gather(-1, place.expand(x.shape[:-1] + place.shape[-1:]))
        tail = torch.matmul(last - last[..., -1:], weights[half + 1 :].transpose(0, 1))
        delta = torch.cat([head, delta, torch.zeros_like(tail)], dim=-1)
        delta = delta.scatter(-1, place[..., half + 1 :].expand(tail.shape), tail)
        return mask_frames(delta.to(feature.dtype), frame_counts)


class MFCCDelta(Feature):
    """Delta of MFCC, as one feature of waveforms.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        order: order of the derivative.
        width: frames of the fit, odd, at least 3.
        mfcc: further settings of `MFCC`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples, at least `width - 1` hops each
        - Output: `(..., n_mfcc, frames)`, frames past a clip's own are 0.

    Raises:
        ParameterError: as `MFCC` and `Delta`.

    Reference:
        Same values as `librosa.feature.delta(librosa.feature.mfcc(y), order=order)`.
    """

    passes_on_to = MFCC
    dct: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        order: int = 1,
        width: int = 9,
        **mfcc: Any,
    ) -> None:
        cepstrum = MFCC(sample_rate, n_fft, hop_length, **mfcc)
        super().__init__(cepstrum.source)
        self.register_buffer("dct", cepstrum.dct, persistent=False)
        self.delta = Delta(order, width)
        self.sample_rate = sample_rate
        self.min_samples = (width - 1) * hop_length

    def derive(self, db: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the deltas of a mel spectrogram in dB, `(batch, n_mels, frames)`."""
        # Not of MFCC rounded to float32: a delta's range may be a thousandth of a coefficient.
        mfcc = _cepstrum(db, self.dct)
        counts = None if lengths is None else self.frame_counts(lengths)
        return self.delta(mfcc, counts).to(db.dtype)
