"""What is done to waveforms before features: `ToMono`, `PadOrTrim`, `Normalize`, `PreEmphasis`.

Larger steps have files of their own: `resample`, `silence`, `denoise`, `loudness`. All but `ToMono`
are modules over `(..., time)` with optional `lengths (...)` in samples, shaped as the leading axes;
`None` says that every clip is full. Each clip is treated alone (channels too: mix them first), and
what lies past its length is ignored and comes out as zeros.
"""

import math
from typing import Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from audiotorch.audio.chunks import Step
from audiotorch.audio.frames import check_clips, full_lengths, silence_past
from audiotorch.errors import ParameterError

__all__ = ["Normalize", "PadOrTrim", "PreEmphasis", "ToMono", "check_rate"]


class ToMono(nn.Module):
    """Average the channels.

    Shape:
        - Input: `(..., channel, time)`
        - Output: `(..., time)`

    Raises:
        ParameterError: the input has no channel axis.
    """

    def forward(self, waveform: Tensor) -> Tensor:
        """Average the axis before the last."""
        if waveform.dim() < 2:
            raise ParameterError(
                f"waveform of shape {list(waveform.shape)}: must be (..., channel, time)"
            )
        return waveform.mean(dim=-2)


class PadOrTrim(nn.Module):
    """Cut clips, or follow them by silence, to one duration.

    Args:
        sample_rate: Hz.
        duration: seconds, above 0; `round(duration * sample_rate)` samples.

    Shape:
        - Input: `(..., time)`, `lengths (...)` or None
        - Output: `(..., n_samples)`, and `lengths (...)`: how much of each is the clip's own, so
          that padding stays padding for what follows

    Raises:
        ParameterError: an argument is out of range; in `forward`, a shape or type does not fit.
    """

    def __init__(self, sample_rate: int, duration: float) -> None:
        super().__init__()
        self.sample_rate = check_rate("sample_rate", sample_rate)
        if not (math.isfinite(duration) and round(duration * sample_rate) > 0):
            raise ParameterError(
                f"duration={duration!r}: must be above 0 seconds and give at least one sample "
                f"at {sample_rate} Hz"
            )
        self.n_samples = round(duration * sample_rate)

    def forward(
        self, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Pad or trim each clip at its end."""
        check_clips(waveform, lengths)
        waveform = silence_past(waveform, lengths)
        lengths = full_lengths(waveform, lengths).clamp(max=self.n_samples)
        # First lengthen by the whole duration, then cut: no branch on the input's size.
        return pad(waveform, [0, self.n_samples])[..., : self.n_samples], lengths


class Normalize(Step):
    """Scale each clip to peak 1, or to a given root mean square.

    Silent clips, and those whose level lies below the dtype's smallest normal number, stay as
    they are. With `"rms"`, peaks may exceed 1.

    Args:
        method: `"peak"` divides by the largest magnitude; `"rms"` brings the root mean square to
            `target_rms`.
        target_rms: the level for `"rms"`, above 0.

    Shape:
        - Input: `(..., time)`, `lengths (...)` or None
        - Output: the same

    Raises:
        ParameterError: unknown method or level; in `forward`, a shape or type does not fit.

    Reference:
        `"peak"`: same values as `librosa.util.normalize`.

    Example:
        >>> Normalize()(torch.tensor([0.0, -0.5, 0.25]))[0]
        tensor([ 0.0000, -1.0000,  0.5000])
    """

    def __init__(self, method: str = "peak", target_rms: float = 0.1) -> None:
        super().__init__()
        if method not in ("peak", "rms"):
            raise ParameterError(f'method={method!r}: must be "peak" or "rms"')
        if not (math.isfinite(target_rms) and target_rms > 0):
            raise ParameterError(f"target_rms={target_rms!r}: must be above 0, such as 0.1")
        self.method = method
        self.target_rms = target_rms

    def compute(self, clips: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Scale each clip by its own level."""
        clips = silence_past(clips, lengths)
        peak = clips.abs().amax(dim=-1, keepdim=True)
        audible = ~(peak < _smallest_normal(clips.dtype))
        clips = clips / torch.where(audible, peak, torch.ones_like(peak))
        if self.method == "peak":
            return clips
        # On the scaled clip, whose squares neither overflow nor vanish.
        power = clips.square().sum(dim=-1, keepdim=True)
        if lengths is None:
            power = power / clips.shape[-1]
        else:
            power = power / lengths.clamp(min=1).unsqueeze(-1)
        gain = self.target_rms / torch.where(audible, power, torch.ones_like(power)).sqrt()
        return clips * torch.where(audible, gain, torch.ones_like(gain))


class PreEmphasis(Step):
    """Raise high frequencies: from each sample subtract a share of the one before.

    `y[n] = x[n] - coef * x[n - 1]`, and first of all `y[0] = x[0] + (2 x[0] - x[1])`, librosa's own
    start, up to three times the first sample. A clip of one sample counts as going on level.

    Args:
        coef: the share, 0 to 1; 1 gives differences.

    Shape:
        - Input: `(..., time)`, `lengths (...)` or None
        - Output: the same

    Raises:
        ParameterError: `coef` is out of range; in `forward`, a shape or type does not fit.

    Reference:
        Same values as `librosa.effects.preemphasis`.

    Example:
        >>> PreEmphasis(0.5)(torch.tensor([1.0, 1.0, 3.0]))[0]
        tensor([2.0000, 0.5000, 2.5000])
    """

    def __init__(self, coef: float = 0.97) -> None:
        super().__init__()
        if not 0 <= coef <= 1:
            raise ParameterError(f"coef={coef!r}: must be 0 to 1, such as 0.97")
        self.coef = float(coef)

    def compute(self, clips: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Filter each clip from its own first sample on."""
        clips = silence_past(clips, lengths)
        first = clips[:, :1]
        second = clips[:, 1:2] if clips.shape[1] > 1 else first
        if lengths is not None:
            second = torch.where((lengths == 1).unsqueeze(-1), first, second)
        rest = clips[:, 1:] - self.coef * clips[:, :-1]
        return silence_past(torch.cat([first + (2.0 * first - second), rest], dim=-1), lengths)


def check_rate(name: str, value: object) -> int:
    """Return a sample rate as an int.

    Args:
        name: what the caller's argument is called.
        value: what was given.

    Raises:
        ParameterError: it is no positive whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value <= 0:
        raise ParameterError(f"{name}={value!r}: must be a positive whole number of Hz")
    return int(value)


def _smallest_normal(dtype: torch.dtype) -> float:
    """torch.finfo(dtype).tiny, which TorchScript does not know."""
    if dtype == torch.float64:
        return 2.2250738585072014e-308
    if dtype == torch.float16:
        return 6.103515625e-05
    return 1.1754943508222875e-38
