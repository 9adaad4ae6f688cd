"""Waveform to features: batched modules that give librosa's numbers."""

from audiotorch.features.constantq import CQT, VQT
from audiotorch.features.image import SpectrogramImage
from audiotorch.features.pooling import MFCCStatistics, StatisticsPooling
from audiotorch.features.spectrogram import MFCC, Delta, MelSpectrogram, PowerToDB, Spectrogram
from audiotorch.features.texture import TextureStatistics
from audiotorch.features.tuning import Tuning

__all__ = [
    "CQT",
    "MFCC",
    "VQT",
    "Delta",
    "MFCCStatistics",
    "MelSpectrogram",
    "PowerToDB",
    "Spectrogram",
    "SpectrogramImage",
    "StatisticsPooling",
    "TextureStatistics",
    "Tuning",
]
