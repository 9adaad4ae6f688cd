"""From frames to one vector a clip."""

from typing import Any, Dict, List, Optional, Sequence

import torch
from torch import Tensor, nn

from audiotorch.audio.chunks import Walker, walks
from audiotorch.audio.frames import length_mask
from audiotorch.errors import ParameterError
from audiotorch.features.cepstrum import MFCC, Delta, MFCCDelta
from audiotorch.features.chroma import ChromaSTFT
from audiotorch.features.extractor import FeatureExtractor, SharedStages
from audiotorch.features.functional import check_feature, check_waveform, safe_sqrt
from audiotorch.features.level import RMS, ZeroCrossingRate
from audiotorch.features.mel import MelSpectrogram
from audiotorch.features.spectral import SpectralBandwidth, SpectralCentroid, SpectralRolloff
from audiotorch.features.spectrogram import PowerToDB

__all__ = [
    "MFCCStatistics",
    "PooledFeatures",
    "StatisticsPooling",
    "SummaryVector",
    "VectorPooling",
    "column_names",
    "mfcc_names",
]

_STATISTICS = ("mean", "std", "min", "max")
_SUMMARY = ("mean", "std", "max", "min")


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
        outside: Optional[Tensor] = None
        if frame_counts is None:
            frame_counts = torch.full(
                feature.shape[:-2], feature.shape[-1], dtype=torch.int64, device=feature.device
            )
        else:
            outside = ~length_mask(frame_counts, feature.shape[-1]).unsqueeze(-2)
        count = frame_counts.clamp(min=1).unsqueeze(-1).to(feature.dtype)
        mean = _filled(feature, outside, 0.0).sum(-1) / count
        found: Dict[str, Tensor] = {"mean": mean}
        if "std" in self.statistics:
            deviation = _filled(feature - mean.unsqueeze(-1), outside, 0.0)
            found["std"] = safe_sqrt(deviation.square().sum(-1) / count)
        empty = (frame_counts == 0).unsqueeze(-1)
        if "min" in self.statistics:
            lowest = _filled(feature, outside, float("inf")).amin(-1)
            found["min"] = lowest.masked_fill(empty, 0.0)
        if "max" in self.statistics:
            highest = _filled(feature, outside, float("-inf")).amax(-1)
            found["max"] = highest.masked_fill(empty, 0.0)
        return torch.cat([found[name] for name in self.statistics], dim=-1)


def _filled(x: Tensor, outside: Optional[Tensor], value: float) -> Tensor:
    return x if outside is None else x.masked_fill(outside, value)


class VectorPooling(nn.Module):
    """One vector a clip, of any front end: vectors as they are, images pooled.

    Of an image, mean, standard deviation, minimum and maximum of each row over the clip's own
    frames, channel by channel.

    Shape:
        - Input: `(batch, d)` or `(batch, channel, rows, frames)`, and frame counts `(batch,)`
        - Output: `(batch, d)` or `(batch, channel * 4 * rows)`

    Example:
        >>> VectorPooling()(torch.zeros(2, 1, 40, 9), torch.tensor([9, 5])).shape
        torch.Size([2, 160])
    """

    def __init__(self) -> None:
        super().__init__()
        self.pooling = StatisticsPooling()

    def forward(self, x: Tensor, frame_counts: Tensor) -> Tensor:
        """Return the vectors; shapes as in the class docstring."""
        if x.dim() == 2:
            return x
        return self.pooling(x, frame_counts.unsqueeze(1).expand(x.shape[:2])).flatten(1)


def column_names(features: Any) -> list[str]:
    """Name the columns of what `VectorPooling` makes of a front end's answers.

    Args:
        features: a front end, eager or exported; rows of images, which have no `names`, are named
            by statistic.
    """
    if hasattr(features, "names"):
        return list(features.names)
    n_channels, n_rows = features.output_shape
    channels = [f"channel{c}_" if n_channels > 1 else "" for c in range(n_channels)]
    statistics = _STATISTICS
    return [f"{c}mel_{s}_{row}" for c in channels for s in statistics for row in range(n_rows)]


