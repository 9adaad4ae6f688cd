"""Scores over time of several recordings, one above the other."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["time_lines"]

_ROW = 0.95  # inches of a recording


def time_lines(found: Mapping[str, Any]) -> "Figure":
    """Draw the scores of the windows of recordings over time, on one scale, with the thresholds.

    Args:
        found: explanations, from `explain_detection`, by what is written above each.
    """
    from audiotorch.plot.figure import NEUTRAL, WRONG, new_figure, short

    figure = new_figure(5.4, 1.0 + _ROW * len(found))
    rows = figure.subplots(len(found), sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, each) in zip(rows, found.items(), strict=True):
        starts, scores = each.start_seconds.numpy(), each.window_scores.numpy()
        ends = starts + each.window_seconds
        axes.hlines(scores, starts, ends, color=NEUTRAL, linewidth=2, alpha=0.6)
        axes.plot((starts + ends) / 2, scores, color=NEUTRAL, marker=".", linewidth=1)
        for i, (threshold, value) in enumerate(each.thresholds.items()):
            if np.isfinite(value):
                style = "-" if i == len(each.thresholds) - 1 else "--"
                label = f"{short(threshold)} (of whole clips)"
                axes.axhline(value, color=WRONG, linestyle=style, linewidth=1, label=label)
        axes.set_title(short(name), fontsize=9, loc="left", pad=3)
        axes.tick_params(labelsize=8)
    rows[0].margins(y=0.15)  # of all, for they share it
    seconds = max(each.seconds for each in found.values())
    rows[-1].set(xlim=(0, seconds), xlabel="seconds")
    figure.supylabel("score of a window", fontsize=9)
    handles, labels = rows[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=8)
    return figure
