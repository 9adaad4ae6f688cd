"""Audio files, waveforms, and what is done to a waveform before features."""

from audiotorch.audio.io import AUDIO_SUFFIXES, AudioInfo, Source, info, load, save, stream
from audiotorch.audio.preprocess import Normalize, PadOrTrim, Resample, ToMono
from audiotorch.audio.quality import Finding, Quality, QualityMeter, check

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioInfo",
    "Finding",
    "Normalize",
    "PadOrTrim",
    "Quality",
    "QualityMeter",
    "Resample",
    "Source",
    "ToMono",
    "check",
    "info",
    "load",
    "save",
    "stream",
]
