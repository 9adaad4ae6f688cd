"""Audio files, waveforms, and what is done to a waveform before features."""

from audiotorch.audio.denoise import ReduceNoise
from audiotorch.audio.io import AUDIO_SUFFIXES, AudioInfo, Source, info, load, save, stream
from audiotorch.audio.loudness import NormalizeLoudness
from audiotorch.audio.preprocess import Normalize, PadOrTrim, PreEmphasis, ToMono
from audiotorch.audio.quality import Finding, Quality, QualityMeter, check
from audiotorch.audio.resample import Resample
from audiotorch.audio.silence import RemoveSilence

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioInfo",
    "Finding",
    "Normalize",
    "NormalizeLoudness",
    "PadOrTrim",
    "PreEmphasis",
    "Quality",
    "QualityMeter",
    "ReduceNoise",
    "RemoveSilence",
    "Resample",
    "Source",
    "ToMono",
    "check",
    "info",
    "load",
    "save",
    "stream",
]
