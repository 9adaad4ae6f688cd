"""What is found against what is reported wrongly, at every threshold."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from audiotorch.answers import AnswerTable
from audiotorch.data.splits import MIN_GROUPS
from audiotorch.errors import ParameterError
from audiotorch.plot.answered import answers_of, as_array, chosen_part, is_source, of_part
from audiotorch.plot.figure import PALETTE, axes_for, plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from audiotorch.models.detection import Detection

__all__ = ["roc"]

_MARKERS = "osD^vPX*"
_LINES = PALETTE[:6]  # yellow is too faint for a line, and black is the mean
_DRAWN_NUMBERS = 4_000_000  # weights of a class's bootstrap; more clips have fewer draws


def roc(
    data: Any,
    scores: Any = None,
    *,
    labels: Sequence[str] | None = None,
    thresholds: Mapping[str, float] | None = None,
    part: str | None = None,
    n_classes: int = 8,
    max_fpr: float = 0.1,
    n_bootstrap: int = 1000,
    seed: int = 42,
    ax: "Axes | None" = None,
    title: str = "",
) -> "Axes":
    """Draw the ROC curve: share found against share of false alarms, at every threshold.

    Of a detector with the area under it, a 95 % interval, the partial area of false-alarm rates up
    to `max_fpr`, and what each threshold does. Of a classifier each class against all others, and
    the mean over the classes; with more than `n_classes` those with the lowest areas are drawn.
    Classes without clips, or with all of them, are named in the legend. Intervals are those of
    `evaluate_detection`: percentiles of a bootstrap by clip, or by group where eight are known.

    Args:
        data: truth: whether each clip is an anomaly, or its class, `(n,)`; or a run's directory,
            its `answers.csv`, or that table.
        scores: with truth: `(n,)`, higher = more anomalous, infinite ones are taken; or
            `(n, n_classes)`, of a classifier.
        labels: the classes; None takes the run's, or numbers.
        thresholds: of a detector, by name; None takes the run's.
        part: of a run: `test val cv_grouped cv`; None takes the first of these that is there.
        n_classes: how many classes are drawn.
        max_fpr: false-alarm rate up to which the partial area is drawn, above 0, at most 1.
        n_bootstrap: draws for the intervals, at least 200 of them for each class of many clips; 0 =
            no intervals.
        seed: of the draws.
        ax: where to draw; None makes a figure.
        title: stands above it; of a run, without one, the part.

    Raises:
        ParameterError: no such run or part, NaN, or shapes that do not fit.
    """
    groups: list[str | None] | None = None
    machines: list[str | None] | None = None
    if is_source(data):
        name, table = chosen_part(answers_of(data), part)
        title = title or of_part(name)
        data, scores = table.targets, table.scores if table.is_detector else table.probabilities
        labels = table.labels if labels is None else labels
        thresholds = table.thresholds if thresholds is None else thresholds
        groups, machines = _units(table)
    elif scores is None:
        raise ParameterError("scores: needed with truth; give what the model said of each clip")
    truth = as_array("truth", data, n_dims=1)
    values = as_array("scores", scores)
    settings = {"n_bootstrap": n_bootstrap, "seed": seed, "groups": groups}
    if values.ndim == 1:
        axes = axes_for(ax, 5.2, 5.2)
        known = {"machines": machines, "thresholds": thresholds, "max_fpr": max_fpr, **settings}
        _draw_detector(axes, values, truth, known)
    else:
        names = _checked_classes(truth, values, labels)
        axes = axes_for(ax, 8.8, 5.2)
        _draw_classes(axes, values, truth, names, n_classes, settings, outside=ax is None)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, zorder=1)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(plain(title), fontsize=11)
    return axes


def _units(table: AnswerTable) -> tuple[list[str | None] | None, list[str | None] | None]:
    """Groups, where the drawing of them says something, and machines."""
    groups = [group or None for group in table.groups]
    machines = [machine or None for machine in table.machines]
    # A few groups drawn again are the same ones: such an interval would have no width.
    enough = len({group for group in groups if group}) >= MIN_GROUPS
    return groups if enough else None, machines if any(machines) else None


def _checked_classes(
    truth: np.ndarray, scores: np.ndarray, labels: Sequence[str] | None
) -> list[str]:
    if scores.ndim != 2 or not scores.size or len(scores) != len(truth):
        raise ParameterError(
            f"scores: have shape {scores.shape} for {len(truth)} clips; need (n,) of a detector, "
            "or (n, n_classes)"
        )
    n = scores.shape[1]
    if not np.isin(truth, np.arange(n)).all():
        raise ParameterError(f"truth: must be classes from 0 to {n - 1}")
    names = [str(i) for i in range(n)] if labels is None else [short(str(x)) for x in labels]
    if len(names) != n:
        raise ParameterError(f"labels: {len(names)} for {n} classes; give one a class")
    return names


def _draw_detector(
    axes: "Axes", scores: np.ndarray, truth: np.ndarray, settings: dict[str, Any]
) -> None:
    """Draw one curve, the partial area below it, and the thresholds."""
    from audiotorch.models.detection import evaluate_detection

    found = evaluate_detection(scores, truth, **settings)
    axes.set(xlabel="false alarms (share of the normal clips)", ylabel="anomalies found (share)")
    if found.overall.auc is None:
        n, kind = len(scores), "normal" if found.overall.n_normal else "anomalies"
        text = f"all {n:,} clips are {kind}:\nthere is no curve"
        axes.text(0.5, 0.5, text, ha="center", va="center", backgroundcolor="white")
        return
    x, y = _curve(scores, truth)
    handles: list[Any] = axes.plot(x, y, color=PALETTE[0], linewidth=1.8, clip_on=False)
    names = [f"AUC {_with_interval(found.overall.auc, found.intervals.get('auc'))}"]
    if found.overall.pauc is not None:
        inside, edge = x <= found.max_fpr, np.interp(found.max_fpr, x, y)
        inner, height = np.append(x[inside], found.max_fpr), np.append(y[inside], edge)
        area = axes.fill_between(inner, height, color=PALETTE[5], alpha=0.4, linewidth=0)
        handles.append(area)
        told = _with_interval(found.overall.pauc, found.intervals.get("pauc"))
        names.append(f"pAUC {told},\nfalse alarms up to {found.max_fpr:.0%}")
    _draw_points(axes, found, handles, names)
    n_normal, n_anomaly = found.overall.n_normal, found.overall.n_anomaly
    heading = f"{n_normal:,} normal, {n_anomaly:,} anomalous"
    axes.legend(handles, names, loc="lower right", fontsize=8, title=heading, title_fontsize=8)


def _draw_points(axes: "Axes", found: "Detection", handles: list[Any], names: list[str]) -> None:
    """Mark what each threshold finds, and what it reports wrongly."""
    for i, (name, point) in enumerate(found.thresholds.items()):
        # None where one kind of clips is missing, and then nothing is drawn at all.
        x, y = point.false_alarm_rate or 0.0, point.recall or 0.0
        marker, colour = _MARKERS[i % len(_MARKERS)], (PALETTE[4], PALETTE[1], PALETTE[3])[i % 3]
        style: dict[str, Any] = {"s": 60, "edgecolor": "black", "zorder": 4, "clip_on": False}
        handles.append(axes.scatter(x, y, marker=marker, color=colour, **style))
        names.append(f"{short(name)}: finds {y:.0%},\nfalse alarms {x:.1%}")


def _draw_classes(
    axes: "Axes",
    scores: np.ndarray,
    truth: np.ndarray,
    names: Sequence[str],
    n_drawn: int,
    settings: dict[str, Any],
    *,
    outside: bool,
) -> None:
    """Draw each class against all others, and the mean curve."""
    from sklearn.metrics import auc

    counts = np.bincount(truth.astype(int), minlength=len(names))
    both = [k for k in range(len(names)) if 0 < counts[k] < len(truth)]
    curves = {k: _curve(scores[:, k], truth == k) for k in both}
    areas = {k: float(auc(*curves[k])) for k in both}
    drawn = sorted(both, key=lambda k: areas[k])[: max(n_drawn, 0)]
    handles: list[Any] = []
    told: list[str] = []
    for i, k in enumerate(drawn):
        style = ("-", "--", ":")[i // len(_LINES) % 3]
        colour = _LINES[i % len(_LINES)]
        handles += axes.plot(*curves[k], color=colour, linestyle=style, linewidth=1.3)
        interval = _class_interval(scores[:, k], truth == k, settings)
        told.append(f"{names[k]}: {_with_interval(areas[k], interval)}")
    if both:
        x, y = _mean_curve(list(curves.values()))
        handles += axes.plot(x, y, color="black", linewidth=2.4, alpha=0.8)
        told.append(f"mean of {len(both)} classes: AUC {np.mean(list(areas.values())):.3f}")
    lines = _left_out(names, counts, len(truth))
    for line in lines:
        handles += axes.plot([], [], linestyle="none")
        told.append(line)
    heading = "each class against all others: AUC"
    if len(drawn) < len(both):
        heading = f"the {len(drawn)} lowest AUC of {len(both)} classes"
    place: dict[str, Any] = {"loc": "lower right"}
    if outside:
        place = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "frameon": False}
    axes.legend(handles, told, fontsize=8, title=heading, title_fontsize=9, **place)
    axes.set(
        xlabel="false alarms (share of the other classes)", ylabel="found (share of the class)"
    )


def _left_out(names: Sequence[str], counts: np.ndarray, n: int) -> list[str]:
    """Say which classes have no curve, and why."""
    lines = []
    for reason, mask in (("no clip of", counts == 0), ("all clips are", counts == n)):
        without = [name for name, there in zip(names, mask, strict=True) if there]
        if without:
            more = f" and {len(without) - 3} more" if len(without) > 3 else ""
            lines.append(f"no curve, {reason}: {', '.join(without[:3])}{more}")
    return lines


def _class_interval(
    scores: np.ndarray, is_class: np.ndarray, settings: dict[str, Any]
) -> tuple[float, float] | None:
    from audiotorch.models.detection import evaluate_detection

    most = max(_DRAWN_NUMBERS // len(scores), 200)
    limited = {**settings, "n_bootstrap": min(settings["n_bootstrap"], most)}
    return evaluate_detection(scores, is_class, **limited).intervals.get("auc")


def _curve(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False-alarm rates and shares found, as scikit-learn's; infinite scores are taken."""
    from sklearn.metrics import roc_curve

    # A curve hangs on order alone, and places in it are finite.
    levels = np.unique(scores, return_inverse=True)[1]
    x, y, _ = roc_curve(truth.astype(bool), levels)
    return x, y


def _mean_curve(
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of what is found at each false-alarm rate."""
    grid = np.linspace(0.0, 1.0, 501)
    found = np.mean([np.interp(grid, x, y) for x, y in curves], axis=0)
    return np.insert(grid, 0, 0.0), np.insert(found, 0, 0.0)


def _with_interval(value: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} (95 %: {interval[0]:.3f} to {interval[1]:.3f})"
