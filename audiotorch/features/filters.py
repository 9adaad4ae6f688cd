"""Windows and filter banks, built in float64 as librosa builds them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.features.wavelets import C1_HZ

__all__ = [
    "chroma_bins",
    "cq_to_chroma",
    "dct_matrix",
    "hz_to_mel",
    "mel_bank",
    "mel_frequencies",
    "mel_to_hz",
    "symmetric_window",
    "window",
]

# Slaney's Auditory Toolbox: linear below 1 kHz, 27 steps per factor 6.4 above.
_HZ_PER_MEL = 200.0 / 3
_LOG_START_HZ = 1000.0
_LOG_START_MEL = _LOG_START_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def window(name: str, win_length: int, n_fft: int) -> Tensor:
    """Return a periodic window, zero-padded evenly to the FFT size.

    Args:
        name: any name that `scipy.signal.get_window` knows, such as `"hann"`.
        win_length: samples of the window, 1 to `n_fft`.
        n_fft: FFT size in samples.

    Shape:
        - Output: `(n_fft,)`, float64.

    Raises:
        ParameterError: unknown name, or `win_length` outside 1 to `n_fft`.

    Reference:
        Same values as `librosa.filters.get_window` and `librosa.util.pad_center`.
    """
    # Imported where it is used: at the top it would be a third of the time audiotorch loads in.
    import scipy.signal

    if not 1 <= win_length <= n_fft:
        raise ParameterError(f"win_length={win_length}: must lie in 1 to n_fft={n_fft}")
    try:
        values = scipy.signal.get_window(name, win_length, fftbins=True)
    except ValueError as error:
        raise ParameterError(f"window={name!r}: scipy.signal.get_window says: {error}") from error
    left = (n_fft - win_length) // 2
    return torch.from_numpy(np.pad(values, (left, n_fft - win_length - left)))


def symmetric_window(name: str, size: int) -> np.ndarray:
    """Return a symmetric window, for smoothing.

    Args:
        name: any name that `scipy.signal.get_window` knows, such as `"hann"`.
        size: its length.

    Shape:
        - Output: `(size,)`, float64.

    Raises:
        ParameterError: unknown name.
    """
    import scipy.signal

    try:
        return np.asarray(scipy.signal.get_window(name, size, fftbins=False))
    except ValueError as error:
        raise ParameterError(f"window={name!r}: scipy.signal.get_window says: {error}") from error


def hz_to_mel(frequencies: np.ndarray, *, htk: bool = False) -> np.ndarray:
    """Convert Hz to mel on the Slaney scale, or on HTK's.

    Args:
        frequencies: Hz, at least 0.
        htk: use `2595 log10(1 + f / 700)` instead of Slaney's scale.

    Shape:
        - Input: any.
        - Output: as the input.

    Reference:
        Same values as `librosa.hz_to_mel`.
    """
    hz = np.asarray(frequencies, dtype=np.float64)
    if htk:
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    logarithmic = _LOG_START_MEL + np.log(np.maximum(hz, _LOG_START_HZ) / _LOG_START_HZ) / _LOG_STEP
    return np.where(hz >= _LOG_START_HZ, logarithmic, hz / _HZ_PER_MEL)


def mel_to_hz(mels: np.ndarray, *, htk: bool = False) -> np.ndarray:
    """Convert mel to Hz; the inverse of `hz_to_mel`.

    Args:
        mels: mel values, at least 0.
        htk: HTK's scale instead of Slaney's.

    Shape:
        - Input: any.
        - Output: as the input.

    Reference:
        Same values as `librosa.mel_to_hz`.
    """
    mel = np.asarray(mels, dtype=np.float64)
    if htk:
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = np.maximum(mel - _LOG_START_MEL, 0.0)
    logarithmic = _LOG_START_HZ * np.exp(_LOG_STEP * above)
    return np.where(mel >= _LOG_START_MEL, logarithmic, mel * _HZ_PER_MEL)


def mel_frequencies(n: int, fmin: float, fmax: float, *, htk: bool = False) -> np.ndarray:
    """Return `n` frequencies in Hz that are evenly spaced in mel from `fmin` to `fmax`.

    Args:
        n: how many.
        fmin: first frequency, Hz.
        fmax: last frequency, Hz.
        htk: HTK's scale instead of Slaney's.

    Shape:
        - Output: `(n,)`, float64.

    Reference:
        Same values as `librosa.mel_frequencies`.
    """
    low, high = hz_to_mel(np.array([fmin, fmax]), htk=htk)
    return mel_to_hz(np.linspace(low, high, n), htk=htk)


def mel_bank(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    *,
    fmin: float = 0.0,
    fmax: float | None = None,
    htk: bool = False,
    norm: str | None = "slaney",
) -> Tensor:
    """Return triangular mel filters over the FFT bins.

    librosa holds this bank in float32 while it is made, so the values here are rounded at the same
    two places; in float64 the two then agree exactly.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        n_mels: number of bands.
        fmin: lowest frequency, Hz, at least 0.
        fmax: highest frequency, Hz, at most `sample_rate / 2`; `None` means just that.
        htk: HTK's mel scale instead of Slaney's.
        norm: `"slaney"` gives each band unit area; `None` leaves unit peaks.

    Shape:
        - Output: `(n_mels, 1 + n_fft // 2)`, float32.

    Raises:
        ParameterError: frequencies out of order or above Nyquist, an unknown norm, or bands so
            narrow that they hold no FFT bin.

    Reference:
        Same values as `librosa.filters.mel`.
    """
    top = sample_rate / 2 if fmax is None else fmax
    if not 0 <= fmin < top <= sample_rate / 2:
        raise ParameterError(
            f"fmin={fmin}, fmax={fmax}: need 0 <= fmin < fmax <= {sample_rate / 2} Hz, "
            f"half of sample_rate={sample_rate}"
        )
    if n_mels < 1:
        raise ParameterError(f"n_mels={n_mels}: must be at least 1")
    if norm not in ("slaney", None):
        raise ParameterError(f"norm={norm!r}: must be 'slaney' or None")
    edges = mel_frequencies(n_mels + 2, fmin, top, htk=htk)
    width = np.diff(edges)
    ramps = edges[:, None] - np.fft.rfftfreq(n_fft, 1.0 / sample_rate)[None, :]
    rising, falling = -ramps[:-2] / width[:-1, None], ramps[2:] / width[1:, None]
    bank = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    if norm == "slaney":
        bank = (bank * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    empty = np.flatnonzero(bank.max(axis=1) == 0)
    if len(empty):
        raise ParameterError(
            f"n_mels={n_mels}: {len(empty)} bands hold no FFT bin (the first is band {empty[0]}); "
            f"lower n_mels, or raise n_fft={n_fft}"
        )
    return torch.from_numpy(bank)


def dct_matrix(n_out: int, n_in: int, *, dct_type: int = 2, norm: str | None = "ortho") -> Tensor:
    """Return the matrix of a discrete cosine transform.

    Args:
        n_out: coefficients kept, 1 to `n_in`.
        n_in: length of the input axis.
        dct_type: 1, 2, 3 or 4.
        norm: `"ortho"` or `None`.

    Shape:
        - Output: `(n_out, n_in)`, float64.

    Raises:
        ParameterError: `n_out` outside 1 to `n_in`, unknown type or norm.

    Reference:
        `scipy.fft.dct` applied to the identity.
    """
    import scipy.fft

    if not 1 <= n_out <= n_in:
        raise ParameterError(f"n_mfcc={n_out}: must lie in 1 to n_mels={n_in}")
    if dct_type not in (1, 2, 3, 4):
        raise ParameterError(f"dct_type={dct_type}: must be 1, 2, 3 or 4")
    if norm not in ("ortho", None):
        raise ParameterError(f"dct norm={norm!r}: must be 'ortho' or None")
    matrix = scipy.fft.dct(np.eye(n_in), type=dct_type, norm=norm, axis=0)
    return torch.from_numpy(matrix[:n_out].copy())


def chroma_bins(
    sample_rate: int, n_fft: int, n_chroma: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place the FFT bins on the scale whose A4 is 440 Hz.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        n_chroma: pitch classes of an octave.

    Shape:
        - Output: three times `(1 + n_fft // 2,)`, float64: each bin's pitch above A0 = 27.5 Hz in
          pitch classes and in octaves, and its width in pitch classes, at least 1.

    Reference:
        Same values as inside `librosa.filters.chroma`, which puts the bin of 0 Hz one and a half
        octaves below the first.
    """
    frequencies = np.arange(1, 2 + n_fft // 2) * (sample_rate / n_fft)
    classes = n_chroma * np.log2(frequencies / 27.5)
    classes = np.concatenate([[classes[0] - 1.5 * n_chroma], classes])
    width = np.maximum(np.diff(classes), 1.0)
    classes = classes[:-1]
    return classes, classes / n_chroma, width


def cq_to_chroma(
    n_bins: int,
    bins_per_octave: int,
    n_chroma: int = 12,
    *,
    fmin: float | None = None,
    window: Sequence[float] | None = None,
    base_c: bool = True,
) -> Tensor:
    """Return the weights with which constant-Q bins add up to pitch classes.

    Args:
        n_bins: bins of the transform.
        bins_per_octave: steps of an octave, a multiple of `n_chroma`.
        n_chroma: pitch classes of an octave.
        fmin: centre of the lowest bin, Hz; `None` = the note C1, 32.7 Hz.
        window: weights with which each pitch class's neighbouring bins count too.
        base_c: the first row is C, else A.

    Shape:
        - Output: `(n_chroma, n_bins)`, float32.

    Raises:
        ParameterError: `bins_per_octave` is no multiple of `n_chroma`.

    Reference:
        Same values as `librosa.filters.cq_to_chroma`.
    """
    if bins_per_octave < 1 or bins_per_octave % n_chroma:
        raise ParameterError(
            f"bins_per_octave={bins_per_octave}: must be a multiple of n_chroma={n_chroma}"
        )
    merged = bins_per_octave // n_chroma
    # A pitch class's own bin is the middle one of those merged.
    column = (np.arange(n_bins) + merged // 2) // merged % n_chroma
    semitones = 12.0 * np.log2((C1_HZ if fmin is None else fmin) / C1_HZ) % 12.0
    turn = round((semitones - (0.0 if base_c else 9.0)) * n_chroma / 12.0)
    bank = np.arange(n_chroma)[:, None] == (column + turn) % n_chroma
    weights = bank.astype(np.float32)
    if window is not None:
        import scipy.signal

        weights = scipy.signal.convolve(weights, np.atleast_2d(window), mode="same")
    return torch.from_numpy(weights.astype(np.float32))
