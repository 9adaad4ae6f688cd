"""Audio files, waveforms, and what is done to a waveform before features."""

from audiotorch.audio.denoise import ReduceNoise
from audiotorch.audio.io import AUDIO_SUFFIXES, AudioInfo, Source, info, load, save, stream
from audiotorch.audio.loudness import NormalizeLoudness
from audiotorch.audio.preprocess import Normalize, PadOrTrim, PreEmphasis, ToMono
from audiotorch.audio.resample import Resample
from audiotorch.audio.silence import RemoveSilence

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioInfo",
    "Normalize",
    "NormalizeLoudness",
    "PadOrTrim",
    "PreEmphasis",
    "ReduceNoise",
    "RemoveSilence",
    "Resample",
    "Source",
    "ToMono",
    "info",
    "load",
    "save",
    "stream",
]
