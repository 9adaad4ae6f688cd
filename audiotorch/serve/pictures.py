"""Pictures that travel inside an answer, as `data:` addresses."""

import base64
import io
from typing import TYPE_CHECKING, Any

from audiotorch.serve.clip import Clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["explained", "spectrogram_picture"]

_DPI = 100  # a page's pixels to matplotlib's inch
_SHARP = 2  # dots a pixel, for dense screens
_N_FEATURES = 10
_LEAST_WIDTH = 420  # of explanations, which have more to say


def spectrogram_picture(clip: Clip, width: int) -> str:
    """Draw what the model hears: a mel spectrogram in seconds and kHz.

    Args:
        clip: what is drawn.
        width: a page's pixels.
    """
    from audiotorch.plot import spectrogram

    figure = spectrogram(clip.waveform, clip.sample_rate)
    figure.set_size_inches(width / _DPI, 2.4)
    return _address(figure)


def explained(module: Any, clip: Clip, device: str | None, width: int | None) -> dict[str, Any]:
    """Say what an answer rests on.

    Args:
        module: Pipeline, eager or exported.
        clip: what was answered.
        device: as of `predict`.
        width: a page's pixels of the picture; `None` = no picture.

    Raises:
        ParameterError: the model cannot say it.
    """
    from audiotorch.answers import predict
    from audiotorch.explain import explain_detection
    from audiotorch.plot import detection

    if module.task != "anomaly":
        found = predict(module, clip.file(), device=device, explain=_N_FEATURES)[0]
        top = ", ".join(f"{name} {value:+.2f}" for name, value in found.contributions.items())
        return {"reason": f"mostly: {top}", "contributions": found.contributions}
    found = explain_detection(module, clip.file(), device=device)
    told: dict[str, Any] = {"reason": found.reason}
    if found.deviations:
        told["deviations"] = found.deviations
    if width is not None:
        figure = detection(found)
        figure.set_size_inches(max(width, _LEAST_WIDTH) / _DPI, figure.get_figheight())
        figure.suptitle("")  # the page says it in words
        told["explanation"] = _address(figure)
    return told


def _address(figure: "Figure") -> str:
    from audiotorch.plot.figure import any_glyph

    file = io.BytesIO()
    with any_glyph():
        figure.savefig(file, dpi=_SHARP * _DPI, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