def mfcc_names(statistics: Sequence[str], n_mfcc: int) -> List[str]:
    """Return the names of MFCC, deltas and second deltas, each with all its pooled statistics.

    Args:
        statistics: as `StatisticsPooling`.
        n_mfcc: coefficients.

    Example:
        >>> mfcc_names(["mean"], 1)
        ['mfcc_mean_0', 'delta_mfcc_mean_0', 'delta2_mfcc_mean_0']
    """
    rows = ("mfcc", "delta_mfcc", "delta2_mfcc")
    return [f"{row}_{s}_{k}" for row in rows for s in statistics for k in range(n_mfcc)]


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
          its statistics; `names` tells each column.

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
        mel: Dict[str, Any] = {"n_mels": n_mels, "fmin": fmin, "fmax": fmax, "single": False}
        self.mfcc = MFCC(sample_rate, n_fft, hop_length, n_mfcc=n_mfcc, **mel)
        self.delta = Delta(1)
        self.delta2 = Delta(2)
        self.pooling = StatisticsPooling(statistics)
        self.sample_rate = sample_rate
        self.min_samples = (self.delta.width - 1) * hop_length
        self.names: List[str] = mfcc_names(self.pooling.statistics, n_mfcc)
        self.normalised = False
        self.output_shape = [len(self.names)]

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


