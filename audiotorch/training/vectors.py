"""Recordings as the vectors that scikit-learn is fitted on: what the Pipeline's features give."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from audiotorch.audio.clips import padded_batches
from audiotorch.data.datamodule import AudioDataset
from audiotorch.errors import ParameterError
from audiotorch.features.pooling import VectorPooling
from audiotorch.pipeline import Pipeline
from audiotorch.training.augment import Augment

__all__ = ["Vectors", "compute_vectors", "compute_windows", "score_clips"]

_CHUNK = 256  # clips that are decoded at a time
_MAX_SAMPLES = 1 << 21  # of a padded batch


@dataclass(frozen=True, eq=False)
class Vectors:
    """A part of the data as scikit-learn takes it.

    Args:
        x: one row a clip, `(n, d)`, float64.
        y: index of its label, `(n,)`.
        groups: its group, or None where it has none; None where no clip has one.
        copies: vectors of augmented versions of the same clips, `(n, d)` each.
    """

    x: np.ndarray
    y: np.ndarray
    groups: Sequence[str | None] | None
    copies: Sequence[np.ndarray] = ()

    def select(self, rows: np.ndarray) -> "Vectors":
        """Some of the clips, with all their copies.

        Args:
            rows: their numbers.
        """
        groups = None if self.groups is None else [self.groups[i] for i in rows.tolist()]
        return Vectors(self.x[rows], self.y[rows], groups, [copy[rows] for copy in self.copies])


def compute_vectors(
    pipeline: Pipeline,
    clips: AudioDataset,
    n_copies: int = 0,
    augment: Augment | None = None,
    seed: int = 42,
) -> Vectors:
    """Compute the model's inputs for a part of the data; images are pooled.

    Clips are taken whole, as the exported file takes them; copies as the dataset crops them.

    Args:
        pipeline: its preprocessing and features are used, on the device where it is.
        clips: the part.
        n_copies: versions of each clip beside the clip itself, each augmented anew.
        augment: makes them.
        seed: of the augmentation.

    Raises:
        ParameterError: the features of a clip are not finite.
    """
    found = [_rows(pipeline, clips, 0, None, seed)]
    found += [_rows(pipeline, clips, copy, augment, seed) for copy in range(1, n_copies + 1)]
    groups = [clip.group for clip in clips.clips]
    finite = np.all([np.isfinite(x).all(axis=1) for x in found], axis=0)
    _check_finite(finite.tolist(), clips, "features")
    known = groups if any(group is not None for group in groups) else None
    return Vectors(found[0], clips.targets.numpy(), known, found[1:])


@torch.no_grad()
def compute_windows(pipeline: Pipeline, clips: AudioDataset) -> list[np.ndarray]:
    """Compute a detector's inputs for a part of the data, window by window; images are pooled.

    Args:
        pipeline: its windows, preprocessing and features are used, on the device where it is.
        clips: the part, taken whole.

    Returns:
        The vectors `(n_windows, d)` of each clip, float64.

    Raises:
        ParameterError: the features of a clip are not finite.
    """
    pooling = VectorPooling()
    rows: dict[int, np.ndarray] = {}
    for keys, waveform, lengths in _batches(pipeline, clips, 0, "features"):
        cut, inside, _, valid = pipeline.windows(waveform, lengths)
        x, counts = pipeline.front(cut.flatten(0, 1), inside.flatten())
        vectors = pooling(x, counts).double().unflatten(0, valid.shape)
        for key, row, own in zip(keys, vectors, valid, strict=True):
            rows[key] = row[own].cpu().numpy()
    found = [rows[i] for i in range(len(clips))]
    _check_finite([np.isfinite(x).all() for x in found], clips, "features")
    return found


@torch.no_grad()
def score_clips(pipeline: Pipeline, clips: AudioDataset) -> Tensor:
    """Return the scores `(n,)` that a detector gives to a part of the data, on the CPU.

    Args:
        pipeline: the detector.
        clips: the part, taken whole.

    Raises:
        ParameterError: the score of a clip is not finite.
    """
    scores = torch.zeros(len(clips), dtype=pipeline.temperature.dtype)
    for keys, waveform, lengths in _batches(pipeline, clips, 0, "scores"):
        scores[keys] = pipeline(waveform, lengths).cpu()
    _check_finite(scores.isfinite().tolist(), clips, "score")
    return scores


def _check_finite(finite: Sequence[Any], clips: AudioDataset, what: str) -> None:
    if not all(finite):
        path = clips.clips[[bool(fine) for fine in finite].index(False)].path
        raise ParameterError(f"{path}: its {what} must be finite; check or remove the file")


@torch.no_grad()
def _rows(
    pipeline: Pipeline, clips: AudioDataset, copy: int, augment: Augment | None, seed: int
) -> np.ndarray:
    pooling = VectorPooling()
    rows: dict[int, Tensor] = {}
    title = f"features of copies {copy}" if copy else "features"
    for keys, waveform, lengths in _batches(pipeline, clips, copy, title):
        if augment is not None:
            # Keyed by the clip that leads the batch: the same for any number of copies.
            generator = Augment.generator(seed, copy, keys[0])
            waveform, lengths = augment.waveform(waveform, lengths, generator)
        x, counts = pipeline.front(waveform, lengths)
        rows.update(zip(keys, pooling(x, counts).double().cpu(), strict=True))
    return torch.stack([rows[i] for i in range(len(clips))]).numpy()


def _batches(
    pipeline: Pipeline, clips: AudioDataset, copy: int, title: str
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Padded batches on the Pipeline's device: indices, waveforms, lengths."""
    device = pipeline.temperature.device
    indices = iter(_track(len(clips), title))
    while chunk := list(islice(indices, _CHUNK)):
        waveforms = {i: clips[copy, i][0] if copy else clips.whole(i) for i in chunk}
        for keys, waveform, lengths in padded_batches(waveforms, _MAX_SAMPLES):
            yield keys, waveform.to(device), lengths.to(device)


def _track(n: int, title: str) -> Any:
    """Indices, with a progress bar where somebody looks."""
    return track(
        range(n),
        title,
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
