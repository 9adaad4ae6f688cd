"""How fast audiotorch is beside others, paired in one process."""

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import audiotorch as at
from audiotorch.bench.measures import Comparison
from audiotorch.bench.quantities import as_tensor
from audiotorch.bench.references import Sound
from audiotorch.bench.rules import RULES, Measured, Rule, judge, measure
from audiotorch.bench.threads import threads
from audiotorch.bench.works import SAMPLE_RATE, WORKS, Work
from audiotorch.errors import ParameterError

__all__ = ["Batch", "Deviation", "Row", "Timing", "alternate", "batches_of", "run_speed", "spread"]

Array = npt.NDArray[Any]

_ROUNDS = 10
_FEWEST_ROUNDS = 4
# Fewer would be no batch.
_CLIPS_OF_ROUND = 4
_FILE_RATE = 44100


class Batch(NamedTuple):
    """Clips of equal length, as either side takes them.

    Attributes:
        clips: each `(time,)`.
        waveform: the same, `(batch, time)`.
        files: files that hold them, where the work starts there.
    """

    clips: Sequence[Array]
    waveform: Tensor
    files: Sequence[Path] = ()

    def first(self) -> "Batch":
        """Return its first clip as a batch, to warm up with."""
        return Batch(self.clips[:1], self.waveform[:1], self.files[:1])


@dataclass
class Timing:
    """Times of rounds, in milliseconds a clip.

    Attributes:
        ours: audiotorch's.
        theirs: the other's.
    """

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as long the other took, each round."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]


class Row(NamedTuple):
    """A work that was timed.

    Attributes:
        title: what was done.
        goal: ratio wanted.
        timing: how long it took.
        deviation: how far the answers are apart, in words.
    """

    title: str
    goal: float
    timing: Timing
    deviation: str


