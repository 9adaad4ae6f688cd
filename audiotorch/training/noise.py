"""Where augmentation takes its noise from: coloured noise, or a folder of recordings."""

import math
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn

from audiotorch.audio.io import AUDIO_SUFFIXES, load
from audiotorch.errors import ParameterError

__all__ = ["NoiseSource"]

# 12 s at 22050 Hz. Noise is read circularly from a random place, so clips may be longer.
_N_SAMPLES = 2**18


class NoiseSource(nn.Module):
    """Excerpts of noise, one for each clip, read circularly from random places of a stored table.

    Reading from a table rather than drawing each sample makes an excerpt's beginning independent
    of how far its clip is padded, and the same on every device.

    Args:
        sample_rate: rate of the excerpts, in Hz.
        root: folder of recordings, searched recursively and kept in memory; each
            excerpt comes from one of them, repeated where it is too short. None: coloured noise
            instead, white and pink mixed in a share drawn for each clip.

    Shape:
        - draws: `(3, batch)`, uniform numbers from 0 to 1: kind and two places.
        - Output: `(batch, time)`

    Raises:
        ParameterError: if `root` holds no recordings.
        DecodeError: if a recording in it cannot be read.

    Example:
        >>> NoiseSource(16000)(torch.rand(3, 2, dtype=torch.float64), torch.empty(2, 800)).shape
        torch.Size([2, 800])
    """

    table: Tensor

    def __init__(self, sample_rate: int, root: str | Path | None = None) -> None:
        super().__init__()
        clips = _coloured_noise() if root is None else _recordings(Path(root), sample_rate)
        self.coloured = root is None
        ends = list(accumulate(clip.numel() for clip in clips))
        self.spans = [
            (end - clip.numel(), clip.numel()) for end, clip in zip(ends, clips, strict=True)
        ]
        self.register_buffer("table", torch.cat(clips), persistent=False)

    def forward(self, draws: Tensor, like: Tensor) -> Tensor:
        """Return noise of the shape, type and device of the waveform `like`."""
        kind, place, other_place = draws
        if not self.coloured:
            which = (kind * len(self.spans)).long().clamp(max=len(self.spans) - 1)
            return self._read(which, place, like)
        white = self._read(torch.zeros_like(kind).long(), place, like)
        pink = self._read(torch.ones_like(kind).long(), other_place, like)
        # Cosine and sine keep the power whatever the share.
        angle = (kind * math.pi / 2).to(like.dtype).to(like.device, non_blocking=True)[:, None]
        return angle.cos() * white + angle.sin() * pink

    def _read(self, which: Tensor, place: Tensor, like: Tensor) -> Tensor:
        # The table of spans stays on the CPU, where the draws are; what was looked up moves.
        start, length = torch.tensor(self.spans)[which].unbind(1)
        found = torch.stack((start, length, (place * length).long()))
        start, length, first = found.to(like.device, non_blocking=True)[:, :, None]
        position = torch.arange(like.shape[1], device=like.device)
        return self.table[start + (first + position) % length].to(like.dtype)


def _coloured_noise() -> list[Tensor]:
    """White noise, and pink noise: a flat spectrum over the square root of frequency."""
    generator = torch.Generator().manual_seed(0)
    white, flat = torch.randn(2, _N_SAMPLES, generator=generator)
    spectrum = torch.fft.rfft(flat)
    # Below 1/4096 of the sample rate (5 Hz) it stays flat: nearly all power would lie there.
    frequency = torch.arange(spectrum.numel()).clamp(min=_N_SAMPLES // 4096)
    pink = torch.fft.irfft(spectrum / frequency.sqrt(), n=_N_SAMPLES)
    return [white / white.std(), pink / pink.std()]


def _recordings(root: Path, sample_rate: int) -> list[Tensor]:
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    clips = [load(file, sample_rate)[0][0] for file in files]
    clips = [clip for clip in clips if clip.numel() > 0]
    if not clips:
        raise ParameterError(
            f"noise_root={str(root)!r}: must be a folder that holds recordings; name another one, "
            "or leave it out for coloured noise"
        )
    return clips
