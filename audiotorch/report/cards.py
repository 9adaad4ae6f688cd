"""Recordings of a run as cards: to hear, to see, and why they were answered so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from audiotorch.audio import load
from audiotorch.errors import AudioTorchError
from audiotorch.report.audio import compressed
from audiotorch.report.page import Clip, Picture, Text
from audiotorch.report.record import RunRecord, first_line

__all__ = ["FAULTS", "Asked", "Cards", "picture_of"]

_SHOWN_SECONDS = 30.0  # of a recording, in its player and spectrogram
_DPI = 90
# What a file or a model from elsewhere can fail with: a report then lacks a picture, no more.
FAULTS = (AudioTorchError, OSError, RuntimeError, ValueError, TypeError, IndexError, KeyError)


@dataclass(frozen=True)
class Asked:
    """A recording that gets a card.

    Args:
        file: its path.
        lines: what the card says first.
        tone: `good`, `bad` or none.
        label: the class whose reasons are looked for; None takes the most probable one.
    """

    file: str
    lines: Sequence[str]
    tone: str = ""
    label: str | None = None


class Cards:
    """Makes cards, of which the first ones have reasons.

    Args:
        record: of the run; its exported model tells the reasons.
        n_explained: cards with reasons, as these take time.
        remark: stands before each reason.

    Attributes:
        found: explanations by file.
    """

    def __init__(self, record: RunRecord, n_explained: int = 14, remark: str = "") -> None:
        self.found: dict[str, Any] = {}
        self._record, self._left, self._remark = record, n_explained, remark

    def card(self, asked: Asked) -> Clip:
        """Return a card; what cannot be had is said on it.

        Args:
            asked: the recording.
        """
        path = Path(asked.file)
        lines, pictures, audio = list(asked.lines), [], None
        try:
            there = path.is_file()
        except (OSError, ValueError):
            there = False
        if not there:
            lines.append(f"The recording is not there any more, so there is no player: {path}")
            return Clip(path.name, lines, None, [], asked.tone)
        try:
            waveform, rate = load(path, duration=_SHOWN_SECONDS, sample_rate=None)
            audio = compressed(waveform[0], rate)
            pictures.append(_spectrogram(waveform[0], rate, path.name))
        except FAULTS as error:
            lines.append(f"The recording cannot be read: {first_line(error)}")
        else:
            pictures += self._reasons(asked, lines)
        return Clip(path.name, lines, audio, pictures, asked.tone)

    def _reasons(self, asked: Asked, lines: list[str]) -> list[Picture]:
        """Why, as a picture; the sentence goes to the lines."""
        if self._left <= 0:
            return []
        self._left -= 1
        module, why = self._record.model
        if module is None:
            lines.append(f"No reasons: {why}")
            return []
        try:
            with torch.no_grad():
                found = self._explain(module, asked)
            picture = _drawn(found, Path(asked.file).name)
        except FAULTS as error:
            lines.append(f"No reasons: {first_line(error)}")
            return []
        self.found[asked.file] = found
        lines.append(f"{self._remark}{found.reason}")
        return [picture]

    def _explain(self, module: Any, asked: Asked) -> Any:
        from audiotorch import explain

        if self._record.is_detector:
            return explain.explain_detection(module, asked.file)
        return explain.explain_class(module, asked.file, label=asked.label)


def picture_of(draw: Callable[[], Any], alt: str, caption: str = "") -> Picture | Text:
    """Return a drawn picture, or the reason why there is none.

    Args:
        draw: returns matplotlib's Axes or Figure.
        alt: what it shows, for those who cannot see it.
        caption: stands below it.
    """
    try:
        drawn = draw()
    except FAULTS as error:
        return Text(f"No picture of {alt}: {first_line(error)}")
    return Picture(_png(getattr(drawn, "figure", None) or drawn), alt, caption)


def _png(figure: Any) -> bytes:
    from audiotorch.plot.figure import any_glyph

    held = BytesIO()
    with any_glyph():
        figure.savefig(held, dpi=_DPI, format="png")
    return held.getvalue()


def _spectrogram(waveform: Any, rate: int, name: str) -> Picture:
    from audiotorch import plot

    return Picture(_png(plot.spectrogram(waveform, rate, name)), f"spectrogram of {name}")


def _drawn(found: Any, name: str) -> Picture:
    from audiotorch import plot

    return Picture(_png(plot.explanation(found, name)), f"reasons of {name}", found.reason)
