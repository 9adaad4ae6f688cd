"""Waveform to features: batched modules that give librosa's numbers."""

from audiotorch.features.image import SpectrogramImage
from audiotorch.features.pooling import MFCCStatistics, StatisticsPooling
from audiotorch.features.spectral import (
    RMS,
    PolyFeatures,
    SpectralBandwidth,
    SpectralCentroid,
    SpectralContrast,
    SpectralFlatness,
    SpectralRolloff,
    ZeroCrossingRate,
)
from audiotorch.features.spectrogram import MFCC, Delta, MelSpectrogram, PowerToDB, Spectrogram
from audiotorch.features.texture import TextureStatistics

__all__ = [
    "MFCC",
    "RMS",
    "Delta",
    "MFCCStatistics",
    "MelSpectrogram",
    "PolyFeatures",
    "PowerToDB",
    "SpectralBandwidth",
    "SpectralCentroid",
    "SpectralContrast",
    "SpectralFlatness",
    "SpectralRolloff",
    "Spectrogram",
    "SpectrogramImage",
    "StatisticsPooling",
    "TextureStatistics",
    "ZeroCrossingRate",
]
