"""Explanations drawn so small that a card has room for them, and can still be read."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiotorch.report.audio import Excerpt
from audiotorch.report.page import Picture

__all__ = ["reason_picture"]

_SIZE = (480, 150)  # pixels of a map
_HEAT = np.array([213, 94, 0])  # vermillion, which colour-blind people tell from grey
_COLOURS = 64
_N_BARS = 6
_TICKS = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz


def reason_picture(found: Any, piece: Excerpt) -> Picture | None:
    """Draw what an answer rests on; None where there is nothing to draw.

    Of maps the part that the card plays, in the same seconds: grey is the sound that the model was
    given, vermillion what matters. Of features the most important ones as bars.

    Args:
        found: from `explain_class` or `explain_detection`.
        piece: what the card plays.
    """
    label = getattr(found, "label", None)
    if found.map is not None:
        heat = found.map.weights if label is not None else found.map.errors
        caption = f"what speaks for {label}" if label is not None else "what deviates"
        return _map_picture(found.map, _shares(heat.numpy()), piece, caption)
    values = found.contributions if label is not None else found.deviations
    if not values:
        return None
    caption = "standard deviations from normal clips"
    if label is not None:
        caption = f"speaks for {label} to the right, against it to the left"
    return Picture(_bars(dict(list(values.items())[:_N_BARS])), found.reason, caption)


def _shares(heat: NDArray[Any]) -> NDArray[Any]:
    """From 0 to 1; a few outliers do not hide the rest."""
    return np.clip(heat / max(float(np.quantile(heat, 0.998)), 1e-30), 0, 1)


def _map_picture(found: Any, heat: NDArray[Any], piece: Excerpt, caption: str) -> Picture:
    from PIL import Image

    level = found.spectrogram.numpy()
    low, high = np.quantile(level, [0.02, 0.998])
    level = np.clip((level - low) / max(float(high - low), 1e-12), 0, 1)
    width, height = _SIZE
    n_bands, n_frames = level.shape
    seconds = piece.start_seconds + (np.arange(width) + 0.5) / width * piece.seconds
    frames = np.round((seconds - found.start_seconds) / found.frame_seconds).astype(int)
    known = (frames >= 0) & (frames < n_frames)
    bands = (n_bands * (1 - (np.arange(height) + 0.5) / height)).astype(int)
    place = np.ix_(bands, np.clip(frames, 0, n_frames - 1))
    grey = (250 - 190 * level[place] ** 1.7)[..., None]  # noise is not to hide the heat
    share = (heat[place] * known)[..., None]
    drawn = np.where(known[None, :, None], grey * (1 - share) + _HEAT * share, 200)
    image = Image.fromarray(drawn.astype(np.uint8), "RGB").quantize(_COLOURS)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return Picture(
        file.getvalue(),
        f"Spectrogram in grey with {caption} in vermillion",
        caption,
        y_ticks=_band_ticks(found.band_edges),
        spans=True,
    )


def _band_ticks(band_edges: Any) -> list[tuple[float, str]]:
    """Where round frequencies lie between the bands, if these are known, far from each other."""
    if band_edges is None:
        return []
    edges = band_edges.numpy()
    places = np.arange(len(edges)) / (len(edges) - 1)
    ticks: list[tuple[float, str]] = []
    for hertz in _TICKS:
        if edges[0] < hertz < edges[-1]:
            place = float(np.interp(hertz, edges, places))
            if 0.05 < place < 0.95 and (not ticks or place > ticks[-1][0] + 0.25):
                ticks.append((place, f"{hertz / 1000:g} kHz"))
    return ticks


def _bars(values: dict[str, float]) -> bytes:
    from audiotorch.plot.figure import NEUTRAL, WRONG, any_glyph, new_figure, short

    figure = new_figure(3.0, 0.4 + 0.24 * len(values))
    axes = figure.add_subplot()
    for place, value in enumerate(values.values()):
        axes.barh(-place, value, color=WRONG if value > 0 else NEUTRAL, alpha=0.8)
    axes.set_yticks([-place for place in range(len(values))], [short(name) for name in values])
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=4)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    file = io.BytesIO()
    with any_glyph():
        figure.savefig(file, dpi=160, format="png")
    return file.getvalue()
