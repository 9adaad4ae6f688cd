"""The filters of constant-Q transforms: windowed complex tones, as librosa builds them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from audiotorch.errors import ParameterError

__all__ = [
    "C1_HZ",
    "bandwidth_offsets",
    "frequencies_of",
    "relative_bandwidths",
    "wavelet_bank",
    "window_bandwidth",
]

C1_HZ = 440.0 * 2.0 ** (-45 / 12)
"""The note C1, 32.7 Hz, the lowest bin by default."""

_ERB_OFFSET_HZ = 24.7
_ERB_SLOPE = 0.108

Array = npt.NDArray[np.float64]


def frequencies_of(
    n_bins: int, fmin: float, bins_per_octave: int, intervals: str | Sequence[float] = "equal"
) -> Array:
    """Return centre frequencies in Hz, in ascending order.

    Args:
        n_bins: how many, at least 1.
        fmin: the first, Hz, above 0.
        bins_per_octave: steps of an octave.
        intervals: `"equal"`, or the steps of an octave as ratios in [1, 2).

    Shape:
        - Output: `(n_bins,)`

    Raises:
        ParameterError: an argument is out of range.

    Reference:
        Same values as `librosa.interval_frequencies`.
    """
    if n_bins < 1 or bins_per_octave < 1:
        raise ParameterError(
            f"n_bins={n_bins}, bins_per_octave={bins_per_octave}: must be at least 1"
        )
    if not fmin > 0:
        raise ParameterError(f"fmin={fmin}: must be greater than 0")
    if isinstance(intervals, str):
        if intervals != "equal":
            raise ParameterError(f"intervals={intervals!r}: must be 'equal' or ratios in [1, 2)")
        ratios = 2.0 ** (np.arange(bins_per_octave) / bins_per_octave)
    else:
        ratios = np.asarray(intervals, dtype=float)
        if len(ratios) < 1 or not (ratios >= 1).all() or not (ratios < 2).all():
            raise ParameterError(f"intervals={[*intervals]}: must be 'equal' or ratios in [1, 2)")
    octaves = 2.0 ** np.arange(-(-n_bins // len(ratios)))
    return np.sort(np.outer(octaves, ratios).ravel()[:n_bins]) * fmin


def relative_bandwidths(frequencies: Array, bins_per_octave: int) -> Array:
    """Return each bin's bandwidth as a share of its frequency, from the distance of its neighbours.

    Args:
        frequencies: Hz, ascending, `(n_bins,)`.
        bins_per_octave: counts only where there is one frequency.

    Shape:
        - Output: `(n_bins,)`
    """
    if len(frequencies) == 1:
        steps = np.full(1, 2.0 / bins_per_octave)
    else:
        octaves = np.log2(frequencies)
        # An end has one neighbour only, and stands in for the other.
        steps = np.empty_like(octaves)
        steps[1:-1] = octaves[2:] - octaves[:-2]
        steps[0], steps[-1] = 2 * (octaves[1] - octaves[0]), 2 * (octaves[-1] - octaves[-2])
    ratio = 2.0**steps
    return (ratio - 1) / (ratio + 1)


def window_bandwidth(window: str) -> float:
    """Return a window's equivalent noise bandwidth in FFT bins; Hann's is 1.5."""
    values = _window(window, 1000)
    return float(len(values) * np.sum(values**2) / np.sum(np.abs(values)) ** 2)


def bandwidth_offsets(alpha: Array, gamma: float | None) -> Array:
    """Return what is added to each bandwidth `alpha f`, Hz.

    Args:
        alpha: relative bandwidths, `(n_bins,)`.
        gamma: the offset; `None` makes all bandwidths one share of the ear's, which is
            `24.7 + 0.108 f`.

    Shape:
        - Output: `(n_bins,)`

    Reference:
        Glasberg and Moore (1990), Derivation of auditory filter shapes from notched-noise data.
    """
    return alpha * (_ERB_OFFSET_HZ / _ERB_SLOPE) if gamma is None else np.full_like(alpha, gamma)


def wavelet_bank(
    frequencies: Array,
    lengths: Array,
    n_fft: int,
    *,
    window: str = "hann",
    norm: float | None = 1.0,
    sparsity: float = 0.01,
) -> npt.NDArray[np.complex128]:
    """Return the spectra of windowed complex tones, without their smallest values.

    Args:
        frequencies: cycles per sample, `(rows,)`.
        lengths: samples of each tone, fractions too, `(rows,)`, at most `n_fft`.
        n_fft: FFT size in samples; tones lie in its middle.
        window: name of the window.
        norm: each tone's norm is 1; `None` leaves the window's own size.
        sparsity: share of a row's sum of magnitudes that is set to 0, smallest first.

    Shape:
        - Output: `(rows, 1 + n_fft // 2)`

    Reference:
        The basis inside `librosa.vqt`.
    """
    tones = np.zeros((len(frequencies), n_fft), dtype=np.complex128)
    for row, (frequency, length) in enumerate(zip(frequencies, lengths, strict=True)):
        time = np.arange(np.floor(-length / 2), np.floor(length / 2))
        tone = np.exp(2j * np.pi * frequency * time) * _window(window, len(time))
        if norm is not None:
            tone /= np.linalg.norm(tone, norm)
        left = (n_fft - len(time)) // 2
        tones[row, left : left + len(time)] = tone * (length / n_fft)
    spectra = np.fft.fft(tones)[:, : 1 + n_fft // 2]
    magnitudes = np.abs(spectra)
    ascending = np.sort(magnitudes, axis=1)
    below = np.cumsum(ascending, axis=1) < sparsity * ascending.sum(axis=1, keepdims=True)
    smallest = np.take_along_axis(ascending, below.sum(axis=1, keepdims=True), axis=1)
    return np.where(magnitudes >= smallest, spectra, 0.0)


def _window(name: str, size: int) -> Array:
    import scipy.signal

    try:
        return scipy.signal.get_window(name, size, fftbins=True)
    except ValueError as error:
        raise ParameterError(f"window={name!r}: scipy.signal.get_window says: {error}") from error
