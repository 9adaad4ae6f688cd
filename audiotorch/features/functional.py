"""Tensor mathematics shared by several features."""

from typing import Optional

import torch
from torch import Tensor

from audiotorch.errors import ParameterError

__all__ = ["length_mask", "mask_frames", "mask_samples", "power_to_db", "stft", "stretch_frames"]


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Return True where a position lies inside its clip.

    Args:
        lengths: int64, samples or frames of each clip.
        size: length of the padded axis.

    Shape:
        - Input: `(...)`
        - Output: `(..., size)`, bool.
    """
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(-1)


def mask_samples(waveform: Tensor, lengths: Optional[Tensor]) -> Tensor:
    """Return the waveform with zeros past each clip's own end.

    Args:
        waveform: float samples.
        lengths: int64, samples of each clip; `None` = all full.

    Shape:
        - Input: `(..., time)` and `(...)`
        - Output: `(..., time)`

    Raises:
        ParameterError: an integer waveform, one without an axis, or lengths of another shape.
    """
    if not waveform.is_floating_point():
        raise ParameterError("waveform: must be float32 or float64; divide integers by full scale")
    if waveform.dim() < 1:
        raise ParameterError("waveform: must be (..., time), got a single number")
    if lengths is None:
        return waveform
    if lengths.dim() != waveform.dim() - 1:
        raise ParameterError(
            f"lengths: must have the waveform's {waveform.dim() - 1} leading axes, "
            f"got {lengths.dim()}"
        )
    return waveform.masked_fill(~length_mask(lengths, waveform.shape[-1]), 0.0)


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


def stft(
    waveform: Tensor,
    window: Tensor,
    hop_length: int,
    center: bool = True,
    pad_mode: str = "constant",
) -> Tensor:
    """Return the short-time Fourier transform.

    Args:
        waveform: float samples.
        window: as long as the FFT; its float64 values are rounded to the waveform's dtype.
        hop_length: samples between frames.
        center: pad `n_fft // 2` samples on each side, so that frame `t` is centred on sample
            `t * hop_length`.
        pad_mode: how that padding is filled; `"constant"` = zeros, librosa's default.

    Shape:
        - Input: `(..., time)`
        - Output: `(..., 1 + n_fft // 2, frames)` complex, `frames = 1 + time // hop_length` when
          centered.

    Reference:
        Same values as `librosa.stft`.
    """
    n_fft = window.shape[0]
    flat = waveform.reshape(-1, waveform.shape[-1])
    spectrum = torch.stft(
        flat,
        n_fft,
        hop_length,
        window=window.to(waveform.dtype),
        center=center,
        pad_mode=pad_mode,
        return_complex=True,
    )
    return spectrum.reshape(waveform.shape[:-1] + spectrum.shape[1:])


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
    step = torch.arange(n_frames, device=feature.device, dtype=feature.dtype) / max(n_frames - 1, 1)
    position = first.unsqueeze(-1) + step * (last - first).unsqueeze(-1)
    # Rounding must not carry the last position past the clip.
    position = torch.minimum(position, last.unsqueeze(-1).to(position.dtype))
    left = position.floor()
    left_index = left.long()
    right_index = torch.minimum(left_index + 1, last.unsqueeze(-1))
    shape = [feature.shape[0], feature.shape[1], n_frames]
    left_value = feature.gather(-1, left_index.unsqueeze(1).expand(shape))
    right_value = feature.gather(-1, right_index.unsqueeze(1).expand(shape))
    return torch.lerp(left_value, right_value, (position - left).unsqueeze(-2))
