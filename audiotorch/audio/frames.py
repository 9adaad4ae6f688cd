"""Clips of different lengths in one tensor, and the frames they are cut into."""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor

from audiotorch.errors import ParameterError

__all__ = [
    "check_clips",
    "cut_windows",
    "frame_sums",
    "full_lengths",
    "is_plain_cpu",
    "length_mask",
    "pad_ends",
    "silence_past",
]


def check_clips(waveform: Tensor, lengths: Optional[Tensor]) -> None:
    """Refuse what is no waveform, or lengths that are not one per clip.

    Args:
        waveform: float samples, `(..., time)`.
        lengths: int64, samples of each clip, `(...)`; `None` = all full.

    Raises:
        ParameterError: a shape or type does not fit.
    """
    if waveform.dim() < 1 or not waveform.is_floating_point():
        raise ParameterError(
            f"waveform of shape {list(waveform.shape)} and {waveform.dtype}: "
            "must be a float tensor (..., time)"
        )
    if lengths is not None and list(lengths.shape) != list(waveform.shape[:-1]):
        raise ParameterError(
            f"lengths of shape {list(lengths.shape)}: "
            f"must be one per clip, {list(waveform.shape[:-1])}"
        )


def full_lengths(waveform: Tensor, lengths: Optional[Tensor]) -> Tensor:
    """Return the samples of each clip, no more than there are.

    Args:
        waveform: float samples.
        lengths: int64, samples of each clip; `None` = all full.

    Shape:
        - Input: `(..., time)` and `(...)`
        - Output: `(...)`, int64
    """
    if lengths is None:
        return torch.full(
            waveform.shape[:-1], waveform.shape[-1], dtype=torch.int64, device=waveform.device
        )
    return lengths.clamp(max=waveform.shape[-1])


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


def silence_past(waveform: Tensor, lengths: Optional[Tensor]) -> Tensor:
    """Zero each clip from its length on; what stood there, NaN too, has no part in anything.

    Args:
        waveform: float samples.
        lengths: int64, samples of each clip; `None` = all full.

    Shape:
        - Input: `(..., time)` and `(...)`
        - Output: `(..., time)`
    """
    if lengths is None:
        return waveform
    # On CPUs masked_fill takes twice as long.
    return torch.where(length_mask(lengths, waveform.shape[-1]), waveform, 0.0)


def pad_ends(waveform: Tensor, lengths: Optional[Tensor], size: int, mode: str) -> Tensor:
    """Continue each clip by its own samples on both sides.

    Args:
        waveform: float samples.
        lengths: int64, samples of each clip; `None` = all full.
        size: samples added on each side.
        mode: `"reflect"` mirrors without repeating the end, again and again where a clip is
            shorter than `size`; `"edge"` repeats the end.

    Shape:
        - Input: `(..., time)` and `(...)`
        - Output: `(..., time + 2 * size)`; a clip's right continuation follows its own end.

    Reference:
        `numpy.pad`, modes `"reflect"` and `"edge"`.
    """
    n_samples = waveform.shape[-1]
    position = torch.arange(-size, n_samples + size, device=waveform.device)
    if lengths is None:
        last = torch.full_like(position, n_samples - 1)
    else:
        last = (lengths.unsqueeze(-1) - 1).clamp(min=0)
    if mode == "reflect":
        period = (2 * last).clamp(min=1)
        position = position.remainder(period)
        position = torch.minimum(position, period - position)
    position = torch.minimum(position.clamp(min=0), last)
    return waveform.gather(-1, position.expand(waveform.shape[:-1] + position.shape[-1:]))


def frame_sums(x: Tensor, frame_length: int, hop_length: int, before: int, after: int) -> Tensor:
    """Return the sum over each frame, of blocks that neighbouring frames share.

    Args:
        x: samples.
        frame_length: samples of a frame.
        hop_length: samples between frames.
        before: zeros before the first sample.
        after: zeros behind the last sample.

    Shape:
        - Input: `(batch, time)`
        - Output: `(batch, frames)`, as many as lie within the padded clip
    """
    block = math.gcd(frame_length, hop_length)
    n_more = (before + x.shape[-1] + after - frame_length) // hop_length  # frames but the first
    # Cut to what frames reach (a negative padding cuts), so that blocks come out even.
    reach = frame_length + n_more * hop_length
    padded = torch.nn.functional.pad(x, [before, reach - before - x.shape[-1]])
    n_blocks = frame_length // block + n_more * (hop_length // block)
    blocks = padded.reshape(x.shape[0], n_blocks, block).sum(-1)
    return blocks.unfold(-1, frame_length // block, hop_length // block).sum(-1)


@torch.jit.unused
def is_plain_cpu(x: Tensor) -> bool:
    """Say whether a tensor is computed with here and now, on the CPU, without gradients.

    Only then does it pay, and is it possible, to go through it piece by piece.

    Args:
        x: any tensor.
    """
    return (
        type(x) is Tensor  # no fake tensor, as torch.export uses
        and x.device.type == "cpu"
        and not (torch.is_grad_enabled() and x.requires_grad)
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()
    )


def cut_windows(
    waveform: Tensor, lengths: Tensor, window: int, hop: int
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cut clips into windows, none of which is shorter than the others.

    Windows start at multiples of the hop; the last one is moved back to end with the clip. A clip
    shorter than a window is one window.

    Args:
        waveform: `(batch, time)`.
        lengths: samples of each clip, `(batch,)`.
        window: samples.
        hop: samples from start to start, at most `window`.

    Shape:
        - Output: windows `(batch, n, window)`, and `(batch, n)` each: their lengths, the samples
          where they start, and valid: whether the clip has that window
    """
    n_samples = waveform.shape[1]
    n = max(1, 1 - (window - n_samples) // hop)
    if not torch.jit.is_scripting():
        if torch.compiler.is_exporting():
            n = n + 1  # a size of 1 is a case of its own to it; this window is never valid
    grid = torch.arange(n, device=waveform.device) * hop
    last = (lengths - window).clamp(min=0).unsqueeze(1)
    starts = torch.minimum(grid, last)
    padded = torch.nn.functional.pad(waveform, [0, max(0, window - n_samples)])
    index = starts.unsqueeze(2) + torch.arange(window, device=waveform.device)
    cut = padded.unsqueeze(1).expand(-1, n, -1).gather(2, index)
    inside = lengths.clamp(max=window).unsqueeze(1).expand(-1, n)
    return cut, inside, starts, grid < last + hop
