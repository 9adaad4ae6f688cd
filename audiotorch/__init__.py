"""audiotorch: from audio files to deployed models, on torch tensors."""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

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
from audiotorch.transcribe import (
    Transcriber,
    Transcript,
    detect_language,
    transcribe,
    transcribe_folder,
)

if TYPE_CHECKING:
    from audiotorch import plot
    from audiotorch.models.audio_features import AudioFeatures

__version__ = _version("audiotorch")

__all__ = [
    "FEATURES",
    "AudioFeatures",
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
    "Transcriber",
    "Transcript",
    "TruncationWarning",
    "WindowPrediction",
    "check",
    "detect_language",
    "export",
    "features",
    "info",
    "load",
    "load_pipeline",
    "plot",
    "predict",
    "save",
    "stream",
    "timeline",
    "transcribe",
    "transcribe_folder",
]


def __getattr__(name: str) -> Any:
    # scikit-learn loads where it is used, not with audiotorch.
    if name == "AudioFeatures":
        from audiotorch.models.audio_features import AudioFeatures

        return AudioFeatures
    if name == "plot":
        return _import_module("audiotorch.plot")
    raise AttributeError(f"module 'audiotorch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
