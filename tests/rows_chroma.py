"""Contract rows of chroma and what is made of it."""

import librosa
import numpy as np
import torch
from contract import Row, absolute_error

from audiotorch.features import ChromaCENS, ChromaCQT, ChromaSTFT, Tonnetz

__all__ = ["ROWS"]

HOP = 512
# Of a click all bins are equal but for rounding, which so makes the peaks that tell the tuning.
CLICKS = ("clicks", "one click")
TINY_STFT = {"sample_rate": 8000, "n_fft": 16, "hop_length": 4}
TINY_CQT = {
    "sample_rate": 8000,
    "hop_length": 4,
    "fmin": 1500.0,
    "n_octaves": 1,
    "n_chroma": 3,
    "bins_per_octave": 3,
    "tuning": 0.0,
}


def octaves_of(rate: int) -> int:
    return 5 if rate <= 8000 else 7


def share_above(limit: float):
    """Share of values that differ by more than a limit: frames are divided by their norm."""

    def error(ours: np.ndarray, expected: np.ndarray) -> float:
        return float((np.abs(ours - expected) > limit).mean())

    return error


def cens_of(y: np.ndarray, rate: int) -> np.ndarray:
    return librosa.feature.chroma_cens(y=y, sr=rate, n_octaves=octaves_of(rate))


def centred_frames(n: int) -> int:
    return 1 + n // HOP


ROWS = [
    Row(
        "ChromaSTFT",
        unsettled=CLICKS,
        build=ChromaSTFT,
        tiny=lambda: ChromaSTFT(**TINY_STFT, tuning=0.0, norm=2.0),
        reference=lambda y, rate: librosa.feature.chroma_stft(y=y, sr=rate),
        error=absolute_error,
        # librosa holds the weights in float32.
        tolerance={torch.float64: 1e-6, torch.float32: 1e-4},
        formula=centred_frames,
        refusals=[
            (ChromaSTFT, {"n_chroma": 0}, r"n_chroma=0: must be greater than 0"),
            (ChromaSTFT, {"octwidth": -1.0}, r"octwidth=-1\.0: must be greater than 0"),
            (ChromaSTFT, {"norm": 0.0}, r"norm=0\.0: must be greater than 0"),
            (ChromaSTFT, {"hop_length": 0}, r"hop_length=0: must be greater than 0"),
        ],
    ),
    Row(
        "ChromaSTFT, 24 classes from A",
        build=lambda rate: ChromaSTFT(
            rate, n_chroma=24, tuning=0.1, octwidth=None, base_c=False, norm=1.0
        ),
        tiny=lambda: ChromaSTFT(**TINY_STFT, tuning=0.1, octwidth=None, norm=1.0),
        reference=lambda y, rate: librosa.feature.chroma_stft(
            y=y, sr=rate, n_chroma=24, tuning=0.1, octwidth=None, base_c=False, norm=1
        ),
        error=absolute_error,
        tolerance={torch.float64: 1e-6, torch.float32: 1e-4},
        formula=centred_frames,
    ),
    Row(
        "ChromaCQT",
        unsettled=CLICKS,
        build=lambda rate: ChromaCQT(rate, n_octaves=octaves_of(rate)),
        tiny=lambda: ChromaCQT(**TINY_CQT, norm=2.0),
        reference=lambda y, rate: librosa.feature.chroma_cqt(
            y=y, sr=rate, n_octaves=octaves_of(rate)
        ),
        error=share_above(1e-2),
        # Quiet frames are divided by their own norm, and rounding grows with them.
        rounding=1e-5,
        tolerance={torch.float64: 1e-3, torch.float32: 1e-3},
        formula=centred_frames,
        refusals=[
            (ChromaCQT, {"bins_per_octave": 30}, r"bins_per_octave=30: must be a multiple of n_ch"),
            (ChromaCQT, {"n_octaves": 0}, r"n_octaves=0: must be greater than 0"),
            (ChromaCQT, {"n_octaves": 10}, r"n_bins=360: the highest filter reaches"),
        ],
    ),
    Row(
        "ChromaCENS",
        unsettled=CLICKS,
        build=lambda rate: ChromaCENS(rate, n_octaves=octaves_of(rate)),
        tiny=lambda: ChromaCENS(**TINY_CQT, win_len_smooth=3),
        reference=cens_of,
        error=share_above(1e-2),
        # Quiet frames are divided by their own norm, and rounding grows with them.
        rounding=1e-5,
        tolerance={torch.float64: 1e-2, torch.float32: 1e-2},
        formula=centred_frames,
        refusals=[
            (ChromaCENS, {"win_len_smooth": 0}, r"win_len_smooth=0: must be greater than 0"),
            (ChromaCENS, {"smoothing_window": "hamm1ng"}, r"window='hamm1ng': scipy\.signal"),
        ],
    ),
    Row(
        "Tonnetz",
        unsettled=CLICKS,
        build=lambda rate: Tonnetz(rate, n_octaves=octaves_of(rate)),
        tiny=lambda: Tonnetz(**TINY_CQT),
        reference=lambda y, rate: librosa.feature.tonnetz(y=y, sr=rate, n_octaves=octaves_of(rate)),
        error=share_above(1e-2),
        # Quiet frames are divided by their own norm, and rounding grows with them.
        rounding=1e-5,
        tolerance={torch.float64: 1e-3, torch.float32: 1e-3},
        formula=centred_frames,
        refusals=[(Tonnetz, {"hop_length": 0}, r"hop_length=0: must be greater than 0")],
    ),
]
