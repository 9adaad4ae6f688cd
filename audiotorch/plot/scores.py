"""How far confidences can be believed, and how a detector's scores lie."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from audiotorch.answers import AnswerTable
from audiotorch.errors import ParameterError, printable
from audiotorch.models.calibration import Reliability, calibration_error
from audiotorch.models.calibration import reliability as binned
from audiotorch.plot.answered import answers_of, as_array, chosen_part, is_source, of_part
from audiotorch.plot.figure import PALETTE, axes_for, new_figure, plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["reliability", "score_histogram"]

_MARKERS = "osD^vPX*"
_STYLES = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
_ANSWERED: tuple[str, ...] = ("cv", "cv_grouped", "val", "test")
_ALARM, _NORMAL = PALETTE[4], (PALETTE[0], PALETTE[2], PALETTE[5], PALETTE[3], PALETTE[7])
_LOG_RATIO = 100.0  # of scores, beyond which equal steps would show one pile and a far dot


def reliability(
    data: Any,
    targets: Any = None,
    *,
    part: str | None = None,
    n_bins: int = 15,
    ax: "Axes | None" = None,
    title: str = "",
) -> "Axes":
    """Draw how often answers are right against how confident they are.

    Bins of confidence without clips are left out, dots grow with the clips in them. The legend
    tells the expected calibration error. A figure of its own shows below how confident the answers
    are.

    Args:
        data: probabilities `(n, n_classes)`; or by name `Reliability`, or pairs of probabilities
            and targets; or a run's directory, its `answers.csv`, or that table.
        targets: right class of each clip, `(n,)`, with probabilities.
        part: of a run: `test val cv_grouped cv`; None draws all that are there.
        n_bins: bins of equal width from 0 to 1, where they are not given.
        ax: where to draw, without the confidences below; None makes a figure.
        title: stands above it.

    Raises:
        ParameterError: no such run or part, a detector's run, shapes that do not fit, or
            probabilities that are not between 0 and 1.
    """
    curves = {name: _bins(name, pair, n_bins) for name, pair in _pairs(data, targets, part).items()}
    if not curves:
        raise ParameterError("data: no curves; give one at least")
    below = None
    if ax is None:
        ax, below = new_figure(4.8, 5.8).subplots(2, 1, sharex=True, height_ratios=[4, 1])
    handles: list[Any] = [ax.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)[0]]
    for i, (bins, _) in enumerate(curves.values()):
        colour, marker = PALETTE[i % len(PALETTE)], _MARKERS[i % len(_MARKERS)]
        held = bins.size > 0
        area = 20 + 180 * bins.size[held] / max(bins.size.sum(), 1)
        x, y = bins.confidence[held], bins.accuracy[held]
        ax.plot(x, y, color=colour, linewidth=1.2)
        handles.append(ax.scatter(x, y, s=area, color=colour, marker=marker, alpha=0.85))
        if below is not None:
            share = bins.size / max(bins.size.sum(), 1)
            below.stairs(share, bins.edges, color=colour, linewidth=1.4)
    names = [f"{short(name)}: ECE {error:.3f}" for name, (_, error) in curves.items()]
    # Dots of many clips would fill the legend.
    legend = ax.legend(handles, ["calibrated", *names], loc="best", fontsize=9)
    for handle in legend.legend_handles[1:]:
        handle.set_sizes([30])  # type: ignore[union-attr]
    ax.set(ylabel="share of right answers", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    (below or ax).set_xlabel("confidence")
    if below is not None:
        below.set(ylabel="share\nof the clips", ylim=(0, None))
    ax.set_title(plain(title), fontsize=11)
    return ax


def score_histogram(
    data: Any,
    thresholds: Mapping[str, float] | None = None,
    *,
    ax: "Axes | None" = None,
    title: str = "",
) -> "Axes":
    """Draw how a detector scores several parts of the data, and where its thresholds lie.

    Each part's bars sum to 1. Positive scores that differ a hundredfold are drawn on a logarithmic
    axis. Infinite scores stand in the last bar of their side, and the legend says so.

    Args:
        data: scores, `(n,)`, or scores by name of the part; or a run's directory, its
            `answers.csv`, or that table.
        thresholds: by name; None takes the run's.
        ax: where to draw; None makes a figure.
        title: stands above it.

    Raises:
        ParameterError: no such run, a classifier's run, no scores, or NaN among them.
    """
    if is_source(data):
        table = answers_of(data, detector=True)
        thresholds = table.thresholds if thresholds is None else thresholds
        data = _parts_of_scores(table)
    elif not isinstance(data, Mapping):
        data = {"scores": data}
    parts = {name: as_array(f"scores of {name}", x, n_dims=1) for name, x in data.items()}
    limits = {name: float(value) for name, value in (thresholds or {}).items()}
    if not any(map(len, parts.values())):
        raise ParameterError("scores: none; give one at least")
    if any(np.isnan(list(limits.values()))):
        raise ParameterError("thresholds: must be numbers; leave out those that are NaN")
    axes = axes_for(ax, 8.6, 3.6)
    edges = _edges(np.concatenate(list(parts.values())), limits)
    if not np.allclose(np.diff(edges), edges[1] - edges[0]):
        axes.set_xscale("log")
    handles: list[Any] = []
    names: list[str] = []
    for i, (name, values) in enumerate(parts.items()):
        colour = _ALARM if "anomal" in name else _NORMAL[i % len(_NORMAL)]
        held = np.clip(values, edges[0], edges[-1])
        share = np.histogram(held, edges)[0] / max(len(values), 1)
        style: dict[str, Any] = {"facecolor": (colour, 0.3), "edgecolor": colour, "linewidth": 1.3}
        handles.append(axes.stairs(share, edges, fill=True, **style))
        n_infinite = int(np.isinf(values).sum())
        names.append(
            f"{short(name)} ({len(values):,}" + f", {n_infinite} infinite" * bool(n_infinite) + ")"
        )
    _draw_thresholds(axes, limits, handles, names)
    axes.set(xlabel="score, higher = more anomalous", ylabel="share of the clips", ylim=(0, None))
    place: dict[str, Any] = {"loc": "best"}
    if ax is None:
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False}
    axes.legend(handles, names, fontsize=9, **place)
    axes.set_title(plain(title), fontsize=11)
    return axes


def _pairs(data: Any, targets: Any, part: str | None) -> dict[str, Any]:
    """What to draw by name: bins, or pairs of probabilities and targets."""
    if is_source(data):
        table = answers_of(data, detector=False)
        names = [name for name in _ANSWERED if name in table.parts_present]
        if part is not None or not names:
            names = [chosen_part(table, part)[0]]
        chosen = {name: table.part(name) for name in names}
        return {of_part(name): (t.probabilities, t.targets) for name, t in chosen.items()}
    if isinstance(data, Mapping):
        return dict(data)
    if targets is None:
        raise ParameterError(
            "targets: needed with probabilities; give the right class of each clip"
        )
    return {"answers": (data, targets)}


def _bins(name: str, pair: Any, n_bins: int) -> tuple[Reliability, float]:
    """The bins of a curve, and its expected calibration error."""
    if isinstance(pair, Reliability):
        gaps = np.abs(pair.confidence - pair.accuracy) * pair.size
        return pair, float(gaps.sum() / max(pair.size.sum(), 1))
    try:
        shares, right = pair
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"{printable(name)}: must be bins, or probabilities and targets"
        ) from error
    probabilities = as_array(f"probabilities of {name}", shares, n_dims=2)
    if probabilities.size and not -1e-6 <= probabilities.min() <= probabilities.max() <= 1 + 1e-6:
        raise ParameterError(f"probabilities of {printable(name)}: must lie between 0 and 1")
    classes = as_array(f"targets of {name}", right, n_dims=1).astype(np.int64)
    bins = binned(probabilities, classes, n_bins)
    return bins, calibration_error(probabilities, classes, n_bins)


def _parts_of_scores(table: AnswerTable) -> dict[str, np.ndarray]:
    """Scores by part, anomalies apart from normal clips."""
    parts = {}
    for part in table.parts_present:
        rows = table.part(part)
        anomalous = rows.targets == 1
        kinds = {", normal": ~anomalous, ", anomalies": anomalous}
        for kind, chosen in kinds.items():
            if chosen.any():
                name = of_part(part) + (kind if part == "test" or anomalous.any() else "")
                parts[name] = rows.scores[chosen]
    return parts


def _edges(scores: np.ndarray, thresholds: Mapping[str, float]) -> np.ndarray:
    """Edges of the bars: equal ones, or equal factors where scores differ a hundredfold."""
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return np.linspace(-0.5, 0.5, 41)
    limits = [limit for limit in thresholds.values() if np.isfinite(limit)]
    low, high = float(finite.min()), float(finite.max())
    if min(low, *limits, low) > 0 and high / low > _LOG_RATIO:
        return np.geomspace(low, high, 41)
    return np.histogram_bin_edges(finite, bins=40)


def _draw_thresholds(
    axes: "Axes", thresholds: Mapping[str, float], handles: list[Any], names: list[str]
) -> None:
    """Draw what is finite; of the others the legend tells."""
    for place, (name, value) in enumerate(thresholds.items()):
        style: Any = _STYLES[place % len(_STYLES)]
        if np.isfinite(value):
            handles.append(axes.axvline(value, color="black", linestyle=style, linewidth=1.2))
            names.append(f"{short(name)}: {value:.4g}")
        else:
            (line,) = axes.plot([], [], color="black", linestyle=style, linewidth=1.2)
            handles.append(line)
            never = "no score is above" if value > 0 else "all scores are above"
            names.append(f"{short(name)}: infinite, {never}")
