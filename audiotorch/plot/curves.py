"""How a training went."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiotorch.errors import ParameterError, printable
from audiotorch.plot.answered import as_array
from audiotorch.plot.events import read_curves
from audiotorch.plot.figure import NEUTRAL, PALETTE, axes_for, new_figure, plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["training_curves"]

Curves = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
"""By metric, then by stage: places and values."""

_NAMES = {
    **{"loss": "loss", "acc": "accuracy", "f1": "macro F1", "ece": "calibration error"},
    "lr": "learning rate",
}
_STAGES = {"train": "training", "val": "validation", "test": "test", "step": "training, each step"}
_COLOURS = {"train": PALETTE[0], "val": PALETTE[4], "test": PALETTE[2], "step": PALETTE[5]}
_SHOWN = ("loss", "acc", "f1", "lr")
_LOG_RATIO = 50.0


def training_curves(
    data: Any, *, metric: str | None = None, ax: "Axes | None" = None, title: str = ""
) -> "Axes":
    """Draw losses and figures over the epochs of a training.

    The best value of the validation has a star; a line shows the epoch that was exported.

    Args:
        data: a run's directory, of which TensorBoard's files are read; or by name, such as
            `train/loss` and `val/loss`, pairs of steps and values.
        metric: `loss acc f1 ece lr`, or what stands behind the stage in the names; None: all that
            are there, one panel each, or `loss` on given axes.
        ax: where to draw one metric; None makes a figure and returns its first panel.
        title: stands above it.

    Raises:
        ParameterError: no run, a run without epochs, such as a random forest's, a metric that is
            not there, or steps and values of different length.
    """
    curves, unit, exported = _of_run(Path(data)) if _is_path(data) else _of_mapping(data)
    names = [name for name in _SHOWN if name in curves] or list(curves)
    if metric is not None or ax is not None:
        names = [metric if metric is not None else names[0]]
    if names[0] not in curves:
        there = printable(", ".join(curves))
        raise ParameterError(f"metric={names[0]!r}: must be one of {there}")
    if ax is None and len(names) > 1:
        figure = new_figure(6.2, 0.8 + 1.9 * len(names))
        heights = [1.0 if name == "lr" else 1.7 for name in names]
        panels = list(figure.subplots(len(names), 1, sharex=True, height_ratios=heights))
    else:
        panels = [axes_for(ax, 6.2, 3.8)]
    for axes, name in zip(panels, names, strict=True):
        handles, told = _draw_metric(axes, name, curves[name], unit)
        if exported is not None:
            line = axes.axvline(exported, color=NEUTRAL, linestyle="--", linewidth=1.1, zorder=1)
            if axes is panels[0]:
                handles.append(line)
                told.append(f"exported: epoch {exported:g}")
        if name != "lr" or len(panels) == 1:
            axes.legend(handles, told, fontsize=8, loc="best")
    _mark_places(panels[-1], unit)
    panels[0].set_title(plain(title), fontsize=11)
    return panels[0]


def _is_path(data: object) -> bool:
    return isinstance(data, str | os.PathLike)


def _of_run(run_dir: Path) -> tuple[Curves, str, float | None]:
    """Curves over epochs, or over steps where no epochs were logged, and the exported epoch."""
    run = read_curves(run_dir)
    if not any(name.startswith("train/") for name in run.scalars):
        raise ParameterError(
            f"{run_dir}: has no epochs to draw, its model was fitted at once; draw its "
            "confusion_matrix, reliability or score_histogram"
        )
    curves: Curves = {}
    for name, (steps, values) in run.scalars.items():
        metric, stage = _metric_of(name)
        if metric is not None:
            places = run.epochs(steps)
            curves.setdefault(metric, {})[stage] = steps if places is None else places, values
    exported = run.facts.get("exported_epoch") if "epoch" in run.scalars else None
    return _ordered(curves), "epoch" if "epoch" in run.scalars else "step", exported


def _metric_of(name: str) -> tuple[str | None, str]:
    """Metric and stage of a name in TensorBoard; no metric for what is not drawn."""
    stage, _, metric = name.partition("/")
    if name.startswith("lr-"):
        return "lr", "train"
    if stage == "train" and metric.endswith("_step"):
        return metric.removesuffix("_step"), "step"
    if stage in ("train", "val") and metric.removesuffix("_epoch") in _NAMES:
        return metric.removesuffix("_epoch"), stage
    return None, stage


def _of_mapping(data: Any) -> tuple[Curves, str, None]:
    if not isinstance(data, Mapping) or not data:
        raise ParameterError(
            "data: must be a run's directory, or pairs of steps and values by name"
        )
    curves: Curves = {}
    for name, pair in data.items():
        stage, _, metric = str(name).rpartition("/")
        try:
            steps, values = pair
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{printable(str(name))}: must be steps and values") from error
        places = as_array(f"steps of {name}", steps, n_dims=1)
        # What diverged is part of the story: no number is a gap.
        heights = np.asarray(values, dtype=np.float64)
        if heights.shape != places.shape:
            raise ParameterError(
                f"{printable(str(name))}: {len(places)} steps for values {heights.shape}"
            )
        curves.setdefault(metric, {})[stage] = places, heights
    return curves, "step", None


def _ordered(curves: Curves) -> Curves:
    """Each step's loss first, so that what tells more lies above it; none that tells no more."""
    order = ("step", "train", "val", "test")
    for stages in curves.values():
        if "train" in stages and len(stages["train"][0]) >= len(stages.get("step", [()])[0]):
            stages.pop("step", None)
    return {
        metric: {stage: stages[stage] for stage in order if stage in stages}
        for metric, stages in curves.items()
    }


