"""Runs of equal samples: the flat tops that clipping leaves, and the holes of lost data."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FlatTops", "Runs", "find_dropouts", "find_flat_tops", "find_runs"]

Samples = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_SHORTEST_HOLE = 16  # samples; below, equal neighbours may be chance in a slow waveform
_HOLE_SECONDS = (0.002, 0.5)
_EDGE_SECONDS = 0.005  # how much beside a hole must sound
_SOUNDING = 8  # quantisation steps of RMS beside a hole
_FINEST_STEP = 2 / 32768  # what counts as a step at least: RMS below -66 dBFS is no loss
_ABRUPT = 0.3  # of the RMS beside a hole, kept to its very edge: no fade leads into it
_STEPS_HIGH = 32  # quantisation steps a plateau stands above zero
_STEPS_DEEP = 8  # and falls at both ends: a rounded smooth peak falls by less than three, and
# companded steps at the plateau are up to twice those just below


@dataclass(frozen=True)
class Runs:
    """Where three and more equal samples follow each other.

    Attributes:
        starts: index of each run's first sample.
        stops: index past its last.
    """

    starts: Indices
    stops: Indices


def find_runs(samples: Samples) -> Runs:
    """Find all runs of at least three equal samples; NaN equals nothing.

    Args:
        samples: `(time,)`
    """
    equal = samples[1:] == samples[:-1]
    triple = np.zeros(len(samples) + 1, dtype=bool)
    triple[1 : len(equal)] = equal[1:] & equal[:-1]
    edges = np.flatnonzero(triple[1:] != triple[:-1])
    return Runs(edges[::2], edges[1::2] + 2)


@dataclass(frozen=True)
class FlatTops:
    """Where a waveform was cut off at a level.

    Attributes:
        count: how many of its peaks.
        longest: samples in the longest plateau.
        first: index of the first plateau, or -1.
    """

    count: int = 0
    longest: int = 0
    first: int = -1


def find_flat_tops(samples: Samples, runs: Runs, first: int, last: int, segment: int) -> FlatTops:
    """Count the peaks that clipping cut off, at whatever level.

    A plateau is a run at the highest or lowest value of its segment, with a steep fall at both
    ends: a clipped wave arrives there with speed. A smooth peak that rounding made flat falls by
    one or two quantisation steps; the step is measured on the segment's own values near the
    plateau, so that 8-bit, companded and quiet recordings are judged by theirs. Where two plateaus
    have one level, the shorter peaks that end at exactly this level count too.

    Args:
        samples: `(time,)`
        runs: of `samples`
        first: runs that start before this index are left out.
        last: and those that start at it or later.
        segment: samples per segment; the gain may change from one to the next.
    """
    inside = (runs.starts >= max(first, 1)) & (runs.starts < last) & (runs.stops < len(samples))
    inside &= samples[runs.starts] != 0
    starts, stops = runs.starts[inside], runs.stops[inside]
    found = FlatTops()
    for number in np.unique((starts - first) // segment).tolist():
        begin, end = first + number * segment, min(first + (number + 1) * segment, last)
        here = (starts >= begin) & (starts < end)
        for sign in (1, -1):
            tops = _tops_of_segment(samples, begin, end, starts[here], stops[here], sign)
            if tops.count:
                found = FlatTops(
                    found.count + tops.count,
                    max(found.longest, tops.longest),
                    tops.first if found.first < 0 else min(found.first, tops.first),
                )
    return found


def _tops_of_segment(
    samples: Samples, begin: int, end: int, starts: Indices, stops: Indices, sign: int
) -> FlatTops:
    """Flat tops of one segment (with sign -1, its flat bottoms)."""
    part = sign * samples[begin:end]
    level = np.nanmax(part)
    at_level = sign * samples[starts] == level
    starts, stops = starts[at_level], stops[at_level]
    upper = np.unique(part[part >= level / 2]).astype(np.float64)
    if len(starts) == 0 or level <= 0 or len(upper) < 2:
        return FlatTops()
    step = np.diff(upper).min()
    falls = level - np.maximum(sign * samples[starts - 1], sign * samples[stops])
    steep = falls >= (_STEPS_DEEP - 0.5) * step
    if not steep.any() or level < (_STEPS_HIGH - 0.5) * step:
        return FlatTops()
    count = int(steep.sum())
    if count > 1:
        flat = part == level
        count = int(flat[0]) + int((flat[1:] & ~flat[:-1]).sum())
    return FlatTops(count, int((stops - starts)[steep].max()), int(starts[steep][0]))


def find_dropouts(
    samples: Samples, runs: Runs, first: int, last: int, sample_rate: int
) -> list[int]:
    """Find holes: 2 to 500 ms of zeros, or of one held value, cut into sound.

    It sounds on both sides of a hole, up to its very edges, so that a gate's fade or the silence
    around a clip is none.

    Args:
        samples: `(time,)`
        runs: of `samples`
        first: runs that start before this index are left out.
        last: and those that start at it or later.
        sample_rate: Hz.

    Returns:
        Index of each hole's first sample.
    """
    lengths = runs.stops - runs.starts
    shortest = max(_SHORTEST_HOLE, round(_HOLE_SECONDS[0] * sample_rate))
    found = (lengths >= shortest) & (lengths <= _HOLE_SECONDS[1] * sample_rate)
    found &= (runs.starts >= first) & (runs.starts < last)
    width = max(_SHORTEST_HOLE, round(_EDGE_SECONDS * sample_rate))
    return [
        int(start)
        for start, stop in zip(runs.starts[found], runs.stops[found], strict=True)
        if width <= start and stop + width <= len(samples)
        if _is_hole(samples[start - width : start], samples[stop : stop + width], samples[start])
    ]


def _is_hole(before: Samples, after: Samples, value: np.float32) -> bool:
    before, after = before.astype(np.float64), after[::-1].astype(np.float64)
    level = float(value)
    values = np.unique(np.concatenate([before, after]))
    sounding = _SOUNDING * max(_FINEST_STEP, np.diff(values).min(initial=np.inf))
    for side in (before, after):
        loudness = np.sqrt(np.mean((side - side.mean()) ** 2))
        edge = side[-len(side) // 4 :]
        if not loudness >= sounding or np.sqrt(np.mean(edge**2)) < _ABRUPT * loudness:
            return False
        if level != 0 and not side.min() < level < side.max():
            return False  # at an extreme it is a clipped top
    jump = max(abs(before[-1] - level), abs(after[-1] - level))
    return bool(jump >= _ABRUPT * min(before.std(), after.std()))
