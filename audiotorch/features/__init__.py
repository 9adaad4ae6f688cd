"""Waveform to features: batched modules that give librosa's numbers."""

from audiotorch.features.chroma import ChromaCENS, ChromaCQT, ChromaSTFT, Tonnetz
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
    "ChromaCENS",
    "ChromaCQT",
    "ChromaSTFT",
    "Delta",
    "MFCCStatistics",
    "MelSpectrogram",
    "PowerToDB",
    "Spectrogram",
    "SpectrogramImage",
    "StatisticsPooling",
    "TextureStatistics",
    "Tonnetz",
    "Tuning",
]
