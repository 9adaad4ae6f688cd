"""Pictures of sounds and answers, drawn with matplotlib."""

from audiotorch.plot.confusion import confusion_matrix
from audiotorch.plot.curves import training_curves
from audiotorch.plot.density import power_spectral_density
from audiotorch.plot.embedding import embedding
from audiotorch.plot.figure import new_figure, pixels, save_figure
from audiotorch.plot.operating import roc
from audiotorch.plot.panels import compare, overview
from audiotorch.plot.reasons import (
    detection,
    explanation,
    importance_bars,
    mark_kilohertz,
    prediction_strip,
)
from audiotorch.plot.scores import reliability, score_histogram
from audiotorch.plot.sounds import draw_mel, mel_spectrogram, spectrogram, waveform
from audiotorch.plot.tracks import chroma, feature_over_time, mfcc

__all__ = [
    "chroma",
    "compare",
    "confusion_matrix",
    "detection",
    "draw_mel",
    "embedding",
    "explanation",
    "feature_over_time",
    "importance_bars",
    "mark_kilohertz",
    "mel_spectrogram",
    "mfcc",
    "new_figure",
    "overview",
    "pixels",
    "power_spectral_density",
    "prediction_strip",
    "reliability",
    "roc",
    "save_figure",
    "score_histogram",
    "spectrogram",
    "training_curves",
    "waveform",
]
