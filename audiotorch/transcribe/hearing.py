"""What is said in a window: in which language, and decoded again where Whisper went astray."""

import dataclasses
import itertools
import re
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from audiotorch.transcribe.backends import (
    MAX_COMPRESSION,
    MIN_LOGPROB,
    SAMPLE_RATE,
    Backend,
    Options,
)
from audiotorch.transcribe.result import Segment, Word
from audiotorch.transcribe.windows import QUIET, Window

__all__ = ["Heard", "Listener"]

_SURE = 0.85  # probability at which a language is believed although another one was heard before
_LIKELY = 0.5  # probability of a language that a piece is taken to be in, once there are two
_PIECE = 2.5  # seconds, at least, of which the language can be told
_MISSED = 1.5  # seconds of speech without text that are more than a wrong time
_LEEWAY = 1.0  # seconds by which Whisper's times may be wrong,
_INEXACT = 0.5  # and by which they often are
_MAX_LETTERS = 30.0  # a second of speech; nobody speaks faster
_FEW_LETTERS = 6.0  # a second of speech; there may be more to be heard
_ENOUGH = 3.0  # seconds of speech of which that can be told
_MORE = 1.25  # times as many letters that a second try must bring
_LOOP = re.compile(r"(\S.{0,200}?)(?:\s*\1){3,}", re.DOTALL)
_TWICE = re.compile(r"(\w.{6,200}?)(?: \1)+")  # all of a text
_THRICE = re.compile(r"\b(\w.{6,200}?)(?: \1){2,}\b")  # somewhere in it
_SAMPLING = threading.Lock()


_Said = TypeVar("_Said", Segment, Word)


class Heard(NamedTuple):
    """A window, or a part of one that is in one language, and what is said in it.

    Args:
        segments: with times from the recording's start.
        language: its code.
        probability: of that language; `None` where it was not asked.
        speech_seconds: how much of it is speech.
    """

    segments: list[Segment]
    language: str
    probability: float | None
    speech_seconds: float


class Listener:
    """Hears one recording, or one channel of it, window by window.

    Args:
        backend: the model.
        options: how windows are transcribed; the language where it is given.
        language: of all of it; `None` hears it window by window.
        condition_on_previous_text: whether a window is told the text of the one before.
    """

    def __init__(
        self,
        backend: Backend,
        options: Options,
        language: str | None,
        condition_on_previous_text: bool = False,
    ) -> None:
        self._backend = backend
        self._options = options
        self._given = language if len(backend.languages) > 1 else backend.languages[0]
        self._conditions = condition_on_previous_text
        self._so_far: str | None = None

    def hear(self, window: Window) -> list[Heard]:
        """Return what is said, for each part that is in a language of its own.

        Args:
            window: with speech in it.
        """
        found = []
        for part, language, probability in self._parts(window):
            segments = self._text(part, language)
            found.append(Heard(segments, language, probability, part.speech_seconds))
            if self._conditions and segments:
                text = "".join(segment.text for segment in segments)
                self._options = dataclasses.replace(self._options, initial_prompt=text)
        return found

    def _parts(self, window: Window) -> Iterator[tuple[Window, str, float | None]]:
        """The window as a whole, or the stretches of it that are in different languages."""
        if self._given is not None:
            yield window, self._given, None
            return
        for part, probabilities in self._by_language(window):
            best, probability = next(iter(probabilities.items()))
            # A noisy window does not change the language of a recording.
            if self._so_far is not None and probability < _SURE:
                best, probability = self._so_far, probabilities[self._so_far]
            self._so_far = best
            yield part, best, probability

    def _by_language(self, window: Window) -> list[tuple[Window, dict[str, float]]]:
        """Part a window where two languages are heard, and each explains its part better."""
        pieces = window.pieces(_PIECE)
        if len(pieces) == 1:
            return [(window, self._heard_in(window))]
        spans = [piece.within(window) for piece in pieces]
        whole = (0, len(window.samples))
        in_all, *heard = self._backend.detect_languages(window.samples, [whole, *spans])
        runs = _runs(pieces, _guesses(heard))
        if len(runs) > 1:
            common = max(runs, key=lambda run: run[0].speech_seconds)[1]
            chosen = [self._better(part, language, common) for part, language in runs]
            runs = _runs([part for part, _ in runs], chosen)
        if len(runs) == 1:
            return [(window, in_all)]
        return [(part, self._heard_in(part)) for part, _ in runs]

    def _heard_in(self, part: Window) -> dict[str, float]:
        return self._backend.detect_languages(part.samples, [(0, len(part.samples))])[0]

    def _better(self, part: Window, language: str, common: str) -> str:
        """Of two languages that in which a part's text is more probable."""
        if language == common:
            return language
        scores = {}
        for each in (common, language):
            options = self._with(language=each, temperature=self._options.temperature[:1])
            segments = self._decoded(part.samples, options)
            scores[each] = min((s.avg_logprob for s in segments), default=float("-inf"))
        return max(scores, key=lambda each: scores[each])

    def _decoded(self, samples: Tensor, options: Options) -> list[Segment]:
        if max(options.temperature) == 0:
            return self._backend.transcribe(samples, options)
        # Sampling draws at random; the same recording must give the same text.
        with _SAMPLING, torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(0)
            return self._backend.transcribe(samples, options)

    def _with(self, **changes: object) -> Options:
        return dataclasses.replace(self._options, **changes)  # type: ignore[arg-type]

    def _text(self, window: Window, language: str) -> list[Segment]:
        """Decode a window; where that fails, its two halves, and last with other temperatures."""
        options = self._with(language=language, speech_end=window.speech_end)
        once = dataclasses.replace(options, temperature=options.temperature[:1])
        segments = _placed(self._decoded(window.samples, once), window)
        failed = _failed(segments)
        # A second try is taken unless it brings less text; where text is sparse, if it brings more.
        astray = failed or _repeats(segments) or _missed(segments, window)
        if not (astray or _sparse(segments, window)):
            return segments
        # What repeats itself truly, or what made the model skip speech, is decoded well in parts.
        halves = window.halves()
        if halves is not None:
            parts = [segment for half in halves for segment in self._text(half, language)]
            least = 1.0 if astray else _MORE
            if failed or _letters(parts) >= least * _letters(segments):
                return parts
        if failed and len(options.temperature) > 1:
            again = _placed(self._decoded(window.samples, options), window)
            segments = max(segments, again, key=_quality)  # the last try is not always the best
        return _without_loops(segments, window)


