"""Contract rows of front ends that give one vector a clip."""

import warnings

import librosa
import numpy as np
import torch
import torchaudio
from contract import Row, absolute_error
from references import NINE_FRAMES, pooled, texture_of, word_of
from rows_harmonic import ratio_of

from audiotorch.features import (
    EnvelopeRhythm,
    PooledFeatures,
    RobustVector,
    SoundProfile,
    SummaryVector,
    TorchaudioStatistics,
)


def summary_of(y: np.ndarray, rate: int) -> np.ndarray:
    """The 270 numbers by librosa and numpy."""
    mfcc = librosa.feature.mfcc(y=y, sr=rate, n_mfcc=13)
    cepstra = [mfcc, librosa.feature.delta(mfcc), librosa.feature.delta(mfcc, order=2)]
    parts = [f(x, axis=1) for x in cepstra for f in (np.mean, np.std, np.max, np.min)]
    for x in (
        librosa.feature.spectral_centroid(y=y, sr=rate),
        librosa.feature.spectral_bandwidth(y=y, sr=rate),
        librosa.feature.spectral_rolloff(y=y, sr=rate),
        librosa.feature.zero_crossing_rate(y),
        librosa.feature.rms(y=y, dtype=y.dtype),
    ):
        parts += [x.mean(axis=1), x.std(axis=1)]
    mel = librosa.feature.melspectrogram(y=y, sr=rate, n_mels=40)
    for x in (
        librosa.feature.chroma_stft(y=y, sr=rate),
        librosa.power_to_db(mel, ref=np.max),
    ):
        parts += [x.mean(axis=1), x.std(axis=1)]
    return np.concatenate(parts)


# Spread of the columns over 320 clips of esc10, rounded down: MFCC, deltas, Hz, rates, chroma, dB.
SPREAD = np.concatenate(
    [
        np.full(52, 5.0),
        np.full(104, 0.05),
        [1000.0, 300.0, 700.0, 150.0, 2000.0, 500.0, 0.05, 0.02, 0.05, 0.03],
        np.full(24, 0.05),
        np.full(80, 3.0),
    ]
)


def share_of_spread(ours: np.ndarray, expected: np.ndarray) -> float:
    return float((np.abs(ours - expected) / SPREAD).max())


