"""Audio files, waveforms, and what is done to a waveform before features."""

from audiotorch.audio.io import AUDIO_SUFFIXES, AudioInfo, Source, info, load, save, stream
from audiotorch.audio.preprocess import Normalize, PadOrTrim, Resample, ToMono

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioInfo",
    "Normalize",
    "PadOrTrim",
    "Resample",
    "Source",
    "ToMono",
    "info",
    "load",
    "save",
    "stream",
]
