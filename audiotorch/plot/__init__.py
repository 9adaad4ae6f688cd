"""Pictures of sounds and answers, drawn with matplotlib."""

from audiotorch.plot.figure import new_figure, pixels, save_figure
from audiotorch.plot.reasons import (
    detection,
    explanation,
    importance_bars,
    mark_kilohertz,
    prediction_strip,
)
from audiotorch.plot.scores import confusion_matrix, reliability_diagram, score_histogram
from audiotorch.plot.sounds import spectrogram

__all__ = [
    "confusion_matrix",
    "detection",
    "explanation",
    "importance_bars",
    "mark_kilohertz",
    "new_figure",
    "pixels",
    "prediction_strip",
    "reliability_diagram",
    "save_figure",
    "score_histogram",
    "spectrogram",
]
