"""What pictures of a model's quality are drawn from: arrays, tensors, or what a run left."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from audiotorch.answers import AnswerTable
from audiotorch.errors import ParameterError, printable

__all__ = ["PART_NAMES", "Source", "answers_of", "as_array", "chosen_part", "is_source", "of_part"]

Source = str | os.PathLike[str] | AnswerTable
"""A run's directory, its `answers.csv`, or that table in memory."""

PART_NAMES = {
    "cv": "cross-validation by clip",
    "cv_grouped": "cross-validation by group",
    "val": "validation",
    "train": "training",
    "held_back": "held back",
}


def is_source(data: object) -> bool:
    """Whether data is a run or its table rather than numbers.

    Args:
        data: what a picture is asked of.
    """
    return isinstance(data, str | os.PathLike | AnswerTable)


def answers_of(source: Source, *, detector: bool | None = None) -> AnswerTable:
    """Read what a run answered.

    Args:
        source: the run.
        detector: what it must be; None takes both.

    Raises:
        ParameterError: nothing is there, no rows, or a run of the other kind.
    """
    table = source if isinstance(source, AnswerTable) else AnswerTable.read(os.fspath(source))
    if not len(table):
        raise ParameterError(f"{_named(source)}: holds no answers; judge one clip at least")
    if detector is not None and table.is_detector != detector:
        kind, wanted = ("detector", "classes") if table.is_detector else ("classifier", "scores")
        raise ParameterError(f"{_named(source)}: is of a {kind}; this picture needs {wanted}")
    return table


def chosen_part(
    table: AnswerTable,
    part: str | None,
    preferred: Sequence[str] = ("test", "val", "cv_grouped", "cv", "held_back", "train"),
) -> tuple[str, AnswerTable]:
    """Return a part of a run's answers, and its name.

    Args:
        table: all parts.
        part: the name; None takes the first of `preferred` that is there.
        preferred: names.

    Raises:
        ParameterError: it is not there.
    """
    there = table.parts_present
    names = [part] if part is not None else [*preferred, *there]
    for name in names:
        if name in there:
            return name, table.part(name)
    raise ParameterError(f"part={part!r}: must be one of {', '.join(there)}")


def of_part(name: str) -> str:
    """What people call a part of the data.

    Args:
        name: such as `cv_grouped`.
    """
    return PART_NAMES.get(name, name)


def as_array(name: str, values: Any, *, n_dims: int | None = None) -> np.ndarray:
    """Return numbers as a float64 array without anything that is no number.

    Args:
        name: of the argument, for the complaint.
        values: tensor, array or nested lists.
        n_dims: dimensions that it must have; None takes any.

    Raises:
        ParameterError: no numbers, NaN among them, or other dimensions.
    """
    name = printable(name)
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name}: must be numbers in rows of one length") from error
    if n_dims is not None and array.ndim != n_dims:
        raise ParameterError(f"{name}: has shape {array.shape}; need {n_dims} dimensions")
    n_nan = int(np.isnan(array).sum())
    if n_nan:
        raise ParameterError(f"{name}: {n_nan} of {array.size} are NaN; leave those out")
    return array


def _named(source: Source) -> str:
    return "answers" if isinstance(source, AnswerTable) else os.fspath(source)
