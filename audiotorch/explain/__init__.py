"""What an answer rests on."""

from audiotorch.explain.classes import (
    ClassExplanation,
    ClassMap,
    check_class_explainable,
    explain_class,
)
from audiotorch.explain.detection import (
    DeviationMap,
    Explanation,
    check_explainable,
    explain_detection,
)
from audiotorch.explain.explaining import explain
from audiotorch.explain.places import band_edges
from audiotorch.explain.weights import class_weights

__all__ = [
    "ClassExplanation",
    "ClassMap",
    "DeviationMap",
    "Explanation",
    "band_edges",
    "check_class_explainable",
    "check_explainable",
    "class_weights",
    "explain",
    "explain_class",
    "explain_detection",
]
