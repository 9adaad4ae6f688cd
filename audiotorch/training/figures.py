"""Pictures of a finished run: confusion matrix, and recordings with the answers they got."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiotorch.data.datamodule import AudioDataset
from audiotorch.features import MelSpectrogram, PowerToDB
from audiotorch.pipeline import Pipeline

__all__ = ["confusion_picture", "predictions_picture", "write_picture"]

_WINDOW_SECONDS = 0.046  # as librosa's 1024 samples at 22050 Hz: tones and time both resolved


def confusion_picture(matrix: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Draw a confusion matrix, rows coloured by their class's shares, cells with their counts.

    Args:
        matrix: clips by true class (row) and answer (column).
        labels: the classes.

    Returns:
        The picture, uint8 `(height, width, 3)`.
    """
    from matplotlib.figure import Figure

    size = 2.0 + 0.45 * len(labels)
    figure = Figure(figsize=(size, size), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_plain(label) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=90)
    axes.set_yticks(range(len(labels)), names)
    axes.set(xlabel="answer", ylabel="true class")
    for row, column in np.argwhere(matrix > 0):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    return _pixels(figure)


def predictions_picture(pipeline: Pipeline, clips: AudioDataset, n: int = 8) -> np.ndarray:
    """Draw spectrograms of recordings, each with its class and the answer.

    Args:
        pipeline: in evaluation mode, on the CPU.
        clips: the recordings; one of each class is taken, then a second, up to `n`.
        n: how many to draw.

    Returns:
        The picture, uint8 `(height, width, 3)`.
    """
    from matplotlib.figure import Figure

    chosen = _one_of_each(clips.targets.tolist(), n)
    columns = min(4, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(3.0 * columns, 2.3 * rows), dpi=100, layout="constrained")
    for place, index in enumerate(chosen, start=1):
        waveform, target, _ = clips[index]
        with torch.no_grad():
            probabilities = pipeline(waveform[None])[0]
        answer = int(probabilities.argmax())
        axes = figure.add_subplot(rows, columns, place)
        seconds = waveform.numel() / pipeline.sample_rate
        axes.imshow(
            _log_mel(waveform, pipeline.sample_rate),
            origin="lower",
            aspect="auto",
            cmap="magma",
            extent=(0, seconds, 0, 1),
        )
        heard = f"{_plain(pipeline.labels[answer])} {float(probabilities[answer]):.2f}"
        right = answer == target
        text = heard if right else f"{heard}, is {_plain(pipeline.labels[target])}"
        axes.set_title(text, fontsize=10, color="#1a7f37" if right else "#cf222e")
        axes.set_yticks([])
        axes.tick_params(labelsize=8)
        if place > len(chosen) - columns:
            axes.set_xlabel("seconds", fontsize=8)
    return _pixels(figure)


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write a PNG file that is complete or not there.

    Args:
        picture: uint8 `(height, width, 3)`.
        path: the file; its directory is made when missing.
    """
    from matplotlib.image import imsave

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    imsave(partial, picture, format="png")
    partial.replace(path)


def _one_of_each(targets: Sequence[int], n: int) -> list[int]:
    """Indices in turns through the classes, sorted by class."""
    queues = [[i for i, t in enumerate(targets) if t == target] for target in sorted(set(targets))]
    turns = [queue[k] for k in range(len(targets)) for queue in queues if k < len(queue)]
    return sorted(turns[:n], key=lambda i: targets[i])


def _log_mel(waveform: Tensor, sample_rate: int) -> np.ndarray:
    n_fft = 2 ** round(math.log2(_WINDOW_SECONDS * sample_rate))
    mel = MelSpectrogram(sample_rate, n_fft, n_fft // 4, n_mels=64)
    return np.asarray(PowerToDB(top_db=60.0)(mel(waveform[None]))[0])


def _plain(text: str) -> str:
    """Text that matplotlib takes as it stands: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def _pixels(figure: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