class PooledFeatures(nn.Module):
    """A front end: any features by name, each pooled over the clip.

    A feature of a whole clip, such as `tempo`, stands as it is.

    Args:
        features: names, keys of `FEATURES`.
        sample_rate: Hz.
        statistics: as `StatisticsPooling`.
        settings: as `FeatureExtractor`.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples
        - Output: `(batch, len(names))`: feature by feature, each with all its statistics; `names`
          tells each column.

    Raises:
        ParameterError: as `FeatureExtractor` and `StatisticsPooling`.

    Reference:
        The functions of `librosa.feature`, pooled by numpy.

    Example:
        >>> PooledFeatures(["rms", "spectral_centroid"]).names
        ['rms_mean', 'rms_std', 'spectral_centroid_mean', 'spectral_centroid_std']
    """

    output_shape: List[int]

    def __init__(
        self,
        features: Sequence[str],
        sample_rate: int = 22050,
        *,
        statistics: Sequence[str] = ("mean", "std"),
        **settings: Any,
    ) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(features, sample_rate, **settings)
        self.pooling = StatisticsPooling(statistics)
        self.sample_rate = sample_rate
        self.hop_length = self.extractor.hop_length
        self.min_samples = self.extractor.min_samples
        self.names: List[str] = self._names()
        self.normalised = False
        self.output_shape = [len(self.names)]

    def _names(self) -> List[str]:
        """Name the columns after what the features of a short silence look like."""
        with torch.no_grad():
            found = self.extractor(torch.zeros(1, max(2048, self.min_samples)))
        names: List[str] = []
        for name, feature in found.items():
            rows = [f"_{k}" for k in range(feature.shape[1])] if feature.shape[1] > 1 else [""]
            kinds = [f"_{s}" for s in self.pooling.statistics] if feature.dim() == 3 else [""]
            names += [f"{name}{kind}{row}" for kind in kinds for row in rows]
        return names

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        return self.extractor.frame_counts(lengths)

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the vector; shapes as in the class docstring."""
        counts = None if lengths is None else self.frame_counts(lengths)
        columns: List[Tensor] = []
        for feature in self.extractor(waveform, lengths).values():
            columns.append(feature if feature.dim() == 2 else self.pooling(feature, counts))
        return torch.cat(columns, dim=1)


class SummaryVector(Walker):
    """A front end: 270 numbers that sum a clip up, as a loop over librosa would.

    In this order: mean, standard deviation, maximum and minimum of MFCC, of its delta and of its
    delta-delta; mean and standard deviation of centroid, bandwidth, rolloff, zero-crossing rate and
    RMS; of `chroma_stft`, all means first; and of a 40-band mel spectrogram in dB below the clip's
    own maximum. Standard deviations are population ones (`ddof=0`).

    Args:
        sample_rate: Hz.
        n_mfcc: coefficients.
        single: let spectra of long clips be taken in float32, see `STFT`; statistics over a clip
            do not show its rounding, but in a clip of thousands a peak near the edge between two
            tunings changes sides, and with it chroma. False gives what an exported file gives.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples, at least 8 hops of 512 each
        - Output: `(batch, 12 * n_mfcc + 114)`; `names` tells each column.

    Raises:
        ParameterError: as `MFCC`; in `forward`, clips of fewer than 9 frames.

    Reference:
        The functions of `librosa.feature` at their defaults, pooled by numpy.

    Example:
        >>> SummaryVector()(torch.zeros(2, 22050)).shape
        torch.Size([2, 270])
    """

    output_shape: List[int]
    order: Tensor

    def __init__(self, sample_rate: int = 22050, n_mfcc: int = 13, *, single: bool = True) -> None:
        super().__init__()
        mfcc = {
            "mfcc": MFCC(sample_rate, n_mfcc=n_mfcc, single=single),
            "delta_mfcc": MFCCDelta(sample_rate, n_mfcc=n_mfcc, order=1, single=single),
            "delta2_mfcc": MFCCDelta(sample_rate, n_mfcc=n_mfcc, order=2, single=single),
        }
        moments = {
            "spectral_centroid": SpectralCentroid(sample_rate, single=single),
            "spectral_bandwidth": SpectralBandwidth(sample_rate, single=single),
            "spectral_rolloff": SpectralRolloff(sample_rate, single=single),
            "zero_crossing_rate": ZeroCrossingRate(sample_rate),
            "rms": RMS(sample_rate),
        }
        others = {
            "chroma_stft": ChromaSTFT(sample_rate, single=single),
            "mel_db": MelSpectrogram(sample_rate, n_mels=40, single=single),
        }
        self.stages = SharedStages({**mfcc, **moments, **others})
        self.to_db = PowerToDB(ref="max")
        self.mean_std = StatisticsPooling(["mean", "std"])
        self.max_min = StatisticsPooling(["max", "min"])
        self.sample_rate = sample_rate
        self.n_extremes = 3 * n_mfcc
        self.min_samples = 8 * 512
        rows = [(name, k) for name in mfcc for k in range(n_mfcc)]
        rows += [(name, -1) for name in moments]
        rows += [("chroma_stft", k) for k in range(12)] + [("mel_db", k) for k in range(40)]
        wanted = [(name, k, s) for name in mfcc for s in _SUMMARY for k in range(n_mfcc)]
        wanted += [(name, -1, s) for name in moments for s in _SUMMARY[:2]]
        wanted += [("chroma_stft", k, s) for s in _SUMMARY[:2] for k in range(12)]
        wanted += [("mel_db", k, s) for s in _SUMMARY[:2] for k in range(40)]
        self.names: List[str] = [
            f"{name}_{s}" if k < 0 else f"{name}_{s}_{k}" for name, k, s in wanted
        ]
        # `forward` has all means, then all deviations, then the extremes of the first rows.
        first = {"mean": 0, "std": len(rows), "max": 2 * len(rows)}
        first["min"] = first["max"] + self.n_extremes
        order = torch.tensor([first[s] + rows.index((name, k)) for name, k, s in wanted])
        self.register_buffer("order", order, persistent=False)
        self.normalised = False
        self.output_shape = [len(wanted)]

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        return 1 + lengths // 512

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the vector; shapes and errors as in the class docstring."""
        check_waveform(waveform, lengths)
        if waveform.dim() != 2:
            raise ParameterError(f"waveform: must be (batch, time), got {waveform.dim()} axes")
        if not torch.jit.is_scripting():
            if walks(waveform):
                answer: Tensor = self._walk(waveform, lengths)
                return answer
        return self.compute(waveform, lengths)

    def compute(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the vectors of a whole batch at once, without chunks."""
        given = self.stages.compute(waveform, lengths)
        counts = None if lengths is None else self.frame_counts(lengths)
        given["mel_db"] = self.to_db(given["mel_db"], counts)
        rows = torch.cat(list(given.values()), dim=-2)
        level = self.mean_std(rows, counts)
        extremes = self.max_min(rows[:, : self.n_extremes], counts)
        return torch.cat([level, extremes], dim=-1).index_select(-1, self.order)
