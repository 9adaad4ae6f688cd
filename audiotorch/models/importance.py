"""Which features a classifier cannot do without."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from audiotorch.errors import ParameterError
from audiotorch.models.classic import check_vectors

__all__ = ["MAX_SINGLE", "Importance", "families", "named_columns", "permutation_importance"]

MAX_SINGLE = 40
"""Longer vectors are looked at by family: each column more is as many more answers to compute."""


class Importance(NamedTuple):
    """How much accuracy is lost without a feature.

    Args:
        mean: drop in accuracy, mean of the repeats; below 0 when chance improved it.
        std: standard deviation over the repeats.
    """

    mean: float
    std: float


def families(names: Sequence[str]) -> dict[str, list[int]]:
    """Group features by name without the number at its end.

    Args:
        names: of the columns.

    Returns:
        Columns of each family, in the order of the first.

    Example:
        >>> families(["mfcc_mean_0", "mfcc_mean_1", "rms_mean"])
        {'mfcc_mean': [0, 1], 'rms_mean': [2]}
    """
    found: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        found.setdefault(re.sub(r"_[0-9]+$", "", name), []).append(column)
    return found


def named_columns(names: Sequence[str]) -> dict[str, list[int]]:
    """Single features where there are at most 40, else families.

    Args:
        names: of the columns.
    """
    if len(names) > MAX_SINGLE:
        return families(names)
    return {name: [column] for column, name in enumerate(names)}


def permutation_importance(
    fitted: Any,
    x: np.ndarray,
    y: np.ndarray,
    columns: Mapping[str, Sequence[int]],
    *,
    n_repeats: int = 5,
    seed: int = 42,
) -> dict[str, Importance]:
    """Measure the accuracy that is lost when a feature's values change clips.

    Columns of one entry change clips together. Features that tell the same can each look
    dispensable: a family shows what single ones hide. Take clips that were not fitted on; on
    fitted ones a forest is right whatever it learnt.

    Args:
        fitted: a fitted classifier.
        x: vectors, `(n, d)`.
        y: classes, `(n,)`.
        columns: what to change, by name: from `named_columns`, `families`, or your own.
        n_repeats: random orders tried.
        seed: of those.

    Returns:
        Drop in accuracy by name, in the order of `columns`.

    Raises:
        ParameterError: vectors that are not finite, a column out of range, or no repeats.

    Reference:
        Breiman (2001), Random forests. For single columns same values as
        `sklearn.inspection.permutation_importance` with `random_state=seed`.
    """
    check_vectors(x, y)
    if n_repeats < 1:
        raise ParameterError(f"n_repeats={n_repeats}: must be at least 1")
    for name, chosen in columns.items():
        if any(not 0 <= column < x.shape[1] for column in chosen):
            raise ParameterError(
                f"columns: {name!r} names {list(chosen)}; must be from 0 to {x.shape[1] - 1}"
            )
    own_seed = check_random_state(seed).randint(np.iinfo(np.int32).max + 1)
    before = np.mean(fitted.predict(x) == y)
    found = {}
    for name, chosen in columns.items():
        generator, order, changed = check_random_state(own_seed), np.arange(len(x)), x.copy()
        drops = []
        for _ in range(n_repeats):
            generator.shuffle(order)
            changed[:, chosen] = changed[order][:, chosen]
            drops.append(before - np.mean(fitted.predict(changed) == y))
        found[name] = Importance(float(np.mean(drops)), float(np.std(drops)))
    return found
