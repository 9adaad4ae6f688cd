"""Whether two clips are one recording: their waveforms laid over each other and compared."""

import itertools
import math
import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soxr
from scipy.fft import next_fast_len

from audiotorch.audio.reader import open_audio
from audiotorch.data.fingerprint import smooth

__all__ = ["Excerpt", "overlap_of_copies", "read_excerpt"]

Waveform = npt.NDArray[np.float64]

_SECONDS = 30.0  # from a recording's start that are compared
_RATE = 8000  # Hz that is enough to compare at
_SMOOTHING = 40.0  # Hz to each side
_FLOOR = 0.003  # of the strongest stretch of a spectrum
_BANDS = (50, 100, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3600)  # Hz
_USED = 0.45  # of the lower rate; above it, resampling filters
_EMPTY = 1e-6  # of the strongest band, in power a Hz: nothing but what a codec left
_N_BANDS = 3  # with sound in both; a lone tone proves nothing
_SHORTEST = 0.1  # seconds that both have
_FLAT = 5  # neighbours at the very peak that tell a clipped waveform
_AT_PEAK = 0.9999
_STEPS = 33  # within a sample to each side
_REACH = 16  # samples that an interpolator takes to each side
_FEWEST = 4  # lines of a band
_PEAK_SECONDS = 0.002  # to each side of a correlation's peak that belong to it
_RIVAL = 0.98  # of the peak

# What proves a copy, any of these: coherence of the median band, of the lower quartile, and the
# agreement of the signs. In eight sets of recordings, those with like fingerprints that are no
# copies reach 0.87, 0.77 and 0.36, two takes of a word 0.87, 0.77 and 0.11; copies through the
# lowest quality of MP3 0.88, 0.85 and 0.59 in factory noise, 0.93, 0.86 and 0.31 in speech at
# 8 kHz; clipped copies that were coded or resampled afterwards 0.50, 0.24 and 0.55.
_PROOFS = ((0.96, 0.92, 0.0), (0.9, 0.8, 0.2), (0.45, -1.0, 0.5))
_SHARE = 0.5  # of the shorter one's sound that the other must hold


@dataclass(frozen=True)
class Excerpt:
    """The start of a recording, channels averaged.

    Args:
        samples: `(time,)`
        sample_rate: Hz.
    """

    samples: Waveform
    sample_rate: int

    def at(self, sample_rate: int) -> Waveform:
        """The samples at another rate.

        Args:
            sample_rate: Hz.
        """
        if sample_rate == self.sample_rate:
            return self.samples
        resampled: Waveform = soxr.resample(
            self.samples, self.sample_rate, sample_rate, quality="HQ"
        )
        return resampled

    @property
    def flat_tops(self) -> int:
        """How many neighbours stand at the same extreme: 0 to 2 in a waveform not clipped."""
        peak = np.abs(self.samples).max(initial=0.0)
        top = np.sign(self.samples) * (np.abs(self.samples) >= _AT_PEAK * peak)
        return int(np.count_nonzero(top[1:] * top[:-1] > 0)) if peak > 0 else 0


def read_excerpt(path: str | os.PathLike[str]) -> Excerpt:
    """Decode the first half minute of a recording.

    Args:
        path: the file.

    Raises:
        DecodeError: it cannot be read.
    """
    with open_audio(path) as file:
        samples = file.read(int(_SECONDS * file.sample_rate))
        return Excerpt(samples.mean(axis=1, dtype=np.float64), file.sample_rate)


def overlap_of_copies(one: Excerpt, other: Excerpt) -> float:
    """Tell how much of the shorter clip's sound the other holds, if they are one recording.

    The clips are shifted to where they agree best, to a fraction of a sample. There, what both
    have must be coherent in most bands of the spectrum: of two takes, machines or rains it is not,
    and a hum or beat that both share makes up few of the bands. If one is clipped, the other is
    clipped alike before they are compared.

    Args:
        one: a clip.
        other: the other.

    Returns:
        The share, 0.5 to 1; 0 if they are no copies of each other, or share less.
    """
    source, copy = sorted((one, other), key=lambda clip: clip.flat_tops)
    clipped = copy.flat_tops >= _FLAT
    limit = min(source.sample_rate, copy.sample_rate)
    # Flat tops are flat only where they were made, before any resampling.
    rate = copy.sample_rate if clipped else min(_RATE, limit)
    x, y = source.at(rate), copy.at(rate)
    fit = _best_fit(np.sign(y), np.sign(x), rate) if clipped else _best_fit(y, x, rate)
    lag, sign = fit.lag, fit.sign
    start, stop = max(0, math.ceil(lag)), min(len(y), math.floor(len(x) + lag))
    if stop - start < _SHORTEST * rate or not fit.unique:
        return 0.0
    moved, kept = sign * _delayed(x, lag, len(y))[start:stop], y[start:stop]
    share = max(_energy(moved) / (_energy(x) or 1), _energy(kept) / (_energy(y) or 1))
    if share < _SHARE:
        return 0.0
    if clipped:
        moved = _clipped_alike(moved, kept)
    bands = _coherence(moved, kept, rate, _USED * limit)
    if len(bands) < _N_BANDS:
        return 0.0
    median, quartile = np.quantile(bands, (0.5, 0.25))
    open_proofs = [signs for m, q, signs in _PROOFS if median >= m and quartile >= q]
    if not open_proofs:
        return 0.0
    least = min(open_proofs)
    same = least == 0 or _best_fit(np.sign(y), np.sign(x), rate).agreement >= least
    return min(1.0, share) if same else 0.0


