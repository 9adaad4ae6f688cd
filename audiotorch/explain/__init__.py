"""What an answer rests on."""

from audiotorch.explain.detection import (
    DeviationMap,
    Explanation,
    band_edges,
    check_explainable,
    explain_detection,
)

__all__ = [
    "DeviationMap",
    "Explanation",
    "band_edges",
    "check_explainable",
    "explain_detection",
]
