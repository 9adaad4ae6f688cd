"""Which recordings of a data set a page lets one hear, and as what."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from audiotorch.data.examine import FileRecord
from audiotorch.data.manifest import sort_labels
from audiotorch.errors import AudioTorchError, TruncationWarning
from audiotorch.report.audio import Budget, excerpt, mp3, thumbnail
from audiotorch.report.page import Clip

__all__ = ["Sample", "clip_of", "draw_samples", "spread"]

_PICTURE_BYTES = 11_000  # of most thumbnails, in base64
_CARD_BYTES = 1000  # of text
_MOST_CARDS = 600
_WITHOUT_CLASSES = 24  # clips, where there are no classes or one


class _Tier(NamedTuple):
    """How much of how many clips a class, and how well it sounds."""

    per_class: int
    seconds: float
    kbps: int
    rate: int


# The first that fits into the budget is taken.
_TIERS = (
    _Tier(6, 8.0, 48, 32000),
    _Tier(4, 8.0, 48, 32000),
    _Tier(3, 6.0, 40, 24000),
    _Tier(2, 5.0, 32, 22050),
    _Tier(1, 5.0, 32, 22050),
    _Tier(1, 3.0, 24, 16000),
    _Tier(1, 2.0, 24, 16000),
)


class Sample(NamedTuple):
    """Cards of a data set's clips.

    Args:
        clips: in the order of their classes.
        told: how they were chosen, in a sentence.
    """

    clips: list[Clip]
    told: str


def spread(records: Sequence[FileRecord], count: int) -> list[FileRecord]:
    """Some of the records, from the first to the last at even steps.

    Args:
        records: in their order.
        count: how many at most.
    """
    count = min(count, len(records))
    return [records[i * len(records) // count] for i in range(count)]


def draw_samples(
    records: Sequence[FileRecord],
    start: str,
    budget: Budget,
    advance: Callable[[int], object] = lambda total: None,
) -> Sample:
    """Choose clips of each class, always the same ones, as many as the budget allows.

    Args:
        records: of all files.
        start: of their names, which is not shown.
        budget: what the page may still take.
        advance: is told of how many cards one more is done.
    """
    classes: dict[str, list[FileRecord]] = {}
    for record in records:
        if record.n_frames:
            classes.setdefault(record.label or "", []).append(record)
    if not classes:
        return Sample([], "There is nothing that can be played.")
    seconds = [r.duration_seconds or 0.0 for found in classes.values() for r in found]
    tier, n_classes = _fitting(len(classes), sum(seconds) / len(seconds), budget.left)
    names = sort_labels(classes)
    heard = [names[i * len(names) // n_classes] for i in range(n_classes)]
    each = _WITHOUT_CLASSES if len(classes) == 1 else tier.per_class
    chosen = [record for name in heard for record in spread(classes[name], each)]
    clips = []
    for record in chosen:
        clip = clip_of(record, start, budget, tier.seconds, tier.kbps, tier.rate)
        clips.append(clip if each > 1 else _alone(clip))
        advance(len(chosen))
    return Sample(clips, _told(tier, len(heard), classes, clips))


def _fitting(n_classes: int, mean_seconds: float, n_bytes: int) -> tuple[_Tier, int]:
    """How much of each clip fits, and for how many classes."""
    for tier in _TIERS:
        cost = tier.kbps * 1000 / 8 * min(tier.seconds, mean_seconds) * 4 / 3
        cost += _PICTURE_BYTES + _CARD_BYTES
        n_cards = min(_MOST_CARDS, int(n_bytes / cost))
        if n_classes * tier.per_class <= n_cards:
            return tier, n_classes
    return tier, max(1, min(n_classes, n_cards))


def _alone(clip: Clip) -> Clip:
    """The only card of its class, which needs no heading of its own."""
    return replace(clip, title=clip.group or clip.title, lines=[clip.title, *clip.lines], group="")


def _told(
    tier: _Tier, n_heard: int, classes: Mapping[str, Sequence[FileRecord]], clips: Sequence[Clip]
) -> str:
    total = sum(len(found) for found in classes.values())
    told = f"{len(clips)} of {total} clips"
    if len(classes) > 1:
        told += f", {tier.per_class} of a class" if tier.per_class > 1 else ", one of a class"
        if n_heard < len(classes):
            told += f", of {n_heard} out of {len(classes)} classes"
    told += f": at most {tier.seconds:g} s of each, at even steps through the file names."
    told += " Levels are as they are; only what is very quiet is played louder, and says so."
    silent = [clip for clip in clips if clip.audio is None]
    if broken := sum(bool(clip.silent) for clip in silent):
        told += f" {broken} cannot be played."
    if left_out := len(silent) - broken:
        told += f" {left_out} have no sound here, to keep the page small."
    return told


def clip_of(
    record: FileRecord,
    start: str,
    budget: Budget,
    seconds: float,
    kbps: int = 48,
    rate: int = 32000,
) -> Clip:
    """Make the card of a file.

    Args:
        record: of a file that can be read.
        start: of its name, which is not shown.
        budget: what the page may still take.
        seconds: that are played at most.
        kbps: bit rate of the sound, thousands a second.
        rate: highest sample rate of the sound, Hz.
    """
    # The heading above says the class already.
    name = record.file[len(start) :].removeprefix(f"{record.label}{os.sep}")
    lines = [_format(record), *(f"{found.name}: {found.message}" for found in record.findings)]
    group = record.label or ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # a finding tells it
            piece = excerpt(record.file, max_seconds=seconds, max_rate=rate)
    except (AudioTorchError, OSError) as error:
        return Clip(name, lines, None, silent=f"Cannot be played: {error}", group=group)
    picture = thumbnail(piece, budget, name)
    if piece.told:
        lines.insert(1, piece.told)
    pictures = [] if picture is None else [picture]
    return Clip(name, lines, mp3(piece, budget, kbps), pictures, group=group)


def _format(record: FileRecord) -> str:
    channels = {1: "mono", 2: "stereo"}.get(record.n_channels or 0, f"{record.n_channels} channels")
    rate = f"{(record.sample_rate or 0) / 1000:g} kHz"
    return f"{record.duration_seconds:.3g} s, {rate}, {channels}, {record.codec}"
