"""Contract rows of the features in `spectral.py`."""

import librosa
import numpy as np
import torch
from contract import Row, absolute_error, relative_error, unequal_frames
from references import TINY, centred_frames

from audiotorch.features import (
    RMS,
    PolyFeatures,
    SpectralBandwidth,
    SpectralCentroid,
    SpectralContrast,
    SpectralFlatness,
    SpectralRolloff,
    ZeroCrossingRate,
)

TINY_FRAMES = {"sample_rate": 8000, "frame_length": 16, "hop_length": 4}


def hertz(ours: np.ndarray, expected: np.ndarray) -> float:
    """Difference as a share of the frequency, 0.01 Hz apart."""
    return float((np.maximum(np.abs(ours - expected) - 0.01, 0.0) / (expected + 1e-9)).max())


def line_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """Difference of slope (times 10 kHz) and height as a share of the clip's largest."""
    unit = np.array([[10_000.0], [1.0]])
    return float((np.abs(ours - expected) * unit).max() / ((np.abs(expected) * unit).max() or 1.0))


FREQUENCIES = {torch.float64: 1e-9, torch.float32: 1e-5}
FRAME = [
    (ZeroCrossingRate, {"frame_length": 0}, r"frame_length=0: must be greater than 0"),
    (ZeroCrossingRate, {"hop_length": 0}, r"hop_length=0: must be greater than 0"),
    (ZeroCrossingRate, {"threshold": -1.0}, r"threshold=-1\.0: must be at least 0"),
    (RMS, {"frame_length": -1}, r"frame_length=-1: must be greater than 0"),
]
SHAPE = [
    (SpectralCentroid, {"hop_length": 0}, r"hop_length=0: must be greater than 0"),
    (SpectralBandwidth, {"p": 0.0}, r"p=0\.0: must be greater than 0"),
    (SpectralRolloff, {"roll_percent": 1.0}, r"roll_percent=1\.0: must lie between 0 and 1"),
    (SpectralFlatness, {"amin": 0.0}, r"amin=0\.0: must be greater than 0"),
    (PolyFeatures, {"order": -1}, r"order=-1: must lie in 0 to n_fft // 2 = 1024"),
    (SpectralContrast, {"fmin": 0.0}, r"fmin=0\.0: must be greater than 0"),
    (SpectralContrast, {"n_bands": 0}, r"n_bands=0: must be greater than 0"),
    (SpectralContrast, {"n_bands": 7}, r"n_bands=7: the last band starts at 12800 Hz, above half"),
    (SpectralContrast, {"quantile": 1.0}, r"quantile=1\.0: must lie between 0 and 1"),
    (SpectralContrast, {"n_fft": 64}, r"n_fft=64: the band from 0 to 200 Hz has 0 bins, fewer"),
]


def contrast_bands(rate: int) -> int:
    """Octaves from 200 Hz that half the rate holds."""
    return 4 if rate <= 8000 else 6


