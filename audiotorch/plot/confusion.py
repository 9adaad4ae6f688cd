"""Which classes are taken for which."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from audiotorch.answers import AnswerTable
from audiotorch.errors import ParameterError
from audiotorch.plot.answered import (
    Source,
    answers_of,
    as_array,
    chosen_part,
    is_source,
    of_part,
)
from audiotorch.plot.figure import axes_for, new_figure, pixels, plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confusion_matrix"]

_SIDE = 8.0  # inches that the cells of a figure take at most
_LETTER = 0.6  # width of a letter, in sizes of the font
_LEAST_FONT = 6.0  # points that can still be read
_LISTED, _LIST_SIZE = 20, 8.0  # pairs, and points of their font


class _Layout(NamedTuple):
    """What fits: points a cell, sizes of the fonts in points, every how many-th class is named."""

    cell: float
    count_size: float
    tick_size: float
    tick_step: int

    @property
    def numbered(self) -> bool:
        return self.count_size >= _LEAST_FONT


def confusion_matrix(
    data: Any,
    labels: Sequence[str] | None = None,
    *,
    part: str | None = None,
    normalize: bool = True,
    ax: "Axes | None" = None,
    title: str = "",
) -> "Axes":
    """Draw which classes are taken for which.

    Cells hold the count and, where there is room, its share of the true class. With many classes
    they are coloured only, small shares stronger than in proportion, some names are left out, and
    the pairs that are confused most often stand beside it.

    Args:
        data: counts by true class (row) and answer (column), `(n, n)`; or a run's directory, its
            `answers.csv`, or that table. Of a detector: anomalies and normal clips.
        labels: the classes, in the order of the rows; None takes the run's, or numbers.
        part: of a run: `test val cv_grouped cv`; None takes the first of these that is there.
        normalize: colours are shares of the true class; False: counts.
        ax: where to draw; None makes a figure whose size follows the classes, 13 inches at most.
        title: stands above it; of a run, without one, the part and the accuracy.

    Raises:
        ParameterError: no such run or part, a matrix that is not square or holds less than 0 or
            NaN, labels of another number, or a detector without a threshold.
    """
    matrix, names, told = _counts(data, labels, part)
    title = title or told
    layout, axes, beside = _laid_out(ax, matrix, names, title)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.where(totals > 0, totals, 1)
    _draw_cells(axes, shares if normalize else matrix, layout, normalize, beside)
    if layout.numbered:
        _write_counts(axes, matrix, shares, layout, normalize)
    _write_names(axes, names, layout)
    axes.set(ylabel="true class", xlabel="answer")
    if not layout.numbered:
        _list_confused(axes, matrix, names, beside)
    axes.set_title(plain(title), fontsize=11)
    if beside is not None:
        # One round of the layout leaves long names half outside; drawing does the second.
        pixels(axes.figure)
    return axes


def _counts(
    data: Any, labels: Sequence[str] | None, part: str | None
) -> tuple[np.ndarray, list[str], str]:
    """Matrix, names, and what is said of a run."""
    told = ""
    if is_source(data):
        matrix, labels, told = _counts_of_run(data, labels, part)
    else:
        matrix = as_array("matrix", data, n_dims=2)
    n_rows, n_columns = matrix.shape
    if n_rows != n_columns or not n_rows or (matrix < 0).any() or np.isinf(matrix).any():
        raise ParameterError(
            f"matrix: has shape {matrix.shape}; need counts of at least 0, as many rows as columns"
        )
    names = [str(i) for i in range(n_rows)] if labels is None else [short(str(x)) for x in labels]
    if len(names) != n_rows:
        raise ParameterError(f"labels: {len(names)} for {n_rows} classes; give one a class")
    return matrix, names, told


def _counts_of_run(
    source: Source, labels: Sequence[str] | None, part: str | None
) -> tuple[np.ndarray, Sequence[str], str]:
    name, table = chosen_part(answers_of(source), part)
    answers, classes = _answers(table)
    n = len(classes)
    matrix = np.bincount(table.targets * n + answers, minlength=n * n).reshape(n, n)
    share = np.trace(matrix) / len(table)
    told = f"{of_part(name)}: {share:.1%} of {_clips(len(table))} right"
    return matrix.astype(float), classes if labels is None else labels, told


def _answers(table: AnswerTable) -> tuple[np.ndarray, tuple[str, ...]]:
    """The answers as places in the classes."""
    if not table.is_detector:
        places = {label: place for place, label in enumerate(table.labels)}
        return np.array([places[answer] for answer in table.answers]), table.labels
    if not table.thresholds:
        raise ParameterError("the detector has no threshold: there are scores and no answers")
    return (table.answers == "anomaly").astype(int), ("normal", "anomaly")


def _laid_out(
    ax: "Axes | None", matrix: np.ndarray, names: list[str], title: str
) -> tuple[_Layout, "Axes", "Axes | None"]:
    """Make room for the classes, or see how much there is; and room beside them for words."""
    n, longest = len(names), max(map(len, names))
    side = min(max(0.55 * n, 1.8), _SIDE)
    if ax is not None:
        # What the names will take of it is not known yet.
        box = ax.get_window_extent()
        side = 0.8 * min(box.width, box.height) / ax.figure.dpi
    cell = 72 * side / n
    digits = max(len(_number(value)) for value in (matrix.max(), matrix[matrix > 0].min(initial=0)))
    count_size = min(0.85 * cell / (_LETTER * digits), 0.6 * cell, 11.0)
    tick_size = min(max(0.8 * cell, 7.0), 10.0)
    layout = _Layout(cell, count_size, tick_size, math.ceil(1.2 * tick_size / cell))
    margin = 0.6 + _LETTER * tick_size * longest / 72
    height = side + margin + 0.3 * bool(title)
    if ax is not None or layout.numbered:
        return layout, axes_for(ax, max(side + margin, 0.085 * len(title)), height), None
    width = 1.2 + 2 * _LETTER * _LIST_SIZE * longest / 72
    figure = new_figure(side + margin + width, height)
    axes, beside = figure.subplots(1, 2, width_ratios=[side + margin, width])
    beside.set_axis_off()
    return layout, axes, beside


def _draw_cells(
    axes: "Axes", values: np.ndarray, layout: _Layout, normalize: bool, beside: "Axes | None"
) -> None:
    from matplotlib.colors import PowerNorm

    top = 1.0 if normalize else max(float(values.max()), 1.0)
    # Of many classes what is wrong is spread over many cells, each of them pale.
    norm = PowerNorm(1.0 if layout.numbered else 0.5, 0.0, top)
    drawn = axes.imshow(values, cmap="Blues", norm=norm)
    if layout.numbered:
        return
    label = "share of the true class" if normalize else "clips"
    if beside is None:
        axes.figure.colorbar(drawn, ax=axes, label=label, shrink=0.5, aspect=25)
    else:
        place = beside.inset_axes((0.0, 0.08, 0.7, 0.025))
        axes.figure.colorbar(drawn, cax=place, label=label, orientation="horizontal")


def _write_counts(
    axes: "Axes", matrix: np.ndarray, shares: np.ndarray, layout: _Layout, normalize: bool
) -> None:
    """Write each count, and its share where two lines have room."""
    two_lines = normalize and layout.cell >= 32
    size = min(layout.count_size, 9.0) if two_lines else layout.count_size
    depth = shares if normalize else matrix / max(float(matrix.max()), 1.0)
    for row, column in np.argwhere(matrix > 0):
        text = _number(matrix[row, column])
        if two_lines:
            text += f"\n{shares[row, column]:.0%}"
        colour = "white" if depth[row, column] > 0.55 else "black"
        place: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.1}
        axes.text(column, row, text, color=colour, fontsize=size, **place)
    for row in np.flatnonzero(matrix.sum(axis=1) == 0):
        middle = (matrix.shape[1] - 1) / 2
        axes.text(
            middle, float(row), "no clips", ha="center", va="center", color="grey", fontsize=size
        )


def _write_names(axes: "Axes", names: list[str], layout: _Layout) -> None:
    places = range(0, len(names), layout.tick_step)
    shown = [names[place] for place in places]
    longest = max(map(len, shown)) * _LETTER * layout.tick_size
    rotation = 0 if longest < layout.cell * layout.tick_step else 90
    size = layout.tick_size
    axes.set_xticks(list(places), shown, rotation=rotation, fontsize=size)
    axes.set_yticks(list(places), shown, fontsize=size)


def _list_confused(
    axes: "Axes", matrix: np.ndarray, names: list[str], beside: "Axes | None"
) -> None:
    """Name the pairs with most clips where there is room for them, else the first one below."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LISTED]
    lines = []
    for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[row, column]:
            n, total = _number(wrong[row, column]), _number(matrix[row].sum())
            lines.append(f"{names[row]} \u2192 {names[column]}:  {n} of {total}")
    if not lines:
        lines = ["nothing is confused"]
    if beside is None:
        axes.set_xlabel(f"answer\n(most often {lines[0]})")
    else:
        beside.set_title("confused most often", loc="left", fontsize=11)
        place: dict[str, Any] = {"ha": "left", "va": "top", "linespacing": 1.6}
        beside.text(0.0, 0.98, "\n".join(lines), fontsize=_LIST_SIZE, **place)


def _number(value: float) -> str:
    """A count as it is, something else in three digits."""
    return str(int(value)) if float(value).is_integer() else f"{value:.3g}"


def _clips(n: int) -> str:
    return f"{n:,} clip" + ("s" if n != 1 else "")
