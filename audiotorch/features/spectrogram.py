"""Spectrogram and decibels.

torchaudio's transforms are not used: they build windows in float32, take the dynamic range of the
whole batch for `top_db`.
"""

from collections.abc import Iterator
from typing import Any, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from audiotorch.audio.fourier import (
    complex_dtype,
    cut_frames,
    power_spectrum,
    stft,
    takes_single,
    transform,
)
from audiotorch.errors import ParameterError
from audiotorch.features import filters
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import (
    check_feature,
    mask_frames,
    power_to_db,
    safe_sqrt,
)

__all__ = ["STFT", "PowerToDB", "Spectrogram"]

# Frames from which float32 is tried: fewer gain nothing, their deltas may span next to nothing, and
# a single peak may decide their tuning.
_LONG = 128


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
        single: `True` lets all power spectra built on this be taken in float32, in half the time,
            on the CPU and without gradients, where clips have 128 frames and more: in shorter ones
            single peaks decide, as on the tuning. Rounding then reaches 2e-3 dB 80 dB below the
            maximum; frames with bins still lower are transformed in float64 all the same. `False`
            lets none, `None` those of which nothing but mel bands is made: see `MelSpectrogram`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1 + n_fft // 2, frames)` complex, `frames = 1 + time // hop_length` when
          centered. Frames past a clip's own may be anything: what is built on this leaves them out.

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
        single: bool | None = None,
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
        self.single = single
        taps = filters.window(window, n_fft if win_length is None else win_length, n_fft)
        self.register_buffer("window", taps, persistent=False)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        if self.center:
            return 1 + lengths // self.hop_length
        return (1 + (lengths - self.n_fft) // self.hop_length).clamp(min=0)

    def derive(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the transform of waveforms `(batch, time)`."""
        return stft(waveform, self.window, self.hop_length, self.center, self.pad_mode, lengths)

    def frames(
        self, waveform: Tensor, lengths: Optional[Tensor] = None, double: bool = True
    ) -> Tensor:
        """Return what is transformed, `(batch, frames, n_fft)`, in float64 if `double`."""
        n_fft, hop = self.window.shape[0], self.hop_length
        return cut_frames(waveform, n_fft, hop, self.center, self.pad_mode, lengths, double)

    def power(self, frames: Tensor, dtype: torch.dtype) -> Tensor:
        """Return power spectra `(batch, freq, frames)`, rounded to complex `dtype` before."""
        return transform(frames, self.window, dtype, power=True).transpose(-1, -2)


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
            `"reflect"` or `"edge"`; `single`, whether it may be taken in float32, as in `STFT`.

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

    passes_on_to = STFT

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

    def compute(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the spectrogram of `(batch, time)` at once, keeping no transform."""
        below = self.source
        # Asked so that TorchScript, too, leaves out one of the two.
        if not hasattr(below, "window"):
            return self.derive(below.compute(waveform, lengths), lengths)
        else:
            waveform = below.source.compute(waveform, lengths)
            if not torch.jit.is_scripting():
                if below.single and takes_single(waveform):
                    short = self.are_short(waveform, lengths)
                    if not short.all():
                        return self._in_single(waveform, lengths, short)
            frames = below.frames(waveform, lengths)
            return self.masked(below.power(frames, complex_dtype(waveform)), lengths)

    @torch.jit.unused
    def are_short(self, waveform: Tensor, lengths: Optional[Tensor]) -> Tensor:
        """Say which clips have fewer than 128 frames, `(batch,)`."""
        batch, n_samples = waveform.shape
        own = torch.full((batch,), n_samples) if lengths is None else lengths
        return self.frame_counts(own) < _LONG

    @torch.jit.unused
    def _in_single(self, waveform: Tensor, lengths: Optional[Tensor], short: Tensor) -> Tensor:
        """Return power taken in float32, or in float64 where that might show.

        Rounding is 1e-13 of a frame's power in each bin. So it shows where bins hold next to
        nothing, as beside a pure tone, and moments count them with the square of their distance.
        """
        below = self.source
        frames = below.frames(waveform, lengths, double=False)
        power = self.masked(below.power(frames, torch.complex64), lengths).transpose(-1, -2)
        size = min(32, power.shape[-1])
        blocks = power[..., : power.shape[-1] // size * size].unflatten(-1, (-1, size)).mean(-1)
        mean = blocks.mean(dim=-1)
        faint = blocks.amin(dim=-1) < 1e-9 * mean
        faint |= short.unsqueeze(-1) & (mean > 0)
        for places, exact in self.exactly(frames, faint):
            power[places] = exact.transpose(0, 1)
        return power.transpose(-1, -2)

    @torch.jit.unused
    def exactly(self, frames: Tensor, chosen: Tensor) -> Iterator[Tuple[Any, Tensor]]:
        """Transform some frames in float64.

        Args:
            frames: of a float32 waveform, `(batch, frames, n_fft)`.
            chosen: which, `(batch, frames)` bool.

        Yields:
            Clips and frames of so many that memory stays small, and their power `(freq, n)`.
        """
        found = chosen.nonzero()
        for start in range(0, len(found), 1024):
            places = found[start : start + 1024].unbind(dim=1)
            power = self.source.power(frames[places].double().unsqueeze(0), torch.complex64)
            yield places, power.squeeze(0)

    def masked(self, power: Tensor, lengths: Optional[Tensor]) -> Tensor:
        """Return power `(batch, freq, frames)` with zeros past each clip's own frames."""
        return power if lengths is None else mask_frames(power, self.frame_counts(lengths))

    def derive(self, x: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the power of a transform, or the wanted exponent of a power spectrogram."""
        if self.power == 2.0:
            return self.masked(power_spectrum(x), lengths)
        if self.power == 1.0:
            return safe_sqrt(x)
        return safe_sqrt(x).pow(self.power)


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
