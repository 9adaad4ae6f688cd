"""Pictures of how good a model is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from audiotorch.plot.figure import new_figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from audiotorch.models.calibration import Reliability

__all__ = [
    "confusion_matrix",
    "reliability_diagram",
    "score_histogram",
]


def confusion_matrix(matrix: np.ndarray, labels: Sequence[str]) -> "Figure":
    """Draw a confusion matrix, coloured by the share of each true class.

    Args:
        matrix: clips by true class (row) and answer (column).
        labels: the classes, in the order of the rows.
    """
    names = [short(label) for label in labels]
    size = 1.2 + 0.45 * len(labels) + 0.08 * max(10, *map(len, names))
    figure = new_figure(size, size)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), names, rotation=90)
    axes.set_yticks(range(len(labels)), names)
    axes.set(xlabel="answer", ylabel="true class")
    for row, column in np.argwhere(matrix > 0):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    return figure


def reliability_diagram(curves: Mapping[str, "Reliability"]) -> "Figure":
    """Draw how often answers are right against how confident they are.

    Args:
        curves: bins of confidence by name; bins without clips are left out, dots grow with the
            clips in them.
    """
    figure = new_figure(4.5, 4.5)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="calibrated")
    for name, bins in curves.items():
        held = bins.size > 0
        area = 20 + 180 * bins.size[held] / max(bins.size.sum(), 1)
        (line,) = axes.plot(bins.confidence[held], bins.accuracy[held], label=short(name))
        axes.scatter(bins.confidence[held], bins.accuracy[held], s=area, color=line.get_color())
    axes.set(xlabel="confidence", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper left", frameon=False)
    return figure


def score_histogram(
    scores: Mapping[str, np.ndarray], thresholds: Mapping[str, float] | None = None
) -> "Figure":
    """Draw how a detector scores several parts of the data, and where its thresholds lie.

    Args:
        scores: by name of the part, `(n,)` each.
        thresholds: by name.
    """
    figure = new_figure(7.0, 3.5)
    axes = figure.add_subplot()
    edges = np.histogram_bin_edges(np.concatenate(list(scores.values())), bins=40)
    for name, values in scores.items():
        weights = np.full(len(values), 1 / max(len(values), 1))
        label = f"{short(name)} ({len(values)})"
        axes.hist(values, edges.tolist(), weights=weights, alpha=0.45, label=label)
    for place, (name, value) in enumerate((thresholds or {}).items()):
        style = ("--", ":", "-.")[place % 3]
        axes.axvline(value, color="black", linestyle=style, linewidth=1, label=short(name))
    axes.set(xlabel="score, higher = more anomalous", ylabel="share of the clips")
    axes.legend(frameon=False, fontsize=8)
    return figure
