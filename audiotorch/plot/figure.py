"""Figures without a display, and what goes into every one: colours, names, files."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiotorch.audio.whole import written_whole
from audiotorch.errors import MissingDependencyError, ParameterError, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "NEUTRAL",
    "PALETTE",
    "RIGHT",
    "WRONG",
    "any_glyph",
    "axes_for",
    "new_figure",
    "pixels",
    "plain",
    "save_figure",
    "short",
]


# Nothing of a picture's bytes shall depend on when it is made.
_WITHOUT_DATE: dict[str, dict[str, Any]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
_NAME = 32  # letters of a name that are drawn
RIGHT, WRONG, NEUTRAL = "#1b7f4b", "#c0392b", "#33475b"
# Okabe and Ito's, told apart by colour-blind people too; yellow, faint on white, and black last.
PALETTE = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"),
    *("#f0e442", "#000000"),
)


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


def axes_for(ax: "Axes | None", width: float, height: float) -> "Axes":
    """The axes to draw on: those given, else the only ones of a new figure.

    Args:
        ax: given by the caller, or None.
        width: inches of the new figure.
        height: inches of the new figure.

    Raises:
        ParameterError: they are no axes; several of them, or a figure.
    """
    if ax is None:
        return new_figure(width, height).add_subplot()
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise ParameterError(f"ax: must be one Axes of matplotlib, not {type(ax).__name__}")
    return ax


def pixels(figure: "Figure | SubFigure") -> np.ndarray:
    """Return a drawn figure as an image.

    Args:
        figure: from this package's functions, of axes `axes.figure`.

    Shape:
        - Output: `(height, width, 3)`, uint8
    """
    canvas: Any = figure.figure.canvas
    with any_glyph():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: "Figure | SubFigure", path: str | Path, dpi: int = 110) -> None:
    """Write a picture that is complete or not there; the same figure gives the same bytes.

    Args:
        figure: from this package's functions, of axes `axes.figure`; of a part of a figure the
            whole is written.
        path: the file, .png, .svg or .pdf; its folder is made when missing.
        dpi: dots per inch; in .svg and .pdf, of spectrograms alone.

    Raises:
        ParameterError: another suffix.
    """
    from matplotlib import rc_context

    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _WITHOUT_DATE:
        raise ParameterError(f"{os.fspath(path)!r}: a picture must end in .png, .svg or .pdf")
    path.parent.mkdir(parents=True, exist_ok=True)
    whole: Any = figure.figure
    settings: Any = {"format": kind, "dpi": dpi, "metadata": _WITHOUT_DATE[kind]}
    with any_glyph(), written_whole(path) as partial, rc_context({"svg.hashsalt": "audiotorch"}):
        whole.savefig(partial, **settings)


@contextmanager
def any_glyph() -> Iterator[None]:
    """Let a name that the font cannot show be drawn as boxes, without a warning a letter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def short(name: str) -> str:
    """A name on one line that leaves room for the picture."""
    line = " ".join(name.split())
    if len(line) > _NAME:
        line = f"{line[: _NAME // 2]}\u2026{line[-(_NAME // 2) :]}"
    return plain(line)


def plain(text: str) -> str:
    """A dollar sign in a name must not start a formula; what no font shows is written out."""
    lines = (printable(line) for line in text.split("\n"))
    return "\n".join(lines).replace("$", r"\$")
