"""Tensor mathematics shared by several features."""

from typing import Optional

import torch
from torch import Tensor

from audiotorch.audio.frames import length_mask, silence_past
from audiotorch.errors import ParameterError

__all__ = [
    "MIN_SPREAD_DB",
    "check_feature",
    "check_waveform",
    "frames_at",
    "mask_frames",
    "mask_samples",
    "power_to_db",
    "safe_sqrt",
    "stretch_frames",
]

MIN_SPREAD_DB = 0.5
"""Below this spread (dB) a clip is constant: dividing would only blow up rounding."""


def check_waveform(waveform: Tensor, lengths: Optional[Tensor]) -> None:
    """Refuse what is no waveform, or lengths that do not fit it.

    Args:
        waveform: float samples, `(..., time)`.
        lengths: int64, samples of each clip, `(...)`; `None` = all full.

    Raises:
        ParameterError: neither float32 nor float64, no time axis, or lengths of another shape.
    """
    if waveform.dtype != torch.float32 and waveform.dtype != torch.float64:
        raise ParameterError("waveform: must be float32 or float64; divide integers by full scale")
    if waveform.dim() < 1:
        raise ParameterError("waveform: must be (..., time), got a single number")
    if lengths is not None and lengths.dim() != waveform.dim() - 1:
        raise ParameterError(
            f"lengths: must have the waveform's {waveform.dim() - 1} leading axes, "
            f"got {lengths.dim()}"
        )


def mask_samples(waveform: Tensor, lengths: Optional[Tensor]) -> Tensor:
    """Return the waveform with zeros past each clip's own end.

    Args:
        waveform: float samples.
        lengths: int64, samples of each clip; `None` = all full.

    Shape:
        - Input: `(..., time)` and `(...)`
        - Output: `(..., time)`

    Raises:
        ParameterError: as `check_waveform`.
    """
    check_waveform(waveform, lengths)
    return silence_past(waveform, lengths)


def check_feature(feature: Tensor, frame_counts: Optional[Tensor]) -> None:
    """Refuse what is no feature with frames last.

    Args:
        feature: to be checked.
        frame_counts: int64, frames of each clip; `None` = all full.

    Shape:
        - Input: `(..., rows, frames)` and `(...)`

    Raises:
        ParameterError: neither float32 nor float64, fewer than two axes, or counts of another
            shape.
    """
    if feature.dtype != torch.float32 and feature.dtype != torch.float64:
        raise ParameterError("feature: must be float32 or float64; call .float() first")
    if feature.dim() < 2:
        raise ParameterError(f"feature: must be (..., rows, frames), got {feature.dim()} axes")
    if frame_counts is not None and frame_counts.dim() != feature.dim() - 2:
        raise ParameterError(
            f"frame_counts: must have the feature's {feature.dim() - 2} leading axes, "
            f"got {frame_counts.dim()}"
        )


def mask_frames(feature: Tensor, frame_counts: Optional[Tensor]) -> Tensor:
    """Return the feature with zeros past each clip's own last frame.

    Args:
        feature: any feature with frames last.
        frame_counts: int64, frames of each clip; `None` = all full.

    Shape:
        - Input: `(..., rows, frames)` and `(...)`
        - Output: `(..., rows, frames)`
    """
    if frame_counts is None:
        return feature
    return feature.masked_fill(~length_mask(frame_counts, feature.shape[-1]).unsqueeze(-2), 0.0)


def power_to_db(
    power: Tensor,
    ref: float = 1.0,
    amin: float = 1e-10,
    top_db: Optional[float] = 80.0,
    relative: bool = False,
) -> Tensor:
    """Return `10 log10(power / ref)`, floored `top_db` below the clip's own maximum.

    A clip is the last two axes; nothing crosses from one clip to another.

    Args:
        power: power values, at least 0.
        ref: the power that counts as 0 dB.
        amin: powers below this count as this.
        top_db: dynamic range kept, dB; `None` = no floor.
        relative: take each clip's own maximum as `ref`, as librosa does for `ref=np.max`.

    Shape:
        - Input: `(..., rows, frames)`
        - Output: as the input, dB.

    Reference:
        Same values as `librosa.power_to_db` on one clip.
    """
    db = 10.0 * torch.log10(power.clamp(min=amin))
    peak = db.amax(dim=(-2, -1), keepdim=True)
    if relative:
        db = db - peak
        peak = torch.zeros_like(peak)
    else:
        offset = 10.0 * torch.log10(torch.full_like(peak, max(amin, ref)))
        db = db - offset
        peak = peak - offset
    if top_db is not None:
        db = torch.maximum(db, peak - top_db)
    return db


def stretch_frames(feature: Tensor, first: Tensor, last: Tensor, n_frames: int) -> Tensor:
    """Interpolate a span of each clip's frames linearly to a fixed number of frames.

    Args:
        feature: any feature of a batch.
        first: int64, first frame of each clip's span.
        last: int64, last frame of each clip's span, at least `first`.
        n_frames: frames of the result, which runs from `first` to `last`.

    Shape:
        - Input: `(batch, rows, frames)`, `(batch,)`, `(batch,)`
        - Output: `(batch, rows, n_frames)`

    Reference:
        `numpy.interp` at `numpy.linspace(first, last, n_frames)`.
    """
    step = torch.arange(n_frames, device=feature.device, dtype=torch.float64) / max(n_frames - 1, 1)
    return frames_at(feature, first.unsqueeze(-1) + step * (last - first).unsqueeze(-1), last)


def frames_at(feature: Tensor, position: Tensor, last: Tensor) -> Tensor:
    """Read each clip's frames at fractional positions by linear interpolation.

    Args:
        feature: any feature of a batch.
        position: float64, in frames; beyond a clip's ends, its ends are read.
        last: int64, last frame of each clip.

    Shape:
        - Input: `(batch, rows, frames)`, `(batch, n_frames)`, `(batch,)`
        - Output: `(batch, rows, n_frames)`

    Reference:
        `numpy.interp`, clip by clip.
    """
    # Rounding must not carry the last position past the clip.
    position = torch.minimum(position, last.unsqueeze(-1).to(position.dtype)).clamp(min=0.0)
    left = position.floor()
    # A position that is not a number reads frame 0 and stays not a number by its weight.
    left_index = left.nan_to_num(0.0).long()
    right_index = torch.minimum(left_index + 1, last.unsqueeze(-1))
    shape = [feature.shape[0], feature.shape[1], position.shape[1]]
    left_value = feature.gather(-1, left_index.unsqueeze(1).expand(shape))
    right_value = feature.gather(-1, right_index.unsqueeze(1).expand(shape))
    weight = (position - left).to(feature.dtype)
    return torch.lerp(left_value, right_value, weight.unsqueeze(-2))


def safe_sqrt(power: Tensor) -> Tensor:
    """Return the square root, with a gradient of 0 where the power is 0.

    Args:
        power: at least 0.

    Shape:
        - Input: any
        - Output: as the input.
    """
    if not power.requires_grad:
        return power.sqrt()
    silent = power <= 0
    return power.masked_fill(silent, 1.0).sqrt().masked_fill(silent, 0.0)
