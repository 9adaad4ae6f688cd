"""From frames to one vector a clip."""

from typing import Dict, List, Optional, Sequence

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.features.functional import check_feature, length_mask
from audiotorch.features.spectrogram import MFCC, Delta

__all__ = ["MFCCStatistics", "StatisticsPooling"]

_STATISTICS = ("mean", "std", "min", "max")


class StatisticsPooling(nn.Module):
    """Statistics of each row over a clip's own frames.

    Standard deviations are population ones (`ddof=0`). A clip without frames gives 0.

    Args:
        statistics: any of `"mean"`, `"std"`, `"min"`, `"max"`, in the order wanted.

    Shape:
        - Input: `(..., rows, frames)` and frame counts `(...)`
        - Output: `(..., len(statistics) * rows)`: all rows' first statistic, then the second ...

    Raises:
        ParameterError: no statistic, an unknown or a repeated one.

    Reference:
        Same values as numpy's `mean`, `std`, `min` and `max` along the frames.

    Example:
        >>> StatisticsPooling(["mean", "max"])(torch.tensor([[1.0, 3.0]]))
        tensor([2., 3.])
    """

    def __init__(self, statistics: Sequence[str] = _STATISTICS) -> None:
        super().__init__()
        names = list(statistics)
        if not names or len(set(names)) < len(names) or not set(names) <= set(_STATISTICS):
            raise ParameterError(f"statistics={names}: must be distinct names of {_STATISTICS}")
        self.statistics: List[str] = names

    def forward(self, feature: Tensor, frame_counts: Optional[Tensor] = None) -> Tensor:
        """Return the statistics; shapes as in the class docstring."""
        check_feature(feature, frame_counts)
        if frame_counts is None:
            frame_counts = torch.full(
                feature.shape[:-2], feature.shape[-1], dtype=torch.int64, device=feature.device
            )
        mask = length_mask(frame_counts, feature.shape[-1]).unsqueeze(-2)
        count = frame_counts.clamp(min=1).unsqueeze(-1).to(feature.dtype)
        mean = feature.masked_fill(~mask, 0.0).sum(-1) / count
        found: Dict[str, Tensor] = {"mean": mean}
        if "std" in self.statistics:
            deviation = (feature - mean.unsqueeze(-1)).masked_fill(~mask, 0.0)
            found["std"] = (deviation.square().sum(-1) / count).sqrt()
        empty = (frame_counts == 0).unsqueeze(-1)
        if "min" in self.statistics:
            lowest = feature.masked_fill(~mask, float("inf")).amin(-1)
            found["min"] = lowest.masked_fill(empty, 0.0)
        if "max" in self.statistics:
            highest = feature.masked_fill(~mask, float("-inf")).amax(-1)
            found["max"] = highest.masked_fill(empty, 0.0)
        return torch.cat([found[name] for name in self.statistics], dim=-1)


class MFCCStatistics(nn.Module):
    """A front end: MFCC, its delta and delta-delta, each pooled over the clip.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        n_mfcc: coefficients.
        statistics: as `StatisticsPooling`.
        n_mels: mel bands.
        fmin: lowest frequency, Hz.
        fmax: highest frequency, Hz; `None` = half the sample rate.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples, at least 8 hops each
        - Output: `(batch, 3 * len(statistics) * n_mfcc)`: MFCC, delta, delta-delta, each with all
          its statistics.

    Raises:
        ParameterError: as `MFCC`, `Delta` and `StatisticsPooling`.

    Reference:
        `librosa.feature.mfcc` and `librosa.feature.delta`, pooled by numpy.
    """

    output_shape: List[int]

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        n_mfcc: int = 20,
        statistics: Sequence[str] = _STATISTICS,
        n_mels: int = 128,
        fmin: float = 0.0,
        fmax: float | None = None,
    ) -> None:
        super().__init__()
        self.mfcc = MFCC(
            sample_rate, n_fft, hop_length, n_mfcc=n_mfcc, n_mels=n_mels, fmin=fmin, fmax=fmax
        )
        self.delta = Delta(1)
        self.delta2 = Delta(2)
        self.pooling = StatisticsPooling(statistics)
        self.sample_rate = sample_rate
        self.min_samples = (self.delta.width - 1) * hop_length
        self.output_shape = [3 * len(self.pooling.statistics) * n_mfcc]

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (samples) have."""
        return self.mfcc.frame_counts(lengths)

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the vector; shapes as in the class docstring."""
        counts = None if lengths is None else self.frame_counts(lengths)
        mfcc = self.mfcc(waveform, lengths)
        rows = torch.stack([mfcc, self.delta(mfcc, counts), self.delta2(mfcc, counts)], dim=-3)
        if counts is not None:
            counts = counts.unsqueeze(-1).expand(rows.shape[:-2])
        return self.pooling(rows, counts).flatten(-2)
