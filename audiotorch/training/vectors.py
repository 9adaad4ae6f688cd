"""Recordings as the vectors that scikit-learn is fitted on: what the Pipeline's features give."""

import sys
from collections.abc import Sequence
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

__all__ = ["Vectors", "compute_vectors"]

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
    if not finite.all():
        path = clips.clips[int(finite.argmin())].path
        raise ParameterError(f"{path}: its features are not finite; check or remove the file")
    known = groups if any(group is not None for group in groups) else None
    return Vectors(found[0], clips.targets.numpy(), known, found[1:])


@torch.no_grad()
def _rows(
    pipeline: Pipeline, clips: AudioDataset, copy: int, augment: Augment | None, seed: int
) -> np.ndarray:
    pooling = VectorPooling()
    device = pipeline.temperature.device
    rows: dict[int, Tensor] = {}
    indices = iter(_track(len(clips), copy))
    while chunk := list(islice(indices, _CHUNK)):
        waveforms = {i: clips[copy, i][0] if copy else clips.whole(i) for i in chunk}
        for keys, waveform, lengths in padded_batches(waveforms, _MAX_SAMPLES):
            if augment is not None:
                # Keyed by the clip that leads the batch: the same for any number of copies.
                generator = Augment.generator(seed, copy, keys[0])
                waveform, lengths = augment.waveform(waveform, lengths, generator)
            x, counts = pipeline.front(waveform.to(device), lengths.to(device))
            rows.update(zip(keys, pooling(x, counts).double().cpu(), strict=True))
    return torch.stack([rows[i] for i in range(len(clips))]).numpy()


def _track(n: int, copy: int) -> Any:
    """Indices, with a progress bar where somebody looks."""
    return track(
        range(n),
        f"features of copies {copy}" if copy else "features",
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
