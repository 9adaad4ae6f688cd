"""`ReduceNoise`: spectral subtraction of a clip's own noise."""

import math
from typing import Optional

import torch
from torch import Tensor
from torch.nn.functional import pad

from audiotorch.audio.chunks import Step
from audiotorch.audio.fourier import complex_dtype, cut_frames, istft, transform
from audiotorch.audio.frames import full_lengths, length_mask, silence_past
from audiotorch.errors import ParameterError

__all__ = ["ReduceNoise"]


class ReduceNoise(Step):
    """Subtract a clip's own background noise from its spectrum.

    The noise is the mean magnitude of the clip's quiet frames: those whose mean magnitude lies
    below the 15th percentile of all frames'. Each magnitude is lessened by `noise_factor` times the
    noise of its frequency, to not less than a hundredth of itself; phase and length stay. Where no
    frame lies below the percentile, as in a clip that begins with digital silence, there is nothing
    to subtract.

    Args:
        noise_factor: how much of the noise is subtracted, at least 0; 1 is all of it.

    Shape:
        - Input: `(..., time)`, `lengths (...)` or None
        - Output: the same

    Raises:
        ParameterError: `noise_factor` is out of range; in `forward`, a shape or type does not fit.

    Reference:
        Boll (1979), Suppression of acoustic noise in speech using spectral subtraction. Transforms
        are `librosa.stft`'s at its defaults, the percentile is `numpy.percentile`'s.

    Example:
        >>> ReduceNoise()(torch.zeros(2, 22050))[0].shape
        torch.Size([2, 22050])
    """

    window: Tensor

    def __init__(self, noise_factor: float = 0.1) -> None:
        super().__init__()
        if not (math.isfinite(noise_factor) and noise_factor >= 0):
            raise ParameterError(f"noise_factor={noise_factor!r}: must be at least 0, such as 0.1")
        self.noise_factor = float(noise_factor)
        self.hop_length = 512
        # torch's own is a view of a longer one, which torch.export does not save.
        window = torch.hann_window(2048, dtype=torch.float64).clone()
        self.register_buffer("window", window, persistent=False)

    def compute(self, clips: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Clean each clip of its own noise."""
        clips = silence_past(clips, lengths)
        own_lengths = full_lengths(clips, lengths)
        counts = 1 + torch.div(own_lengths, self.hop_length, rounding_mode="floor")
        # A frame more than any clip has: torch.export takes a size of 1 for a special case.
        frames = cut_frames(pad(clips, [0, self.hop_length]), 2048, self.hop_length)
        spectrum = transform(frames, self.window, complex_dtype(clips))
        spectrum = spectrum * self._share(spectrum.abs(), counts)
        cleaned = istft(
            spectrum.transpose(-1, -2), self.window, self.hop_length, clips.shape[1], True, counts
        )
        return silence_past(cleaned.to(clips.dtype), lengths)

    def _share(self, magnitude: Tensor, frame_counts: Tensor) -> Tensor:
        """Return what is left of each magnitude `(batch, frames, freq)`, as a share of it."""
        noise = self.noise_factor * _noise(magnitude, frame_counts).unsqueeze(1)
        # max(magnitude - noise, magnitude / 100); any share will do where there is nothing.
        magnitude = magnitude.masked_fill(magnitude == 0, 1.0)
        return (1.0 - noise / magnitude).clamp(min=0.01)


def _noise(magnitude: Tensor, frame_counts: Tensor) -> Tensor:
    """Return the mean magnitude `(clips, freq)` of the quiet frames of `(clips, frames, freq)`."""
    level = magnitude.mean(-1)
    own = length_mask(frame_counts, level.shape[1])
    quiet = own & (level < _percentile(level.masked_fill(~own, math.inf), frame_counts))
    n_quiet = quiet.sum(-1, keepdim=True)
    total = magnitude.masked_fill(~quiet.unsqueeze(-1), 0.0).sum(1)
    return total / n_quiet.clamp(min=1)


def _percentile(level: Tensor, counts: Tensor, share: float = 0.15) -> Tensor:
    """Return the percentile `(clips, 1)` of the `counts` least values; NaN where one is NaN.

    Between two ranks it is interpolated linearly. Where it falls on a rank, that frame is not below
    it: float64, as numpy has it, keeps whole ranks whole.
    """
    ranked = level.sort(-1).values
    last = (counts - 1).unsqueeze(-1)
    rank = last.double() * share
    lower = rank.floor().long()
    upper = torch.minimum(lower + 1, last)
    between = (rank - lower).to(level.dtype)
    found = torch.lerp(ranked.gather(-1, lower), ranked.gather(-1, upper), between)
    # Sorted, NaN comes last of all.
    return torch.where(ranked[:, -1:].isnan(), ranked[:, -1:], found)
