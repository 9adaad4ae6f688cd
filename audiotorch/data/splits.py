"""Which clips train, validate and test: given, by group, or stratified by class."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from audiotorch.data.manifest import Clip, sort_labels
from audiotorch.errors import ParameterError

__all__ = ["MIN_GROUPS", "Splits", "given_parts", "group_count", "split_clips"]

MIN_GROUPS = 8
"""With fewer groups, one left out for validation costs more training data than its figure tells."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "fit"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}

# Longer numbers are identifiers, not counters.
TAKE_COUNTER = re.compile(r"(?:[-_. ]?(?<![0-9])[0-9]{1,4}|[-_. ][A-Za-z])$")
"""A take or segment counter at the end of a stem: name_01, name-A, 1-100032-A, name12."""


@dataclass
class Splits:
    """The clips of each part, and how they were chosen.

    Args:
        train: the clips to fit on.
        val: the clips to choose epochs with; may be empty.
        test: the clips to judge with; may be empty.
        validation: how `val` was chosen: `given`, `group`, `clip` or `none`.
        notes: what a reader of the figures has to know, one sentence each.
    """

    train: list[Clip]
    val: list[Clip]
    test: list[Clip]
    validation: str
    notes: list[str] = field(default_factory=list)


def split_clips(
    clips: Sequence[Clip],
    *,
    test_group: str | int | Iterable[str | int] | None = None,
    validation: str | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.0,
    seed: int = 42,
) -> Splits:
    """Part clips into training, validation and test.

    The test part is `test_group`, or what the table's split column says, or, where neither groups
    nor a split column are known, a stratified `test_fraction`. Validation is carved from the rest:

    - `group`: whole groups, so that no speaker, recording or machine stands on both sides; chosen
      so that each class is present on both sides where that is possible.
    - `clip`: single clips, stratified by class; each class keeps at least one training clip.
    - `given`: the table's own validation part, or nothing where it has none.
    - `none`: nothing; a table's validation clips train as well.
    - None: the table's own validation part if it has one; else `group` if the training part holds
      at least 8 groups; else `clip`.

    The same clips and seed give the same parts, in whatever order the clips come.

    Args:
        clips: the clips.
        test_group: group or groups that are kept for the test; compared as text.
        validation: `given`, `group`, `clip`, `none` or None.
        val_fraction: share of the training part that validates, in (0, 0.5].
        test_fraction: share of all clips that tests, in [0, 0.5].
        seed: what the random choices are keyed by, >= 0.

    Raises:
        ParameterError: an unknown group, mode or split name, a fraction out of range, a class
            without training clips, or groups that cannot be parted.

    Example:
        >>> from pathlib import Path
        >>> clips = [Clip(Path(f"/{c}{i}.wav"), c, f"speaker{i}") for c in "ab" for i in range(9)]
        >>> splits = split_clips(clips, test_group="speaker0")
        >>> splits.validation, len(splits.train), len(splits.val), len(splits.test)
        ('group', 14, 2, 2)
    """
    _check_settings(validation, val_fraction, test_fraction)
    if not clips:
        raise ParameterError("clips=[]: there is nothing to split; give at least two classes")
    clips = sorted(clips)
    notes: list[str] = []
    train, given_val, test = given_parts(clips, test_group)
    if test_fraction > 0 and (test or given_val or group_count(clips)):
        notes.append(
            f"test_fraction={test_fraction} is not used: the table names groups or splits, keep "
            "some for the test with test_group"
        )
    elif test_fraction > 0:
        train, test = _carve_clips(train, test_fraction, np.random.default_rng([seed, 1]))
    if validation in (None, "given") and given_val:
        mode, val = "given", given_val
    elif validation == "given":
        mode, val = "none", []
    else:
        mode = validation or ("group" if group_count(train + given_val) >= MIN_GROUPS else "clip")
        train, val, mode = _carve(
            sorted(train + given_val), mode, val_fraction, seed, validation is None, notes
        )
    splits = Splits(train, val, test, mode, notes)
    _check_parts(splits)
    _note_sources(splits)
    return splits


def group_count(clips: Iterable[Clip]) -> int:
    """How many named groups the clips belong to."""
    return len({clip.group for clip in clips if clip.group is not None})


def _check_settings(validation: str | None, val_fraction: float, test_fraction: float) -> None:
    if validation not in (None, "given", "group", "clip", "none"):
        raise ParameterError(
            f"validation={validation!r}: must be 'given', 'group', 'clip', 'none' or null (chosen "
            "by the data)"
        )
    if val_fraction is None or not 0.0 < val_fraction <= 0.5:
        raise ParameterError(f"val_fraction={val_fraction}: must be above 0, at most 0.5; try 0.15")
    if test_fraction is None or not 0.0 <= test_fraction <= 0.5:
        raise ParameterError(f"test_fraction={test_fraction}: must be from 0 to 0.5; try 0.2")


