"""Pictures of what an answer rests on."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.plot.figure import NEUTRAL, RIGHT, WRONG, new_figure, plain, short
from audiotorch.plot.sounds import draw_mel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from audiotorch.explain import ClassExplanation, ClassMap, DeviationMap, Explanation

__all__ = [
    "detection",
    "explanation",
    "importance_bars",
    "mark_kilohertz",
    "prediction_strip",
]


# Told apart by colour-blind people too: what speaks for a class, and against it.
_FOR, _AGAINST = "#0072b2", "#d55e00"
_DEPTH_DB = 80.0  # of a spectrogram, below its loudest place
_CLASSES = 5  # beside a map
_LINE = 105  # letters of a title


def prediction_strip(
    module: nn.Module, waveforms: Sequence[Tensor], truth: Sequence[str] | None = None
) -> "Figure":
    """Draw clips side by side: mel spectrogram above, the three most probable classes below.

    Args:
        module: Pipeline in evaluation mode, or an exported one.
        waveforms: one clip a column, `(time,)` each, at the module's rate.
        truth: the right label of each clip; titles are then green or red, and wrong ones name it.

    Raises:
        ParameterError: no clip, or a truth of another length.
    """
    if not waveforms or (truth is not None and len(truth) != len(waveforms)):
        raise ParameterError("waveforms: need at least one, and truth as long as they are")
    figure = new_figure(1.9 * len(waveforms), 3.2)
    axes = figure.subplots(2, len(waveforms), squeeze=False, height_ratios=[3, 1])
    answers: Any = module
    for i, waveform in enumerate(waveforms):
        with torch.no_grad():
            row = answers(waveform[None])[0].tolist()
        top = sorted(zip(row, answers.labels, strict=True), reverse=True)[:3]
        title, colour = top[0][1], NEUTRAL
        if truth is not None and truth[i] == title:
            colour = RIGHT
        elif truth is not None:
            title, colour = f"{title}, is {truth[i]}", WRONG
        draw_mel(axes[0, i], waveform, answers.sample_rate)
        axes[0, i].set_title(short(title), color=colour, fontsize=10)
        _draw_bars(axes[1, i], top, colour)
        if i:
            axes[0, i].set_yticks([])
    axes[0, 0].set_ylabel("kHz")
    return figure


def importance_bars(drops: Mapping[str, tuple[float, float]], n_shown: int = 20) -> "Figure":
    """Draw how much accuracy is lost without a feature, the most important on top.

    Args:
        drops: mean and standard deviation of the loss by name.
        n_shown: features, the largest losses.
    """
    shown = sorted(drops.items(), key=lambda item: -item[1][0])[:n_shown]
    figure = new_figure(6.0, 1.0 + 0.25 * max(len(shown), 1))
    axes = figure.add_subplot()
    for place, (_, (mean, std)) in enumerate(shown):
        axes.barh(-place, 100 * mean, xerr=100 * std, color=NEUTRAL, alpha=0.7, ecolor="black")
    axes.set_yticks([-place for place in range(len(shown))], [short(name) for name, _ in shown])
    axes.set_xlabel("points of accuracy lost without it")
    axes.axvline(0.0, color="black", linewidth=0.8)
    return figure


def detection(explanation: "Explanation", title: str = "") -> "Figure":
    """Draw why a detector finds a recording anomalous.

    Of autoencoders the spectrogram and, over it, what they could not rebuild, the largest deviation
    in a frame; of detectors on vectors the features that deviate most. Below, the windows' scores
    over time, with the thresholds, which were made for whole recordings.

    Args:
        explanation: from `explain_detection`.
        title: stands above it, with the verdict.
    """
    found = explanation.map
    n_bars = 0 if found is not None else len(explanation.deviations)
    above = [2.2, 2.2] if found is not None else [0.5 + 0.25 * n_bars]
    figure = new_figure(8.0, sum(above) + 3.0)
    axes = figure.subplots(len(above) + 1, height_ratios=[*above, 1.9], squeeze=False)[:, 0]
    if found is None:
        _draw_deviations(axes[0], explanation.deviations)
    else:
        _draw_map(axes[0], axes[1], found, explanation)
    _draw_time_line(axes[-1], explanation)
    name, verdict = short(title), f"score {explanation.score:.4g}"
    if explanation.threshold is not None:
        verdict = f"{'ANOMALY' if explanation.is_anomaly else 'normal'}, {verdict}"
        verdict += f", threshold {explanation.threshold:.4g}"
    if explanation.p_value is not None:
        verdict += f", p = {explanation.p_value:.2g}"
    reason = textwrap.fill(plain(explanation.reason), 90)
    figure.suptitle(f"{name}: {verdict}\n{reason}", fontsize=10)
    return figure


def explanation(found: "ClassExplanation | Explanation", title: str = "") -> "Figure":
    """Draw what a model's answer rests on.

    Of classifiers on images, the spectrogram and below it, over the same in grey, what speaks for
    the class, with the most probable classes beside them; of classifiers on vectors, the features
    that add most. Of detectors, see `detection`.

    Args:
        found: from `explain`, `explain_class` or `explain_detection`.
        title: stands above it, with the answer.
    """
    seen: Any = found
    if hasattr(seen, "window_scores"):
        return detection(seen, title)
    n_bars = len(seen.contributions)
    figure = new_figure(10.0, 5.0 if seen.map is not None else max(2.4, 1.5 + 0.27 * n_bars))
    if seen.map is not None:
        grid = figure.add_gridspec(2, 2, width_ratios=[3, 1.05])
        above = figure.add_subplot(grid[0, 0])
        below = figure.add_subplot(grid[1, 0], sharex=above, sharey=above)
        _draw_weights(above, below, seen.map)
        beside = figure.add_subplot(grid[:, 1])
    else:
        grid = figure.add_gridspec(1, 2, width_ratios=[3, 1.05])
        _draw_contributions(figure.add_subplot(grid[0, 0]), seen)
        beside = figure.add_subplot(grid[0, 1])
    _draw_classes(beside, seen)
    reason = textwrap.fill(plain(seen.reason), _LINE)
    answer = f"{short(seen.label)}, {_percent(seen.confidence)}"
    name = f"{short(title)}: " if title else ""
    figure.suptitle(f"{name}{answer}\n{reason}", fontsize=10)
    return figure


def mark_kilohertz(axes: "Axes", band_edges: np.ndarray) -> None:
    """Write kHz beside a picture whose rows are bands.

    Args:
        axes: of the picture, one unit high a band.
        band_edges: Hz between the bands and at the ends, `(n_bands + 1,)`.
    """
    n_bands = len(band_edges) - 1
    ticks = np.array([125, 250, 500, 1000, 2000, 4000, 8000, 16000])
    ticks = ticks[(ticks > band_edges[0]) & (ticks < band_edges[-1])]
    places = np.interp(ticks, band_edges, np.arange(n_bands + 1))
    # The mel scale crowds what is low.
    apart = np.diff(places, append=np.inf) > 0.05 * n_bands
    axes.set_yticks(places[apart], [f"{tick / 1000:g}" for tick in ticks[apart]])


def _draw_map(
    above: "Axes", below: "Axes", found: "DeviationMap", explanation: "Explanation"
) -> None:
    """Draw an autoencoder's input, and its errors over the same in grey."""
    n_bands, n_frames = found.errors.shape
    start, edges = found.start_seconds, found.band_edges.numpy()
    # A frame's middle lies where it stands in time, a picture's left edge half a frame before.
    left = start - found.frame_seconds / 2
    extent = (left, left + n_frames * found.frame_seconds, 0, n_bands)
    errors = found.errors.numpy()
    settings: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": extent}
    above.imshow(found.spectrogram.numpy(), cmap="magma", **settings)
    below.imshow(found.spectrogram.numpy(), cmap="Greys", alpha=0.6, **settings)
    drawn = below.imshow(errors, cmap=_fading("autumn_r"), vmin=0.0, **settings)
    below.figure.colorbar(drawn, ax=[above, below], label="squared error", shrink=0.6)
    for axes, text in ((above, "input"), (below, "what deviates")):
        mark_kilohertz(axes, edges)
        # As below, where the time line is: no time before the start or past the end.
        axes.set(ylabel="kHz", xlim=(max(0.0, left), min(extent[1], explanation.seconds)))
        axes.set_title(text, fontsize=9)
        axes.tick_params(labelsize=8)
    if explanation.band is not None and explanation.second is not None:
        low, high = np.interp(explanation.band, edges, np.arange(n_bands + 1))
        seconds = found.frame_seconds
        margin = max(min(4 * seconds, 0.1), seconds, 0.01 * n_frames * seconds)
        corners = explanation.second + np.array([-1, 1, 1, -1, -1]) * margin
        below.plot(corners, [low, low, high, high, low], color="black", linewidth=1)
        below.set_ylim(0, n_bands)


