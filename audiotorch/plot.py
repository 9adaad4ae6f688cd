"""Pictures of sounds and answers, drawn with matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import nn

from audiotorch.audio.io import load
from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.features import MelSpectrogram, PowerToDB
from audiotorch.features.filters import hz_to_mel
from audiotorch.pipeline import predict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix", "new_figure", "prediction_strip"]

_RIGHT, _WRONG, _NEUTRAL = "#1b7f4b", "#c0392b", "#33475b"


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure that needs no display and leaves pyplot's state alone.

    Args:
        width: inches.
        height: inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "pictures need matplotlib: pip install 'audiotorch[plot]'"
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def prediction_strip(
    module: nn.Module, files: Sequence[str | Path], *, truth: Sequence[str] | None = None
) -> "Figure":
    """Draw clips side by side: mel spectrogram above, the three most probable classes below.

    Args:
        module: Pipeline or exported module.
        files: one recording a column.
        truth: the right label of each file; titles are then green or red.

    Raises:
        ParameterError: no files, or a truth of another length.
        DecodeError: a file cannot be read.
    """
    if not files or (truth is not None and len(truth) != len(files)):
        raise ParameterError("files: need at least one, and truth as long as they are")
    figure = new_figure(1.9 * len(files), 3.2)
    axes = figure.subplots(2, len(files), squeeze=False, height_ratios=[3, 1])
    answers = predict(module, files)
    for i, (file, answer) in enumerate(zip(files, answers, strict=True)):
        _draw_mel(axes[0, i], file, cast(int, module.sample_rate))
        colour = _NEUTRAL
        if truth is not None:
            colour = _RIGHT if truth[i] == answer.label else _WRONG
        axes[0, i].set_title(_plain(answer.label or "unreadable"), color=colour, fontsize=10)
        _draw_bars(axes[1, i], answer.probabilities, colour)
        if i:
            axes[0, i].set_yticks([])
    axes[0, 0].set_ylabel("kHz")
    return figure


def confusion_matrix(matrix: np.ndarray, labels: Sequence[str]) -> "Figure":
    """Draw a confusion matrix, coloured by the share of each true class.

    Args:
        matrix: clips by true class (row) and answer (column).
        labels: the classes, in the order of the rows.
    """
    size = 2.0 + 0.45 * len(labels)
    figure = new_figure(size, size)
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
    return figure


def _draw_mel(axes: "Axes", file: str | Path, sample_rate: int) -> None:
    """Draw a mel spectrogram with frequency in kHz and time in seconds."""
    waveform, _ = load(file, sample_rate=sample_rate)
    hop = max(1, sample_rate // 100)
    mel = MelSpectrogram(sample_rate, 4 * hop, hop, n_mels=40)
    db = PowerToDB(ref="max", top_db=60.0)(mel(waveform[0])).numpy()
    seconds = waveform.shape[1] / sample_rate
    axes.imshow(db, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, len(db)))
    top = hz_to_mel(np.array(sample_rate / 2))
    ticks = np.array([kilo for kilo in (0.5, 1, 2, 4, 8) if 1000 * kilo < sample_rate / 2])
    axes.set_yticks(hz_to_mel(1000 * ticks) / top * len(db), [f"{tick:g}" for tick in ticks])
    axes.set_xticks([0, seconds], ["0", f"{seconds:.1f} s"])
    axes.tick_params(labelsize=8)


def _draw_bars(axes: "Axes", probabilities: dict[str, float], colour: str) -> None:
    """Draw the three most probable classes, the first on top."""
    top = sorted(probabilities.items(), key=lambda item: item[1], reverse=True)[:3][::-1]
    axes.barh(range(len(top)), [p for _, p in top], color=colour, alpha=0.35)
    for i, (label, p) in enumerate(top):
        axes.text(0.03, i, f"{_plain(label)} {p:.0%}", va="center", fontsize=8)
    axes.set(xlim=(0, 1), xticks=[], yticks=[])
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)


def _plain(text: Any) -> str:
    """A dollar sign in a name must not start a formula."""
    return str(text).replace("$", r"\$")
