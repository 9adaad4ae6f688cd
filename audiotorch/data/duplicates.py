"""Which files of a data set are one recording: equal, or re-encoded, scaled, clipped, resampled."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from audiotorch.data.comparison import overlap_of_copies, read_excerpt
from audiotorch.data.examine import Examined
from audiotorch.data.fingerprint import find_candidates
from audiotorch.errors import AudioTorchError

__all__ = ["Group", "find_duplicates"]

_PORTION = 64  # pairs compared before what they joined is looked at


@dataclass(frozen=True)
class Group:
    """Files that are one recording.

    Args:
        members: their indices, ascending.
        equal: sample for sample, at the same rate; else near duplicates, with or without some that
            are equal among them.
        overlap: the least share of the shorter one's sound in two of them that were compared.
    """

    members: tuple[int, ...]
    equal: bool
    overlap: float = 1.0


def find_duplicates(examined: Sequence[Examined], pool: Executor) -> list[Group]:
    """Find the groups of files that are one recording, those of equal ones first.

    Silence is no duplicate of silence. Recordings are compared by their first half minute.

    Args:
        examined: the files.
        pool: what compares several pairs at a time; the result does not depend on it.
    """
    same: dict[bytes, list[int]] = defaultdict(list)
    for i, file in enumerate(examined):
        if file.digest is not None:
            same[file.digest].append(i)
    equal = list(same.values())
    near = _joined([examined[members[0]] for members in equal], pool)
    groups = [Group(tuple(members), True) for members in equal if len(members) > 1]
    for parts, overlap in near:
        members = sorted(member for part in parts for member in equal[part])
        groups.append(Group(tuple(members), False, overlap))
    return groups


def _joined(files: Sequence[Examined], pool: Executor) -> list[tuple[list[int], float]]:
    """Near duplicates among files that all differ, joined where they share one."""
    with_prints = [i for i, file in enumerate(files) if file.spectra is not None]
    candidates = find_candidates([s for file in files if (s := file.spectra) is not None])
    pairs = [(with_prints[first], with_prints[second]) for first, second, _ in candidates]
    parents = list(range(len(files)))
    overlaps: dict[tuple[int, int], float] = {}

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = i = parents[parents[i]]
        return i

    def compare(pair: tuple[int, int]) -> float:
        return _compare(*(files[i].record.file for i in pair))

    for start in range(0, len(pairs), _PORTION):
        # What others have joined already needs no comparison.
        portion = [pair for pair in pairs[start : start + _PORTION] if len({*map(root, pair)}) > 1]
        for (first, second), overlap in zip(portion, pool.map(compare, portion), strict=True):
            if overlap > 0:
                overlaps[first, second] = overlap
                parents[max(root(first), root(second))] = min(root(first), root(second))
    groups: dict[int, set[int]] = defaultdict(set)
    least: dict[int, float] = defaultdict(lambda: 1.0)
    for pair, overlap in overlaps.items():
        groups[root(pair[0])].update(pair)
        least[root(pair[0])] = min(least[root(pair[0])], overlap)
    return [(sorted(groups[i]), least[i]) for i in sorted(groups)]


def _compare(first: str, second: str) -> float:
    try:
        return overlap_of_copies(read_excerpt(first), read_excerpt(second))
    except (AudioTorchError, OSError):
        return 0.0  # it went away or changed meanwhile
