"""What a data set is, counted: rates, channels, codings, labels, lengths."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from audiotorch.data.examine import FileRecord
from audiotorch.data.manifest import sort_labels

__all__ = ["gather_facts", "similar_labels"]

_BARS = 10
_FAR = 4  # times the median length
_WIDE = 50  # times the shortest length, from where on the bars' edges grow by a factor


def gather_facts(records: Sequence[FileRecord]) -> dict[str, Any]:
    """Count what there is.

    Args:
        records: of all files; those that cannot be read count in `n_files` and by their labels.

    Returns:
        As JSON can hold it: `n_files n_readable duration_seconds`, counts by value in
        `sample_rates channels containers codecs bit_depths labels splits`, the bars of `lengths`
        (`from_seconds to_seconds n_files`), `median_seconds`, and the files a quarter as long as
        that or shorter (`far_shorter`), and four times as long or longer (`far_longer`).
    """
    readable = [record for record in records if record.readable]
    seconds = {record.file: record.duration_seconds or 0.0 for record in readable}
    lengths = np.array(list(seconds.values()))
    median = float(np.median(lengths)) if len(lengths) else 0.0
    return {
        "n_files": len(records),
        "n_readable": len(readable),
        "duration_seconds": float(lengths.sum()),
        "sample_rates": _counts(record.sample_rate for record in readable),
        "channels": _counts(record.n_channels for record in readable),
        "containers": _counts(record.container for record in readable),
        "codecs": _counts(record.codec for record in readable),
        "bit_depths": _counts(record.bit_depth for record in readable),
        "labels": _counts(record.label for record in records),
        "splits": _counts(record.split for record in records),
        "median_seconds": median,
        "lengths": _bars(lengths),
        "far_shorter": [file for file, length in seconds.items() if length * _FAR <= median],
        "far_longer": [file for file, length in seconds.items() if length >= _FAR * median],
    }


def similar_labels(labels: Iterable[str]) -> list[list[str]]:
    """Group labels that are spelt alike but for case, width and blanks around them.

    Args:
        labels: the labels.

    Example:
        >>> similar_labels(["dog", "Dog", "cat"])
        [['Dog', 'dog']]
    """
    spellings: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        spellings[unicodedata.normalize("NFKC", label).strip().casefold()].add(label)
    return sorted(sorted(names) for names in spellings.values() if len(names) > 1)


def _counts(values: Iterable[int | str | None]) -> dict[str, int]:
    """How often each value stands; JSON has text for keys."""
    counts = Counter(str(value) for value in values if value is not None)
    return {value: counts[value] for value in sort_labels(counts)}


def _bars(lengths: np.ndarray) -> list[dict[str, float | int]]:
    if len(lengths) == 0:
        return []
    low, high = float(lengths.min()), float(lengths.max())
    if high > _WIDE * low > 0:
        edges = np.geomspace(low, high, _BARS + 1)
    else:
        edges = np.linspace(low, high, _BARS + 1 if high > low else 2)
    edges[0], edges[-1] = low, high  # which rounding may have moved inside
    counts, _ = np.histogram(lengths, edges) if high > low else ([len(lengths)], edges)
    return [
        {"from_seconds": float(start), "to_seconds": float(stop), "n_files": int(count)}
        for start, stop, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