def _draw_weights(above: "Axes", below: "Axes", found: "ClassMap") -> None:
    """Draw the spectrogram, and over the same in grey what speaks for the class."""
    n_bands, n_frames = found.weights.shape
    # A frame's middle lies where it stands in time, a picture's left edge half a frame before.
    left = found.start_seconds - found.frame_seconds / 2
    right = left + n_frames * found.frame_seconds
    settings: dict[str, Any] = {"origin": "lower", "aspect": "auto"}
    settings["extent"] = (left, right if right > left else left + 1e-3, 0, n_bands)
    shown, weights = found.spectrogram.numpy(), found.weights.numpy()
    if found.unit == "dB":
        shown = shown - shown.max()
        settings["vmin"], settings["vmax"] = max(-_DEPTH_DB, float(shown.min())), 0.0
    sound = above.imshow(shown, cmap="magma", **settings)
    below.imshow(shown, cmap="Greys", alpha=0.6, **settings)
    settings |= {"vmin": 0.0, "vmax": 1.0}
    drawn = below.imshow(weights, cmap=_fading("autumn_r"), **settings)
    unit = "dB below the loudest" if found.unit == "dB" else "the model's input"
    above.figure.colorbar(sound, ax=above, label=unit, pad=0.02)
    below.figure.colorbar(drawn, ax=below, label="weight", pad=0.02)
    for axes, text in ((above, "what was heard"), (below, "what speaks for the class")):
        if found.band_edges is not None:
            mark_kilohertz(axes, found.band_edges.numpy())
        axes.set_ylabel("row" if found.band_edges is None else "kHz")
        axes.set_title(text, fontsize=9)
        axes.tick_params(labelsize=8)
    above.tick_params(labelbottom=False)
    below.set_xlabel("seconds")


