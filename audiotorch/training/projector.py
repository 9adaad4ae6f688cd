"""Clips as points in TensorBoard's projector: near each other where the model finds them alike."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audiotorch.answers import AnswerTable
from audiotorch.audio.clips import padded_batches
from audiotorch.data.dataset import AudioDataset
from audiotorch.errors import printable
from audiotorch.features import MelSpectrogram, PowerToDB
from audiotorch.features.pooling import VectorPooling
from audiotorch.pipeline import Pipeline
from audiotorch.training.board import excerpt

__all__ = [
    "Point",
    "choose_points",
    "draw_projector",
    "embed_points",
    "sprites",
    "standardised",
    "write_projector",
]

_POINTS, _MINUTES = 500, 30  # clips at most, and how long all of them may last
_SPRITE = 40  # pixels, both ways
# Of a vector; longer ones are turned on their main axes, where TensorBoard takes axes at random.
_COLUMNS = 50
_EXCERPT = 20.0  # seconds of a longer clip that its sprite shows
_MAX_SAMPLES = 1 << 21  # of a padded batch

Point = tuple[str, AudioDataset, int]
"""A part's name, its clips, and which of them."""


def choose_points(parts: Mapping[str, AudioDataset], n: int = _POINTS) -> list[Point]:
    """Choose clips that were not fitted on, as many of each class as the others where there are.

    Args:
        parts: the data by part; `train` serves where there are no others.
        n: clips at most.
    """
    held_out = {name: clips for name, clips in parts.items() if name != "train" and len(clips)}
    found = held_out or {"train": parts["train"]}
    points = [(name, clips, i) for name, clips in found.items() for i in range(len(clips))]
    by_class: dict[int, list[Point]] = {}
    generator = np.random.default_rng(0)
    for k in generator.permutation(len(points)):
        name, clips, i = points[k]
        by_class.setdefault(int(clips.targets[i]), []).append((name, clips, i))
    # One of each class, then the next of each: whoever has none left is passed over.
    turns = max(map(len, by_class.values()))
    rows = [rows[turn] for turn in range(turns) for rows in by_class.values() if turn < len(rows)]
    chosen: list[Point] = []
    seconds = 0.0
    for name, clips, i in rows[:n]:
        seconds += len(clips.whole(i)) / clips.sample_rate
        if chosen and seconds > 60 * _MINUTES:
            break
        chosen.append((name, clips, i))
    return chosen


@torch.no_grad()
def embed_points(pipeline: Pipeline, points: Sequence[Point]) -> np.ndarray:
    """Return what the network's last layer answers from, `(n, d)`; else pooled, scaled features.

    Args:
        pipeline: in evaluation mode.
        points: the clips, taken whole.
    """
    model: Any = pipeline.model
    learned = getattr(model, "embedding_size", 0) > 0
    layer = model.embed if learned else VectorPooling()
    device = pipeline.temperature.device
    rows: dict[int, Tensor] = {}
    for keys, waveform, lengths in _batches(points):
        x, counts = pipeline.front(waveform.to(device), lengths.to(device))
        rows.update(zip(keys, layer(x, counts).float().cpu(), strict=True))
    vectors = torch.stack([rows[k] for k in range(len(points))]).numpy()
    return vectors if learned else standardised(vectors)


