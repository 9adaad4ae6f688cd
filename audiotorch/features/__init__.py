"""Waveform to features: batched modules that give librosa's numbers."""

from audiotorch.features.cepstrum import MFCC, Delta
from audiotorch.features.comparison import TorchaudioStatistics
from audiotorch.features.contrast import SpectralContrast
from audiotorch.features.extractor import FEATURES, FeatureExtractor
from audiotorch.features.harmonic import HPSS, Harmonic, HarmonicRatio
from audiotorch.features.image import SpectrogramImage
from audiotorch.features.level import RMS, ZeroCrossingRate
from audiotorch.features.pooling import MFCCStatistics, StatisticsPooling, SummaryVector
from audiotorch.features.spectral import (
    PolyFeatures,
    SpectralBandwidth,
    SpectralCentroid,
    SpectralFlatness,
    SpectralRolloff,
)
from audiotorch.features.spectrogram import MelSpectrogram, PowerToDB, Spectrogram
from audiotorch.features.texture import TextureStatistics

__all__ = [
    "FEATURES",
    "HPSS",
    "MFCC",
    "RMS",
    "Delta",
    "FeatureExtractor",
    "Harmonic",
    "HarmonicRatio",
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
    "SummaryVector",
    "TextureStatistics",
    "TorchaudioStatistics",
    "ZeroCrossingRate",
]
