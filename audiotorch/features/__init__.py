"""Waveform to features: batched modules that give librosa's numbers."""

from audiotorch.features.beat import BeatTracker
from audiotorch.features.image import SpectrogramImage
from audiotorch.features.onset import OnsetStrength
from audiotorch.features.pooling import MFCCStatistics, StatisticsPooling
from audiotorch.features.rhythm import Tempo, Tempogram
from audiotorch.features.spectrogram import MFCC, Delta, MelSpectrogram, PowerToDB, Spectrogram
from audiotorch.features.texture import TextureStatistics

__all__ = [
    "MFCC",
    "BeatTracker",
    "Delta",
    "MFCCStatistics",
    "MelSpectrogram",
    "OnsetStrength",
    "PowerToDB",
    "Spectrogram",
    "SpectrogramImage",
    "StatisticsPooling",
    "Tempo",
    "Tempogram",
    "TextureStatistics",
]
