"""MFCC and their deltas.

torchaudio's deltas pad the ends where librosa fits a polynomial.
"""

from typing import Any, List, Optional

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from audiotorch.audio.fourier import takes_single
from audiotorch.errors import ParameterError
from audiotorch.features import filters
from audiotorch.features.feature import Feature
from audiotorch.features.functional import check_feature, mask_frames
from audiotorch.features.mel import MelDecibels

__all__ = ["MFCC", "Delta", "MFCCDelta"]


class _Cepstrum(Feature):
    """Cosine transform of decibels, float64: the stage below `MFCC` and its deltas.

    Sums of 128 equal numbers, as in silence, lose 1e-3 dB in float32; and a delta's range may be a
    thousandth of a coefficient.

    Args:
        decibels: the stage below.
        n_mfcc: coefficients kept.
        dct_type: as in `MFCC`.
        dct_norm: as in `MFCC`.
        lifter: as in `MFCC`.
    """

    chunk_scale = 2
    dct: Tensor
    lift: Tensor

    def __init__(
        self, decibels: MelDecibels, n_mfcc: int, dct_type: int, dct_norm: str | None, lifter: float
    ) -> None:
        super().__init__(decibels)
        if lifter < 0:
            raise ParameterError(f"lifter={lifter}: must be at least 0")
        dct = filters.dct_matrix(n_mfcc, decibels.n_mels, dct_type=dct_type, norm=dct_norm)
        lift = np.ones(n_mfcc)
        if lifter > 0:
            lift += (lifter / 2) * np.sin(np.pi * np.arange(1, n_mfcc + 1) / lifter)
        self.register_buffer("dct", dct * torch.from_numpy(lift)[:, None], persistent=False)
        self.register_buffer("lift", torch.from_numpy(lift), persistent=False)
        self.dct_type = dct_type
        self.dct_norm = dct_norm

    def derive(self, db: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the coefficients of a mel spectrogram in dB, `(batch, n_mels, frames)`."""
        return torch.matmul(self.dct.double(), db.double())

    @torch.jit.unused
    def rounded(self, waveform: Tensor) -> npt.NDArray[np.float32]:
        """Return coefficients of a float32 clip `(1, time)`, by librosa's calls in float32."""
        from scipy.fft import dct

        mel = self.source.source
        bands = mel.derive(mel.source.compute(waveform))[0].contiguous().numpy()
        # The last bit of logarithms is numpy's, which is another than torch's on some processors.
        db = 10 * np.log10(np.maximum(1e-10, bands))
        db = np.maximum(db, db.max() - 80)
        rows = dct(db, type=self.dct_type, norm=self.dct_norm, axis=-2)
        lifted: npt.NDArray[np.float32] = (
            rows[: len(self.lift)] * self.lift.float()[:, None].numpy()
        )
        return lifted


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
    chunk_scale = 2

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
        decibels = MelDecibels(sample_rate, n_fft, hop_length, **mel)
        super().__init__(_Cepstrum(decibels, n_mfcc, dct_type, dct_norm, lifter))
        self.sample_rate = sample_rate
        self.n_mfcc = n_mfcc

    def derive_beside(
        self, cepstrum: Tensor, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tensor:
        """Return the coefficients in the waveform's precision."""
        mfcc = cepstrum.to(waveform.dtype)
        return mfcc if lengths is None else mask_frames(mfcc, self.frame_counts(lengths))


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
        self._taps: List[float] = rows[width // 2][width // 2 :].tolist()

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
        for k in range(1, half + 1):
            left = x[..., half - k : n_frames - half - k]
            right = x[..., half + k : n_frames - half + k]
            # Weights on both sides are equal, or opposite.
            pair = right - left if self.order % 2 == 1 else (right - middle) + (left - middle)
            delta = torch.add(delta, pair, alpha=self._taps[k])
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

    Where a row's range is less than 1/128 of its level, librosa's rounding reaches 1e-5 of it and
    more. On the CPU, without gradients, all deltas of such a float32 clip are taken by the calls of
    scipy that librosa makes; not so elsewhere, and where `single` is given.

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
    chunk_scale = 2

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
        super().__init__(MFCC(sample_rate, n_fft, hop_length, **mfcc).source)
        self.delta = Delta(order, width)
        self.sample_rate = sample_rate
        self.min_samples = (width - 1) * hop_length
        self._rounds = mfcc.get("single") is None

    def derive_beside(
        self, cepstrum: Tensor, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tensor:
        """Return the deltas of coefficients in float64, in the waveform's precision."""
        counts = None if lengths is None else self.frame_counts(lengths)
        delta = self.delta(cepstrum, counts).to(waveform.dtype)
        if not torch.jit.is_scripting():
            if self._rounds and takes_single(waveform):
                return self._with_rounded_clips(delta, cepstrum, waveform, lengths)
        return delta

    @torch.jit.unused
    def _with_rounded_clips(
        self, delta: Tensor, cepstrum: Tensor, waveform: Tensor, lengths: Optional[Tensor]
    ) -> Tensor:
        """Return deltas, those of clips in which librosa's rounding shows by scipy in float32.

        The cosine transform and the fit of the ends are wrong there by some 1e-7 of the level.
        """
        from scipy.signal import savgol_filter

        counts = None if lengths is None else self.frame_counts(lengths)
        order, width = self.delta.order, self.delta.width
        level = mask_frames(cepstrum, counts).abs().amax(dim=-1)
        span = delta.amax(dim=-1).clamp(min=0) - delta.amin(dim=-1).clamp(max=0)
        # Less is float64's rounding of a constant.
        small = ((level > 128 * span) & (span > 1e-9 * level)).any(dim=-1)
        if counts is not None:
            small &= counts >= width
        for clip in small.nonzero().flatten().tolist():
            n_samples = waveform.shape[-1] if lengths is None else int(lengths[clip])
            mfcc = self.source.rounded(waveform[clip : clip + 1, :n_samples])
            own = savgol_filter(mfcc, width, deriv=order, polyorder=order, axis=-1, mode="interp")
            delta[clip, :, : own.shape[-1]] = torch.from_numpy(own)
        return delta
