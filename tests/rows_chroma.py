"""Contract rows of the chroma features."""

import functools
from collections.abc import Callable

import librosa
import numpy as np
import torch
from contract import Row, absolute_error, share_beyond
from rows_constantq import centred_frames, octaves, tuning_of

from audiotorch.features import ChromaCENS, ChromaCQT, ChromaSTFT, Tonnetz

# DESIGN's shares: 99.9 % of a clip's values, 99 % of those of the quantised CENS.
MOST = {torch.float64: 1e-3, torch.float32: 1e-3}
NEARLY_ALL = {torch.float64: 1e-2, torch.float32: 1e-2}
TINY = {"sample_rate": 8000, "hop_length": 4, "fmin": 500.0, "n_octaves": 2}
TINY |= {"n_chroma": 3, "bins_per_octave": 3}

Feature = Callable[..., np.ndarray]


@functools.lru_cache(maxsize=64)
def fine_cqt(samples: bytes, dtype: str, rate: int) -> np.ndarray:
    """librosa's transform under all three features, made once for each clip."""
    y = np.frombuffer(samples, dtype)
    cqt = librosa.cqt(y, sr=rate, n_bins=36 * octaves(rate), bins_per_octave=36, tuning=None)
    return np.abs(cqt)


def audible(feature: Feature, reach: int = 0) -> Callable[[np.ndarray, int], np.ndarray]:
    """Make a reference that is NaN where librosa's rounding decides.

    In digital silence, its resampler leaves float32's rounding of the sounds around: some 1e-9 of
    the clip's maximum, which it then brings to norm 1. Frames count from 1e-6 on, if there is none
    below within `reach` frames. Clips count whose tuning does not depend on rounding.
    """

    def reference(y: np.ndarray, rate: int) -> np.ndarray:
        cqt = fine_cqt(y.tobytes(), y.dtype.str, rate)
        level = cqt.max(axis=0)
        quiet = (level < 1e-6 * level.max()).astype(float)
        near = np.convolve(quiet, np.ones(2 * reach + 1))[reach : reach + len(quiet)] > 0.5
        return np.where(near | np.isnan(tuning_of(y, rate, 36)), np.nan, feature(C=cqt))

    return reference


def tonnetz_of(C: np.ndarray) -> np.ndarray:
    return librosa.feature.tonnetz(chroma=librosa.feature.chroma_cqt(C=C))


def chroma_stft_of(y: np.ndarray, rate: int) -> np.ndarray:
    chroma = librosa.feature.chroma_stft(y=y, sr=rate)
    return np.where(np.isnan(tuning_of(y, rate, power=2)), np.nan, chroma)


SPECTRAL = [
    (ChromaSTFT, {"n_fft": 0}, r"n_fft=0: must be greater than 0"),
    (ChromaSTFT, {"n_chroma": 0}, r"n_chroma=0: must be greater than 0"),
    (ChromaSTFT, {"norm": 0.0}, r"norm=0\.0: must be greater than 0"),
    (ChromaSTFT, {"ctroct": -1.0}, r"ctroct=-1\.0: must be greater than 0"),
    (ChromaSTFT, {"octwidth": 0.0}, r"octwidth=0\.0: must be greater than 0"),
    (ChromaSTFT, {"pad_mode": "wrap"}, r"pad_mode='wrap': must be 'constant', 'reflect' or"),
    (ChromaSTFT, {"sample_rate": 100}, r"no bin of n_fft=2048 at sample_rate=100 lies between"),
]
CONSTANT_Q = [
    (ChromaCQT, {"hop_length": 0}, r"hop_length=0: must be greater than 0"),
    (ChromaCQT, {"bins_per_octave": 32}, r"bins_per_octave=32: must be a multiple of n_chroma=12"),
    (ChromaCQT, {"cqt_mode": "hybrid"}, r"cqt_mode='hybrid': must be 'full'"),
    (ChromaCQT, {"n_octaves": 0}, r"n_octaves=0: must be greater than 0"),
    (ChromaCQT, {"n_octaves": 9}, r"n_bins=324: the highest filter reaches"),
    (ChromaCQT, {"norm": -2.0}, r"norm=-2\.0: must be greater than 0"),
]
SMOOTHED = [
    (ChromaCENS, {"win_len_smooth": 0}, r"win_len_smooth=0: must be greater than 0"),
    (ChromaCENS, {"smoothing_window": "h"}, r"window='h': scipy\.signal\.get_window says"),
    (ChromaCENS, {"norm": 0.0}, r"norm=0\.0: must be greater than 0"),
    (ChromaCENS, {"n_chroma": 5}, r"bins_per_octave=36: must be a multiple of n_chroma=5"),
]
CIRCLES = [
    (Tonnetz, {"sample_rate": 8000}, r"n_bins=252: the highest filter reaches"),
    (Tonnetz, {"threshold": 0.1, "fmin": -1.0}, r"fmin=-1\.0: must be greater than 0"),
]

ROWS: list[Row] = [
    Row(
        "ChromaSTFT",
        build=ChromaSTFT,
        tiny=lambda: ChromaSTFT(8000, 16, 4, norm=None),
        reference=chroma_stft_of,
        error=share_beyond(1e-4),
        tolerance={torch.float64: 0.0, torch.float32: 0.0},
        formula=centred_frames,
        refusals=SPECTRAL,
    ),
    Row(
        "ChromaSTFT, tuning given",
        build=lambda rate: ChromaSTFT(
            rate, tuning=0.2, norm=2.0, n_chroma=24, octwidth=None, base_c=False
        ),
        tiny=lambda: ChromaSTFT(8000, 16, 4, tuning=0.1, norm=2.0),
        reference=lambda y, rate: librosa.feature.chroma_stft(
            y=y, sr=rate, tuning=0.2, norm=2, n_chroma=24, octwidth=None, base_c=False
        ),
        error=absolute_error,
        tolerance={torch.float64: 1e-6, torch.float32: 1e-4},
        formula=centred_frames,
    ),
    Row(
        "ChromaCQT",
        # Quiet frames are divided by their own norm, and soxr's rounding with them.
        rounding=1e-5,
        build=lambda rate: ChromaCQT(rate, n_octaves=octaves(rate)),
        tiny=lambda: ChromaCQT(**TINY, norm=2.0),
        reference=audible(librosa.feature.chroma_cqt),
        error=share_beyond(1e-2),
        tolerance=MOST,
        formula=centred_frames,
        refusals=CONSTANT_Q,
    ),
    Row(
        "ChromaCENS",
        build=lambda rate: ChromaCENS(rate, n_octaves=octaves(rate)),
        tiny=lambda: ChromaCENS(**TINY),
        reference=audible(librosa.feature.chroma_cens, reach=20),
        error=share_beyond(1e-2),
        tolerance=NEARLY_ALL,
        formula=centred_frames,
        differentiable=False,
        refusals=SMOOTHED,
    ),
    Row(
        "Tonnetz",
        # Quiet frames are divided by their own norm, and soxr's rounding with them.
        rounding=1e-5,
        build=lambda rate: Tonnetz(rate, n_octaves=octaves(rate)),
        tiny=lambda: Tonnetz(**TINY),
        reference=audible(tonnetz_of),
        error=share_beyond(1e-2),
        tolerance=MOST,
        formula=centred_frames,
        refusals=CIRCLES,
    ),
]
