"""What a model learns from, as TensorBoard shows it: a clip of each class, and augmented."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from audiotorch.data.dataset import AudioDataset, collate
from audiotorch.errors import printable
from audiotorch.explain import band_edges
from audiotorch.pipeline import Pipeline
from audiotorch.plot import mark_kilohertz, new_figure
from audiotorch.plot.figure import short
from audiotorch.plot.sounds import draw_mel
from audiotorch.training.augment import Augment
from audiotorch.training.board import write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_inputs", "one_a_class"]

_SHOWN = 6  # classes
_SECONDS = 30.0  # of a longer clip


def one_a_class(clips: AudioDataset, n: int = _SHOWN) -> list[int]:
    """Return the first clip of each class; of the only class, its first clips.

    Args:
        clips: a part of the data.
        n: clips at most.
    """
    targets = clips.targets.tolist()
    first = {target: i for i, target in reversed(list(enumerate(targets)))}
    if len(first) == 1:
        return list(range(min(n, len(targets))))
    return [first[target] for target in sorted(first)][:n]


@torch.no_grad()
def draw_inputs(
    writer: Any,
    pipeline: Pipeline,
    clips: AudioDataset,
    augment: Augment | None = None,
    step: int = 0,
) -> None:
    """Show what the model gets of training clips, of each class one, beside it augmented.

    Images are drawn as they are; of vectors, the sound that they are computed of.

    Args:
        writer: TensorBoard's.
        pipeline: its preprocessing and features are used, on the device where it is.
        clips: the training clips.
        augment: of training batches.
        step: of the training.
    """
    chosen = one_a_class(clips)
    longest = round(_SECONDS * clips.sample_rate)
    batch = collate([(clips[i][0][:longest], int(clips.targets[i]), i) for i in chosen])
    device = pipeline.temperature.device
    waveform, lengths = batch.waveform.to(device), batch.lengths.to(device)
    labels = [clips.labels[target] for target in batch.target.tolist()]
    drawn = [_inputs(pipeline, waveform, lengths)]
    titles = [labels]
    if augment is not None:
        # Keyed apart from what training draws.
        generator = Augment.generator(clips.seed, 0, -1)
        waveform, lengths = augment.waveform(waveform, lengths, generator)
        x, counts = _inputs(pipeline, waveform, lengths)
        shares = F.one_hot(batch.target, len(clips.labels)).to(waveform)
        if x.ndim == 4:
            x = augment.image(x, counts, generator)
            x, counts, shares = augment.mix(x, counts, shares, generator)
        drawn.append((x, counts))
        titles.append([_mixture(row, clips.labels) for row in shares.cpu()])
    for k in range(len(chosen)):
        parts = [x[k, ..., : int(n)].float().cpu() for x, n in ((x, c[k]) for x, c in drawn)]
        figure = _figure(pipeline, parts, [each[k] for each in titles])
        write_picture(writer, f"train_input/{k + 1}", figure, step)


def _inputs(pipeline: Pipeline, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Images with their frames, or, of vectors, waveforms with their samples."""
    x, counts = pipeline.front(waveform, lengths)
    return (x, counts) if x.ndim == 4 else (waveform, lengths)


def _mixture(shares: Tensor, labels: Sequence[str]) -> str:
    """The labels that a mixed clip has, the larger share first."""
    found = sorted(zip(shares.tolist(), labels, strict=True), key=lambda row: -row[0])[:2]
    if found[0][0] > 0.995 or len(found) < 2:
        return "augmented"
    return " + ".join(f"{share:.0%} {short(label)}" for share, label in found)


def _figure(pipeline: Pipeline, parts: Sequence[Tensor], titles: Sequence[str]) -> "Figure":
    """A clip, and beside it the same augmented, in the same colours."""
    figure = new_figure(3.4 * len(parts), 2.6)
    axes = figure.subplots(1, len(parts), squeeze=False, sharey=parts[0].ndim == 3)[0]
    low, high = 0.0, 1.0
    if parts[0].ndim == 3:
        low, high = np.percentile(parts[0][0].numpy(), [1, 99.8])
    for ax, part, title in zip(axes, parts, titles, strict=True):
        if part.ndim == 1:
            draw_mel(ax, part, pipeline.sample_rate)
        else:
            _draw_image(ax, part[0].numpy(), pipeline.features, low, high)
        ax.set_title(short(printable(title)), fontsize=9)
    axes[0].set_ylabel("kHz" if axes[0].get_ylabel() == "" else axes[0].get_ylabel())
    return figure


def _draw_image(ax: "Axes", image: np.ndarray, features: Any, low: float, high: float) -> None:
    """One channel of an image `(rows, frames)`, over seconds where frames are such."""
    mel = getattr(features, "mel", None)
    hop = getattr(getattr(mel, "source", None), "hop_length", None)
    stretched = hop is None or getattr(features, "n_frames", None) is not None
    end = image.shape[1] if stretched else image.shape[1] * hop / features.sample_rate
    place = (0.0, float(end), 0.0, float(len(image)))
    ax.imshow(image, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high, extent=place)
    ax.set_xlabel("frame, of a clip stretched" if stretched else "seconds", fontsize=8)
    ax.tick_params(labelsize=8)
    if hasattr(mel, "bank"):
        mark_kilohertz(ax, band_edges(features).numpy())
    else:
        ax.set_ylabel("row")
