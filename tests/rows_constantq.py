"""Contract rows of the constant-Q transforms and the tuning estimate."""

import librosa
import numpy as np
import torch
from contract import Row, peak_error, share_beyond
from references import centred_frames

from audiotorch.features import CQT, VQT, Tuning

# As soxr, librosa's resampler, works in float32 always.
MAGNITUDE = {torch.float64: 1e-5, torch.float32: 1e-5}
TINY = {"sample_rate": 8000, "hop_length": 4, "fmin": 500.0, "n_bins": 6, "bins_per_octave": 3}


def octaves(rate: int) -> int:
    """As many as fit below half the rate, so that no halving precedes the highest one."""
    return {8000: 6, 44100: 8}.get(rate, 7)


def vqt_of(y: np.ndarray, rate: int) -> np.ndarray:
    return np.abs(librosa.vqt(y, sr=rate, n_bins=12 * octaves(rate)))


def cqt_of(y: np.ndarray, rate: int) -> np.ndarray:
    return np.abs(librosa.cqt(y, sr=rate, n_bins=12 * octaves(rate)))


def tuning_of(y: np.ndarray, rate: int, steps: int = 12, power: int = 1) -> np.ndarray:
    """librosa's estimate; NaN where that changes when rounding does, as for a lone click."""
    shake = 3e-8 * np.abs(y).max() * np.random.default_rng(0).standard_normal(len(y))
    spectra = [np.abs(librosa.stft(clip)) ** power for clip in (y, y + shake)]
    found = {librosa.estimate_tuning(S=S, sr=rate, bins_per_octave=steps) for S in spectra}
    return np.array([found.pop() if len(found) == 1 else np.nan])


def tuned_cqt_of(y: np.ndarray, rate: int) -> np.ndarray:
    cqt = np.abs(librosa.cqt(y, sr=rate, n_bins=12 * octaves(rate), tuning=None))
    return np.where(np.isnan(tuning_of(y, rate)), np.nan, cqt)


def tuned_error(ours: np.ndarray, expected: np.ndarray) -> float:
    return 0.0 if np.isnan(expected).any() else peak_error(ours, expected)


RANGES = [
    (VQT, {"hop_length": 0}, r"hop_length=0: must be greater than 0"),
    (VQT, {"sample_rate": -1}, r"sample_rate=-1: must be greater than 0"),
    (VQT, {"n_bins": 0}, r"n_bins=0, bins_per_octave=12: must be at least 1"),
    (VQT, {"bins_per_octave": 0}, r"bins_per_octave=0: must be at least 1"),
    (VQT, {"fmin": 0.0}, r"fmin=0\.0: must be greater than 0"),
    (VQT, {"n_bins": 120}, r"n_bins=120: the highest filter reaches 3\d+\.\d Hz, above half of"),
    (VQT, {"gamma": -1.0}, r"gamma=-1\.0: must be at least 0, or None"),
    (VQT, {"intervals": "ji5"}, r"intervals='ji5': must be 'equal' or ratios in \[1, 2\)"),
    (VQT, {"intervals": [1.0, 2.0]}, r"intervals=\[1\.0, 2\.0\]: must be 'equal' or ratios"),
    (VQT, {"sparsity": 1.0}, r"sparsity=1\.0: must lie in \[0, 1\)"),
    (VQT, {"filter_scale": 0.0}, r"filter_scale=0\.0: must be greater than 0"),
    (VQT, {"norm": -1.0}, r"norm=-1\.0: must be greater than 0"),
    (VQT, {"window": "hamm1ng"}, r"window='hamm1ng': scipy\.signal\.get_window says"),
    (VQT, {"pad_mode": "wrap"}, r"pad_mode='wrap': must be 'constant', 'reflect' or 'edge'"),
]
CONSTANT = [
    (CQT, {"sample_rate": 8000}, r"n_bins=84: the highest filter reaches 41\d\d\.\d Hz"),
    (CQT, {"tuning": 0.5, "sample_rate": 8300}, r"n_bins=84: the highest filter reaches"),
]
PITCHES = [
    (Tuning, {"n_fft": 0}, r"n_fft=0: must be greater than 0"),
    (Tuning, {"hop_length": 0}, r"hop_length=0: must be greater than 0"),
    (Tuning, {"bins_per_octave": 0}, r"bins_per_octave=0: must be greater than 0"),
    (Tuning, {"resolution": 1.0}, r"resolution=1\.0: must lie between 0 and 1"),
    (Tuning, {"threshold": 1.0}, r"threshold=1\.0: must lie in \[0, 1\)"),
    (Tuning, {"fmin": 5000.0}, r"fmin=5000\.0, fmax=4000\.0: no bin of n_fft=2048 at"),
]

ROWS: list[Row] = [
    Row(
        "CQT",
        build=lambda rate: CQT(rate, n_bins=12 * octaves(rate)),
        tiny=lambda: CQT(**TINY),
        reference=cqt_of,
        error=peak_error,
        tolerance=MAGNITUDE,
        formula=centred_frames,
        refusals=CONSTANT,
    ),
    Row(
        "CQT, tuned to each clip",
        build=lambda rate: CQT(rate, n_bins=12 * octaves(rate), tuning=None),
        tiny=lambda: CQT(**TINY, tuning=None),
        reference=tuned_cqt_of,
        error=tuned_error,
        tolerance=MAGNITUDE,
        formula=centred_frames,
    ),
    Row(
        "VQT",
        build=lambda rate: VQT(rate, n_bins=12 * octaves(rate)),
        tiny=lambda: VQT(**TINY, pad_mode="reflect"),
        reference=vqt_of,
        error=peak_error,
        tolerance=MAGNITUDE,
        formula=centred_frames,
        refusals=RANGES,
    ),
    Row(
        "Tuning",
        build=Tuning,
        tiny=lambda: Tuning(8000, 16, 4),
        reference=tuning_of,
        error=share_beyond(1e-6),
        tolerance={torch.float64: 0.0, torch.float32: 0.0},
        frames=False,
        formula=centred_frames,
        differentiable=False,
        refusals=PITCHES,
    ),
]