ROWS = [
    Row(
        "SpectralCentroid",
        build=SpectralCentroid,
        tiny=lambda: SpectralCentroid(**TINY),
        reference=lambda y, rate: librosa.feature.spectral_centroid(y=y, sr=rate),
        error=hertz,
        tolerance=FREQUENCIES,
        formula=centred_frames,
        refusals=SHAPE[:1],
    ),
    Row(
        "SpectralBandwidth",
        build=SpectralBandwidth,
        tiny=lambda: SpectralBandwidth(**TINY),
        reference=lambda y, rate: librosa.feature.spectral_bandwidth(y=y, sr=rate),
        error=hertz,
        tolerance=FREQUENCIES,
        formula=centred_frames,
        refusals=SHAPE[1:2],
    ),
    Row(
        "SpectralBandwidth, p=3, not normalised",
        build=lambda rate: SpectralBandwidth(rate, p=3.0, norm=False),
        tiny=lambda: SpectralBandwidth(**TINY, p=3.0),
        reference=lambda y, rate: librosa.feature.spectral_bandwidth(
            y=y, sr=rate, p=3.0, norm=False
        ),
        error=hertz,
        tolerance=FREQUENCIES,
        formula=centred_frames,
    ),
    Row(
        "SpectralRolloff",
        build=SpectralRolloff,
        tiny=lambda: SpectralRolloff(**TINY),
        reference=lambda y, rate: librosa.feature.spectral_rolloff(y=y, sr=rate),
        error=unequal_frames,
        tolerance={torch.float64: 1e-3, torch.float32: 1e-3},
        formula=centred_frames,
        refusals=SHAPE[2:3],
    ),
    Row(
        "SpectralContrast",
        build=lambda rate: SpectralContrast(rate, n_bands=contrast_bands(rate)),
        tiny=lambda: SpectralContrast(**TINY, n_bands=1, fmin=1000.0),
        reference=lambda y, rate: librosa.feature.spectral_contrast(
            y=y, sr=rate, n_bands=contrast_bands(rate)
        ),
        error=absolute_error,
        tolerance={torch.float64: 1e-6, torch.float32: 1e-3},
        formula=centred_frames,
        refusals=SHAPE[5:],
    ),
    Row(
        "SpectralContrast, linear",
        build=lambda rate: SpectralContrast(rate, n_bands=3, quantile=0.1, linear=True),
        tiny=lambda: SpectralContrast(**TINY, n_bands=1, fmin=1000.0, linear=True),
        reference=lambda y, rate: librosa.feature.spectral_contrast(
            y=y, sr=rate, n_bands=3, quantile=0.1, linear=True
        ),
        error=absolute_error,
        tolerance={torch.float64: 1e-6, torch.float32: 1e-3},
        formula=centred_frames,
    ),
    Row(
        "SpectralFlatness",
        build=SpectralFlatness,
        tiny=lambda: SpectralFlatness(**TINY),
        reference=lambda y, rate: librosa.feature.spectral_flatness(y=y),
        error=relative_error,
        tolerance={torch.float64: 1e-9, torch.float32: 1e-4},
        formula=centred_frames,
        refusals=SHAPE[3:4],
    ),
    Row(
        "PolyFeatures",
        build=PolyFeatures,
        tiny=lambda: PolyFeatures(**TINY),
        reference=lambda y, rate: librosa.feature.poly_features(y=y, sr=rate),
        error=line_error,
        tolerance={torch.float64: 1e-9, torch.float32: 1e-5},
        formula=centred_frames,
        refusals=SHAPE[4:5],
    ),
    Row(
        "ZeroCrossingRate",
        build=ZeroCrossingRate,
        tiny=lambda: ZeroCrossingRate(**TINY_FRAMES),
        reference=lambda y, rate: librosa.feature.zero_crossing_rate(y),
        error=absolute_error,
        tolerance={torch.float64: 0.0, torch.float32: 0.0},
        formula=centred_frames,
        refusals=FRAME[:3],
    ),
    Row(
        "ZeroCrossingRate, other frames",
        build=lambda rate: ZeroCrossingRate(rate, 1000, 300, threshold=0.01),
        tiny=lambda: ZeroCrossingRate(**TINY_FRAMES),
        reference=lambda y, rate: librosa.feature.zero_crossing_rate(
            y, frame_length=1000, hop_length=300, threshold=0.01
        ),
        error=absolute_error,
        # 1 / 1000 is no float32.
        tolerance={torch.float64: 1e-15, torch.float32: 1e-7},
        formula=lambda n: 1 + n // 300,
    ),
    Row(
        "RMS",
        build=RMS,
        tiny=lambda: RMS(**TINY_FRAMES),
        reference=lambda y, rate: librosa.feature.rms(y=y, dtype=y.dtype),
        error=relative_error,
        tolerance={torch.float64: 1e-9, torch.float32: 1e-6},
        formula=centred_frames,
        refusals=FRAME[3:],
    ),
    Row(
        "RMS, not centred",
        build=lambda rate: RMS(rate, 1000, 300, center=False),
        tiny=lambda: RMS(**TINY_FRAMES, center=False),
        reference=lambda y, rate: librosa.feature.rms(
            y=y, frame_length=1000, hop_length=300, center=False, dtype=y.dtype
        ),
        error=relative_error,
        tolerance={torch.float64: 1e-9, torch.float32: 1e-6},
        min_size=1000,
        formula=lambda n: 1 + (n - 1000) // 300,
    ),
]
