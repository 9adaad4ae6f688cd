"""`ReduceNoise`: spectral subtraction of a clip's own noise."""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from audiotorch.audio.fourier import complex_dtype, cut_frames, istft, transform
from audiotorch.audio.frames import check_clips, full_lengths, length_mask, silence_past
from audiotorch.errors import ParameterError

__all__ = ["ReduceNoise"]

_N_FFT = 2048
_HOP = 512
_QUIET = 0.15  # share of the frames that are taken for noise
_LEAST = 0.01  # share of a magnitude that is left at least


class ReduceNoise(nn.Module):
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
        window = torch.hann_window(_N_FFT, dtype=torch.float64)
        self.register_buffer("window", window, persistent=False)

    def forward(
        self, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Clean each clip of its own noise."""
        check_clips(waveform, lengths)
        waveform = silence_past(waveform, lengths)
        if waveform.shape[-1] == 0:
            return waveform, lengths
        clips = waveform.reshape(-1, waveform.shape[-1])
        counts = 1 + torch.div(
            full_lengths(waveform, lengths).reshape(-1), _HOP, rounding_mode="floor"
        )
        spectrum = transform(cut_frames(clips, _N_FFT, _HOP), self.window, complex_dtype(clips))
        magnitude = spectrum.abs()
        noise = self.noise_factor * _noise(magnitude, counts).unsqueeze(1)
        # max(magnitude - noise, 0.01 magnitude), as a factor; it does not matter where that is 0.
        silent = magnitude == 0
        share = (1.0 - noise / magnitude.masked_fill(silent, 1.0)).clamp(min=_LEAST)
        cleaned = (spectrum * share).transpose(-1, -2)
        clips = istft(cleaned, self.window, _HOP, clips.shape[-1], True, counts)
        cleaned_waveform = clips.to(waveform.dtype).reshape(waveform.shape)
        return silence_past(cleaned_waveform, lengths), lengths


def _noise(magnitude: Tensor, frame_counts: Tensor) -> Tensor:
    """Return the mean magnitude `(clips, freq)` of the quiet frames of `(clips, frames, freq)`."""
    level = magnitude.mean(-1)
    own = length_mask(frame_counts, level.shape[1])
    quiet = own & (level < _percentile(level.masked_fill(~own, math.inf), frame_counts))
    n_quiet = quiet.sum(-1, keepdim=True)
    total = magnitude.masked_fill(~quiet.unsqueeze(-1), 0.0).sum(1)
    return total / n_quiet.clamp(min=1)


def _percentile(level: Tensor, counts: Tensor) -> Tensor:
    """Return the percentile `(clips, 1)` of the `counts` least values; NaN where one is NaN.

    Between two ranks it is interpolated linearly, with numpy's rounding: a frame at the percentile
    itself is not below it.
    """
    ranked = level.sort(-1).values
    last = (counts - 1).unsqueeze(-1)
    rank = last.to(level.dtype) * _QUIET
    lower = rank.floor().long()
    upper = torch.minimum(lower + 1, last)
    between = rank - lower.to(rank.dtype)
    found = torch.lerp(ranked.gather(-1, lower), ranked.gather(-1, upper), between)
    # Sorted, NaN comes last of all.
    return torch.where(ranked[:, -1:].isnan(), ranked[:, -1:], found)
