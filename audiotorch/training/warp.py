"""Warps of one axis of an image: where to read, and reading there."""

import numpy as np
import torch
from torch import Tensor

from audiotorch.features.filters import hz_to_mel, mel_frequencies

__all__ = ["anchor_frames", "end_frames", "formant_rows", "interpolate_axis"]

# Jaitly & Hinton bend the warp at 4800 Hz, above the formants that matter; at low sample rates
# the knee stays below the highest mel edge.
_KNEE_HZ = 4800.0
_KNEE_SHARE = 0.85


def interpolate_axis(x: Tensor, coordinates: Tensor, dim: int) -> Tensor:
    """Read one axis of a batch at fractional positions, other positions for each item.

    Linear interpolation between the two neighbours; positions outside the axis read its ends, and
    a whole-numbered position returns the stored value unchanged.

    Args:
        x: what to read; its first axis is the batch.
        coordinates: positions in units of the axis' own index.
        dim: the axis to read, not the first.

    Shape:
        - x: `(batch, ..., n, ...)`
        - coordinates: `(batch, n_out)`
        - Output: `(batch, ..., n_out, ...)`

    Example:
        >>> interpolate_axis(torch.tensor([[0.0, 10.0, 20.0]]), torch.tensor([[0.5, 2.0]]), 1)
        tensor([[ 5., 20.]])
    """
    dim = dim % x.ndim
    last = x.shape[dim] - 1
    coordinates = coordinates.clamp(0, last)
    view = [1] * x.ndim
    view[0], view[dim] = coordinates.shape
    shape = list(x.shape)
    shape[dim] = coordinates.shape[1]
    floor = coordinates.floor()
    index = floor.long().view(view)
    weight = (coordinates - floor).to(x.dtype).view(view)
    below = x.gather(dim, index.expand(shape))
    above = x.gather(dim, (index + 1).clamp(max=last).expand(shape))
    return torch.lerp(below, above, weight)


def formant_rows(
    factor: Tensor, n_mels: int, fmin: float, fmax: float, *, htk: bool = False
) -> Tensor:
    """Return the rows of a mel image that a vocal tract of another length would have filled.

    The row centred at frequency f reads f / factor, so that formants move up by the factor. Above
    a knee, min(4800 Hz, 0.85 fmax) times min(factor, 1), a straight line leads to fmax, which
    stays in place. Frequencies are Hz: on a mel axis the warp is a shift at high, a stretch at low
    frequencies.

    Args:
        factor: scale of the frequencies of each clip, 0.5 to 1.5; float64, on the CPU.
        n_mels: rows of the image.
        fmin: lowest edge of the mel axis, in Hz.
        fmax: highest edge of the mel axis, in Hz.
        htk: whether the axis follows HTK's scale instead of Slaney's.

    Shape:
        - Input: `(batch,)`
        - Output: `(batch, n_mels)`, float64; whole rows in order where the factor is 1.

    Reference:
        Jaitly & Hinton (2013), Vocal tract length perturbation (VTLP) improves speech recognition.
    """
    centres = mel_frequencies(n_mels + 2, fmin, fmax, htk=htk)[1:-1]
    mel_low, mel_high = hz_to_mel(np.array([fmin, fmax]), htk=htk)
    hz = torch.from_numpy(centres)
    factor = factor[:, None]
    # The knee carries min(factor, 1) so that both it and what it reads stay below fmax.
    knee = min(_KNEE_HZ, _KNEE_SHARE * fmax) * factor.clamp(max=1)
    slope = (fmax - knee / factor) / (fmax - knee)
    read = torch.where(hz <= knee, hz / factor, fmax - slope * (fmax - hz))
    # As a difference, so that factor 1 gives whole numbers and returns the image unchanged.
    moved = hz_to_mel(read.numpy(), htk=htk) - hz_to_mel(centres, htk=htk)
    rows = torch.from_numpy(moved * (n_mels + 1) / (mel_high - mel_low))
    rows = torch.where(factor == 1, 0.0, rows)
    return torch.arange(n_mels, dtype=torch.float64) + rows


def anchor_frames(source: Tensor, target: Tensor, frame_counts: Tensor, n_frames: int) -> Tensor:
    """Return the frames to read so that an anchor moves and both ends of the clip stay.

    Two straight lines, from the first frame to the anchor and from there to the last valid frame.
    Frames beyond the count read themselves, and no valid frame reads them.

    Args:
        source: the anchor's place before, as share of the clip, between 0 and 1.
        target: its place afterwards, strictly between 0 and 1.
        frame_counts: valid frames of each clip.
        n_frames: frames of the padded image.

    Shape:
        - Inputs: `(batch,)` each
        - Output: `(batch, n_frames)`

    Reference:
        Park et al. (2019), SpecAugment: A simple data augmentation method for speech recognition.
    """
    source, target = source[:, None], target[:, None]
    last = (frame_counts[:, None] - 1).clamp(min=1).to(source.dtype)
    frame = torch.arange(n_frames, device=source.device, dtype=source.dtype)
    share = frame / last
    left = share * source / target
    right = 1 - (1 - share) * (1 - source) / (1 - target)
    read = torch.where(share < target, left, right) * last
    # Where nothing moves, rounding must not blur the image.
    read = torch.where(source == target, frame, read)
    return torch.where(frame <= last, read.clamp(min=0).minimum(last), frame)


def end_frames(start: Tensor, end: Tensor, frame_counts: Tensor, n_frames: int) -> Tensor:
    """Return the frames to read so that a clip begins and ends elsewhere.

    One straight line from the new first frame to the new last one. Where the line leaves the clip
    it reads the frame at that end again; frames beyond the count read themselves.

    Args:
        start: where reading begins, as share of the clip; 0 keeps it.
        end: where reading ends, as share of the clip; 1 keeps it.
        frame_counts: valid frames of each clip.
        n_frames: frames of the padded image.

    Shape:
        - Inputs: `(batch,)` each
        - Output: `(batch, n_frames)`

    Example:
        >>> end_frames(torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor([5]), 6)
        tensor([[2.0000, 2.5000, 3.0000, 3.5000, 4.0000, 5.0000]])
    """
    start, end = start[:, None], end[:, None]
    last = (frame_counts[:, None] - 1).clamp(min=0).to(start.dtype)
    frame = torch.arange(n_frames, device=start.device, dtype=start.dtype)
    read = start * last + (end - start) * frame
    # Where nothing moves, rounding must not blur the image.
    read = torch.where((start == 0) & (end == 1), frame, read)
    return torch.where(frame <= last, read.clamp(min=0).minimum(last), frame)
