"""One clip: its features, and what is done to it before."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiotorch.audio import Normalize, PadOrTrim, ReduceNoise, RemoveSilence
from audiotorch.audio.io import LOUDEST
from audiotorch.audio.preprocess import check_rate
from audiotorch.errors import ParameterError
from audiotorch.features import FeatureExtractor, SummaryVector

__all__ = [
    "MIN_SECONDS",
    "TABLE",
    "apply_noise_reduction",
    "extract_all_librosa_features",
    "extract_audio_features_summary",
    "normalize_audio",
    "pad_or_trim",
    "remove_silence",
    "summary_vector",
]

Array = npt.NDArray[Any]

MIN_SECONDS = 0.5
"""Shorter recordings are padded to it before their features are taken."""

_CURVES = (
    "zero_crossing_rate",
    "rms",
    "spectral_centroid",
    "spectral_bandwidth",
    "spectral_rolloff",
)
_OTHERS = (
    "spectral_contrast",
    "mfcc",
    "tempo",
    "chroma_stft",
    "chroma_cens",
    "harmonic_ratio",
    "tonnetz",
)
TABLE = (*_CURVES, *_OTHERS)
"""The article's reference table, in its order."""


def extract_audio_features_summary(y: Array, sr: int, n_mfcc: int = 13) -> Array:
    """Sum a clip up in 270 numbers, those of `SummaryVector`, in its order.

    Args:
        y: float32 or float64 samples.
        sr: Hz; the numbers are those at this rate.
        n_mfcc: coefficients; there are `12 * n_mfcc + 114` numbers.

    Shape:
        - Input: `(n,)`, at least 4096 samples, which the deltas need
        - Output: `(270,)`, float64, as a loop over librosa gives it

    Raises:
        ParameterError: `y` is no such array, holds samples that are not finite, or is too short.
    """
    waveform = _waveform(y)
    front_end = summary_vector(sr, n_mfcc)
    if len(waveform) < front_end.min_samples:
        raise ParameterError(
            f"y of {len(waveform)} samples: the deltas need {front_end.min_samples}; lengthen it, "
            f"such as pad_or_trim(y, sr, {max(MIN_SECONDS, front_end.min_samples / sr):g})"
        )
    return _numpy(front_end(waveform[None])[0].double())


def extract_all_librosa_features(y: Array, sr: int) -> dict[str, Array]:
    """Compute every feature of the article's reference table; each spectrum once.

    Args:
        y: float32 or float64 samples.
        sr: Hz, at least 12,800, which the contrast's highest band needs.

    Returns:
        `zero_crossing_rate rms spectral_centroid spectral_bandwidth spectral_rolloff` `(frames,)`;
        `spectral_contrast (7, frames)`, `mfcc (13, frames)`, `tempo (1,)`,
        `chroma_stft chroma_cens (12, frames)`, `harmonic_ratio (1,)`, the share of the energy that
        the harmonic part has, and `tonnetz (6, frames)` of the harmonic part; in the dtype of `y`.

    Raises:
        ParameterError: `y` is no such array or holds samples that are not finite, or `sr` is too
            low.
    """
    waveform = _waveform(y)
    found: dict[str, Tensor] = _extractor(sr)(waveform[None])
    return {name: _numpy(x[0, 0] if name in _CURVES else x[0]) for name, x in found.items()}


def normalize_audio(y: Array, method: str = "peak") -> Array:
    """Scale a clip to peak 1, or to a root mean square of 0.1; silence stays silence.

    Args:
        y: float32 or float64 samples.
        method: `"peak"` or `"rms"`; with `"rms"` peaks may exceed 1.

    Shape:
        - Input: `(n,)`
        - Output: the same

    Raises:
        ParameterError: `y` is no such array or holds samples that are not finite, or another
            method.
    """
    return _numpy(Normalize(method)(_waveform(y))[0])


