"""Spectrogram, mel spectrogram, decibels, MFCC and their deltas.

torchaudio's transforms are not used: they build windows and banks in float32, take the dynamic
range of the whole batch for `top_db`, and pad deltas where librosa fits a polynomial.
"""

from typing import Any, Optional, Union

import numpy as np
import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.features import filters
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import (
    check_feature,
    mask_frames,
    power_to_db,
    safe_sqrt,
    stft,
)

__all__ = ["MFCC", "Delta", "MelSpectrogram", "PowerToDB", "STFT", "Spectrogram"]


class STFT(Feature):
    """Short-time Fourier transform: the stage below every spectrogram.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        win_length: samples of the window, at most `n_fft`, which is the default.
        window: name of the window, for `scipy.signal.get_window`.
        center: pad `n_fft // 2` samples on each side.
        pad_mode: `"constant"` (zeros), `"reflect"` or `"edge"`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1 + n_fft // 2, frames)` complex, `frames = 1 + time // hop_length` when
          centered; frames past a clip's own are 0.

    Raises:
        ParameterError: a size that is not positive, or an unknown window or padding.

    Reference:
        Same values as `librosa.stft`: computed in float64, and rounded for float32 waveforms.
    """

    window: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        win_length: int | None = None,
        window: str = "hann",
        center: bool = True,
        pad_mode: str = "constant",
    ) -> None:
        super().__init__()
        check_positive(sample_rate=sample_rate, n_fft=n_fft, hop_length=hop_length)
        if pad_mode not in ("constant", "reflect", "edge"):
            raise ParameterError(f"pad_mode={pad_mode!r}: must be 'constant', 'reflect' or 'edge'")
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.center = center
        self.pad_mode = pad_mode
        taps = filters.window(window, n_fft if win_length is None else win_length, n_fft)
        self.register_buffer("window", taps, persistent=False)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        if self.center:
            return 1 + lengths // self.hop_length
        return (1 + (lengths - self.n_fft) // self.hop_length).clamp(min=0)

    def derive(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the transform of waveforms `(batch, time)`."""
        spectrum = stft(waveform, self.window, self.hop_length, self.center, self.pad_mode, lengths)
        if waveform.dtype == torch.float32:
            spectrum = spectrum.to(torch.complex64)
        return spectrum if lengths is None else mask_frames(spectrum, self.frame_counts(lengths))


class Spectrogram(Feature):
    """Power (or magnitude) of the short-time Fourier transform.

    Frame `t` is centred on sample `t * hop_length`; the ends are padded with zeros. Differentiable
    everywhere; where a bin is silent, the gradient of the magnitude counts as 0.

    Args:
        sample_rate: Hz; kept for the features built on this one.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        power: exponent of the magnitude; 2 = power, 1 = magnitude.
        stft: further settings of the transform: `win_length`, samples of the window, at most
            `n_fft`, which is the default; `window`, its name for `scipy.signal.get_window`;
            `center`, pad `n_fft // 2` samples on each side; `pad_mode`, `"constant"` (zeros),
            `"reflect"` or `"edge"`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1 + n_fft // 2, frames)`, `frames = 1 + time // hop_length` when centered;
          frames past a clip's own are 0.

    Raises:
        ParameterError: a size or exponent that is not positive, or an unknown window or padding.

    Reference:
        Same values as `numpy.abs(librosa.stft(y)) ** power`.

    Example:
        >>> Spectrogram()(torch.zeros(2, 22050)).shape
        torch.Size([2, 1025, 44])
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        power: float = 2.0,
        **stft: Any,
    ) -> None:
        check_positive(power=power)
        # Other exponents are taken of the power, which then several features share.
        below = STFT if power == 2.0 else Spectrogram
        super().__init__(below(sample_rate, n_fft, hop_length, **stft))
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.power = float(power)

    def derive(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the power of a transform, or the wanted exponent of a power spectrogram."""
        if self.power == 2.0:
            return torch.addcmul(x.real.square(), x.imag, x.imag)
        if self.power == 1.0:
            return safe_sqrt(x)
        return safe_sqrt(x).pow(self.power)


class MelSpectrogram(Feature):
    """Power spectrogram summed into mel bands.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        n_mels: number of bands.
        fmin: lowest frequency, Hz.
        fmax: highest frequency, Hz; `None` = half the sample rate.
        htk: HTK's mel scale instead of Slaney's.
        norm: `"slaney"` (unit area) or `None` (unit peak).
        spectrogram: further settings of `Spectrogram`: `power win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_mels, frames)`, frames past a clip's own are 0.

    Raises:
        ParameterError: as `Spectrogram` and `filters.mel_bank`.

    Reference:
        Same values as `librosa.feature.melspectrogram`.

    Example:
        >>> MelSpectrogram(n_mels=40)(torch.zeros(22050)).shape
        torch.Size([40, 44])
    """

    bank: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        n_mels: int = 128,
        fmin: float = 0.0,
        fmax: float | None = None,
        htk: bool = False,
        norm: str | None = "slaney",
        **spectrogram: Any,
    ) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, **spectrogram))
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        bank = filters.mel_bank(
            sample_rate, n_fft, n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=norm
        )
        self.register_buffer("bank", bank, persistent=False)

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the mel spectrogram of a spectrogram `(batch, freq, frames)`."""
        return torch.matmul(self.bank.to(specgram.dtype), specgram)


class PowerToDB(nn.Module):
    """Decibels of a power spectrogram, each clip with its own dynamic range.

    Args:
        ref: the power that counts as 0 dB, or `"max"` for each clip's own maximum.
        amin: powers below this count as this.
        top_db: dynamic range kept below the clip's maximum, dB; `None` = all.

    Shape:
        - Input: `(..., rows, frames)` and frame counts `(...)`
        - Output: as the input, dB; frames past a clip's own are 0.

    Raises:
        ParameterError: `ref`, `amin` or `top_db` not positive.

    Reference:
        Same values as `librosa.power_to_db`.

    Example:
        >>> PowerToDB()(torch.tensor([[1.0, 0.01]]))
        tensor([[  0., -20.]])
    """

    def __init__(
        self,
        ref: Union[float, str] = 1.0,
        amin: float = 1e-10,
        top_db: float | None = 80.0,
    ) -> None:
        super().__init__()
        if isinstance(ref, str) and ref != "max":
            raise ParameterError(f"ref={ref!r}: must be a power above 0, or 'max'")
        self.relative = ref == "max"
        self.ref = 1.0 if isinstance(ref, str) else float(ref)
        self.amin = amin
        self.top_db = top_db
        for name, value in (("ref", self.ref), ("amin", amin), ("top_db", top_db)):
            if value is not None and not value > 0:
                raise ParameterError(f"{name}={value}: must be greater than 0")

    def forward(self, power: Tensor, frame_counts: Optional[Tensor] = None) -> Tensor:
        """Return decibels; shapes as in the class docstring."""
        check_feature(power, frame_counts)
        power = mask_frames(power, frame_counts)
        db = power_to_db(power, self.ref, self.amin, self.top_db, self.relative)
        return mask_frames(db, frame_counts)


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
        super().__init__(MelSpectrogram(sample_rate, n_fft, hop_length, **mel))
        self.sample_rate = sample_rate
        self.n_mfcc = n_mfcc
        if lifter < 0:
            raise ParameterError(f"lifter={lifter}: must be at least 0")
        dct = filters.dct_matrix(n_mfcc, self.source.n_mels, dct_type=dct_type, norm=dct_norm)
        if lifter > 0:
            angle = np.pi * np.arange(1, n_mfcc + 1) / lifter
            dct = dct * torch.from_numpy(1 + (lifter / 2) * np.sin(angle))[:, None]
        self.register_buffer("dct", dct, persistent=False)

    def derive(self, mel_specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the coefficients of a mel spectrogram `(batch, n_mels, frames)`."""
        db = power_to_db(mel_specgram)
        # In float64: sums of 128 equal numbers, as in silence, lose 1e-3 dB in float32.
        mfcc = torch.matmul(self.dct.double(), db.double()).to(db.dtype)
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

    def forward(self, feature: Tensor, frame_counts: Optional[Tensor] = None) -> Tensor:
        """Return the derivative per frame; shapes and errors as in the class docstring."""
        check_feature(feature, frame_counts)
        if feature.shape[-1] < self.width:
            raise ParameterError(
                f"feature: has {feature.shape[-1]} frames, Delta needs at least "
                f"width={self.width}; pad the clip, or lower width"
            )
        n_frames = feature.shape[-1]
        frame = torch.arange(n_frames, device=feature.device)
        if frame_counts is None:
            last = torch.full_like(frame, n_frames)
        else:
            last = frame_counts.clamp(min=self.width).unsqueeze(-1)
        # Frame t is fitted in the window that starts at s, and stands at o = t - s inside it.
        start = torch.minimum((frame - self.width // 2).clamp(min=0), last - self.width)
        offset = (frame - start).clamp(max=self.width - 1)
        weights = self.weights.double()[offset].unsqueeze(-3)
        position = start.unsqueeze(-1) + torch.arange(self.width, device=feature.device)
        position = position.flatten(-2).unsqueeze(-2)
        position = position.expand(feature.shape[:-1] + position.shape[-1:])
        windows = feature.gather(-1, position).unflatten(-1, (n_frames, self.width))
        # In float64: where the terms nearly cancel, float32 leaves too little. The weights sum to
        # 0, so taking one frame off changes nothing, but keeps the delta of a constant at 0.
        windows = windows.double()
        middle = self.width // 2
        windows = windows - windows[..., middle : middle + 1]
        delta = (windows * weights).sum(dim=-1).to(feature.dtype)
        return mask_frames(delta, frame_counts)
