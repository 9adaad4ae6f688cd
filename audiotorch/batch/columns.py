"""Features as named columns: which there are, and a clip's or window's rows of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiotorch.audio.windows import window_samples
from audiotorch.batch.tables import Block
from audiotorch.errors import ParameterError
from audiotorch.features.extractor import FEATURES, FeatureExtractor, told_of_rate
from audiotorch.features.pooling import PooledFeatures, SummaryVector

__all__ = ["SUMMARY", "FeatureColumns"]

SUMMARY = "summary"


class FeatureColumns:
    """What a table of features holds, and the module that computes it.

    Args:
        features: `"summary"`, the 270 numbers of `SummaryVector`, or names out of `FEATURES`.
        sample_rate: Hz of the waveforms.
        frames: a row for each frame instead of one a clip with mean and standard deviation.
        device: where to compute.
        window_seconds: a row for each window of this length instead of one a clip.
        hop_seconds: from one window's start to the next; `None` = `window_seconds`.

    Attributes:
        features: `"summary"` or the list of names.
        names: of the columns, without those that say which clip, window or frame a row is of.
        min_samples: of the shortest clip or window that all features take.
        windows: seconds of a window and of the hop; `None` where a clip is taken whole.

    Raises:
        ParameterError: unknown or repeated names, none at all, frames of what has none, a rate that
            a feature does not take, windows too short for a feature, or windows and frames at once.
    """

    def __init__(
        self,
        features: str | Sequence[str] = SUMMARY,
        sample_rate: int = 22050,
        *,
        frames: bool = False,
        device: str = "cpu",
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
    ) -> None:
        self.windows = _checked_windows(window_seconds, hop_seconds, frames)
        self.features: str | list[str] = _checked(features)
        self.sample_rate = sample_rate
        self.frames = frames
        self.device = device
        self.hop_length = 512
        # Modules have no common base: some give a vector, one a dictionary.
        self._module: Any
        if self.features == SUMMARY:
            self._module = self._summary()
        else:
            self._module = self._named(list(self.features))
        self.names = self._frame_names() if frames else list(self._module.names)
        self.min_samples = int(self._module.min_samples)
        self._window, self._hop = self._in_samples()
        self._module = self._module.to(device).eval()

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on, as JSON has it."""
        settings: dict[str, Any] = {
            "features": self.features,
            "sample_rate": self.sample_rate,
            "frames": self.frames,
        }
        if self.windows is not None:
            settings["window_seconds"], settings["hop_seconds"] = self.windows
        return settings

    @property
    def all_names(self) -> list[str]:
        """Names of all columns, first of those that say which clip, window or frame a row is of."""
        place = ["file", "frame" if self.frames else "sample_rate", "seconds"]
        if self.windows is not None:
            place += ["start_seconds", "end_seconds"]
        return [*place, *self.names]

    def position(
        self, rows: npt.NDArray[np.int32], seconds: float
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Fill the columns between the file and the features.

        Args:
            rows: numbers of a file's rows, from 0.
            seconds: where the last of the file's rows ends.

        Returns:
            Frames, or the sample rate; and `(rows, 1)` the frames' times, or how long the clip
            lasts; or `(rows, 3)` how long each window lasts, its start and its end.
        """
        if self.frames:
            return rows, rows[:, None].astype(np.float64) * self.hop_length / self.sample_rate
        start = rows.astype(np.int64) * self._hop
        end = np.full_like(start, round(seconds * self.sample_rate))
        times = [end]
        if self.windows is not None:
            end = np.minimum(end, start + self._window)
            times = [end - start, start, end]
        return np.full_like(rows, self.sample_rate), np.stack(times, 1) / self.sample_rate

    def fits(self, first: Block) -> bool:
        """Say whether a table is of this sample rate and of these windows, as far as one can see.

        Args:
            first: its first rows.
        """
        if self.frames:
            return bool(np.allclose(first.seconds, self.position(first.frame_or_rate, 0.0)[1]))
        if self.windows is not None:
            # Those of the first file but its last, which may be shorter.
            rows = np.arange(first.file.count(first.file[0]) - 1, dtype=np.int32)
            _, whole = self.position(rows, len(rows) * self._hop + self._window)
            if not np.allclose(first.seconds[: len(rows)], whole):
                return False
        return bool((first.frame_or_rate == self.sample_rate).all())

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
            whole = torch.cat(list(found.values()), dim=1).transpose(1, 2).float().cpu().numpy()
        return [clip[:n] for clip, n in zip(whole, counts.tolist(), strict=True)]

    def _in_samples(self) -> tuple[int, int]:
        """Window and hop in samples; 0 where there are none."""
        if self.windows is None:
            return 0, 0
        window, hop = window_samples(self.sample_rate, *self.windows)
        if window < self.min_samples:
            raise ParameterError(
                f"window_seconds={self.windows[0]!r}: the features need "
                f"{self.min_samples / self.sample_rate:.3f} s; take longer windows"
            )
        return window, hop

    def _summary(self) -> torch.nn.Module:
        if self.frames:
            raise ParameterError(
                "features='summary': is one row a clip; leave --frames out, or name features that "
                "have frames, such as mfcc"
            )
        with told_of_rate(self.sample_rate):
            return SummaryVector(self.sample_rate)

    def _named(self, names: list[str]) -> torch.nn.Module:
        if unknown := [name for name in names if name not in FEATURES]:
            raise ParameterError(
                f"features: {', '.join(map(repr, unknown))} unknown; must be 'summary' alone, or "
                f"of {' '.join(FEATURES)}"
            )
        build = FeatureExtractor if self.frames else PooledFeatures
        with told_of_rate(self.sample_rate):
            module = build(features=names, sample_rate=self.sample_rate)
        self.hop_length = module.hop_length
        return module

    def _frame_names(self) -> list[str]:
        """Name the columns after what the features of a short silence look like."""
        silence = torch.zeros(1, max(2048, self._module.min_samples))
        with torch.no_grad():
            found: dict[str, Tensor] = self._module(silence)
        if clipwise := [name for name, feature in found.items() if feature.dim() == 2]:
            raise ParameterError(
                f"features: one value a clip and no frames: {', '.join(clipwise)}; leave that out, "
                "or --frames"
            )
        columns: list[str] = []
        for name, feature in found.items():
            columns += [f"{name}{number}" for number in _numbered(feature.shape[1])]
        return columns


def _numbered(n_rows: int) -> list[str]:
    return [""] if n_rows == 1 else [f"_{row}" for row in range(n_rows)]


def _checked_windows(
    window_seconds: float | None, hop_seconds: float | None, frames: bool
) -> tuple[float, float] | None:
    if window_seconds is None:
        if hop_seconds is not None:
            raise ParameterError(
                f"hop_seconds={hop_seconds!r}: leads from window to window; give their length, "
                "--window, too"
            )
        return None
    if frames:
        raise ParameterError(
            f"window_seconds={window_seconds!r}: a row is a window or, with --frames, a frame; "
            "leave one of the two out"
        )
    return float(window_seconds), float(window_seconds if hop_seconds is None else hop_seconds)


def _checked(features: str | Sequence[str]) -> str | list[str]:
    names = [features] if isinstance(features, str) else list(features)
    if not names or len(set(names)) < len(names):
        raise ParameterError(f"features={names}: must be one or more names, each once")
    return SUMMARY if names == [SUMMARY] else names
