"""Pictures that travel inside an answer, as `data:` addresses."""

import base64
import io
import math
from typing import TYPE_CHECKING, Any

from audiotorch.serve.clip import Clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["explained", "spectrogram_picture"]

_DPI = 100  # a page's pixels to matplotlib's inch
_SHARP = 2  # dots a pixel, for dense screens
_HEIGHT = 260
_WIDE = 500  # from here on there is room for the colours' scale
_DARK, _LIGHT = "#1c2229", "#dfe5ec"  # the page's card, and its text


def spectrogram_picture(clip: Clip, width: int, dark: bool = False) -> str:
    """Draw what the model hears: a mel spectrogram in dB, over seconds and Hz.

    Args:
        clip: what is drawn.
        width: a page's pixels.
        dark: whether the page is.
    """
    from audiotorch.plot import mel_spectrogram, new_figure

    rate = clip.sample_rate
    figure = new_figure(width / _DPI, _HEIGHT / _DPI)
    # Frames of 10 ms; at low rates, bands that are wide enough to hold a bin.
    n_fft = max(256, 1 << round(math.log2(0.05 * rate)))
    mel_spectrogram(
        clip.waveform,
        rate,
        ax=figure.add_subplot(),
        n_fft=n_fft,
        hop_length=max(1, round(0.01 * rate)),
        n_mels=min(96, n_fft // 16),
        top_db=70.0,
        colorbar=width >= _WIDE,
    )
    return _address(_darkened(figure) if dark else figure)


def explained(module: Any, clip: Clip, device: str | None, width: int | None) -> dict[str, Any]:
    """Say what an answer rests on.

    Where that is a place in the sound, it is drawn; features are told in numbers.

    Args:
        module: Pipeline, eager or exported.
        clip: what was answered.
        device: as of `predict`.
        width: a page's pixels of the picture; `None` = no picture.

    Raises:
        ParameterError: the model cannot say it.
    """
    from audiotorch.explain import explain
    from audiotorch.plot import explanation

    found = explain(module, clip.file(), device=device)
    told: dict[str, Any] = {"reason": found.reason}
    for key in ("contributions", "deviations"):
        if values := getattr(found, key, None):
            told[key] = dict(values)
    if width is not None and found.map is not None:
        figure = explanation(found)
        figure.set_size_inches(width / _DPI, figure.get_figheight())
        _leave_out_what_is_told(figure)
        told["explanation"] = _address(figure)
    return told


def _leave_out_what_is_told(figure: "Figure") -> None:
    """Draw neither words nor probabilities again, that the page has beside the picture."""
    figure.suptitle("")
    for axes in figure.axes:
        if axes.get_title() == "probability" and (place := axes.get_subplotspec()) is not None:
            grid = place.get_gridspec()
            axes.remove()
            grid.set_width_ratios([1.0] + [1e-3] * (grid.ncols - 1))


def _darkened(figure: "Figure") -> "Figure":
    """Turn ground and writing around the picture to a dark page's colours."""
    figure.set_facecolor(_DARK)
    for axes in figure.axes:
        axes.tick_params(which="both", colors=_LIGHT)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(_LIGHT)
        for spine in axes.spines.values():
            spine.set_edgecolor(_LIGHT)
    return figure


def _address(figure: "Figure") -> str:
    from audiotorch.plot.figure import any_glyph

    file = io.BytesIO()
    with any_glyph():
        figure.savefig(file, dpi=_SHARP * _DPI, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
