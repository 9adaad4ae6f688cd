"""Which clips a detector is fitted on, is calibrated on, and is judged by."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from audiotorch.data.manifest import NORMAL, Clip, sort_labels
from audiotorch.data.splits import MIN_GROUPS, Splits, given_parts, group_count
from audiotorch.errors import ParameterError

__all__ = ["ANOMALY", "split_normals"]

ANOMALY = "anomaly"
"""The label of all that is not normal."""

# A lone label of these is no normal sound, whatever else would be left of it.
_ABNORMAL = ("abnormal", "anomal", "fault", "defect", "damage", "broken", "disease")
_TEST_SHARE = 0.2  # of the normal clips, where anomalies are there to tell them from


def split_normals(
    clips: Sequence[Clip],
    held_back: Callable[[int], int],
    *,
    normal: str | Iterable[str] | None = None,
    test_group: str | int | Iterable[str | int] | None = None,
    test_fraction: float = 0.0,
    seed: int = 42,
) -> Splits:
    """Part clips for a detector: it is fitted and calibrated on normal ones only.

    The test part is `test_group`, or what the table's split column says. Where neither is known and
    there are anomalies, all of them test, and with them a share of the normal clips. Anomalies in
    no test part are left out. Of the other normal clips some are held back, for the threshold: what
    the table calls validation, or as many as `held_back` says. From 8 groups on whole groups are
    tested and held back, and counted; else clips. The normal clips of a subject who has anomalies
    too are tested with them, unless most groups are such.

    Args:
        clips: the clips.
        held_back: how many of so many recordings the threshold needs.
        normal: labels that are normal; None takes `normal`, or the only label there is.
        test_group: group or groups that are kept for the test; compared as text.
        test_fraction: share of the normal clips that tests where no test part is known; 0 takes a
            fifth where there are anomalies, and none where not.
        seed: what the random choices are keyed by.

    Returns:
        The parts, with the labels `normal` and `anomaly`; `val` are the clips held back, and
        `validation` tells how: `given`, `group` or `clip`.

    Raises:
        ParameterError: it is unclear which clips are normal, unknown groups or parts, or too few
            normal clips.
    """
    names = _normal_labels(clips, normal)
    marked = [replace(c, label=NORMAL if c.label in names else ANOMALY) for c in sorted(clips)]
    train, val, test = given_parts(marked, test_group)
    given = bool(test)
    notes: list[str] = []
    rest = [clip for clip in train if clip.label == NORMAL]
    anomalies = [clip for clip in train + val if clip.label == ANOMALY]
    val = [clip for clip in val if clip.label == NORMAL]
    if given and anomalies:
        notes.append(f"{len(anomalies)} anomalies outside the test part are left out")
    elif anomalies or test_fraction > 0:
        share = test_fraction or _TEST_SHARE
        rng = np.random.default_rng([seed, 1])
        with_anomalies = {str(clip.group) for clip in anomalies if clip.group is not None}
        rest, tested, _ = _carve(rest, lambda n: round(share * n), rng, with_anomalies)
        test = sorted(tested + anomalies)
    if len(rest) + len(val) < 3:
        raise ParameterError(
            f"{len(rest) + len(val)} normal clips to fit on: must be three at least, two to fit "
            "and one to set the threshold by; record more"
        )
    mode = "given"
    if not val:
        rest, val, mode = _carve(rest, held_back, np.random.default_rng([seed, 2]))
    if mode == "clip" and 0 < (groups := group_count(rest + val)) < MIN_GROUPS:
        notes.append(
            f"clips, not groups, are held back for the threshold: there are {groups} groups, fewer "
            f"than {MIN_GROUPS}; the false-alarm rate holds for further clips of these groups"
        )
    shared = {c.group for c in rest + val} & {c.group for c in anomalies} - {None}
    if not given and shared and group_count(rest + val) >= MIN_GROUPS:
        notes.append(
            f"anomalies of {len(shared)} groups are tested whose normal clips are fitted on or "
            "held back: too many groups have both to test them all whole"
        )
    if len(rest) < 2:
        raise ParameterError(f"{len(rest)} normal clips are left to fit on: must be two at least")
    return Splits(rest, val, test, mode, notes)


def _normal_labels(clips: Sequence[Clip], normal: str | Iterable[str] | None) -> set[str]:
    labels = sort_labels(clip.label for clip in clips)
    if normal is not None:
        names = {str(normal)} if isinstance(normal, str | int) else {str(name) for name in normal}
        unknown = sorted(names - set(labels))
        if unknown or not names:
            raise ParameterError(f"normal={sorted(names)}: must be among the labels {labels}")
        return names
    named = {label for label in labels if label.casefold() == NORMAL}
    if not named and len(labels) > 1:
        raise ParameterError(
            f"normal=None: none of the labels {labels} is 'normal'; say which are, as in "
            f"data.normal=[{labels[0]}]"
        )
    if not named and any(word in labels[0].casefold() for word in _ABNORMAL):
        raise ParameterError(
            f"normal=None: the only label, '{labels[0]}', sounds like what is not normal; add "
            f"recordings of normal sound, or say data.normal=[{labels[0]}]"
        )
    return named or set(labels)


def _carve(
    clips: list[Clip],
    wanted: Callable[[int], int],
    rng: np.random.Generator,
    first: Collection[str] = (),
) -> tuple[list[Clip], list[Clip], str]:
    """Rest, the clips of as many groups as wanted, and whether these were groups or clips.

    The groups of `first` are taken before others, and all of them unless they are most.
    """
    by_group = group_count(clips) >= MIN_GROUPS
    keys = [str(clip.group if by_group and clip.group is not None else clip.path) for clip in clips]
    names = sorted(set(keys))
    shuffled = [names[i] for i in rng.permutation(len(names)).tolist()]
    preferred = [name for name in shuffled if name in first]
    least = len(preferred) if len(preferred) <= len(names) // 2 else 0
    n = max(0, min(max(wanted(len(names)), least), len(names) - 1))
    chosen = set([*preferred, *(name for name in shuffled if name not in first)][:n])
    rest = [clip for key, clip in zip(keys, clips, strict=True) if key not in chosen]
    taken = [clip for key, clip in zip(keys, clips, strict=True) if key in chosen]
    return rest, taken, "group" if by_group else "clip"
