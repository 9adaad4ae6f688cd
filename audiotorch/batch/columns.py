"""Features as named columns: which there are, and a clip's rows of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.features.extractor import FEATURES, FeatureExtractor
from audiotorch.features.pooling import StatisticsPooling, SummaryVector

__all__ = ["SUMMARY", "FeatureColumns"]

SUMMARY = "summary"


class FeatureColumns:
    """What a table of features holds, and the module that computes it.

    Args:
        features: `"summary"`, the 270 numbers of `SummaryVector`, or names out of `FEATURES`.
        sample_rate: Hz of the waveforms.
        frames: a row for each frame instead of one a clip with mean and standard deviation.
        device: where to compute.

    Attributes:
        features: `"summary"` or the list of names.
        names: of the columns, without those that say which clip or frame a row is of.
        min_samples: of the shortest clip that all features take.

    Raises:
        ParameterError: unknown or repeated names, none at all, frames of what has none, or a rate
            that a feature does not take.
    """

    def __init__(
        self,
        features: str | Sequence[str] = SUMMARY,
        sample_rate: int = 22050,
        *,
        frames: bool = False,
        device: str = "cpu",
    ) -> None:
        self.features: str | list[str] = _checked(features)
        self.sample_rate = sample_rate
        self.frames = frames
        self.device = device
        self.hop_length = 512
        self._pooling = StatisticsPooling(["mean", "std"])
        # Modules have no common base: one gives a vector, the other a dictionary.
        self._module: Any
        if self.features == SUMMARY:
            self._module = self._summary()
            self.names = list(self._module.names)
        else:
            self._module = self._extractor(list(self.features))
            self.names = self._probe()
        self.min_samples = int(self._module.min_samples)
        self._module = self._module.to(device).eval()

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on, as JSON has it."""
        return {
            "features": self.features,
            "sample_rate": self.sample_rate,
            "frames": self.frames,
        }

    @property
    def all_names(self) -> list[str]:
        """Names of all columns, first of those that say which clip or frame a row is of."""
        return ["file", "frame" if self.frames else "sample_rate", "seconds", *self.names]

    def position(
        self, rows: npt.NDArray[np.int32], seconds: float
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Fill the second and third column.

        Args:
            rows: numbers of a clip's rows, from 0.
            seconds: how long the clip lasts.

        Returns:
            Frames and their times, or the sample rate and how long the clip lasts.
        """
        if self.frames:
            return rows, rows.astype(np.float64) * self.hop_length / self.sample_rate
        return np.full_like(rows, self.sample_rate), np.full(len(rows), seconds)

    def fits(self, frame_or_rate: npt.NDArray[np.int32], seconds: npt.NDArray[np.float64]) -> bool:
        """Say whether rows of a table are of this sample rate, as far as one can see.

        Args:
            frame_or_rate: their second column.
            seconds: their third.
        """
        if self.frames:
            return bool(np.allclose(seconds, self.position(frame_or_rate, 0.0)[1]))
        return bool((frame_or_rate == self.sample_rate).all())

    def rows(self, waveform: Tensor, lengths: Tensor) -> list[npt.NDArray[np.float32]]:
        """Compute the rows of some clips.

        Args:
            waveform: `(batch, time)` at `sample_rate`.
            lengths: samples of each clip.

        Returns:
            For each clip an array `(rows, columns)`: one row, or one for each of its frames.
        """
        lengths = lengths.to(self.device)
        with torch.no_grad():
            found = self._module(waveform.to(self.device), lengths)
            if isinstance(found, Tensor):
                return list(found.float().unsqueeze(1).cpu().numpy())
            counts = self._module.frame_counts(lengths)
            if not self.frames:
                columns = [self._pool(feature, counts) for feature in found.values()]
                return list(torch.cat(columns, dim=1).float().unsqueeze(1).cpu().numpy())
            whole = torch.cat(list(found.values()), dim=1).transpose(1, 2).float().cpu().numpy()
        return [clip[:n] for clip, n in zip(whole, counts.tolist(), strict=True)]

    def _pool(self, feature: Tensor, counts: Tensor) -> Tensor:
        return feature if feature.dim() == 2 else self._pooling(feature, counts)

    def _summary(self) -> torch.nn.Module:
        if self.frames:
            raise ParameterError(
                "features='summary': is one row a clip; leave --frames out, or name features that "
                "have frames, such as mfcc"
            )
        with _told_of_rate(self.sample_rate):
            return SummaryVector(self.sample_rate)

    def _extractor(self, names: list[str]) -> torch.nn.Module:
        if unknown := [name for name in names if name not in FEATURES]:
            raise ParameterError(
                f"features: {', '.join(map(repr, unknown))} unknown; must be 'summary' alone, or "
                f"of {' '.join(FEATURES)}"
            )
        with _told_of_rate(self.sample_rate):
            extractor = FeatureExtractor(features=names, sample_rate=self.sample_rate)
        self.hop_length = extractor.hop_length
        return extractor

    def _probe(self) -> list[str]:
        """Name the columns after what the features of a short silence look like."""
        silence = torch.zeros(1, max(2048, self._module.min_samples))
        with torch.no_grad():
            found: dict[str, Tensor] = self._module(silence)
        clipwise = [name for name, feature in found.items() if feature.dim() == 2]
        if self.frames and clipwise:
            raise ParameterError(
                f"features: one value a clip and no frames: {', '.join(clipwise)}; leave that out, "
                "or --frames"
            )
        columns: list[str] = []
        for name, feature in found.items():
            numbers = _numbered(feature.shape[1])
            if self.frames or name in clipwise:
                columns += [f"{name}{number}" for number in numbers]
            else:
                columns += [f"{name}_{kind}{n}" for kind in ("mean", "std") for n in numbers]
        return columns


@contextmanager
def _told_of_rate(sample_rate: int) -> Iterator[None]:
    """Name the one setting of the features that can be at fault here."""
    try:
        yield
    except ParameterError as error:
        raise ParameterError(
            f"sample_rate={sample_rate}: not for these features ({error}); take another, such as "
            "22050"
        ) from error


def _numbered(n_rows: int) -> list[str]:
    return [""] if n_rows == 1 else [f"_{row}" for row in range(n_rows)]


def _checked(features: str | Sequence[str]) -> str | list[str]:
    names = [features] if isinstance(features, str) else list(features)
    if not names or len(set(names)) < len(names):
        raise ParameterError(f"features={names}: must be one or more names, each once")
    return SUMMARY if names == [SUMMARY] else names
