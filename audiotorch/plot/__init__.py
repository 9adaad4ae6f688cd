"""Pictures of sounds and answers, drawn with matplotlib."""

from audiotorch.plot.confusion import confusion_matrix
from audiotorch.plot.curves import training_curves
from audiotorch.plot.embedding import embedding
from audiotorch.plot.figure import new_figure, pixels, save_figure
from audiotorch.plot.operating import roc
from audiotorch.plot.reasons import (
    detection,
    explanation,
    importance_bars,
    mark_kilohertz,
    prediction_strip,
)
from audiotorch.plot.scores import reliability, score_histogram
from audiotorch.plot.sounds import spectrogram

__all__ = [
    "confusion_matrix",
    "detection",
    "embedding",
    "explanation",
    "importance_bars",
    "mark_kilohertz",
    "new_figure",
    "pixels",
    "prediction_strip",
    "reliability",
    "roc",
    "save_figure",
    "score_histogram",
    "spectrogram",
    "training_curves",
]
