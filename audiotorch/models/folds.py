"""Which clips are left out together: the folds of an evaluation and those inside a fit."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

from audiotorch.data.manifest import sort_labels
from audiotorch.errors import ParameterError

__all__ = ["Part", "Parts", "grouped_parts", "inner_splits", "stratified_parts"]

# With more groups, five folds of whole groups stand for leaving out each one.
_MAX_LEFT_OUT = 10

Split = tuple[np.ndarray, np.ndarray]


class Part(NamedTuple):
    """A fold of an evaluation.

    Args:
        names: what is held out: groups, or the number of the fold.
        train: rows to fit on.
        test: rows to score.
    """

    names: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray


class Parts(NamedTuple):
    """The folds of an evaluation.

    Args:
        protocol: `stratified`, `leave_one_group_out` or `grouped`.
        parts: the folds; every clip is held out in one of them.
        notes: what a reader of the figures has to know.
    """

    protocol: str
    parts: list[Part]
    notes: list[str]


def stratified_parts(y: np.ndarray, labels: Sequence[str], n_splits: int, seed: int) -> Parts:
    """Folds of single clips, as `StratifiedKFold(n_splits, shuffle=True, random_state=seed)`.

    Args:
        y: class of each clip, `(n,)`.
        labels: the classes' names.
        n_splits: number of folds; fewer where a class has fewer clips, but for classes of one.
        seed: of the shuffling.

    Raises:
        ParameterError: every class has one clip.
    """
    counts = np.bincount(y, minlength=len(labels))
    notes = []
    if counts.max() < 2:
        raise ParameterError(
            "y: every class has a single clip, so none can be both learnt and tested; give at "
            "least two clips a class"
        )
    single = [labels[i] for i in np.flatnonzero(counts == 1).tolist()]
    if single:
        notes.append(f"classes of one clip, which can never be answered right: {single}")
    scarce = int(np.where(counts < 2, len(y), counts).argmin())
    k = min(n_splits, int(counts[scarce]))
    if k < n_splits:
        notes.append(
            f"{k} stratified folds instead of {n_splits}: {labels[scarce]!r} has {k} clips only"
        )
    with _few_clips_are_known():
        splits = list(StratifiedKFold(k, shuffle=True, random_state=seed).split(y, y))
    parts = [Part((str(i),), *split) for i, split in enumerate(splits, 1)]
    return Parts("stratified", parts, notes)


def grouped_parts(
    y: np.ndarray, labels: Sequence[str], groups: Sequence[str | None] | None, seed: int
) -> Parts:
    """Folds of whole groups: each left out once, or five folds when there are more than ten.

    A clip without a group is a group of its own.

    Args:
        y: class of each clip, `(n,)`.
        labels: the classes' names.
        groups: group of each clip, or None.
        seed: of the shuffling.

    Returns:
        No parts where fewer than two groups are known, or where no class has clips of two groups.
    """
    ids = _group_ids(groups, len(y))
    if ids is None or groups is None:
        return Parts("grouped", [], [])
    alone = [k for k in np.unique(y) if len(set(ids[y == k])) == 1]
    names = [labels[k] for k in alone]
    if len(alone) == len(np.unique(y)):
        note = (
            "no figure for new groups: each class has clips of one group only, so that the class "
            "cannot be told from the group; record each class in at least two groups"
        )
        return Parts("grouped", [], [note])
    notes = []
    if alone:
        n = int(np.isin(y, alone).sum())
        notes.append(
            f"classes with clips of one group only: {names}; without that group they are unknown, "
            f"and their {n} clips cannot be answered right in grouped folds"
        )
    protocol = "leave_one_group_out" if ids.max() < _MAX_LEFT_OUT else "grouped"
    if protocol == "leave_one_group_out":
        tests = [np.flatnonzero(ids == i) for i in range(ids.max() + 1)]
    else:
        with _few_clips_are_known():
            folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(y, y, ids)
            tests = [test for _, test in folds if len(test)]
    parts = []
    for test in tests:
        held_out = {str(groups[i]) for i in test.tolist() if groups[i] is not None}
        train = np.setdiff1d(np.arange(len(y)), test)
        parts.append(Part(tuple(sort_labels(held_out)), train, test))
    return Parts(protocol, parts, notes)


def inner_splits(
    y: np.ndarray,
    groups: Sequence[str | None] | None = None,
    *,
    n_copies: int = 0,
    n_splits: int = 5,
    seed: int = 42,
) -> tuple[list[Split], list[str]]:
    """Folds inside a training part, whose training sides hold every class.

    Whole groups where that is possible, with fewer folds if need be; else single clips, as
    `StratifiedKFold(n_splits)`. A clip stands on one side with all its copies. The only clip of a
    class is on the training side even where it is tested.

    Args:
        y: class of each clip, `(n,)`.
        groups: group of each clip, or None.
        n_copies: further versions of the clips, whose rows follow: row `i + k * n` is of clip `i`.
        n_splits: number of folds, if clips and groups are enough.
        seed: of the choice of groups.

    Returns:
        Training and test rows of each fold, and notes.
    """
    ids = _group_ids(groups, len(y))
    notes = []
    splits = [] if ids is None else _inner_by_group(y, ids, n_splits, seed)
    if ids is not None and not splits:
        notes.append(
            "inner folds by clip: groups cannot be parted so that every class is on both sides; "
            "probabilities may be too sure on new groups"
        )
    if not splits:
        splits = _inner_by_clip(y, n_splits)
        n_single = int((np.bincount(y) == 1).sum())
        if n_single:
            notes.append(
                f"classes of one clip: {n_single}; their probabilities are judged by the clip that "
                "they were learnt from"
            )
    starts = len(y) * np.arange(n_copies + 1)[:, None]
    return [((a + starts).ravel(), (b + starts).ravel()) for a, b in splits], notes


def _inner_by_group(y: np.ndarray, ids: np.ndarray, n_splits: int, seed: int) -> list[Split]:
    """The most folds of whole groups that leave every class to train on; none if that cannot be."""
    n_classes = len(np.unique(y))
    for k in range(min(n_splits, int(ids.max()) + 1, int(np.bincount(y).max())), 1, -1):
        with _few_clips_are_known():
            folds = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
            splits = list(folds.split(y, y, ids))
        if all(len(test) and len(np.unique(y[train])) == n_classes for train, test in splits):
            return splits
    return []


def _inner_by_clip(y: np.ndarray, n_splits: int) -> list[Split]:
    """Stratified folds; the only clip of a class trains in all of them."""
    counts = np.bincount(y)
    if counts.max() < 2:
        splits = list(KFold(2).split(y))
    else:
        with _few_clips_are_known():
            splits = list(StratifiedKFold(min(n_splits, counts[counts > 1].min())).split(y, y))
    single = np.flatnonzero(counts[y] == 1)
    return [(np.union1d(train, single), test) for train, test in splits]


def _group_ids(groups: Sequence[str | None] | None, n: int) -> np.ndarray | None:
    """A number for each clip's group, counted in the order of names; None without two groups."""
    if groups is None:
        return None
    known = sort_labels({str(group) for group in groups if group is not None})
    if len(known) < 2:
        return None
    numbers = {name: i for i, name in enumerate(known)}
    ids = []
    n_alone = 0
    for group in groups:
        if group is None:
            ids.append(len(known) + n_alone)
            n_alone += 1
        else:
            ids.append(numbers[str(group)])
    return np.array(ids)


@contextmanager
def _few_clips_are_known() -> Iterator[None]:
    """Keep scikit-learn's warning of scarce classes away: the notes tell it by name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        yield
