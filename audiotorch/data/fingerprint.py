"""Fingerprints that copies of a recording share: which pairs of clips are worth a comparison.

A clip is folded: cut into stretches of 0.32 s that are added up. The Fourier transform of the sum
is the whole clip's, at every multiple of 3.125 Hz. Silence before or behind a clip changes only its
phase, a gain only its scale, and coding or resampling hardly anything within 25-1900 Hz, which a
rate of 4 kHz holds already. Divided by its own smooth course, it is as good as random from one
recording to the next, two takes of a word included. A clip's signs, folded alike, make a second
print, which clipping leaves as it is and in which quiet passages count as much as loud ones.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soxr

__all__ = ["Candidate", "Folder", "find_candidates", "smooth"]

Floats = npt.NDArray[np.floating]
Complexes = npt.NDArray[np.complexfloating]

_PERIOD_SECONDS = 8 / 25  # whole samples at every rate that is a multiple of 25 Hz
_LINES = slice(8, 608)  # 25 to 1897 Hz
_OTHER_RATE = 16000  # Hz that clips at odd rates are brought to
_SMOOTHING = 6  # lines to each side, 20 Hz
_FLOOR = 0.003  # of the strongest stretch of the spectrum: what lies below, codecs invent
_SHORTEST = 0.1  # seconds; in less there is too little to tell recordings apart by
_LAGS = 4096  # of a period, 78 us each

# Least agreement of spectra without phases, then with phases at the best lag, for the fingerprint
# of the samples and that of the signs. Copies through MP3 and Vorbis at their lowest quality reach
# 0.65 and 0.88; two takes of a word by one speaker 0.65 and 0.78 in samples, but 0.32 and 0.39 in
# signs.
_LEAST = ((0.4, 0.6), (0.3, 0.5))
_NEIGHBOURS = 64  # of a clip whose phases are looked at; the best, where more agree
_COMPARED = 16  # of these that are worth a comparison
_ROWS = 256  # clips compared with all others at a time


class Candidate(NamedTuple):
    """Two clips that may be one recording.

    Args:
        first: index of a clip.
        second: index of another, higher.
        agreement: of their fingerprints, at most about 1.
    """

    first: int
    second: int
    agreement: float


class Folder:
    """Folds a recording as its blocks come, at a memory of two periods.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._resampler = None
        self._rate = sample_rate
        if sample_rate * 8 % 25:
            self._resampler = soxr.ResampleStream(sample_rate, _OTHER_RATE, 1, dtype="float32")
            self._rate = _OTHER_RATE
        self._period = round(self._rate * _PERIOD_SECONDS)
        self._folds = np.zeros((2, self._period))
        self._n_samples = 0
        self._low, self._high = math.inf, -math.inf

    def add(self, samples: npt.NDArray[np.float32]) -> None:
        """Take the next samples.

        Args:
            samples: finite, `(time,)`
        """
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        self._fold(samples)

    def spectra(self) -> npt.NDArray[np.complex64] | None:
        """The two fingerprints `(2, line)`; None of clips below 0.1 s or without sound."""
        if self._resampler is not None:
            rest = np.empty(0, np.float32)
            self._fold(self._resampler.resample_chunk(rest, last=True))
            self._resampler = None
        if self._n_samples < _SHORTEST * self._rate or self._high <= self._low:
            return None
        return np.stack([_whitened(np.fft.rfft(fold)) for fold in self._folds])

    def _fold(self, samples: npt.NDArray[np.float32]) -> None:
        if len(samples) == 0:
            return
        self._low = min(self._low, float(samples.min()))
        self._high = max(self._high, float(samples.max()))
        start = self._n_samples % self._period
        n_periods = -(-(start + len(samples)) // self._period)
        placed = np.zeros(n_periods * self._period, np.float32)
        for fold, values in zip(self._folds, (samples, np.sign(samples)), strict=True):
            placed[start : start + len(samples)] = values
            fold += placed.reshape(n_periods, -1).sum(0, dtype=np.float64)
        self._n_samples += len(samples)


def smooth(values: Floats, width: int) -> Floats:
    """Average each value with its neighbours; beyond an end, the end's value stands.

    Args:
        values: `(..., n)`
        width: neighbours to each side.
    """
    ends = [(0, 0)] * (values.ndim - 1) + [(width + 1, width)]
    sums = np.cumsum(np.pad(values, ends, mode="edge"), axis=-1, dtype=np.float64)
    span = 2 * width + 1
    averages: Floats = (sums[..., span:] - sums[..., :-span]) / span
    return averages


def find_candidates(spectra: Sequence[npt.NDArray[np.complex64]]) -> list[Candidate]:
    """Find the pairs of clips whose fingerprints agree.

    Every pair is looked at, but only by a product of matrices: 20,000 clips take seconds. Phases
    are compared of the few pairs whose magnitudes agree.

    Args:
        spectra: fingerprints, each `(2, line)`, of `Folder`.

    Returns:
        The pairs, the best first; each clip's best 16 at most.
    """
    found: dict[tuple[int, int], float] = {}
    for kind, (least_magnitude, least_phase) in enumerate(_LEAST):
        lines = [both[kind] for both in spectra]
        for first, second in _alike_pairs(lines, least_magnitude):
            agreement = _phase_agreement(lines, first, second)
            for i, j, value in zip(
                first.tolist(), second.tolist(), agreement.tolist(), strict=True
            ):
                if value >= least_phase:
                    found[i, j] = max(value, found.get((i, j), 0.0))
    taken = [0] * len(spectra)
    candidates = []
    for (i, j), value in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        if min(taken[i], taken[j]) < _COMPARED:
            taken[i] += 1
            taken[j] += 1
            candidates.append(Candidate(i, j, value))
    return candidates


def _whitened(spectrum: Complexes) -> npt.NDArray[np.complex64]:
    """The lines of a spectrum, divided by their smooth course, of norm 1."""
    lines = np.zeros(_LINES.stop - _LINES.start, np.complex128)
    found = spectrum[_LINES]
    lines[: len(found)] = found
    level = np.sqrt(smooth(np.abs(lines) ** 2, _SMOOTHING).clip(min=0))
    lines /= level + _FLOOR * level.max() + np.finfo(np.float64).tiny
    norm = np.linalg.norm(lines)
    return (lines / max(float(norm), 1e-30)).astype(np.complex64)


def _magnitudes(lines: Sequence[npt.NDArray[np.complex64]]) -> npt.NDArray[np.float32]:
    """What is compared first, of norm 1: how far each line's root magnitude stands out."""
    roots = np.sqrt(np.abs(np.stack(lines)))
    deviation = roots - smooth(roots, _SMOOTHING)
    # A click's spectrum is smooth: nothing stands out, and nothing tells it from another click.
    norms = np.linalg.norm(deviation, axis=1, keepdims=True)
    even = norms < 0.1 * np.linalg.norm(roots, axis=1, keepdims=True)
    return np.where(even, 0, deviation / np.where(even, 1, norms)).astype(np.float32)


def _alike_pairs(
    lines: Sequence[npt.NDArray[np.complex64]], least: float
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Pairs whose magnitudes agree, lower index first, each once, some rows at a time."""
    # In portions, since `smooth` works in float64.
    parts = [_magnitudes(lines[i : i + _ROWS]) for i in range(0, len(lines), _ROWS)]
    magnitudes = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    seen: set[tuple[int, int]] = set()
    for start in range(0, len(magnitudes), _ROWS):
        product = magnitudes[start : start + _ROWS] @ magnitudes.T
        product[np.arange(len(product)), start + np.arange(len(product))] = -1
        pairs: set[tuple[int, int]] = set()
        for row in np.flatnonzero((product >= least).any(axis=1)):
            others = np.flatnonzero(product[row] >= least)
            if len(others) > _NEIGHBOURS:
                others = others[np.argsort(-product[row, others], kind="stable")[:_NEIGHBOURS]]
            own = start + int(row)
            pairs |= {(min(own, other), max(own, other)) for other in others.tolist()}
        pairs -= seen
        seen |= pairs
        if pairs:
            first, second = np.array(sorted(pairs)).T
            yield first, second


def _phase_agreement(
    lines: Sequence[npt.NDArray[np.complex64]],
    first: npt.NDArray[np.intp],
    second: npt.NDArray[np.intp],
) -> npt.NDArray[np.float32]:
    """The correlation of pairs of folded clips at the lag where it is largest, of either sign."""
    agreement = np.empty(len(first), np.float32)
    for start in range(0, len(first), _ROWS):
        part = slice(start, start + _ROWS)
        ones = np.stack([lines[i] for i in first[part]])
        others = np.stack([lines[j] for j in second[part]])
        cross = np.zeros((len(ones), _LAGS // 2 + 1), np.complex64)
        cross[:, _LINES] = ones * others.conj()
        agreement[part] = np.abs(np.fft.irfft(cross, _LAGS)).max(axis=1) * (_LAGS / 2)
    return agreement
