"""audiotorch: from audio files to deployed models, on torch tensors."""

from importlib.metadata import version as _version

from audiotorch import features
from audiotorch.answers import Prediction, WindowPrediction, predict, timeline
from audiotorch.audio import (
    AudioInfo,
    Finding,
    Normalize,
    NormalizeLoudness,
    PadOrTrim,
    PreEmphasis,
    Quality,
    ReduceNoise,
    RemoveSilence,
    Resample,
    ToMono,
    check,
    info,
    load,
    save,
    stream,
)
from audiotorch.errors import (
    AudioTorchError,
    DecodeError,
    MissingDependencyError,
    ParameterError,
    TruncationWarning,
)
from audiotorch.export import export, load_pipeline
from audiotorch.features import FEATURES, FeatureExtractor, SummaryVector
from audiotorch.pipeline import Pipeline

__version__ = _version("audiotorch")

__all__ = [
    "FEATURES",
    "AudioInfo",
    "AudioTorchError",
    "DecodeError",
    "FeatureExtractor",
    "Finding",
    "MissingDependencyError",
    "Normalize",
    "NormalizeLoudness",
    "PadOrTrim",
    "ParameterError",
    "Pipeline",
    "PreEmphasis",
    "Prediction",
    "Quality",
    "ReduceNoise",
    "RemoveSilence",
    "Resample",
    "SummaryVector",
    "ToMono",
    "TruncationWarning",
    "WindowPrediction",
    "check",
    "export",
    "features",
    "info",
    "load",
    "load_pipeline",
    "predict",
    "save",
    "stream",
    "timeline",
]
