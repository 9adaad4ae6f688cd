"""Images of time and frequency: where their cells lie, their decibels and colours."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from audiotorch.errors import ParameterError
from audiotorch.features.functional import power_to_db
from audiotorch.plot.recording import Recording
from audiotorch.plot.scales import mark_frequencies, mark_seconds, positions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "TO_MAXIMUM",
    "bin_edges",
    "column_edges",
    "decibels",
    "draw_bins",
    "draw_rows",
    "mel_edges",
]

TO_MAXIMUM = "dB (maximum = 0)"
_ROWS = 600  # of a picture: finer bins than an axis so divided are drawn as their maximum


def decibels(power: np.ndarray, top_db: float, ref: float | None = None) -> np.ndarray:
    """Return decibels below a maximum, floored; of silence the floor throughout.

    Args:
        power: `(rows, columns)`
        top_db: dB kept below the maximum.
        ref: power of 0 dB; `None` = the largest.
    """
    values = torch.from_numpy(np.ascontiguousarray(power))
    largest = float(values.max()) if ref is None else ref
    if largest <= 1e-10:
        return np.full(power.shape, -top_db)
    db = power_to_db(values, ref=largest, top_db=None)
    return db.clamp(min=-top_db).numpy()


def column_edges(recording: Recording, hop_length: int, per_column: int, n: int) -> np.ndarray:
    """Return the seconds between columns and at their ends; frame `i` lies at `i * hop_length`.

    Args:
        recording: its offset counts.
        hop_length: samples between frames.
        per_column: frames of a column.
        n: columns.

    Shape:
        - Output: `(n + 1,)`
    """
    frames = np.arange(n + 1) * per_column - 0.5
    return recording.offset + frames * hop_length / recording.sample_rate


def bin_edges(sample_rate: int, n_fft: int) -> np.ndarray:
    """Return the Hz between the bins of an FFT and at their ends, `(n_fft // 2 + 2,)`.

    Args:
        sample_rate: Hz.
        n_fft: samples of the FFT.
    """
    return (np.arange(n_fft // 2 + 2) - 0.5) * sample_rate / n_fft


def mel_edges(centres: np.ndarray) -> np.ndarray:
    """Return the Hz between mel bands, half way on the mel scale, and where all start and end.

    Args:
        centres: Hz of the bands and of the two beyond them, `(n_mels + 2,)`.

    Shape:
        - Output: `(n_mels + 1,)`
    """
    from audiotorch.features.filters import hz_to_mel, mel_to_hz

    mels = np.asarray(hz_to_mel(centres))
    inner = np.asarray(mel_to_hz((mels[1:-2] + mels[2:-1]) / 2))
    return np.array([centres[0], *inner, centres[-1]])


def draw_bins(
    axes: "Axes",
    recording: Recording,
    levels: np.ndarray,
    seconds: np.ndarray,
    edges: np.ndarray,
    *,
    scale: str,
    limits: tuple[float, float],
    top_db: float,
    ref: float | None = None,
    cmap: str = "magma",
    label: str | None = TO_MAXIMUM,
) -> Any:
    """Draw rows between frequencies over seconds, in dB below the maximum.

    Args:
        axes: to be drawn on.
        recording: what is shown.
        levels: power, `(rows, columns)`.
        seconds: between the columns and at their ends.
        edges: Hz between the rows and at their ends.
        scale: one of `SCALES`.
        limits: Hz that are shown.
        top_db: dB below the maximum that are shown.
        ref: power of 0 dB; `None` = the largest.
        cmap: colours.
        label: of the colour bar; `None` = no bar.
    """
    mark_frequencies(axes, scale, *limits)
    settings: dict[str, Any] = {"cmap": _colours(cmap), "vmin": -top_db, "vmax": 0.0}
    db = decibels(levels, top_db, ref)
    if scale == "linear":
        extent = (seconds[0], seconds[-1], edges[0], edges[-1])
        image: Any = axes.imshow(db, origin="lower", aspect="auto", extent=extent, **settings)
        axes.set_ylim(*limits)
    else:
        db, edges = _merged(db, edges, scale, limits)
        if scale in ("log", "note"):
            # No logarithm of the constant's lower edge; it lies below the axis.
            edges = np.maximum(edges, 1e-3 * edges[edges > 0][0])
        image = axes.pcolormesh(seconds, edges, db, rasterized=True, **settings)
    mark_seconds(axes, recording.offset, recording.end)
    axes.set_facecolor("0.93")
    if label is not None:
        axes.figure.colorbar(image, ax=axes, label=label, pad=0.02)
    return image


def draw_rows(
    axes: "Axes",
    seconds: np.ndarray,
    values: np.ndarray,
    *,
    label: str | None,
    cmap: str = "viridis",
    limits: tuple[float, float] | None = None,
) -> Any:
    """Draw rows one unit high, the first at 0, over seconds.

    Args:
        axes: to be drawn on.
        seconds: between the columns and at their ends.
        values: `(rows, columns)`
        label: of the colour bar; `None` = no bar.
        cmap: colours.
        limits: values of the first and last colour; `None` = the extremes.
    """
    low, high = (values.min(), values.max()) if limits is None else limits
    if not high > low:
        low, high = low - 0.5, low + 0.5
    extent = (seconds[0], seconds[-1], -0.5, len(values) - 0.5)
    # Rows are few and high: smoothing would let each bleed into the next.
    image = axes.imshow(
        values, origin="lower", aspect="auto", extent=extent,
        cmap=_colours(cmap), vmin=low, vmax=high,
        interpolation="nearest",
    )  # fmt: skip
    if label is not None:
        ends = (bool(values.min() < low), bool(values.max() > high))
        extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
        axes.figure.colorbar(
            image, ax=axes, label=label, pad=0.02, extend=extend.get(ends, "neither")
        )
    return image


def _colours(cmap: str) -> str:
    """A name of colours, where matplotlib knows it."""
    from matplotlib import colormaps

    if isinstance(cmap, str) and cmap not in colormaps:
        raise ParameterError(f"cmap={cmap!r}: is none of matplotlib's; try magma, viridis or gray")
    return cmap


def _merged(
    db: np.ndarray, edges: np.ndarray, scale: str, limits: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and edges with bins joined where they are finer than the picture, by their maximum."""
    height = float(np.ptp(positions(scale, np.array(limits)))) / _ROWS
    places = positions(scale, edges)
    starts = [0]
    for i in range(1, len(places) - 1):
        if places[i + 1] - places[starts[-1]] > height * (1 + 1e-9):
            starts.append(i)
    merged = np.maximum.reduceat(db, starts, axis=0)
    return merged, edges[[*starts, len(edges) - 1]]
