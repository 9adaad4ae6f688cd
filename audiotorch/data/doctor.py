"""Findings over a whole data set: `check_dataset` looks at every recording, and across them."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from audiotorch.audio.chunks import n_cores
from audiotorch.audio.quality import QualityMeter
from audiotorch.data.duplicates import Group, find_duplicates
from audiotorch.data.examine import Examined, FileRecord, examine
from audiotorch.data.facts import gather_facts, similar_labels
from audiotorch.data.findings import NOTES, PROBLEMS
from audiotorch.data.manifest import Clip
from audiotorch.errors import ParameterError

__all__ = ["DatasetFinding", "DatasetReport", "check_dataset"]

_IMBALANCE = 10  # times as many clips


@dataclass(frozen=True)
class DatasetFinding:
    """One finding.

    Duplicates are a finding for each recording that is there several times; of all else there is
    one finding a name.

    Attributes:
        name: a key of `PROBLEMS` or `NOTES`.
        message: what was found, in one sentence.
        files: the files concerned, sorted.
        reasons: of some findings, a sentence for each of the files.
    """

    name: str
    message: str
    files: tuple[str, ...]
    reasons: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        lists = {"files": list(self.files), "reasons": list(self.reasons)}
        return {"name": self.name, "message": self.message, **lists}


@dataclass(frozen=True)
class DatasetReport:
    """What a data set is, and what is wrong with it.

    Attributes:
        files: a record for each file, sorted by path.
        findings: the worst first.
        facts: counts by what is counted, as JSON can hold them: `sample_rates channels codecs
            bit_depths labels splits lengths` and others.
    """

    files: tuple[FileRecord, ...]
    findings: tuple[DatasetFinding, ...]
    facts: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        return {
            "facts": self.facts,
            "findings": [finding.as_dict() for finding in self.findings],
            "files": [record.as_dict() for record in self.files],
        }


def check_dataset(
    clips: Iterable[Clip | str | os.PathLike[str]],
    *,
    jobs: int | None = None,
    faults: Sequence[str] = (),
    advance: Callable[[int], object] = lambda count: None,
    **thresholds: float,
) -> DatasetReport:
    """Check every recording of a data set, and look for what goes wrong between them.

    Each file is decoded once, block by block. Duplicates are found whatever became of a copy:
    other coding, rate, bit depth or level, clipping, silence before or behind it, a part cut off.
    They are compared by waveform before they are told, so that takes of one word or sounds of one
    machine are none; recordings that share at least half of the shorter one's sound are. Only the
    first half minute of each is compared, and only of 0.1 s and more; silence has no duplicates.

    Args:
        clips: the recordings, with labels, groups and splits as far as they are known.
        jobs: threads; `None` = as many as there are cores. The result does not depend on it.
        faults: rows of a table that name no recording, as `take_inventory` gives them.
        advance: is told how many more files are decoded.
        **thresholds: of `check`, such as `min_duration=0.2` seconds.

    Raises:
        ParameterError: no clips, an unknown threshold, or `jobs` below 1.
    """
    if jobs is not None and jobs < 1:
        raise ParameterError(f"jobs={jobs}: must be at least 1")
    QualityMeter(8000, 1, **thresholds)  # refuses unknown ones before any work
    known = {clip.path: clip for clip in map(_as_clip, clips)}
    if not known and not faults:
        raise ParameterError("clips: must hold at least one recording")
    n_threads = torch.get_num_threads()
    # One thread of torch for each of ours; this also holds for threads to come, so the caller's
    # number is set anew.
    pool = ThreadPoolExecutor(jobs or n_cores(), initializer=torch.set_num_threads, initargs=(1,))
    try:
        tasks = [pool.submit(examine, known[path], thresholds) for path in sorted(known)]
        for _ in as_completed(tasks):
            advance(1)
        examined = [task.result() for task in tasks]
        groups = find_duplicates(examined, pool)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_threads)
    return _report(examined, groups, faults)


def _as_clip(clip: Clip | str | os.PathLike[str]) -> Clip:
    return clip if isinstance(clip, Clip) else Clip(Path(clip), "")


def _report(
    examined: Sequence[Examined], groups: Sequence[Group], faults: Sequence[str]
) -> DatasetReport:
    records = [file.record for file in examined]
    found = [*_file_findings(records), *(_duplicates(records, group) for group in groups)]
    if faults:
        told = f"{len(faults)} row(s) name no recording"
        found.append(DatasetFinding("bad_row", told, (), tuple(faults)))
    found += _label_findings(records)
    for name, what, values in (
        ("mixed_sample_rates", "sample rates", {r.file: r.sample_rate for r in records}),
        ("mixed_channels", "channel counts", {r.file: r.n_channels for r in records}),
    ):
        found += _mixed(name, what, {file: value for file, value in values.items() if value})
    order = {name: i for i, name in enumerate((*PROBLEMS, *NOTES))}
    found.sort(key=lambda finding: (order[finding.name], finding.files))
    return DatasetReport(tuple(records), tuple(found), gather_facts(records))


def _file_findings(records: Iterable[FileRecord]) -> list[DatasetFinding]:
    """What single files have, one finding a name."""
    reasons: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        for finding in record.findings:
            reasons[finding.name][record.file] = finding.message
    return [
        DatasetFinding(
            name,
            f"{len(files)} file(s): {({**PROBLEMS, **NOTES})[name]}",
            tuple(files),
            tuple(files.values()),
        )
        for name, files in reasons.items()
    ]


def _duplicates(records: Sequence[FileRecord], group: Group) -> DatasetFinding:
    members = [records[i] for i in group.members]
    labels = sorted({record.label for record in members if record.label is not None})
    splits = sorted({record.split for record in members if record.split is not None})
    groups = sorted({record.group for record in members if record.group is not None})
    name = "duplicate" if group.equal else "near_duplicate"
    message = f"{len(members)} files are one recording"
    message += ", sample for sample" if group.equal else f", in {group.overlap:.0%} of their sound"
    if len(labels) > 1:
        name = "duplicate_across_labels"
        message += f", under the labels {', '.join(labels)}"
    if len(splits) > 1:
        name = "duplicate_across_splits"
        message += f", in the splits {', '.join(splits)}"
    if len(groups) > 1:
        message += f", in the groups {', '.join(groups)}"
    return DatasetFinding(name, message, tuple(record.file for record in members))


def _label_findings(records: Sequence[FileRecord]) -> list[DatasetFinding]:
    files: dict[str, list[str]] = defaultdict(list)
    for record in records:
        if record.label is not None:
            files[record.label].append(record.file)
    found = []
    if single := sorted(label for label, clips in files.items() if len(clips) == 1):
        told = f"{len(single)} label(s) with one clip: {', '.join(single)}"
        found.append(
            DatasetFinding("single_clip_label", told, tuple(files[label][0] for label in single))
        )
    for alike in similar_labels(files):
        told = f"labels {', '.join(map(repr, alike))} differ by case or blanks only"
        concerned = sorted(file for label in alike for file in files[label])
        found.append(DatasetFinding("similar_labels", told, tuple(concerned)))
    most = max(files, key=lambda label: (len(files[label]), label), default="")
    few = [label for label in sorted(files) if len(files[label]) * _IMBALANCE < len(files[most])]
    if few:
        told = f"{most} has {len(files[most])} clips, but " + ", ".join(
            f"{label} {len(files[label])}" for label in few
        )
        concerned = sorted(file for label in few for file in files[label])
        found.append(DatasetFinding("imbalanced_labels", told, tuple(concerned)))
    return found


def _mixed(name: str, what: str, values: Mapping[str, int]) -> list[DatasetFinding]:
    """Files that differ from most in a number."""
    counts = Counter(values.values())
    if len(counts) < 2:
        return []
    usual = max(counts, key=lambda value: (counts[value], value))
    others = tuple(file for file, value in values.items() if value != usual)
    told = ", ".join(f"{value}: {counts[value]} files" for value in sorted(counts))
    return [DatasetFinding(name, f"{len(counts)} {what}: {told}", others)]
