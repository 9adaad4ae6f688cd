"""What each feature must be, by librosa and numpy: one clip in, its feature out."""

import librosa
import numpy as np
import scipy.fft
import torch

from audiotorch.features import SpectrogramImage

HOP = 512
TINY = {"sample_rate": 8000, "n_fft": 16, "hop_length": 4}
NINE_FRAMES = 8 * HOP


def centred_frames(n: int) -> int:
    return 1 + n // HOP


def mel_of(y: np.ndarray, rate: int, n_mels: int = 128) -> np.ndarray:
    return librosa.feature.melspectrogram(y=y, sr=rate, n_mels=n_mels)


def mfcc_of(y: np.ndarray, rate: int) -> np.ndarray:
    return librosa.feature.mfcc(y=np.pad(y, (0, max(0, NINE_FRAMES - len(y)))), sr=rate)


def with_deltas(x: np.ndarray) -> np.ndarray:
    return np.stack([x, librosa.feature.delta(x), librosa.feature.delta(x, order=2)])


def pooled(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x.mean(-1), x.std(-1), x.min(-1), x.max(-1)], axis=-1)


def log_mel(y: np.ndarray, rate: int) -> np.ndarray:
    return librosa.power_to_db(mel_of(y, rate, 64))


def clip_image(y: np.ndarray, rate: int) -> np.ndarray:
    db = log_mel(y, rate)
    return ((db - db.mean()) / max(db.std(), 0.5))[None]


def band_image(db: np.ndarray) -> np.ndarray:
    centred = db - db.mean(axis=1, keepdims=True)
    return centred / max(centred.std(), 0.5)


def stretched_image(y: np.ndarray, rate: int) -> np.ndarray:
    mel = mel_of(y, rate, 64)
    level = mel.sum(axis=0)
    kept = np.flatnonzero(level >= level.max() * 10 ** (-40 / 10))
    position = np.linspace(kept[0], kept[-1], 24)
    frames = np.arange(mel.shape[1])
    db = librosa.power_to_db(mel)
    return with_deltas(band_image(np.stack([np.interp(position, frames, band) for band in db])))


def training_clips(rate: int) -> np.ndarray:
    clips = np.random.default_rng(rate).standard_normal((3, rate))
    return clips * np.array([[1e-3], [0.1], [0.3]])


def fitted_image(rate: int) -> SpectrogramImage:
    waveform = torch.from_numpy(training_clips(rate))
    module = SpectrogramImage(rate, normalize="dataset")
    # In float64, so that only the buffers' own precision stands between us and numpy.
    return module.fit([(waveform, torch.tensor([rate, rate // 2, rate]))])


def dataset_image(y: np.ndarray, rate: int) -> np.ndarray:
    clips = training_clips(rate)
    frames = [clips[0], clips[1, : rate // 2], clips[2]]
    training = np.concatenate([log_mel(clip, rate) for clip in frames], axis=1)
    mean = training.mean(axis=1, keepdims=True).astype(np.float32)
    std = training.std(axis=1, keepdims=True).astype(np.float32)
    return ((log_mel(y, rate) - mean) / std)[None]


def word_of(y: np.ndarray, rate: int, **mel: int) -> np.ndarray:
    """The word's part of `RobustVector`, 16 x 7 coefficients, straight from the definition."""
    power = librosa.feature.melspectrogram(y=y, sr=rate, **mel).astype(np.float64)
    db = 10 * np.log10(np.maximum(power, 1e-10))
    db = np.maximum(db, db.max() - 42.0)
    level = 10 * np.log10(np.maximum(power.sum(axis=0), 1e-10))
    loudness = np.maximum(level - level.max() + 30.0, 1e-6)
    share = np.concatenate([[0.0], np.cumsum(loudness)]) / loudness.sum()
    frame = np.arange(power.shape[1])
    places = np.interp(np.linspace(0.01, 0.99, 48), share, np.arange(len(share)) - 0.5)
    image = np.stack([np.interp(places, frame, row) for row in db])
    image -= image.mean(axis=1, keepdims=True)
    image /= max(np.sqrt(np.mean(image**2)), 0.5)
    rows = scipy.fft.dctn(image, norm="ortho")[:16, 1:8] * np.sqrt(16 * 7 / image.size)
    return rows.ravel()


def texture_of(y: np.ndarray, rate: int) -> np.ndarray:
    """Colour, modulation spectrum and crest of 64 mel bands, windows of 256 frames one by one."""
    mel = librosa.feature.melspectrogram(y=y, sr=rate, n_fft=512, hop_length=256, n_mels=64)
    db = librosa.power_to_db(mel).astype(np.float64)
    image = (db - db.mean()) / max(db.std(), 0.5)
    bands = db.reshape(16, 4, -1).mean(axis=1)
    bands = bands - bands.mean(axis=1, keepdims=True)
    n = min(256, bands.shape[1])
    n_windows = 1 + -(-(bands.shape[1] - n) // 128)
    starts = np.floor(np.linspace(0, bands.shape[1] - n, n_windows) + 1e-9).astype(int)
    taper = np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
    power = (
        np.stack([np.abs(np.fft.rfft(bands[:, s : s + n] * taper, 256)) ** 2 for s in starts])
        / (taper**2).sum()
    )
    fast = power[..., np.fft.rfftfreq(256, 256 / rate) >= 8.0] + 0.01
    crest = np.log(fast.max(axis=-1) / fast.mean(axis=-1)).mean(axis=0)
    mean_power = power.mean(axis=0)
    octaves = np.stack([mean_power[:, 2**k : 2 ** (k + 1)].mean(1) for k in range(7)], axis=1)
    octaves = np.log(octaves + 0.01)
    level = octaves.mean(axis=1, keepdims=True)
    colour = np.concatenate([image.mean(axis=1), image.std(axis=1), image.max(axis=1)])
    swings = np.hstack([octaves - level, level, crest[:, None]])
    return np.concatenate([colour, swings.ravel()])
