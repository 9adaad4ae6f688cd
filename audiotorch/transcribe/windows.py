"""A recording of any length as windows that Whisper hears whole, cut at pauses."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from audiotorch.transcribe.backends import SAMPLE_RATE
from audiotorch.transcribe.voice import FRAME, THRESHOLD, Gate, has_speech, speech_seconds

__all__ = ["MAX_SAMPLES", "QUIET", "Window", "WindowCutter"]

MAX_SAMPLES = 30 * SAMPLE_RATE
"""What Whisper hears at a time."""
QUIET = 0.15
"""Probability of speech below which a frame surely holds none."""

_PAUSE = 4.0  # seconds without speech that end a window
_MARGIN = 1.0  # seconds of such a pause that stay at each side of speech
_GAP = 0.2  # seconds of a gap between words
_FIRST_CUT, _BEST_CUT = 10.0, 20.0  # seconds after which a window without such a pause is cut
_SILENT_PEAK, _QUIET_PEAK, _AUDIBLE_PEAK = 1e-4, 0.02, 0.1
_CLEAR_GAP = 0.5  # seconds of a gap that is taken for one between sentences


@dataclass(frozen=True)
class Window:
    """A part of a recording that holds speech.

    Args:
        start: its first sample's number in the recording.
        samples: `(n,)`, 30 seconds at most, as they are in the recording.
        speech: probability of it, of each frame; `None` without a gate.
    """

    start: int
    samples: Tensor
    speech: Tensor | None

    @property
    def speech_seconds(self) -> float:
        """How much of it is speech; all of it without a gate."""
        whole = len(self.samples) / SAMPLE_RATE
        # The last frame is filled up.
        return whole if self.speech is None else min(whole, speech_seconds(self.speech))

    @property
    def speech_end(self) -> float | None:
        """Seconds from its first sample after which nobody speaks; `None` without a gate."""
        if self.speech is None:
            return None
        heard = (self.speech >= THRESHOLD).nonzero()
        return (int(heard[-1]) + 1) * FRAME / SAMPLE_RATE if len(heard) else 0.0

    def within(self, window: "Window") -> tuple[int, int]:
        """Return where it begins and ends in another window that holds it.

        Args:
            window: the other one.
        """
        first = self.start - window.start
        return first, first + len(self.samples)

    def pieces(self, seconds: float) -> list["Window"]:
        """Part it at gaps between words into pieces of at least that length.

        Args:
            seconds: of a piece; the last may be shorter by what the others are longer.
        """
        if self.speech is None:
            return [self]
        cuts = [0]
        for start, stop in self._gaps():
            middle = (start + stop) // 2
            if min(middle - cuts[-1], len(self.speech) - middle) >= _frames(seconds):
                cuts.append(middle)
        ends = [*cuts[1:], len(self.speech)]
        return [self._part(cut, end) for cut, end in zip(cuts, ends, strict=True)]

    def halves(self) -> tuple["Window", "Window"] | None:
        """Part it at a long gap near its middle; None where there is none between speech."""
        if self.speech is None:
            return None
        n_frames = len(self.speech)
        best, score = None, 0.0
        for start, stop in self._gaps():
            middle = (start + stop) // 2
            balance = min(middle, n_frames - middle) / n_frames
            if min(stop - start, _frames(1.0)) * balance > score:
                parts = self._part(0, middle), self._part(middle, n_frames)
                if all(has_speech(part.speech) for part in parts if part.speech is not None):
                    best, score = parts, min(stop - start, _frames(1.0)) * balance
        return best

    def joined(self, following: "Window") -> "Window":
        """Return it with the window that begins where it ends.

        Args:
            following: that window, from the same recording and gate.
        """
        samples = torch.cat([self.samples, following.samples])
        if self.speech is None or following.speech is None:
            return Window(self.start, samples, None)
        return Window(self.start, samples, torch.cat([self.speech, following.speech]))

    def spoken(self, start: float, end: float) -> tuple[float, float]:
        """Return when speech begins and ends between two times, if that is much later or earlier.

        Whisper lets the first word after a pause begin in the pause.

        Args:
            start: seconds from its first sample.
            end: seconds from its first sample.
        """
        if self.speech is None:
            return start, end
        first = max(0, int(start * SAMPLE_RATE / FRAME))
        heard = (self.speech[first : _frames(end) + 1] >= THRESHOLD).nonzero()
        if not len(heard):
            return start, end
        begins = (first + int(heard[0])) * FRAME / SAMPLE_RATE
        ends = (first + int(heard[-1]) + 1) * FRAME / SAMPLE_RATE
        return (
            begins if begins - start > _GAP else start,
            ends if end - ends > _GAP else end,
        )

    def loudest(self, start: float, end: float) -> float:
        """Return the highest probability of speech between two times; 1 without a gate.

        Args:
            start: seconds from its first sample.
            end: seconds from its first sample.
        """
        if self.speech is None:
            return 1.0
        frames = self.speech[max(0, _frames(start)) : max(0, _frames(end)) + 1]
        return float(frames.max()) if len(frames) else 0.0

    def uncovered(self, stretches: Iterable[tuple[float, float]]) -> float:
        """Return how many seconds of speech at most, one after another, lie in no stretch.

        Args:
            stretches: from when to when, in seconds from its first sample.
        """
        if self.speech is None:
            return 0.0
        covered = torch.zeros(len(self.speech), dtype=torch.bool)
        for start, end in stretches:
            covered[max(0, _frames(start)) : max(0, _frames(end))] = True
        # Gaps between words do not end a missed sentence, text does.
        missed = [int((self.speech[a:b] >= THRESHOLD).sum()) for a, b in _runs(~covered)]
        return max(missed, default=0) * FRAME / SAMPLE_RATE

    def _gaps(self) -> list[tuple[int, int]]:
        assert self.speech is not None
        return [
            (start, stop)
            for start, stop in _runs(self.speech < THRESHOLD)
            if stop - start >= _frames(_GAP)
        ]

    def _part(self, first: int, last: int) -> "Window":
        speech = None if self.speech is None else self.speech[first:last]
        return Window(
            self.start + first * FRAME, self.samples[first * FRAME : last * FRAME], speech
        )


class WindowCutter:
    """Cuts a recording into windows, and leaves out those without speech.

    A recording of 30 seconds at most without a long pause is one window. A pause of 4 seconds or
    more ends a window, and is left out but for a second at each side. Where there is none within
    30 seconds the window is cut in the middle of a gap between words, the last clear one or else
    the longest; where there is no gap either, at the most quiet moment. Windows do not overlap,
    and their samples are those of the recording.

    Args:
        gate: says what is speech; without one everything counts as speech.
    """

    def __init__(self, gate: Gate | None) -> None:
        self._gate = gate
        self._start = 0  # of what is not in a window yet: a frame's first sample
        self._samples = torch.zeros(0)
        self._speech = torch.zeros(0)
        self._peak = 0.0
        self._ended = False

    def feed(self, block: Tensor) -> list[Window]:
        """Return the windows that are complete.

        Args:
            block: the recording's next samples `(n,)`, at 16 kHz.
        """
        self._samples = torch.cat([self._samples, block])
        if self._gate is not None:
            self._speech = torch.cat([self._speech, self._gate.feed(self._audible(block))])
        return list(self._windows())

    def finish(self) -> list[Window]:
        """Return the windows that are left at the recording's end."""
        self._ended = True
        if self._gate is not None:
            self._speech = torch.cat([self._speech, self._gate.finish()])
        return list(self._windows())

    def _windows(self) -> Iterator[Window]:
        # A pause that begins within a window shows only once it is over.
        needed = MAX_SAMPLES + round((_PAUSE + _MARGIN) * SAMPLE_RATE)
        while len(self._samples) > (0 if self._ended else needed):
            self._drop(self._leading())
            if len(self._samples) == 0 or (not self._ended and len(self._samples) <= needed):
                break
            window = self._take(self._length())
            if window.speech is None or has_speech(window.speech):
                yield window

    def _audible(self, block: Tensor) -> Tensor:
        """Turn up, for the gate alone, what is so quiet that it would not know speech."""
        peak = float(block.abs().max()) if len(block) else 0.0
        self._peak = max(peak, self._peak / 2)  # a quiet half minute is none of a quiet recording
        quiet = _SILENT_PEAK < self._peak < _QUIET_PEAK
        return block * (_AUDIBLE_PEAK / self._peak) if quiet else block

    def _leading(self) -> int:
        """Frames of a long pause at the beginning, or of a beginning without any speech."""
        if self._gate is None:
            return 0
        heard = (self._speech >= QUIET).nonzero()
        quiet = int(heard[0]) if len(heard) else len(self._speech)
        if quiet < _frames(_PAUSE):
            return 0
        # The margin stays before speech; at the recording's end there is none to come.
        return quiet if self._ended and not len(heard) else quiet - _frames(_MARGIN)

    def _length(self) -> int:
        """Samples of the next window."""
        end = self._first_pause()
        if end is not None:
            return (end + _frames(_MARGIN)) * FRAME
        if len(self._samples) <= MAX_SAMPLES:
            return len(self._samples)
        gap = self._gap()
        return gap * FRAME if gap is not None else _most_quiet(self._samples[:MAX_SAMPLES])

    def _first_pause(self) -> int | None:
        """The frame at which the first long pause after speech begins, if that is in reach."""
        reach = MAX_SAMPLES // FRAME - _frames(_MARGIN)
        for start, stop in _runs(self._speech < QUIET):
            if 0 < start <= reach and stop - start >= _frames(_PAUSE):
                return start
        return None

    def _gap(self) -> int | None:
        """The frame in the middle of the gap to cut at: the last clear one, or the longest."""
        limit = MAX_SAMPLES // FRAME
        first, best = _frames(_FIRST_CUT), _frames(_BEST_CUT)
        gaps = [
            (stop - start, (start + stop) // 2)
            for start, stop in _runs(self._speech[:limit] < THRESHOLD)
            if (start + stop) // 2 >= first
        ]
        clear = [middle for length, middle in gaps if length >= _frames(_CLEAR_GAP)]
        if clear and clear[-1] >= best:
            return clear[-1]
        return max(gaps)[1] if gaps else None

    def _take(self, n_samples: int) -> Window:
        n_samples = min(n_samples, len(self._samples))
        n_frames = -(-n_samples // FRAME)
        speech = None if self._gate is None else self._speech[:n_frames]
        window = Window(self._start, self._samples[:n_samples], speech)
        self._drop(n_frames)
        return window

    def _drop(self, n_frames: int) -> None:
        # Clones: a slice would keep all of what was heard in memory.
        self._samples = self._samples[n_frames * FRAME :].clone()
        self._speech = self._speech[n_frames:].clone()
        self._start += n_frames * FRAME


def _frames(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE / FRAME)


def _runs(flags: Tensor) -> list[tuple[int, int]]:
    """Where stretches of true begin and end."""
    edges = torch.diff(flags.int(), prepend=torch.zeros(1), append=torch.zeros(1))
    starts, stops = (edges == 1).nonzero(), (edges == -1).nonzero()
    return list(zip(starts.flatten().tolist(), stops.flatten().tolist(), strict=True))


def _most_quiet(samples: Tensor) -> int:
    """The frame, as a number of samples, of the least power over a fifth of a second."""
    first = _frames(_BEST_CUT)
    frames = samples[first * FRAME : len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    width = _frames(0.2)
    power = torch.cumsum(frames.double().square().mean(dim=1), dim=0)
    sums = power[width:] - power[:-width]
    return (first + int(sums.argmin()) + 1 + width // 2) * FRAME