def batches_of(clips: Sequence[Array], files: Sequence[Path] = ()) -> list[Batch]:
    """Split clips into ten rounds, or fewer, which come again where they are very few.

    Args:
        clips: each `(time,)`, equally long.
        files: files that hold them, or none.
    """
    n_parts = max(1, min(_ROUNDS, len(clips) // _CLIPS_OF_ROUND))
    found = []
    for places in np.array_split(np.arange(len(clips)), n_parts):
        part = slice(places[0], places[-1] + 1)
        rows = np.stack(list(clips[part])).astype(np.float32)
        found.append(Batch(clips[part], torch.from_numpy(rows), files[part]))
    return found * -(-_FEWEST_ROUNDS // n_parts)


def alternate(
    ours: Callable[[Batch], Any],
    theirs: Callable[[Batch], Any],
    batches: Sequence[Batch],
    look: Callable[[Batch, Any, Any], None],
) -> Timing:
    """Time both on the same clips, by turns the one and the other first.

    Args:
        ours: audiotorch's way.
        theirs: the other's.
        batches: one a round.
        look: is given each round's batch and both answers, outside of the timing.
    """
    warm_up = batches[0].first()
    ours(warm_up), ours(batches[0]), theirs(warm_up)
    times: dict[Callable[[Batch], Any], list[float]] = {ours: [], theirs: []}
    for turn, batch in enumerate(batches):
        answers = {}
        for side in (ours, theirs) if turn % 2 else (theirs, ours):
            start = time.perf_counter()
            answers[side] = side(batch)
            times[side].append(1000 * (time.perf_counter() - start) / len(batch.clips))
        look(batch, answers[ours], answers[theirs])
    return Timing(times[ours], times[theirs])


class Deviation:
    """How far answers are from librosa's, by the rules of their quantities."""

    def __init__(self) -> None:
        self.measured: dict[Rule, list[Measured]] = {}

    def add(self, ours: Mapping[str, Array], expected: Mapping[str, Array], clip: Array) -> None:
        """Take one clip in.

        Args:
            ours: quantities by name.
            expected: librosa's.
            clip: `(time,)`.
        """
        sound = Sound(clip, SAMPLE_RATE)
        for rule in RULES:
            name = rule.quantity
            if name in expected:
                found = measure(rule, Comparison(ours[name], expected[name], sound), "")
                self.measured.setdefault(rule, []).append(found)

    def told(self) -> str:
        """Return what comes nearest to breaking its rule."""
        outcomes = [(rule, judge(rule, found)) for rule, found in self.measured.items()]
        rule, outcome = max(outcomes, key=lambda each: each[1].use)
        several = len({rule.quantity for rule, _ in outcomes}) > 1
        name = f"`{rule.quantity}` " if several else ""
        return name + rule.told(outcome) + ("" if outcome.holds else ", more than allowed")


def run_speed(
    clips: Sequence[Array],
    names: Sequence[str],
    n_threads: int = 1,
    compiled: bool = False,
    advance: Callable[[int], None] | None = None,
) -> list[Row]:
    """Time works against librosa.

    Args:
        clips: each `(time,)`, equally long, at 22,050 Hz.
        names: keys of `WORKS`.
        n_threads: torch's threads on our side, Python's on librosa's.
        compiled: time compiled modules, too.
        advance: is told when another work is done.

    Raises:
        ParameterError: an unknown work.
    """
    if unknown := [name for name in names if name not in WORKS]:
        raise ParameterError(f"work={unknown}: unknown; known are {' '.join(WORKS)}")
    rows = []
    for name in names:
        work = WORKS[name]
        with threads(n_threads), _batches(work, clips) as batches:
            rows.append(_row(work, batches, n_threads, compiled=False))
            if compiled and work.make is not None:
                rows.append(_row(work, batches, n_threads, compiled=True))
        if advance is not None:
            advance(1)
    return rows


@contextmanager
def _batches(work: Work, clips: Sequence[Array]) -> Iterator[list[Batch]]:
    if work.make is not None:
        yield batches_of(clips)
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{place}.wav" for place in range(len(clips))]
        for file, clip in zip(files, clips, strict=True):
            waveform = torch.from_numpy(clip)[None]
            louder = at.Resample(SAMPLE_RATE, _FILE_RATE)(waveform)[0].clamp(-1.0, 1.0)
            at.save(file, louder, _FILE_RATE)
        yield batches_of(clips, files)


def _row(work: Work, batches: Sequence[Batch], n_threads: int, compiled: bool) -> Row:
    deviation = Deviation()

    def look(batch: Batch, ours: Any, theirs: Sequence[Mapping[str, Array]]) -> None:
        for place, (clip, expected) in enumerate(zip(batch.clips, theirs, strict=True)):
            deviation.add(_of_clip(ours, place, list(expected)), expected, clip)

    theirs = spread(lambda x: work.theirs(x), n_threads, files=work.make is None)
    timing = alternate(_our_side(work, n_threads, compiled), theirs, batches, look)
    title = f"{work.title}, compiled" if compiled else work.title
    return Row(title, work.goal, timing, deviation.told())


def _our_side(work: Work, n_threads: int, compiled: bool) -> Callable[[Batch], Any]:
    if work.make is None:
        assert work.ours is not None
        return spread(work.ours, n_threads, files=True)
    module = work.make().eval()
    if compiled:
        module.compile()

    def run(batch: Batch) -> Any:
        with torch.no_grad():
            return module(batch.waveform)

    return run


def spread(
    function: Callable[[Any], Any], n_threads: int, *, files: bool = False
) -> Callable[[Batch], list[Any]]:
    """Return what does the work of one clip for a batch, in Python threads.

    Args:
        function: takes one clip, or one file.
        n_threads: threads.
        files: give it files.
    """

    def run(batch: Batch) -> list[Any]:
        given = batch.files if files else batch.clips
        # librosa's notices, such as that a frequency set is empty for a silent clip.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if n_threads == 1:
                return [function(each) for each in given]
            with ThreadPoolExecutor(n_threads) as pool:
                return list(pool.map(function, given))

    return run


def _of_clip(output: Any, place: int, names: Sequence[str]) -> dict[str, Array]:
    """One clip's quantities out of what our side gave for a batch."""
    if isinstance(output, list):
        found: dict[str, Array] = output[place]
        return found
    if not isinstance(output, dict):
        output = {names[0]: as_tensor(output)}
    return {name: output[name][place].numpy() for name in names}
