"""audiotorch: from audio files to deployed models, on torch tensors."""

from importlib.metadata import version as _version

from audiotorch import features
from audiotorch.audio import (
    AudioInfo,
    Finding,
    Normalize,
    PadOrTrim,
    Quality,
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
from audiotorch.pipeline import Pipeline, Prediction, predict

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
    "PadOrTrim",
    "ParameterError",
    "Pipeline",
    "Prediction",
    "Quality",
    "Resample",
    "SummaryVector",
    "ToMono",
    "TruncationWarning",
    "check",
    "export",
    "features",
    "info",
    "load",
    "load_pipeline",
    "predict",
    "save",
    "stream",
]