def remove_silence(y: Array, sr: int, top_db: float = 20.0, pad_ms: float = 50) -> Array:
    """Cut out what lies `top_db` or more below the loudest frame, and join what is left.

    The intervals are those of `librosa.effects.split`, each widened on both sides within the clip;
    those that overlap then are one. A clip without any sound stays whole.

    Args:
        y: float32 or float64 samples.
        sr: Hz.
        top_db: decibels, above 0.
        pad_ms: milliseconds that each interval is widened by.

    Shape:
        - Input: `(n,)`
        - Output: `(m,)`, m at most n

    Raises:
        ParameterError: `y` is no such array or holds samples that are not finite, or an argument
            is out of range.
    """
    waveform, length = RemoveSilence(sr, top_db, pad_ms)(_waveform(y))
    return _numpy(waveform[: int(length)])


def apply_noise_reduction(y: Array, noise_factor: float = 0.1) -> Array:
    """Subtract a clip's own background noise from its spectrum, as `ReduceNoise` does.

    Args:
        y: float32 or float64 samples.
        noise_factor: how much of the noise is subtracted, at least 0.

    Shape:
        - Input: `(n,)`
        - Output: the same

    Raises:
        ParameterError: `y` is no such array or holds samples that are not finite, or
            `noise_factor` is out of range.
    """
    return _numpy(ReduceNoise(noise_factor)(_waveform(y))[0])


def pad_or_trim(y: Array, sr: int, target_duration: float) -> Array:
    """Cut a clip, or follow it by silence, to one duration.

    Args:
        y: float32 or float64 samples.
        sr: Hz.
        target_duration: seconds, above 0.

    Shape:
        - Input: `(n,)`
        - Output: `(round(target_duration * sr),)`

    Raises:
        ParameterError: `y` is no such array or holds samples that are not finite, or an argument
            is out of range.
    """
    return _numpy(PadOrTrim(sr, target_duration)(_waveform(y))[0])


@lru_cache(maxsize=8, typed=True)
def summary_vector(sr: int, n_mfcc: int = 13) -> SummaryVector:
    """Return the module of the 270 numbers, built once.

    Args:
        sr: Hz.
        n_mfcc: coefficients.

    Raises:
        ParameterError: an argument is out of range.
    """
    return SummaryVector(check_rate("sr", sr), n_mfcc)


@lru_cache(maxsize=4, typed=True)
def _extractor(sr: int) -> FeatureExtractor:
    rate = check_rate("sr", sr)
    try:
        return FeatureExtractor(list(TABLE), rate)
    except ParameterError as error:
        raise ParameterError(f"sr={sr}: too low for all features; resample: {error}") from error


def _waveform(y: Array) -> Tensor:
    """Return a clip as a tensor `(n,)`."""
    if not isinstance(y, np.ndarray) or y.dtype.kind != "f" or y.dtype.itemsize not in (4, 8):
        kind = y.dtype if isinstance(y, np.ndarray) else type(y).__name__
        raise ParameterError(
            f"y of {kind}: must be an array of float32 or float64 in about [-1, 1]; divide int16 "
            "samples by 32768"
        )
    if y.ndim != 1 or y.size == 0:
        raise ParameterError(
            f"y of shape {y.shape}: must be (n,), one channel with samples; average channels, such "
            "as by librosa.to_mono"
        )
    sound = np.abs(y) <= LOUDEST
    if not sound.all():
        first = int(np.argmin(sound))
        raise ParameterError(
            f"y[{first}]={y[first]}: every sample must be finite, and within {LOUDEST:g} as in a "
            "file; repair the clip"
        )
    # torch takes neither foreign byte orders nor negative strides, and warns of read-only arrays.
    return torch.from_numpy(np.require(y, y.dtype.newbyteorder("="), ["C", "W"]))


def _numpy(x: Tensor) -> Array:
    """Return what is the caller's alone: no view of the input, nor of more than the answer."""
    answer: Array = x.numpy().copy()
    return answer
