"""Recordings of a run as cards: to hear, to see, and why they were answered so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from audiotorch.audio import info
from audiotorch.errors import AudioTorchError
from audiotorch.report.audio import Budget, Excerpt, excerpt, mp3, thumbnail
from audiotorch.report.page import Clip, Picture, Text
from audiotorch.report.reasons import reason_picture
from audiotorch.report.record import RunRecord, first_line

__all__ = ["FAULTS", "Asked", "Cards", "picture_of"]

_DPI = 90
_LONGEST = 600.0  # seconds of a recording that is asked for reasons; longer ones take minutes
# What files and models from elsewhere can fail with: a report then lacks a picture, no more.
FAULTS = (
    *(AudioTorchError, OSError, RuntimeError, ValueError, TypeError),
    *(AttributeError, IndexError, KeyError),
)


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
        budget: of the page.
        n_explained: cards with reasons, as these take time.
        advance: is told how many cards are done, and of how many.

    Attributes:
        found: explanations by file.
        mute: why no card has reasons; empty where the model tells them.
    """

    def __init__(
        self,
        record: RunRecord,
        budget: Budget,
        n_explained: int = 14,
        advance: Callable[[int, int], object] = lambda done, total: None,
    ) -> None:
        self.found: dict[str, Any] = {}
        self._record, self._budget, self._advance = record, budget, advance
        self._left = self._n = n_explained
        self._done, self._told = 0, False
        self.mute = self._why_mute()

    def card(self, asked: Asked) -> Clip:
        """Return a card; what cannot be had is said on it.

        Args:
            asked: the recording.
        """
        made = self._card(asked)
        self._done += 1
        self._advance(min(self._done, self._n), self._n)
        return made

    def remark(self) -> list[Text]:
        """Say why there are no reasons, once."""
        told, self._told = self._told, True
        return [Text(self.mute)] if self.mute and not told else []

    def _card(self, asked: Asked) -> Clip:
        name, lines = Path(asked.file).name, list(asked.lines)
        if not _is_there(asked.file):
            silent = "The recording is not where it was, so it cannot be played"
            return Clip(name, [*lines, asked.file], None, tone=asked.tone, silent=silent)
        found = self._reasons(asked, lines)
        try:
            piece = excerpt(asked.file, around_seconds=getattr(found, "second", None))
            audio = mp3(piece, self._budget)
            pictures = [thumbnail(piece, self._budget, name), self._drawn(found, piece)]
        except FAULTS as error:
            silent = f"The recording cannot be read: {first_line(error)}"
            return Clip(name, lines, None, tone=asked.tone, silent=silent)
        if found is not None and (found.map is not None or pictures[1] is None):
            lines.append(found.reason)  # bars have it already
        if piece.told:
            lines.append(piece.told)
        return Clip(name, lines, audio, [each for each in pictures if each], asked.tone)

    def _reasons(self, asked: Asked, lines: list[str]) -> Any:
        """Why; None, and a line that says why not, where that cannot be told."""
        if self._left <= 0 or self.mute:
            return None
        self._left -= 1
        try:
            with torch.no_grad():
                found = self._explain(self._record.model[0], asked)
        except FAULTS as error:
            lines.append(f"No reasons: {first_line(error)}")
            return None
        self.found[asked.file] = found
        return found

    def _why_mute(self) -> str:
        """What keeps all clips from having reasons, if anything does."""
        from audiotorch.explain.classes import check_class_explainable
        from audiotorch.explain.detection import check_explainable

        module, why = self._record.model
        if module is None:
            return f"No reasons are given, for the model does not load: {why}."
        try:
            (check_explainable if self._record.is_detector else check_class_explainable)(module)
        except FAULTS as error:
            why = first_line(error).removeprefix("explain: ")
            return f"No reasons are given: {why}."
        return ""

    def _drawn(self, found: Any, piece: Excerpt) -> Picture | None:
        """The reasons as a picture, where the page has room for it."""
        picture = None if found is None else reason_picture(found, piece)
        return picture if picture and self._budget.take(len(picture.png)) else None

    def _explain(self, module: Any, asked: Asked) -> Any:
        from audiotorch import explain

        seconds = info(asked.file).duration_seconds
        if seconds > _LONGEST:
            raise ValueError(f"it lasts {seconds:.0f} s; audiotorch's explain takes its time")
        if self._record.is_detector:
            return explain.explain_detection(module, asked.file)
        return explain.explain_class(module, asked.file, label=asked.label)


def picture_of(
    draw: Callable[[], Any], alt: str, budget: Budget, caption: str = ""
) -> Picture | Text:
    """Return a drawn picture, or the reason why there is none.

    Args:
        draw: returns matplotlib's Axes or Figure.
        alt: what it shows, for those who cannot see it.
        budget: of the page.
        caption: stands below it.
    """
    try:
        drawn = draw()
        png = _png(getattr(drawn, "figure", None) or drawn)
    except FAULTS as error:
        return Text(f"No picture of {alt}: {first_line(error)}")
    if not budget.take(len(png)):
        return Text(f"No picture of {alt}: the page would be too large to mail.")
    return Picture(png, alt, caption)


def _is_there(file: str) -> bool:
    try:
        return Path(file).is_file()
    except (OSError, ValueError):
        return False


def _png(figure: Any) -> bytes:
    from audiotorch.plot.figure import any_glyph

    file = BytesIO()
    with any_glyph():
        figure.savefig(file, dpi=_DPI, format="png", pil_kwargs={"optimize": True})
    return file.getvalue()