def standardised(vectors: np.ndarray) -> np.ndarray:
    """Scale each column to mean 0 and standard deviation 1; a constant one becomes 0.

    Args:
        vectors: `(n, d)`.
    """
    spread = vectors.std(axis=0)
    return np.asarray((vectors - vectors.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


@torch.no_grad()
def sprites(points: Sequence[Point]) -> Tensor:
    """Return a small mel spectrogram of each clip, 60 dB deep.

    Args:
        points: the clips; of long ones the loudest part is drawn.

    Shape:
        - Output: `(n, 3, 40, 40)`, 0 to 1
    """
    from matplotlib import colormaps

    rate = points[0][1].sample_rate
    hop = max(1, rate // 100)
    # As `draw_mel`: at least 160 samples, so that each band has its FFT bins.
    mel = MelSpectrogram(rate, max(4 * hop, 160), hop, n_mels=_SPRITE)
    in_db = PowerToDB(ref="max", top_db=60.0)
    pool = nn.AdaptiveAvgPool2d(_SPRITE)
    rows = []
    for _, clips, i in points:
        db = pool(in_db(mel(excerpt(clips.whole(i), round(_EXCERPT * rate))[1]))[None])[0]
        silent = bool(db.max() == db.min())
        rows.append(
            torch.zeros_like(db)
            if silent
            else (db - db.max()).div(60.0).add(1.0).clamp(0.0, 1.0).flip(0)
        )
    coloured = colormaps["magma"](torch.stack(rows).numpy())[..., :3]
    return torch.from_numpy(coloured).permute(0, 3, 1, 2).float()


def draw_projector(
    writer: Any,
    pipeline: Pipeline,
    parts: Mapping[str, AudioDataset],
    answers: AnswerTable | None = None,
    vectors: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Show clips as points in TensorBoard's projector, as their small spectrograms.

    Args:
        writer: TensorBoard's.
        pipeline: what was trained, in evaluation mode.
        parts: the data by part; those that were not fitted on are shown where there are some.
        answers: to the clips of the parts, each part's in the order of its clips.
        vectors: of the clips, by part, where they are known: `(n, d)`; they are scaled.
    """
    points = choose_points(parts)
    if vectors is None:
        place = embed_points(pipeline, points)
    else:
        place = standardised(np.stack([vectors[name][i] for name, _, i in points]))
    given: dict[str, Any] = {}
    if answers is not None:
        given = {name: answers.answers[answers.parts == name] for name in parts}
    rows = []
    for name, clips, i in points:
        clip = clips.clips[i]
        row = {"label": clip.label, "file": f"{clip.path.parent.name}/{clip.path.name}"}
        if i < len(given.get(name, ())):
            row["answer"] = str(given[name][i])
        rows.append({**row, "part": name})
    names = [name for name in ("label", "answer", "part", "file") if all(name in r for r in rows)]
    write_projector(writer, place, rows, names, sprites(points))


def write_projector(
    writer: Any,
    vectors: np.ndarray,
    rows: Sequence[Mapping[str, str]],
    names: Sequence[str],
    pictures: Tensor,
) -> None:
    """Write points for TensorBoard's projector, in the place of an earlier run's.

    Args:
        writer: TensorBoard's.
        vectors: `(n, d)`; columns that are not finite are left out.
        rows: what is told of each point, by name.
        names: what is shown, in this order.
        pictures: sprites `(n, 3, size, size)`, 0 to 1.
    """
    finite = vectors[:, np.isfinite(vectors).all(axis=0)].astype(np.float64)
    if finite.shape[1] > _COLUMNS:
        centred = finite - finite.mean(axis=0)
        finite = centred @ np.linalg.svd(centred, full_matrices=False)[2][:_COLUMNS].T
    if not finite.size:
        return
    # One decimal less than the fourth of the spread tells no points apart, and takes a third.
    scale = max(float(finite.std()), 1e-12)
    finite = np.round(finite, max(0, 4 - int(np.floor(np.log10(scale)))))
    told = [[printable(row[name]) for name in names] for row in rows]
    shutil.rmtree(Path(writer.log_dir) / "00000" / "embedding", ignore_errors=True)
    writer.add_embedding(
        finite,
        metadata=told,
        metadata_header=list(names),
        label_img=pictures,
        global_step=0,
        tag="embedding",
    )


def _batches(points: Sequence[Point]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    for start in range(0, len(points), 64):
        chunk = range(start, min(start + 64, len(points)))
        waveforms = {k: points[k][1].whole(points[k][2]) for k in chunk}
        yield from padded_batches(waveforms, _MAX_SAMPLES)
