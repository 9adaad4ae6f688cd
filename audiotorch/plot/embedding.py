"""Vectors as points on a plane."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from audiotorch.errors import ParameterError
from audiotorch.plot.answered import as_array
from audiotorch.plot.figure import PALETTE, axes_for, plain, short
from audiotorch.plot.vectors import read_vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["embedding", "principal_components"]

_MARKERS = "osD^vPX*"
_COLOURED = 32  # classes; more could not be told apart
_MOST = {"pca": 50_000, "tsne": 2_000}  # points; t-SNE takes a minute for ten thousand
_ROWS = 22  # of a legend's column
_GREY = "#b8b8b8"


def embedding(
    data: Any,
    labels: Sequence[Any] | str | None = None,
    *,
    method: str = "pca",
    standardize: bool | None = None,
    max_points: int | None = None,
    seed: int = 42,
    ax: "Axes | None" = None,
    title: str = "",
) -> "Axes":
    """Draw vectors as points on a plane, coloured by label.

    Of more than 32 labels the most frequent are coloured and the others grey.

    Args:
        data: vectors `(n, d)`, finite; or a run's directory whose TensorBoard projector holds some,
            a projector's `tensors.tsv`, or a table of features, `.csv .npz .parquet`.
        labels: of the vectors, `(n,)`, or the name of a file's column; None takes a file's labels,
            else the folders of the recordings.
        method: `pca`: the two directions of most variance, or `tsne`: neighbours stay neighbours,
            and distances mean nothing.
        standardize: divide each number by its standard deviation first; None does so with features,
            each of which has its own unit.
        max_points: of more vectors so many are drawn at random, and the picture says so; None:
            50,000 by `pca`, 2,000 by `tsne`.
        seed: of that choice, and of `tsne`.
        ax: where to draw; None makes a figure.
        title: stands above it.

    Raises:
        ParameterError: no vectors, infinite or NaN ones, labels of another number, or an unknown
            method.
        DecodeError: the file cannot be read.
    """
    if method not in _MOST:
        raise ParameterError(f"method={method!r}: must be one of {', '.join(_MOST)}")
    if isinstance(data, str | os.PathLike):
        read = read_vectors(data)
        data = read.values
        standardize = read.are_features if standardize is None else standardize
        if labels is None or isinstance(labels, str):
            labels = read.labels(labels)
    values, names = _checked(data, labels)
    n = len(values)
    rows = _chosen(n, _MOST[method] if max_points is None else max_points, seed)
    values, names = values[rows], [names[i] for i in rows] if names is not None else None
    if standardize:
        spread = values.std(axis=0)
        values = values / np.where(spread > 0, spread, 1.0)
    points, told = _placed(values, method, seed)
    coloured = _coloured(names or [])
    axes = axes_for(ax, 6.4 + _legend_width(coloured), 5.4)
    _draw(axes, points, names, coloured, outside=ax is None)
    axes.set(xlabel=told[0], ylabel=told[1])
    few = f"{len(rows):,} of {n:,}, drawn at random" if len(rows) < n else ""
    axes.set_title("\n".join(filter(None, [plain(title), few])), fontsize=11)
    return axes


def principal_components(
    values: np.ndarray, n_components: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Place vectors along the directions in which they differ most.

    The sign of a direction is such that its largest weight is positive, as scikit-learn's.

    Args:
        values: `(n, d)`.
        n_components: how many directions; those that do not exist are 0.

    Returns:
        The places, `(n, n_components)`, and the share of the variance that each direction explains.
    """
    centred = values - values.mean(axis=0)
    n, d = centred.shape
    found = min(n, d, n_components)
    # The smaller of the two products: its eigenvectors lead to the directions.
    if d <= n:
        directions = _leading(centred.T @ centred, found).T
    else:
        directions = (centred.T @ _leading(centred @ centred.T, found)).T
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        directions = directions / np.where(lengths > 0, lengths, 1.0)
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(found), largest] + 1e-300)[:, None]
    places = np.zeros((n, n_components))
    places[:, :found] = centred @ directions.T
    total = float((centred**2).sum())
    return places, (places**2).sum(axis=0) / (total if total > 0 else 1.0)


def _leading(product: np.ndarray, n_vectors: int) -> np.ndarray:
    """Eigenvectors of the largest eigenvalues, as columns, the largest first."""
    import scipy.linalg

    n = len(product)
    _, vectors = scipy.linalg.eigh(product, subset_by_index=[n - n_vectors, n - 1])
    return vectors[:, ::-1]


