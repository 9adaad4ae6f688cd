"""Waveform to features: batched modules that give librosa's numbers."""

from audiotorch.features.harmonic import HPSS, Harmonic, HarmonicRatio
from audiotorch.features.image import SpectrogramImage
from audiotorch.features.pooling import MFCCStatistics, StatisticsPooling
from audiotorch.features.spectrogram import MFCC, Delta, MelSpectrogram, PowerToDB, Spectrogram
from audiotorch.features.texture import TextureStatistics

__all__ = [
    "HPSS",
    "MFCC",
    "Delta",
    "Harmonic",
    "HarmonicRatio",
    "MFCCStatistics",
    "MelSpectrogram",
    "PowerToDB",
    "Spectrogram",
    "SpectrogramImage",
    "StatisticsPooling",
    "TextureStatistics",
]