def _energy(samples: Waveform) -> float:
    return float(np.vdot(samples, samples))


def _flattened(samples: Waveform, n_fft: int, rate: int) -> npt.NDArray[np.complex128]:
    """A spectrum without its smooth course, and with lines that stand out held down."""
    spectrum = np.fft.rfft(samples, n_fft)
    width = max(1, round(_SMOOTHING * n_fft / rate))
    level = np.sqrt(smooth(np.abs(spectrum) ** 2, width).clip(min=0))
    hertz = np.arange(len(spectrum)) * (rate / n_fft)
    used = (hertz >= 25) & (hertz <= min(_BANDS[-1], _USED * rate))
    level += _FLOOR * level[used].max(initial=0.0) + np.finfo(np.float64).tiny
    return _compressed(np.where(used, spectrum / level, 0))


def _compressed(spectrum: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    return spectrum / np.sqrt(np.abs(spectrum) + np.finfo(np.float64).tiny)


class _Fit(NamedTuple):
    lag: float  # samples that the first is behind the second
    sign: float  # -1 where one is the other upside down
    agreement: float  # 0 to 1
    unique: bool  # a lasting hum fits itself after every period: no proof of anything


def _best_fit(y: Waveform, x: Waveform, rate: int) -> _Fit:
    n_fft = next_fast_len(len(x) + len(y), real=True)
    ys, xs = _flattened(y, n_fft, rate), _flattened(x, n_fft, rate)
    correlation = np.fft.irfft(ys * xs.conj(), n_fft)
    lag = int(np.argmax(np.abs(correlation)))
    # The band ends well below half the rate: a short interpolator is exact enough.
    near = np.arange(-_REACH, _REACH + 1)
    steps = np.linspace(-1, 1, _STEPS)
    distance = steps[:, None] - near
    weights = np.sinc(distance) * np.cos(np.pi / 2 * distance / (_REACH + 1)) ** 2
    values = weights @ correlation[(lag + near) % n_fft]
    best = int(np.argmax(np.abs(values)))
    norm = np.linalg.norm(ys) * np.linalg.norm(xs) * 2 / n_fft
    start = lag - n_fft if lag > len(y) else lag
    around = round(_PEAK_SECONDS * rate)
    correlation[(lag + np.arange(-around, around + 1)) % n_fft] = 0
    return _Fit(
        lag=float(start + steps[best]),
        sign=1.0 if values[best] >= 0 else -1.0,
        agreement=float(abs(values[best]) / max(norm, 1e-30)),
        unique=bool(np.abs(correlation).max() < _RIVAL * abs(values[best])),
    )


def _delayed(samples: Waveform, lag: float, n_samples: int) -> Waveform:
    """A clip that begins `lag` samples later, cut or padded to a length."""
    whole = math.floor(lag)
    if lag > whole:
        n_fft = next_fast_len(len(samples) + 2 * _REACH, real=True)
        turn = np.exp(-2j * np.pi * (lag - whole) / n_fft * np.arange(n_fft // 2 + 1))
        samples = np.fft.irfft(np.fft.rfft(samples, n_fft) * turn, n_fft)[: len(samples) + 1]
    delayed = np.zeros(n_samples)
    start, stop = max(0, whole), min(n_samples, whole + len(samples))
    delayed[start:stop] = samples[start - whole : stop - whole]
    return delayed


def _clipped_alike(samples: Waveform, clipped: Waveform) -> Waveform:
    """A waveform, scaled to fit another where that is not clipped, and then clipped as it is."""
    peak = np.abs(clipped).max()
    free = np.abs(clipped) < 0.98 * peak
    power = np.vdot(samples[free], samples[free])
    if power == 0:  # all that is left of the clipped one are signs
        return peak * np.sign(samples)
    return (samples * (np.vdot(samples[free], clipped[free]) / power)).clip(-peak, peak)


def _coherence(x: Waveform, y: Waveform, rate: int, highest: float) -> list[float]:
    """The correlation of two aligned waveforms in each band where both have sound."""
    n_fft = next_fast_len(len(x), real=True)
    hertz = np.arange(n_fft // 2 + 1) * (rate / n_fft)
    found = []
    spectra = np.fft.rfft(x, n_fft), np.fft.rfft(y, n_fft)
    for low, high in itertools.pairwise((*(f for f in _BANDS if f < highest), highest)):
        part = slice(*np.searchsorted(hertz, (low, min(high, _BANDS[-1]))))
        if part.stop - part.start < _FEWEST:
            continue
        a, b = (spectrum[part] for spectrum in spectra)
        power = [float(np.mean(np.abs(values) ** 2)) for values in (a, b)]
        a, b = _compressed(a), _compressed(b)
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        found.append((*power, float(np.vdot(a, b).real) / max(norm, 1e-30)))
    if not found:
        return []
    powers, coherence = np.array(found)[:, :2], np.array(found)[:, 2]
    sounding = (powers > _EMPTY * powers.max(axis=0)).all(axis=1)
    return [float(value) for value in coherence[sounding]]
