"""Pictures of sounds and answers, drawn with matplotlib."""

import os
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.features import MelSpectrogram, PowerToDB
from audiotorch.features.filters import hz_to_mel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from audiotorch.explain import DeviationMap, Explanation
    from audiotorch.models.calibration import Reliability

__all__ = [
    "confusion_matrix",
    "detection",
    "importance_bars",
    "mark_kilohertz",
    "new_figure",
    "pixels",
    "prediction_strip",
    "reliability_diagram",
    "save_figure",
    "score_histogram",
    "spectrogram",
]

_NAME = 32  # letters of a name that are drawn
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
        title, colour = top[0][1], _NEUTRAL
        if truth is not None and truth[i] == title:
            colour = _RIGHT
        elif truth is not None:
            title, colour = f"{title}, is {truth[i]}", _WRONG
        _draw_mel(axes[0, i], waveform, answers.sample_rate)
        axes[0, i].set_title(_short(title), color=colour, fontsize=10)
        _draw_bars(axes[1, i], top, colour)
        if i:
            axes[0, i].set_yticks([])
    axes[0, 0].set_ylabel("kHz")
    return figure


def spectrogram(waveform: Tensor, sample_rate: int, title: str = "") -> "Figure":
    """Draw one clip's mel spectrogram, 60 dB deep, in kHz over seconds.

    Args:
        waveform: `(time,)`
        sample_rate: Hz.
        title: stands above it.
    """
    figure = new_figure(4.0, 3.0)
    axes = figure.add_subplot()
    _draw_mel(axes, waveform, sample_rate)
    axes.set_ylabel("kHz")
    axes.set_title(_plain(title), fontsize=10)
    return figure