def _fading(name: str) -> Any:
    """A map of colours that lets what lies below be seen where little is to be said."""
    import matplotlib

    ramp = np.linspace(0.0, 1.0, 256)
    colours = matplotlib.colormaps[name](ramp)
    colours[:, 3] = 0.9 * ramp**0.7
    return matplotlib.colors.ListedColormap(colours)


def _draw_contributions(axes: "Axes", found: "ClassExplanation") -> None:
    """Draw what features add to a class, the largest on top."""
    values = list(found.contributions.values())
    for place, value in enumerate(values):
        axes.barh(-place, value, color=_FOR if value > 0 else _AGAINST, alpha=0.8)
        side = 3 if value > 0 else -3
        axes.annotate(
            f"{value:+.3g}",
            (value, -place),
            (side, 0),
            textcoords="offset points",
            ha="left" if value > 0 else "right",
            va="center",
            fontsize=8,
        )
    axes.set_yticks([-place for place in range(len(values))], map(short, found.contributions))
    axes.set_xlabel(f"adds to {short(found.label)} (right of 0: for it, left: against it)")
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.margins(x=0.12)  # room for the numbers
    axes.tick_params(labelsize=8)


def _draw_classes(axes: "Axes", found: "ClassExplanation") -> None:
    """Draw the most probable classes, and the one that is explained in its colour."""
    ranked = sorted(found.probabilities.items(), key=lambda item: -item[1])
    top = ranked[:_CLASSES]
    if found.label not in dict(top):
        top = [*ranked[: _CLASSES - 1], (found.label, found.confidence)]
    for place, (label, p) in enumerate(top):
        colour = _FOR if label == found.label else NEUTRAL
        axes.barh(-place, p, height=0.38, color=colour, alpha=0.8)
        axes.barh(-place, 1.0, height=0.38, color=NEUTRAL, alpha=0.1)
        name = short(label)
        axes.text(0.0, 0.24 - place, name, va="bottom", fontsize=9 if len(name) <= 24 else 7)
        shade = "white" if p > 0.8 else "black"
        axes.text(0.98, -place, _percent(p), va="center", ha="right", fontsize=8, color=shade)
    axes.set(xlim=(0, 1), ylim=(0.4 - max(3, len(top)), 0.7), xticks=[], yticks=[])
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title("probability", fontsize=9)


