"""Waveform to features: batched modules that give librosa's numbers."""

from audiotorch.features.beat import BeatTracker
from audiotorch.features.cepstrum import MFCC, Delta
from audiotorch.features.chroma import ChromaCENS, ChromaCQT, ChromaSTFT, Tonnetz
from audiotorch.features.comparison import TorchaudioStatistics
from audiotorch.features.constantq import CQT, VQT
from audiotorch.features.contrast import SpectralContrast
from audiotorch.features.envelope import EnvelopeRhythm
from audiotorch.features.extractor import FEATURES, FeatureExtractor
from audiotorch.features.harmonic import HPSS, Harmonic, HarmonicRatio
from audiotorch.features.image import SpectrogramImage
from audiotorch.features.level import RMS, ZeroCrossingRate
from audiotorch.features.mel import MelSpectrogram
from audiotorch.features.onset import OnsetStrength
from audiotorch.features.pooling import (
    MFCCStatistics,
    PooledFeatures,
    StatisticsPooling,
    SummaryVector,
)
from audiotorch.features.profile import SoundProfile
from audiotorch.features.rhythm import Tempo, Tempogram
from audiotorch.features.robust import RobustVector
from audiotorch.features.spectral import (
    PolyFeatures,
    SpectralBandwidth,
    SpectralCentroid,
    SpectralFlatness,
    SpectralRolloff,
)
from audiotorch.features.spectrogram import PowerToDB, Spectrogram
from audiotorch.features.texture import TextureStatistics
from audiotorch.features.tuning import Tuning

__all__ = [
    "CQT",
    "FEATURES",
    "HPSS",
    "MFCC",
    "RMS",
    "VQT",
    "BeatTracker",
    "ChromaCENS",
    "ChromaCQT",
    "ChromaSTFT",
    "Delta",
    "EnvelopeRhythm",
    "FeatureExtractor",
    "Harmonic",
    "HarmonicRatio",
    "MFCCStatistics",
    "MelSpectrogram",
    "OnsetStrength",
    "PolyFeatures",
    "PooledFeatures",
    "PowerToDB",
    "RobustVector",
    "SoundProfile",
    "SpectralBandwidth",
    "SpectralCentroid",
    "SpectralContrast",
    "SpectralFlatness",
    "SpectralRolloff",
    "Spectrogram",
    "SpectrogramImage",
    "StatisticsPooling",
    "SummaryVector",
    "Tempo",
    "Tempogram",
    "TextureStatistics",
    "Tonnetz",
    "TorchaudioStatistics",
    "Tuning",
    "ZeroCrossingRate",
]