def _checked(data: Any, labels: Sequence[Any] | str | None) -> tuple[np.ndarray, list[str] | None]:
    values = as_array("vectors", data, n_dims=2)
    if not values.size:
        raise ParameterError(f"vectors: have shape {values.shape}; need one at least")
    if np.isinf(values).any():
        raise ParameterError(f"vectors: {int(np.isinf(values).sum())} numbers are infinite")
    if isinstance(labels, str):
        raise ParameterError(f"labels={labels!r}: names a column of a file; give one a vector")
    names = None if labels is None else [str(label) for label in labels]
    if names is not None and len(names) != len(values):
        raise ParameterError(f"labels: {len(names)} for {len(values)} vectors; give one a vector")
    return values, names


def _chosen(n: int, most: int, seed: int) -> np.ndarray:
    """Rows that are drawn, in their order."""
    if most < 1:
        raise ParameterError(f"max_points={most}: must be at least 1")
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _placed(values: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    """Points `(n, 2)`, and what the axes are called."""
    if method == "pca":
        points, shares = principal_components(values)
        told = [f"component {i}: {share:.1%} of the variance" for i, share in enumerate(shares, 1)]
        return points, (told[0], told[1])
    if len(values) < 4:
        raise ParameterError(
            f"method='tsne': needs 4 vectors at least, not {len(values)}; use 'pca'"
        )
    from sklearn.manifold import TSNE

    # Far directions are noise, and cost time.
    values = principal_components(values, 50)[0] if values.shape[1] > 50 else values
    perplexity = min(30.0, (len(values) - 1) / 3)
    # Neighbours of constant vectors are all alike: nothing to start from.
    start: Any = "pca" if values.std() > 0 and values.shape[1] > 1 else "random"
    model = TSNE(2, perplexity=perplexity, init=start, random_state=seed)
    return model.fit_transform(values), ("t-SNE 1 (no unit)", "t-SNE 2 (no unit)")


def _coloured(names: Sequence[str]) -> list[str]:
    """The most frequent labels, in the order in which people count."""
    found = [name for name, _ in Counter(names).most_common(_COLOURED)]
    return sorted(found, key=lambda name: re.sub(r"\d+", lambda number: number[0].zfill(20), name))


def _legend_width(names: Sequence[str]) -> float:
    """Inches of a legend beside the points."""
    if not names:
        return 0.0
    longest = max(len(short(name)) for name in names) + 8
    return (1 if len(names) <= _ROWS else 2) * (0.4 + 0.068 * longest)


def _draw(
    axes: "Axes", points: np.ndarray, names: list[str] | None, coloured: list[str], *, outside: bool
) -> None:
    """Draw the points of each label, the rare ones and those without a colour first."""
    size = float(np.clip(30_000 / len(points), 6, 36))
    edge = 0.3 if len(points) <= 5000 else 0.0
    style: dict[str, Any] = {"s": size, "linewidth": edge, "edgecolor": "#00000080"}
    style |= {"alpha": 0.8, "rasterized": True}
    axes.tick_params(labelsize=8)
    if names is None:
        axes.scatter(*points.T, color=PALETTE[0], **style)
        return
    places = {name: place for place, name in enumerate(coloured)}
    rows = np.array([places.get(name, -1) for name in names])
    handles, told = [], []
    others = rows < 0
    if others.any():
        grey = axes.scatter(*points[others].T, **{**style, "s": size / 2, "color": _GREY})
    for i, name in enumerate(coloured):
        colour, marker = PALETTE[i % len(PALETTE)], _MARKERS[i // len(PALETTE)]
        handles.append(axes.scatter(*points[rows == i].T, facecolor=colour, marker=marker, **style))
        told.append(f"{short(name)} ({(rows == i).sum():,})")
    if others.any():
        handles.append(grey)
        n_others = len(set(names)) - len(coloured)
        told.append(f"{n_others:,} other labels ({others.sum():,})")
    place: dict[str, Any] = {"loc": "best"}
    if outside:
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False}
    columns = 1 if len(coloured) <= _ROWS else 2
    legend = axes.legend(handles, told, fontsize=8, ncols=columns, **place)
    for handle in legend.legend_handles:
        handle.set_sizes([36])  # type: ignore[union-attr]
        handle.set_alpha(1.0)  # type: ignore[union-attr]
