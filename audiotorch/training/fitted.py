"""Fitted scikit-learn models of a run: how they are kept, and how they become a Pipeline again."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from audiotorch.answers.prediction import named_thresholds
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.models.detectors import DetectorModel
from audiotorch.models.fusion import Fusion
from audiotorch.models.storage import load_fitted, read_notes, save_fitted
from audiotorch.models.tensorize import ClassicModel
from audiotorch.pipeline import Pipeline
from audiotorch.training.build import build_pipeline

__all__ = [
    "FITTED",
    "MISFITS",
    "FittedDetector",
    "detector_model",
    "load_fitted_pipeline",
    "misfit",
    "save_classifier_run",
    "save_detector_run",
]

FITTED = "fitted.skops"
"""A scikit-learn model's checkpoint."""

# What a configuration that was tampered with, or another version's, leads to.
MISFITS = (
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    RuntimeError,
    AttributeError,
    MemoryError,
    OmegaConfBaseException,
    ParameterError,
)


def misfit(file: Path, error: Exception) -> DecodeError:
    """Say that a checkpoint does not fit its own configuration.

    Args:
        file: the checkpoint.
        error: what went wrong, one of `MISFITS`.
    """
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DecodeError(
        f"{os.fspath(file)!r} does not fit its own configuration ({reason}); "
        "was it written by another version of audiotorch?"
    )


@dataclass(frozen=True, eq=False)
class FittedDetector:
    """Fitted detectors, and what makes them one.

    Args:
        members: from `fit_detector`; one, or those of a `Fusion`.
        normals: mean and standard deviation of each feature over the normal clips.
        references: normal scores of each member, where there is a fusion.
        combine: how it is fused.
    """

    members: Sequence[Any]
    normals: tuple[np.ndarray, np.ndarray]
    references: Sequence[np.ndarray] = field(default_factory=list)
    combine: str = "p_value"


def detector_model(found: FittedDetector) -> nn.Module:
    """Return fitted detectors as a Pipeline's model.

    Args:
        found: the detectors.
    """
    members = [DetectorModel(fitted, found.normals) for fitted in found.members]
    if len(members) == 1 and not len(found.references):
        return members[0]
    references = [torch.from_numpy(each) for each in found.references]
    return Fusion(members, references, found.combine)


def save_classifier_run(
    folder: Path, fitted: Any, pipeline: Pipeline, config: dict[Any, Any]
) -> None:
    """Write a fitted scikit-learn model with what is needed to rebuild its Pipeline.

    Args:
        folder: of the file, `fitted.skops`; made when missing. Epochs' checkpoints of an earlier
            run in it are removed.
        fitted: the classifier.
        pipeline: gives labels and the threshold below which it abstains.
        config: the run's resolved configuration.
    """
    thresholds = named_thresholds(pipeline)
    metadata = {"config": config, "labels": list(pipeline.labels), "thresholds": thresholds}
    _save(folder, fitted, metadata)


def save_detector_run(
    folder: Path, found: FittedDetector, pipeline: Pipeline, config: dict[Any, Any]
) -> None:
    """Write fitted detectors with what is needed to rebuild their Pipeline.

    Args:
        folder: as `save_classifier_run`.
        found: the detectors.
        pipeline: gives thresholds and normal scores.
        config: the run's resolved configuration.
    """
    notes = {
        "config": config,
        "labels": [],
        "thresholds": named_thresholds(pipeline),
        "calibration": pipeline.calibration.tolist(),
        "normals": [each.tolist() for each in found.normals],
        "references": [np.asarray(each, dtype=np.float64).tolist() for each in found.references],
        "combine": found.combine,
    }
    _save(folder, list(found.members), notes)


def _save(folder: Path, fitted: Any, notes: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("best.ckpt", "last.ckpt"):
        (folder / name).unlink(missing_ok=True)
    save_fitted(fitted, folder / FITTED, notes)


def load_fitted_pipeline(file: Path, trusted: bool) -> Pipeline:
    """Rebuild the Pipeline of a run whose model scikit-learn fitted.

    Args:
        file: what `save_classifier_run` or `save_detector_run` wrote.
        trusted: build classes from outside audiotorch too.

    Raises:
        DecodeError: the file is damaged, or does not fit its own configuration.
    """
    fitted, notes = load_fitted(file), read_notes(file)
    try:
        config = OmegaConf.create(notes["config"])
        if isinstance(fitted, list):
            normals = tuple(np.asarray(each, dtype=np.float64) for each in notes["normals"])
            references = [np.asarray(each, dtype=np.float64) for each in notes["references"]]
            found = FittedDetector(fitted, normals, references, notes["combine"])  # type: ignore[arg-type]
            pipeline = build_pipeline(config, (), trusted, detector_model(found))
            pipeline.calibrate(torch.tensor(notes["calibration"]), notes["thresholds"])
        else:
            model = ClassicModel(fitted, len(notes["labels"]))
            pipeline = build_pipeline(config, notes["labels"], trusted, model)
            if notes["thresholds"]:
                pipeline.abstain_below(notes["thresholds"]["abstain"])
    except MISFITS as error:
        raise misfit(file, error) from error
    return pipeline.eval()
