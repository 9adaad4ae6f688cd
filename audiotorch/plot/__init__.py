"""Pictures of sounds and answers, drawn with matplotlib."""

from audiotorch.plot.curves import chroma, feature_over_time, mfcc
from audiotorch.plot.density import power_spectral_density
from audiotorch.plot.figure import new_figure, pixels, save_figure
from audiotorch.plot.overview import compare, overview
from audiotorch.plot.reasons import (
    detection,
    explanation,
    importance_bars,
    mark_kilohertz,
    prediction_strip,
)
from audiotorch.plot.scores import confusion_matrix, reliability_diagram, score_histogram
from audiotorch.plot.sounds import draw_mel, mel_spectrogram, spectrogram, waveform

__all__ = [
    "chroma",
    "compare",
    "confusion_matrix",
    "detection",
    "draw_mel",
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
    "reliability_diagram",
    "save_figure",
    "score_histogram",
    "spectrogram",
    "waveform",
]
