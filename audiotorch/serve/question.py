"""What a request asks for beside the answer itself."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from audiotorch.serve.refusal import Refused

__all__ = ["Question"]

_NAMES = ("window", "hop", "explain", "spectrogram", "width", "dark")
_WIDTHS = (240, 1600)


@dataclass(frozen=True)
class Question:
    """What a request asks for.

    Args:
        window: seconds of the time line's windows; `"auto"` lets the server choose, `None` asks
            for none.
        hop: seconds from window to window.
        explain: whether to say what the answer rests on.
        explanation: whether to draw it, too, where it is a place in the sound.
        spectrogram: whether to draw the sound.
        width: of pictures, in a page's pixels.
        dark: whether that page is.
    """

    window: float | str | None = None
    hop: float | None = None
    explain: bool = False
    explanation: bool = False
    spectrogram: bool = False
    width: int = 800
    dark: bool = False

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "Question":
        """Read a request's query.

        Args:
            query: values by name.

        Raises:
            Refused: one of them is not known, or not as it must be.
        """
        if unknown := sorted(set(query) - set(_NAMES)):
            raise Refused(422, f"{unknown[0]}: is no parameter; there are {', '.join(_NAMES)}")
        window: float | str | None = query.get("window")
        if window is not None and window != "auto":
            window = _seconds("window", query["window"])
        hop = _seconds("hop", query["hop"]) if "hop" in query else None
        if hop is not None and not isinstance(window, float):
            raise Refused(422, "hop: leads from window to window; give window in seconds, too")
        return cls(
            window=window,
            hop=hop,
            explain=_choice("explain", query, ("0", "1", "picture")) != "0",
            explanation=query.get("explain") == "picture",
            spectrogram=_choice("spectrogram", query, ("0", "1")) == "1",
            width=_width(query.get("width", "800")),
            dark=_choice("dark", query, ("0", "1")) == "1",
        )


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        also = ", or auto" if name == "window" else ""
        raise Refused(422, f"{name}={text!r}: must be a number of seconds above 0{also}")
    return value


def _choice(name: str, query: Mapping[str, str], known: tuple[str, ...]) -> str:
    value = query.get(name, known[0])
    if value not in known:
        raise Refused(422, f"{name}={value!r}: must be one of {', '.join(known)}")
    return value


def _width(text: str) -> int:
    low, high = _WIDTHS
    if not (text.isascii() and text.isdigit() and len(text) < 6 and low <= int(text) <= high):
        raise Refused(422, f"width={text!r}: must be a whole number from {low} to {high}")
    return int(text)