def _percent(p: float) -> str:
    return "<1%" if 0 < p < 0.005 else f"{p:.0%}"


def _draw_deviations(axes: "Axes", deviations: Mapping[str, float]) -> None:
    """Draw how far features lie from normal, the furthest on top."""
    for place, value in enumerate(deviations.values()):
        axes.barh(-place, value, color=WRONG if value > 0 else NEUTRAL, alpha=0.7)
    axes.set_yticks([-place for place in range(len(deviations))], [short(n) for n in deviations])
    axes.set_xlabel("standard deviations from the mean of normal clips")
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.tick_params(labelsize=8)


def _draw_time_line(axes: "Axes", explanation: "Explanation") -> None:
    """Draw the windows' scores over time, each as long as its window, and the thresholds."""
    starts, scores = explanation.start_seconds.numpy(), explanation.window_scores.numpy()
    ends = starts + explanation.window_seconds
    axes.hlines(scores, starts, ends, color=NEUTRAL, linewidth=1, alpha=0.5)
    # Of an hour, dots would hide the line.
    marker = "." if len(scores) <= 200 else ""
    axes.plot((starts + ends) / 2, scores, color=NEUTRAL, marker=marker, linewidth=1)
    for place, (name, threshold) in enumerate(explanation.thresholds.items()):
        if np.isfinite(threshold):
            label = f"{short(name)} (of whole clips)"
            style = "-" if place == len(explanation.thresholds) - 1 else "--"
            axes.axhline(threshold, color=WRONG, linestyle=style, linewidth=1, label=label)
    if explanation.thresholds:
        axes.legend(fontsize=8, loc="best")
    if explanation.map is not None and len(starts) > 1:
        found = explanation.map
        end = found.start_seconds + found.errors.shape[1] * found.frame_seconds
        if found.start_seconds > 0 or end < explanation.seconds:
            axes.axvspan(found.start_seconds, end, color="grey", alpha=0.1)
    axes.set(xlim=(0, explanation.seconds), xlabel="seconds")
    axes.set_ylabel(f"score of {explanation.window_seconds:.2g} s")
    axes.tick_params(labelsize=8)


def _draw_bars(axes: "Axes", top: Sequence[tuple[float, str]], colour: str) -> None:
    """Draw the most probable classes, the first on top."""
    for place, (p, label) in enumerate(top):
        axes.barh(-place, p, color=colour, alpha=0.35)
        axes.text(0.03, -place, f"{short(label)} {p:.0%}", va="center", fontsize=8)
    axes.set(xlim=(0, 1), xticks=[], yticks=[])
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
