"""The highest frequency in a recording, and the cliff that resampling leaves in its spectrum."""

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["bandwidth", "find_cliff", "spectrum_size"]

Spectrum = npt.NDArray[np.float64]

_STEPS = 24  # of the frequency scale, an octave
_LOWEST_BIN = 12
_TOP = 0.985  # of half the rate; the last bins hold half a band
_HALF_CLIFF = 5  # steps to each side of a cliff's middle: 27 dB in 0.4 octave
_SHOULDER = 6  # steps looked at beside it
_DROP_DB = 27.0
_STAYS_DOWN_DB = 15.0  # nothing above comes nearer than this to the level below
_ABOVE_FLOOR_DB = 15.0  # over the noise of 16 bits; a microphone's own noise lies higher
_QUIETEST_DB = 57.0  # and this far below the recording's level, as a microphone's seldom does
_FULL_DB = 10.0  # over that floor, in nearly all bands below a cliff, and in most no more than
# this below its edge: sound, not the skirts of single tones


def spectrum_size(sample_rate: int) -> int:
    """Samples of a frame of about 32 ms, a power of two.

    Args:
        sample_rate: Hz.
    """
    return max(16, int(2 ** round(np.log2(0.032 * sample_rate))))


def _over_16_bits(power: Spectrum, n_bins: int) -> Spectrum:
    """Decibels over the level that the rounding to 16 bits alone gives a bin."""
    rounding = 2.0**-30 / 12 * 0.375 / (2 * n_bins)  # 0.375 is the mean square of a Hann window
    decibels: Spectrum = 10 * np.log10(power / rounding + 1e-12)
    return decibels


def bandwidth(power: Spectrum, sample_rate: int) -> float:
    """Return the highest frequency that stands out of the noise of 16 bits.

    That is 15 dB over it or, where the recording is quiet, 60 dB below its strongest band.

    Args:
        power: `(n_fft // 2 + 1,)`, mean of `|rfft(frame * hann) / n_fft|^2`
        sample_rate: Hz.
    """
    n_bins = len(power) - 1
    smooth = np.convolve(np.pad(power, 1, mode="edge"), np.ones(3) / 3, "valid")
    level = _over_16_bits(smooth, n_bins)
    heard = np.flatnonzero(level >= min(_ABOVE_FLOOR_DB, level.max() - 60))
    return float(heard[-1] * sample_rate / (2 * n_bins))


def find_cliff(power: Spectrum, sample_rate: int, level: float) -> float | None:
    """Find the frequency above which there is nothing although there is sound right up to it.

    Four things make a cliff: the level drops by 27 dB within 0.4 octave; the two octaves below
    are full of sound; what lies above, up to half the sample rate, is in the main no more than
    rounding to 16 bits leaves; and it lies 57 dB or more below the recording's level. A dull
    recording slopes, and its microphone's noise goes on to the end.

    Args:
        power: as for `bandwidth`.
        sample_rate: Hz.
        level: mean square of the samples, above 0.

    Returns:
        Hz, or `None` without a cliff.
    """
    n_bins = len(power) - 1
    centres, grid = _by_octaves(power)
    fine = _over_16_bits(power, n_bins)
    width = 2 * _HALF_CLIFF
    if len(grid) <= width + 2 * _SHOULDER + 2 * _STEPS:
        return None
    # Index i: the cliff reaches from grid[i + _SHOULDER] to grid[i + _SHOULDER + width].
    beside = sliding_window_view(grid, _SHOULDER + 1)
    below = beside[: -width - _SHOULDER].min(axis=1)
    above = beside[_SHOULDER + width :].max(axis=1)
    highest = np.maximum.accumulate(grid[::-1])[::-1][_SHOULDER + width : -_SHOULDER]
    drop = below - above
    allowed = min(_ABOVE_FLOOR_DB, 10 * np.log10(level * 12 * 2.0**30) - _QUIETEST_DB)
    found = np.flatnonzero((drop >= _DROP_DB) & (below - highest >= _STAYS_DOWN_DB))
    for index in found[np.argsort(-drop[found])]:
        start, stop = index + _SHOULDER, index + _SHOULDER + width
        if start < 2 * _STEPS:
            continue  # below bin 48, the skirts of a tone look alike
        floor = float(np.median(fine[int(centres[stop]) : int(_TOP * n_bins)]))
        octaves = grid[max(0, start - 2 * _STEPS) : start + 1]
        full = np.percentile(octaves, 10) >= max(floor, 0) + _FULL_DB
        full = full and np.median(octaves) >= below[index] - _FULL_DB
        if floor <= allowed and full:
            half = (below[index] + above[index]) / 2
            edge = start + np.flatnonzero(grid[start : stop + 1] >= half)[-1]
            return float(centres[edge] * sample_rate / (2 * n_bins))
    return None


def _by_octaves(power: Spectrum) -> tuple[Spectrum, Spectrum]:
    """Bins `(steps,)` at equal distances in pitch, and the mean level around each."""
    n_bins = len(power) - 1
    n_steps = int(_STEPS * np.log2(max(_TOP * n_bins / _LOWEST_BIN, 1)))
    centres = _LOWEST_BIN * 2 ** (np.arange(n_steps) / _STEPS)
    lows = np.floor(centres * 2 ** (-0.5 / _STEPS)).astype(int)
    highs = np.maximum(lows + 1, np.ceil(centres * 2 ** (0.5 / _STEPS)).astype(int))
    # Summed from the top, where the weakest bands lie, so that none drowns in rounding.
    sums = np.append(np.cumsum(power[::-1])[::-1], 0.0)
    return centres, _over_16_bits((sums[lows] - sums[highs]) / (highs - lows), n_bins)
