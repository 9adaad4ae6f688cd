"""A Pipeline's answers to files, and to the windows of recordings of any length."""

from audiotorch.answers.asking import check_classes, check_detector, check_explains
from audiotorch.answers.files import predict
from audiotorch.answers.prediction import Prediction, WindowPrediction
from audiotorch.answers.table import AnswerTable
from audiotorch.answers.windows import score_windows, timeline

__all__ = [
    "AnswerTable",
    "Prediction",
    "WindowPrediction",
    "check_classes",
    "check_detector",
    "check_explains",
    "predict",
    "score_windows",
    "timeline",
]