def given_parts(
    clips: Sequence[Clip], test_group: str | int | Iterable[str | int] | None
) -> tuple[list[Clip], list[Clip], list[Clip]]:
    """Part clips as the split column and the test groups say; without either, all train.

    Args:
        clips: the clips.
        test_group: group or groups that are kept for the test; compared as text.

    Returns:
        Training, validation and test clips.

    Raises:
        ParameterError: an unknown split name or group, or both a test group and a test split.
    """
    parts: dict[str, list[Clip]] = {"train": [], "val": [], "test": []}
    for clip in clips:
        name = "train" if clip.split is None else SPLIT_NAMES.get(clip.split.strip().lower())
        if name is None:
            raise ParameterError(
                f"split '{clip.split}' of '{clip.path.name}': must be one of "
                f"{sorted(SPLIT_NAMES)}; for numbered folds set data.group_column to that column "
                "and data.test_group to a fold"
            )
        parts[name].append(clip)
    groups = _group_names(test_group)
    if groups:
        known = sort_labels({clip.group for clip in clips if clip.group is not None})
        unknown = sorted(groups - set(known))
        if not known:
            raise ParameterError(
                f"test_group={sorted(groups)}: the clips have no groups; set data.group_column, or "
                "name a group in data.regex"
            )
        if unknown:
            raise ParameterError(f"test_group={unknown}: must be among the groups {known}")
        if parts["test"]:
            raise ParameterError(
                f"test_group={sorted(groups)}: the split column names {len(parts['test'])} test "
                "clips already; leave out data.split_column or data.test_group"
            )
        for name in ("train", "val"):
            parts["test"] += [clip for clip in parts[name] if clip.group in groups]
            parts[name] = [clip for clip in parts[name] if clip.group not in groups]
    return parts["train"], parts["val"], sorted(parts["test"])


def _group_names(test_group: str | int | Iterable[str | int] | None) -> set[str]:
    if test_group is None:
        return set()
    if isinstance(test_group, (str, int)):
        return {str(test_group)}
    return {str(group) for group in test_group}


def _carve(
    clips: list[Clip], mode: str, fraction: float, seed: int, auto: bool, notes: list[str]
) -> tuple[list[Clip], list[Clip], str]:
    """Train part, validation part, and the mode really used."""
    groups = group_count(clips)
    rng = np.random.default_rng([seed, 2])
    if mode == "group":
        if groups < 2:
            raise ParameterError(
                f"validation='group': the training part has {groups} groups, must be at least 2; "
                "set data.group_column, or take validation='clip'"
            )
        train, val = _carve_groups(clips, fraction, rng)
        if val:
            absent = sort_labels({c.label for c in clips} - {c.label for c in val})
            if absent:
                notes.append(f"no whole group could validate these classes: {absent}")
            return train, val, mode
        reason = "every group holds the only clips of some class"
        if not auto:
            raise ParameterError(f"validation='group': {reason}; take validation='clip'")
        notes.append(f"validation by clip: {reason}")
        mode = "clip"
    if mode == "none":
        notes.append("no validation clips: the last epoch's weights are kept")
        return clips, [], mode
    train, val = _carve_clips(clips, fraction, rng)
    if not val:
        notes.append("too few clips for a validation part: the last epoch's weights are kept")
        return clips, [], "none"
    if groups:
        notes.append(f"validation figure is on seen groups (clip validation with {groups} groups)")
    return train, val, mode


def _carve_clips(
    clips: Sequence[Clip], fraction: float, rng: np.random.Generator
) -> tuple[list[Clip], list[Clip]]:
    """Rest and share, stratified by class; at least one clip of each class stays in the rest."""
    by_label: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_label[clip.label].append(clip)
    total = math.ceil(fraction * len(clips))
    exact = {label: total * len(found) / len(clips) for label, found in by_label.items()}
    counts = {label: math.floor(share) for label, share in exact.items()}
    # Largest remainder; equal remainders go to the larger class, then to the first label.
    order = sorted(exact, key=lambda c: (counts[c] - exact[c], -len(by_label[c]), c))
    for label in order[: total - sum(counts.values())]:
        counts[label] += 1
    rest, share_ = [], []
    for label in sorted(by_label):
        found = by_label[label]
        taken = min(counts[label], len(found) - 1)
        chosen = set(rng.permutation(len(found))[:taken].tolist())
        share_ += [clip for i, clip in enumerate(found) if i in chosen]
        rest += [clip for i, clip in enumerate(found) if i not in chosen]
    return sorted(rest), sorted(share_)


