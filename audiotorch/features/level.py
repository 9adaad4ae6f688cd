"""Numbers of each frame of the waveform itself: RMS and zero-crossing rate."""

from typing import Optional

import torch
from torch import Tensor

from audiotorch.audio.frames import frame_sums
from audiotorch.errors import ParameterError
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import mask_frames, mask_samples, safe_sqrt

__all__ = ["RMS", "ZeroCrossingRate"]


class ZeroCrossingRate(Feature):
    """Share of each frame's samples at which the sign changes.

    Outside the clip its end samples are repeated. Samples up to `threshold` count as 0, which is
    positive; the first sample of a frame never counts. The gradient is 0.

    Args:
        sample_rate: Hz; changes nothing.
        frame_length: samples of a frame.
        hop_length: samples between frames.
        center: pad `frame_length // 2` samples on each side.
        threshold: magnitude that counts as 0.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1, frames)`, 0 to 1; frames past a clip's own are 0.

    Raises:
        ParameterError: a size that is not positive or a negative threshold; in `forward`, without
            centring, a clip shorter than a frame.

    Reference:
        Same values as `librosa.feature.zero_crossing_rate`.

    Example:
        >>> ZeroCrossingRate()(torch.zeros(2, 22050)).shape
        torch.Size([2, 1, 44])
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        frame_length: int = 2048,
        hop_length: int = 512,
        *,
        center: bool = True,
        threshold: float = 1e-10,
    ) -> None:
        super().__init__()
        check_positive(sample_rate=sample_rate, frame_length=frame_length, hop_length=hop_length)
        if threshold < 0:
            raise ParameterError(f"threshold={threshold}: must be at least 0")
        self.sample_rate = sample_rate
        self.frame_length = frame_length
        self.hop_length = hop_length
        self.center = center
        self.threshold = float(threshold)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        return _frame_counts(lengths, self.frame_length, self.hop_length, self.center)

    def derive(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the rate of waveforms `(batch, time)`."""
        _check_frames(waveform, self.frame_length, self.center)
        # 1 or 0, in floats: on CPUs comparisons that give bools are slow.
        negative = (waveform.detach() + self.threshold).lt_(0.0)
        # Between each sample and the one before; the first of all has none.
        crossing = (negative[:, 1:] - negative[:, :-1]).abs_()
        if lengths is not None:
            # The repeated end has no crossings, and neither has the step to the zeros behind it.
            crossing = mask_samples(crossing, lengths - 1)
        padding = self.frame_length // 2 if self.center else 0
        sums = frame_sums(crossing, self.frame_length, self.hop_length, padding + 1, padding)
        # Each frame's first sample, 0 where it lies before or behind the clip.
        n_frames, n_before = sums.shape[-1], padding // self.hop_length + 1
        first = crossing[:, n_before * self.hop_length - padding - 1 :: self.hop_length]
        first = torch.nn.functional.pad(first, [n_before, n_frames])[:, :n_frames]
        rate = ((sums - first) / self.frame_length).unsqueeze(-2)
        # Signs know no NaN; a spoilt clip must not be answered as if it were sound.
        spoilt = waveform.sum(dim=-1, keepdim=True).isnan().unsqueeze(-1)
        rate = rate.masked_fill(spoilt, float("nan"))
        return rate if lengths is None else mask_frames(rate, self.frame_counts(lengths))


class RMS(Feature):
    """Root of each frame's mean square.

    Differentiable; the gradient of silent frames is 0.

    Args:
        sample_rate: Hz; changes nothing.
        frame_length: samples of a frame.
        hop_length: samples between frames.
        center: pad `frame_length // 2` zeros on each side.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1, frames)`; frames past a clip's own are 0.

    Raises:
        ParameterError: a size that is not positive; in `forward`, without centring, a clip shorter
            than a frame.

    Reference:
        Same values as `librosa.feature.rms`.

    Example:
        >>> RMS()(torch.zeros(2, 22050)).shape
        torch.Size([2, 1, 44])
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        frame_length: int = 2048,
        hop_length: int = 512,
        *,
        center: bool = True,
    ) -> None:
        super().__init__()
        check_positive(sample_rate=sample_rate, frame_length=frame_length, hop_length=hop_length)
        self.sample_rate = sample_rate
        self.frame_length = frame_length
        self.hop_length = hop_length
        self.center = center

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        return _frame_counts(lengths, self.frame_length, self.hop_length, self.center)

    def derive(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the level of waveforms `(batch, time)`."""
        _check_frames(waveform, self.frame_length, self.center)
        padding = self.frame_length // 2 if self.center else 0
        sums = frame_sums(waveform.square(), self.frame_length, self.hop_length, padding, padding)
        level = safe_sqrt(sums / self.frame_length).unsqueeze(-2)
        return level if lengths is None else mask_frames(level, self.frame_counts(lengths))


def _frame_counts(lengths: Tensor, frame_length: int, hop_length: int, center: bool) -> Tensor:
    padded = lengths + 2 * (frame_length // 2) if center else lengths
    return (1 + (padded - frame_length) // hop_length).clamp(min=0)


def _check_frames(waveform: Tensor, frame_length: int, center: bool) -> None:
    shortest = 1 if center else frame_length
    if waveform.shape[-1] < shortest:
        raise ParameterError(
            f"waveform: has {waveform.shape[-1]} samples, needs at least {shortest}; pad it"
        )
