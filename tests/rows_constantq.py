"""Contract rows of constant-Q transforms and of the tuning."""

import librosa
import numpy as np
import torch
from contract import Row, absolute_error, peak_error

from audiotorch.features import CQT, VQT, Tuning

__all__ = ["ROWS"]

HOP = 512
# Of a click all bins are equal but for rounding, which so makes the peaks that tell the tuning.
CLICKS = ("clicks", "one click")
TINY = {"sample_rate": 8000, "hop_length": 4, "fmin": 1500.0, "n_bins": 3, "bins_per_octave": 4}
# Filters are held in float32, as librosa holds them for float32 clips.
MAGNITUDES = {torch.float64: 1e-5, torch.float32: 1e-5}


def bins_of(rate: int) -> int:
    """Seven octaves above C1, but for those that half the rate does not hold."""
    return 60 if rate <= 8000 else 84


def vqt_of(y: np.ndarray, rate: int) -> np.ndarray:
    return np.abs(
        librosa.vqt(y, sr=rate, fmin=65.0, n_bins=40, gamma=10.0, tuning=None, hop_length=256)
    )


def centred_frames(n: int) -> int:
    return 1 + n // HOP


ROWS = [
    Row(
        "CQT",
        build=lambda rate: CQT(rate, n_bins=bins_of(rate)),
        tiny=lambda: CQT(**TINY),
        reference=lambda y, rate: np.abs(librosa.cqt(y, sr=rate, n_bins=bins_of(rate))),
        error=peak_error,
        tolerance=MAGNITUDES,
        formula=centred_frames,
        refusals=[
            (CQT, {"hop_length": 0}, r"hop_length=0: must be greater than 0"),
            (CQT, {"n_bins": 120}, r"n_bins=120: the highest filter reaches .* Hz, above half"),
            (CQT, {"sparsity": 1.0}, r"sparsity=1\.0: must lie in \[0, 1\)"),
            (CQT, {"pad_mode": "wrap"}, r"pad_mode='wrap': must be 'constant', 'reflect' or"),
            (CQT, {"gamma": 1.0}, r"gamma=1\.0: is a setting of VQT"),
        ],
    ),
    Row(
        "CQT, 36 bins an octave, tuned",
        unsettled=CLICKS,
        build=lambda rate: CQT(rate, n_bins=3 * bins_of(rate), bins_per_octave=36, tuning=None),
        tiny=lambda: CQT(**TINY, norm=None, scale=False),
        reference=lambda y, rate: np.abs(
            librosa.cqt(y, sr=rate, n_bins=3 * bins_of(rate), bins_per_octave=36, tuning=None)
        ),
        error=peak_error,
        tolerance=MAGNITUDES,
        formula=centred_frames,
    ),
    Row(
        "VQT",
        unsettled=CLICKS,
        build=lambda rate: VQT(rate, 256, fmin=65.0, n_bins=40, gamma=10.0, tuning=None),
        tiny=lambda: VQT(**TINY, gamma=10.0),
        reference=vqt_of,
        error=peak_error,
        tolerance=MAGNITUDES,
        formula=lambda n: 1 + n // 256,
        refusals=[(VQT, {"gamma": -1.0}, r"gamma=-1\.0: must be at least 0, or None")],
    ),
    Row(
        "Tuning",
        unsettled=CLICKS,
        build=Tuning,
        tiny=lambda: Tuning(8000, 64, 16),
        reference=lambda y, rate: np.array([librosa.estimate_tuning(y=y, sr=rate)]),
        error=absolute_error,
        tolerance={torch.float64: 1e-9, torch.float32: 1e-6},
        frames=False,
        formula=centred_frames,
        differentiable=False,
        refusals=[
            (Tuning, {"resolution": 0.0}, r"resolution=0\.0: must lie between 0 and 1"),
            (Tuning, {"threshold": 1.0}, r"threshold=1\.0: must lie in \[0, 1\)"),
            (Tuning, {"fmin": 11000.0, "fmax": 11001.0}, r"fmin=11000\.0, fmax=11001\.0: no bin"),
        ],
    ),
]