def _carve_groups(
    clips: Sequence[Clip], fraction: float, rng: np.random.Generator
) -> tuple[list[Clip], list[Clip]]:
    """Rest and share, of whole groups; a clip without a group is a group of its own.

    Groups are offered in random order and taken when that brings every class nearer to its share,
    as StratifiedGroupKFold does; classes still absent then get the group that fits best.
    """
    keys = [clip.group if clip.group is not None else clip.path for clip in clips]
    names = {key: i for i, key in enumerate(sorted(set(keys), key=str))}
    labels = {label: i for i, label in enumerate(sorted({clip.label for clip in clips}))}
    table = np.zeros((len(names), len(labels)))
    for key, clip in zip(keys, clips, strict=True):
        table[names[key], labels[clip.label]] += 1
    total = table.sum(axis=0)
    taken = np.zeros(len(labels))
    chosen: set[int] = set()

    def cost(counts: np.ndarray) -> float:
        return float((((counts / total) - fraction) ** 2).sum())

    def admissible(counts: np.ndarray) -> bool:
        return bool((counts < total).all()) and counts.sum() <= total.sum() / 2

    for i in rng.permutation(len(names)).tolist():
        if admissible(taken + table[i]) and cost(taken + table[i]) < cost(taken):
            taken += table[i]
            chosen.add(i)
    for label in np.flatnonzero(taken == 0).tolist():
        fits = [
            i
            for i in np.flatnonzero(table[:, label]).tolist()
            if i not in chosen and admissible(taken + table[i])
        ]
        if taken[label] == 0 and fits:
            best = min(fits, key=lambda i: cost(taken + table[i]))
            taken += table[best]
            chosen.add(best)
    rest = [c for key, c in zip(keys, clips, strict=True) if names[key] not in chosen]
    return rest, [c for key, c in zip(keys, clips, strict=True) if names[key] in chosen]


def _check_parts(splits: Splits) -> None:
    """Every class must train, or the network cannot answer it."""
    trained = {clip.label for clip in splits.train}
    for part in (splits.val, splits.test):
        absent = sort_labels({clip.label for clip in part} - trained)
        if absent:
            raise ParameterError(
                f"classes {absent} have no training clip: all of theirs are held out; choose other "
                "test groups or splits, or drop these classes"
            )
    if len(trained) < 2:
        raise ParameterError(
            f"the training part holds {len(trained)} class {sorted(trained)}, must be at least "
            "two; choose other test groups or splits"
        )


def _note_sources(splits: Splits) -> None:
    """Say what is known, or to be feared, of clips of one source on both sides."""
    held_out = splits.val + splits.test
    if group_count(splits.train + held_out):
        trained_on = {clip.group for clip in splits.train} - {None}
        for name, part in (("validation", splits.val), ("test", splits.test)):
            # Without a split column, groups on both sides were asked for, and are noted already.
            shared = {clip.group for clip in part if clip.split is not None} & trained_on
            if shared and (name == "test" or splits.validation == "given"):
                splits.notes.append(
                    f"{name} figure is on seen groups ({len(shared)} groups stand on both sides "
                    "of the table's split)"
                )
        return
    sources = _guess_sources(splits.train + held_out)
    trained = {sources[clip] for clip in splits.train if clip in sources}
    leaked = [clip for clip in held_out if sources.get(clip) in trained and clip in sources]
    # A few alike names are chance; a twentieth of the held-out clips is a naming scheme.
    if len(leaked) >= max(2, 0.05 * len(held_out)):
        splits.notes.append(
            f"{len(leaked)} of {len(held_out)} held-out clips share a source with training clips, "
            f"to judge by names such as '{leaked[0].path.name}': figures will be too good; name "
            "the source with data.group_column, or a group in data.regex"
        )


def _guess_sources(clips: Sequence[Clip]) -> dict[Clip, tuple[str, str]]:
    """Folder and stem without its counter, for classes where that tells several sources apart."""
    guesses = {
        clip: (str(clip.path.parent), TAKE_COUNTER.sub("", clip.path.stem)) for clip in clips
    }
    per_label: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for clip, guess in guesses.items():
        per_label[clip.label][guess] += 1
    return {clip: guess for clip, guess in guesses.items() if len(per_label[clip.label]) > 1}