def _draw_metric(
    axes: "Axes", metric: str, stages: Mapping[str, tuple[np.ndarray, np.ndarray]], unit: str
) -> tuple[list[Any], list[str]]:
    """Draw one metric of all stages, and return what the legend tells."""
    handles: list[Any] = []
    names: list[str] = []
    for i, (stage, (places, values)) in enumerate(stages.items()):
        finite = np.where(np.isfinite(values), values, np.nan)
        colour = _COLOURS.get(stage, PALETTE[i % len(PALETTE)])
        thin = stage == "step"
        marker = "o" if not thin and len(places) <= 40 else ""
        style: dict[str, Any] = {"linewidth": 0.9 if thin else 1.6, "alpha": 0.7 if thin else 1.0}
        handles += axes.plot(places, finite, color=colour, marker=marker, markersize=3.5, **style)
        n_lost = int(np.isnan(finite).sum())
        lost = f" ({n_lost} not finite)" if n_lost else ""
        names.append(
            f"{_STAGES.get(stage, short(stage)) or _NAMES.get(metric, short(metric))}{lost}"
        )
        if stage == "val" and n_lost < len(finite):
            handles.append(_mark_best(axes, metric, places, finite, names, unit))
    axes.set_ylabel(_NAMES.get(metric, short(metric)))
    if metric in ("acc", "f1"):
        axes.set_ylim(-0.03, 1.03)
    elif metric != "lr" and _spread(stages) > _LOG_RATIO:
        axes.set_yscale("log")
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    return handles, names


def _mark_best(
    axes: "Axes", metric: str, places: np.ndarray, values: np.ndarray, names: list[str], unit: str
) -> Any:
    """Put a star on the best value: the lowest loss or error, else the highest figure."""
    low = metric in ("loss", "ece")
    best = int(np.nanargmin(values) if low else np.nanargmax(values))
    names.append(f"best: {values[best]:.3g}, {unit} {places[best]:g}")
    style: dict[str, Any] = {"marker": "*", "s": 130, "color": PALETTE[1], "edgecolor": "black"}
    return axes.scatter(places[best], values[best], zorder=4, **style)


def _mark_places(axes: "Axes", unit: str) -> None:
    """Number epochs or steps, which are whole."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _spread(stages: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> float:
    """How many times the least positive value the largest is; 0 where one is not positive."""
    values = np.concatenate([values for _, values in stages.values()])
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0:
        return 0.0
    return float(values.max() / values.min())
