"""audiotorch: from audio files to deployed models, on torch tensors."""

from importlib.metadata import version as _version

from audiotorch import features
from audiotorch.audio import (
    AudioInfo,
    Normalize,
    PadOrTrim,
    Resample,
    ToMono,
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
    "MissingDependencyError",
    "Normalize",
    "PadOrTrim",
    "ParameterError",
    "Pipeline",
    "Prediction",
    "Resample",
    "SummaryVector",
    "ToMono",
    "TruncationWarning",
    "export",
    "features",
    "info",
    "load",
    "load_pipeline",
    "predict",
    "save",
    "stream",
]