def _guesses(heard: Sequence[dict[str, float]]) -> list[str]:
    """Each piece's language: one for all, unless the model is sure of two."""
    sure = {language for each in heard for language in each if each[language] >= _SURE}
    if len(sure) < 2:
        return ["" for _ in heard]
    guesses = []
    for each in heard:
        best = next(iter(each))
        # A piece that could be anything is in one of the languages that were surely heard.
        unsure = each[best] < _LIKELY
        guesses.append(max(sure, key=each.__getitem__) if unsure else best)
    return guesses


def _runs(pieces: Sequence[Window], languages: Sequence[str]) -> list[tuple[Window, str]]:
    """Join pieces that follow each other in one language."""
    runs: list[tuple[Window, str]] = []
    for piece, language in zip(pieces, languages, strict=True):
        if runs and runs[-1][1] == language:
            runs[-1] = (runs[-1][0].joined(piece), language)
        else:
            runs.append((piece, language))
    return runs


def _placed(segments: Sequence[Segment], window: Window) -> list[Segment]:
    """Bring times from a window's to the recording's, and leave out what cannot have been said."""
    end = len(window.samples) / SAMPLE_RATE
    placed = []
    for segment in segments:
        if segment.start >= end or not _may_be_speech(segment, window):
            continue
        found = _at(segment, window, end)
        words = tuple(_at(word, window, end) for word in segment.words)
        if words:
            found = dataclasses.replace(found, start=words[0].start, end=words[-1].end, words=words)
        placed.append(found)
    return placed


def _at(said: _Said, window: Window, end: float) -> _Said:
    """Give a word or segment its time in the recording, without the pauses around it."""
    start, stop = window.spoken(min(said.start, end), min(said.end, end))
    offset = window.start / SAMPLE_RATE
    # Not after the recording's end, where rounding could bring it.
    last = (window.start + len(window.samples)) / SAMPLE_RATE
    begins, ends = (min(round(offset + seconds, 3), last) for seconds in (start, stop))
    return dataclasses.replace(said, start=begins, end=ends)


def _may_be_speech(segment: Segment, window: Window) -> bool:
    """Whether the gate heard anything while a segment was said, or near it."""
    return window.loudest(segment.start - _LEEWAY, segment.end + _LEEWAY) >= QUIET


def _failed(segments: Sequence[Segment]) -> bool:
    """Whether there is no text, or it repeats itself or is improbable."""
    return not segments or any(
        segment.compression_ratio > MAX_COMPRESSION or segment.avg_logprob < MIN_LOGPROB
        for segment in segments
    )


def _quality(segments: Sequence[Segment]) -> tuple[bool, float]:
    """What tells the better of two texts: not to repeat itself first, then how probable it is."""
    if not segments:
        return True, MIN_LOGPROB
    repeats = any(segment.compression_ratio > MAX_COMPRESSION for segment in segments)
    return not repeats, min(segment.avg_logprob for segment in segments)


def _repeats(segments: Sequence[Segment]) -> bool:
    """Whether a phrase follows itself; where it is truly said so, some of its times get lost."""
    words = re.findall(r"\w+", "".join(segment.text for segment in segments).lower())
    text = " ".join(words)
    return bool(_TWICE.fullmatch(text) or _THRICE.search(text))


def _missed(segments: Sequence[Segment], window: Window) -> bool:
    """Whether text lacks for seconds of speech, one after another."""
    offset = window.start / SAMPLE_RATE
    covered = [(s.start - offset - _INEXACT, s.end - offset + _INEXACT) for s in segments]
    return window.uncovered(covered) >= _MISSED


def _sparse(segments: Sequence[Segment], window: Window) -> bool:
    """Whether there is little text for all the speech."""
    if window.speech is None or window.speech_seconds < _ENOUGH:
        return False
    return _letters(segments) < _FEW_LETTERS * window.speech_seconds


def _letters(segments: Sequence[Segment]) -> float:
    """How much is written, in letters; a digit is said as a word, an ideogram as a syllable."""
    text = "".join(segment.text for segment in segments)
    return sum(
        4.0 if letter.isdecimal() else 2.5 if ord(letter) >= 0x2E80 else float(letter.isalpha())
        for letter in text
    )


def _without_loops(segments: list[Segment], window: Window) -> list[Segment]:
    """Where more is written than can be said in the time, what repeats stays once."""
    if _letters(segments) <= _MAX_LETTERS * max(1.0, window.speech_seconds):
        return segments
    kept: list[Segment] = []
    for segment in segments:
        if kept and segment.text.strip() == kept[-1].text.strip():
            continue
        text = _LOOP.sub(r"\1", segment.text)
        # In languages without blanks, too, words joined are the text.
        ends = itertools.accumulate(len(word.word) for word in segment.words)
        words = tuple(w for w, end in zip(segment.words, ends, strict=True) if end <= len(text))
        kept.append(dataclasses.replace(segment, text=text, words=words))
    return kept