def torchaudio_of(y: np.ndarray, rate: int) -> np.ndarray:
    # Mirrored by numpy: torchaudio refuses clips shorter than half a window.
    padded = torch.from_numpy(np.pad(y, 200, mode="reflect"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        transform = torchaudio.transforms.MFCC(rate, melkwargs={"center": False}).double()
    mfcc = transform(padded[None])[0]
    delta = torchaudio.functional.compute_deltas(mfcc)
    delta2 = torchaudio.functional.compute_deltas(delta)
    return np.concatenate([pooled(x.double().numpy()) for x in (mfcc, delta, delta2)])


def robust_of(y: np.ndarray, rate: int) -> np.ndarray:
    module = RobustVector(rate, 512, 256)
    texture = (texture_of(y, rate) - module.centre.numpy()) * module.scale.numpy()
    return np.concatenate([word_of(y, rate, n_fft=512, hop_length=256, n_mels=64), texture])


def profile_of(y: np.ndarray, rate: int) -> np.ndarray:
    power = librosa.feature.melspectrogram(y=y, sr=rate, n_fft=512, hop_length=256, n_mels=64)
    db = librosa.power_to_db(power.astype(np.float64))
    bands = [f(db, axis=1) for f in (np.mean, np.std, np.min, np.max)]
    rms = librosa.feature.rms(y=y, frame_length=512, hop_length=256, dtype=np.float64)
    level = [10 * np.log10(max(float((rms**2).mean()), 1e-10))]
    return np.concatenate([level, *bands, texture_of(y, rate)])


def rhythm_of(y: np.ndarray, rate: int) -> np.ndarray:
    """The autocorrelation of the level of 100 to 800 Hz, straight from the definition."""
    power = librosa.feature.melspectrogram(
        y=y, sr=rate, n_fft=1024, hop_length=256, n_mels=16, fmin=100.0, fmax=800.0
    )
    db = librosa.power_to_db(power.astype(np.float64).sum(axis=0), top_db=60.0)
    x = db - db.mean()
    lags = range(3, int(1.2 * rate / 256) + 1, 3)
    swing = [float((x[:-lag] * x[lag:]).sum()) if lag < len(x) else 0.0 for lag in lags]
    return np.array(swing) / max(float((x**2).sum()), 0.25 * len(x))


def named_of(y: np.ndarray, rate: int) -> np.ndarray:
    """Mean and standard deviation of a row and of rows, and one number a clip, by librosa."""
    rms = librosa.feature.rms(y=y, dtype=y.dtype)
    mfcc = librosa.feature.mfcc(y=y, sr=rate, n_mfcc=13)
    pools = [f(x, axis=1) for x in (rms, mfcc) for f in (np.mean, np.std)]
    return np.concatenate([*pools, ratio_of(y)])


def share_of_level(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the value, which may be a small one beside 1."""
    return float((np.abs(ours - expected) / (1.0 + np.abs(expected))).max())


ROWS = [
    Row(
        "SummaryVector",
        build=SummaryVector,
        tiny=None,
        unsettled=("clicks", "one click"),  # rounding decides on the tuning
        reference=summary_of,
        error=share_of_spread,
        tolerance={torch.float64: 1e-3, torch.float32: 1e-3},
        min_size=NINE_FRAMES,
        batch_only=True,
        frames=False,
        formula=lambda n: 1 + n // 512,
        refusals=[(SummaryVector, {"n_mfcc": 200}, r"n_mfcc=200: must lie in 1 to n_mels=128")],
    ),
    Row(
        "TorchaudioStatistics",
        build=TorchaudioStatistics,
        tiny=lambda: TorchaudioStatistics(8000, 16, n_mels=4, n_mfcc=3),
        reference=torchaudio_of,
        error=absolute_error,
        tolerance={torch.float64: 1e-9, torch.float32: 2e-4},
        batch_only=True,
        frames=False,
        formula=lambda n: 1 + n // 200,
        refusals=[
            (TorchaudioStatistics, {"n_fft": 0}, r"n_fft=0: must be greater than 0"),
            (TorchaudioStatistics, {"n_mfcc": 129}, r"n_mfcc=129: must lie in 1 to n_mels=128"),
        ],
    ),
    Row(
        "RobustVector",
        build=lambda rate: RobustVector(rate, 512, 256),
        tiny=None,
        reference=robust_of,
        error=absolute_error,
        tolerance={torch.float64: 1e-6, torch.float32: 2e-3},
        batch_only=True,
        frames=False,
        formula=lambda n: 1 + n // 256,
        refusals=[
            (RobustVector, {"n_quefrencies": 65}, r"n_quefrencies=65: must lie in 1 to 64"),
            (RobustVector, {"texture_weight": 0.0}, r"texture_weight=0\.0: must be greater than 0"),
        ],
    ),
    Row(
        "SoundProfile",
        build=lambda rate: SoundProfile(rate, 512, 256),
        tiny=None,
        reference=profile_of,
        error=absolute_error,
        # 2e-3 dB of levels.
        tolerance={torch.float64: 1e-6, torch.float32: 2e-3},
        batch_only=True,
        frames=False,
        formula=lambda n: 1 + n // 256,
        refusals=[(SoundProfile, {"n_bands": 10}, r"n_bands=10: must divide n_mels=64")],
    ),
    Row(
        "EnvelopeRhythm",
        build=lambda rate: EnvelopeRhythm(rate, 1024, 256),
        tiny=None,
        reference=rhythm_of,
        error=absolute_error,
        tolerance={torch.float64: 1e-7, torch.float32: 1e-5},
        batch_only=True,
        frames=False,
        formula=lambda n: 1 + n // 256,
        refusals=[
            (EnvelopeRhythm, {"top_db": 0.0}, r"top_db=0\.0: must be greater than 0"),
            (EnvelopeRhythm, {"lag_step": 0}, r"lag_step=0: must be greater than 0"),
            (EnvelopeRhythm, {"max_lag": 0.01}, r"max_lag=0\.01: must be at least 0\.048 s"),
        ],
    ),
    Row(
        "PooledFeatures",
        build=lambda rate: PooledFeatures(["rms", "mfcc", "harmonic_ratio"], rate),
        tiny=lambda: PooledFeatures(["rms", "mfcc"], 8000, hop_length=4, n_mels=13, n_fft=64),
        light=lambda rate: PooledFeatures(["rms", "mfcc"], rate),
        reference=named_of,
        error=share_of_level,
        # Silence's first coefficient is -1131 in all frames: their mean rounds, so they spread.
        tolerance={torch.float64: 1e-6, torch.float32: 2e-4},
        batch_only=True,
        frames=False,
        formula=lambda n: 1 + n // 512,
        refusals=[
            (PooledFeatures, {"features": []}, r"features=\[\]: must be distinct names"),
            (PooledFeatures, {"features": ["rms"], "statistics": ["mode"]}, r"statistics=\['mode'"),
        ],
    ),
]