def confusion_matrix(matrix: np.ndarray, labels: Sequence[str]) -> "Figure":
    """Draw a confusion matrix, coloured by the share of each true class.

    Args:
        matrix: clips by true class (row) and answer (column).
        labels: the classes, in the order of the rows.
    """
    names = [_short(label) for label in labels]
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
        axes.barh(-place, 100 * mean, xerr=100 * std, color=_NEUTRAL, alpha=0.7, ecolor="black")
    axes.set_yticks([-place for place in range(len(shown))], [_short(name) for name, _ in shown])
    axes.set_xlabel("points of accuracy lost without it")
    axes.axvline(0.0, color="black", linewidth=0.8)
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
        (line,) = axes.plot(bins.confidence[held], bins.accuracy[held], label=_short(name))
        axes.scatter(bins.confidence[held], bins.accuracy[held], s=area, color=line.get_color())
    axes.set(xlabel="confidence", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper left", frameon=False)
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
    name, verdict = _short(title), f"score {explanation.score:.4g}"
    if explanation.threshold is not None:
        verdict = f"{'ANOMALY' if explanation.is_anomaly else 'normal'}, {verdict}"
        verdict += f", threshold {explanation.threshold:.4g}"
    if explanation.p_value is not None:
        verdict += f", p = {explanation.p_value:.2g}"
    reason = textwrap.fill(_plain(explanation.reason), 90)
    figure.suptitle(f"{name}: {verdict}\n{reason}", fontsize=10)
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
        label = f"{_short(name)} ({len(values)})"
        axes.hist(values, edges.tolist(), weights=weights, alpha=0.45, label=label)
    for place, (name, value) in enumerate((thresholds or {}).items()):
        style = ("--", ":", "-.")[place % 3]
        axes.axvline(value, color="black", linestyle=style, linewidth=1, label=_short(name))
    axes.set(xlabel="score, higher = more anomalous", ylabel="share of the clips")
    axes.legend(frameon=False, fontsize=8)
    return figure


def pixels(figure: "Figure") -> np.ndarray:
    """Return a drawn figure as an image.

    Args:
        figure: from this file's functions.

    Shape:
        - Output: `(height, width, 3)`, uint8
    """
    canvas: Any = figure.canvas
    with _any_glyph():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a PNG that is complete or not there.

    Args:
        figure: from this file's functions.
        path: the file; its folder is made when missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    with _any_glyph():
        figure.savefig(partial, dpi=110, format="png")
    os.replace(partial, path)


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


@contextmanager
def _any_glyph() -> Iterator[None]:
    """Let a name that the font cannot show be drawn as boxes, without a warning a letter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _draw_mel(axes: "Axes", waveform: Tensor, sample_rate: int) -> None:
    """Draw a mel spectrogram with frequency in kHz and time in seconds."""
    hop = max(1, sample_rate // 100)
    # 160 samples at least: at rates of a kilohertz or so, bands would else hold no FFT bin.
    mel = MelSpectrogram(sample_rate, max(4 * hop, 160), hop, n_mels=40)
    db = PowerToDB(ref="max", top_db=60.0)(mel(waveform)).numpy()
    seconds = len(waveform) / sample_rate
    axes.imshow(db, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, len(db)))
    top = hz_to_mel(np.array(sample_rate / 2))
    ticks = np.array([kilo for kilo in (0.5, 1, 2, 4, 8) if 1000 * kilo < sample_rate / 2])
    axes.set_yticks(hz_to_mel(1000 * ticks) / top * len(db), [f"{tick:g}" for tick in ticks])
    axes.set_xticks([0, seconds], ["0", f"{seconds:.1f} s"])
    axes.tick_params(labelsize=8)


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
    share = errors / max(float(errors.max()), 1e-30)
    settings: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": extent}
    above.imshow(found.spectrogram.numpy(), cmap="magma", **settings)
    below.imshow(found.spectrogram.numpy(), cmap="Greys", alpha=0.6, **settings)
    drawn = below.imshow(errors, cmap="autumn_r", alpha=np.sqrt(share), **settings)
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


def _draw_deviations(axes: "Axes", deviations: Mapping[str, float]) -> None:
    """Draw how far features lie from normal, the furthest on top."""
    for place, value in enumerate(deviations.values()):
        axes.barh(-place, value, color=_WRONG if value > 0 else _NEUTRAL, alpha=0.7)
    axes.set_yticks([-place for place in range(len(deviations))], [_short(n) for n in deviations])
    axes.set_xlabel("standard deviations from the mean of normal clips")
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.tick_params(labelsize=8)


def _draw_time_line(axes: "Axes", explanation: "Explanation") -> None:
    """Draw the windows' scores over time, each as long as its window, and the thresholds."""
    starts, scores = explanation.start_seconds.numpy(), explanation.window_scores.numpy()
    ends = starts + explanation.window_seconds
    axes.hlines(scores, starts, ends, color=_NEUTRAL, linewidth=1, alpha=0.5)
    # Of an hour, dots would hide the line.
    marker = "." if len(scores) <= 200 else ""
    axes.plot((starts + ends) / 2, scores, color=_NEUTRAL, marker=marker, linewidth=1)
    for place, (name, threshold) in enumerate(explanation.thresholds.items()):
        if np.isfinite(threshold):
            label = f"{_short(name)} (of whole clips)"
            style = "-" if place == len(explanation.thresholds) - 1 else "--"
            axes.axhline(threshold, color=_WRONG, linestyle=style, linewidth=1, label=label)
    if explanation.thresholds:
        axes.legend(fontsize=8, loc="upper right")
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
        axes.text(0.03, -place, f"{_short(label)} {p:.0%}", va="center", fontsize=8)
    axes.set(xlim=(0, 1), xticks=[], yticks=[])
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)


def _short(name: str) -> str:
    """A name on one line that leaves room for the picture."""
    line = " ".join(name.split())
    if len(line) > _NAME:
        line = f"{line[: _NAME // 2]}\u2026{line[-(_NAME // 2) :]}"
    return _plain(line)


def _plain(text: str) -> str:
    """A dollar sign in a name must not start a formula."""
    return text.replace("$", r"\$")
