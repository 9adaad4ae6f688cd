"""What a data set consists of: clips out of folders, tables and single files, faults or not."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from audiotorch.audio.io import AUDIO_SUFFIXES
from audiotorch.data.manifest import Clip, audio_files, from_table
from audiotorch.errors import ParameterError

__all__ = ["Inventory", "take_inventory"]

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}


@dataclass
class Inventory:
    """The clips of a data set, and what was met on the way to them.

    Args:
        clips: recordings, each once; those without a class have the label "".
        faults: rows of tables that name no recording, and why.
        passed_over: how many files in the folders have which suffix that is not audio.
    """

    clips: list[Clip] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def take_inventory(
    sources: Iterable[str | os.PathLike[str]],
    file_column: str = "file",
    label_column: str | None = "label",
    group_column: str | None = None,
    split_column: str | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Inventory:
    """List the recordings of folders, tables and single files.

    The folders in a folder are its classes if at least two hold audio; if all are called train,
    val, test or the like, they are its splits, and the folders in them the classes. Hidden files
    are left out.

    Args:
        sources: folders, `.csv`, `.tsv` and `.jsonl` tables, audio files.
        file_column: of tables, see `from_table`.
        label_column: of tables; None if they have none.
        group_column: of tables; None if they have none.
        split_column: of tables; None if they have none.
        root: folder that tables' relative names start from; their own by default.

    Raises:
        ParameterError: there is nothing to check, or a table cannot be read.
    """
    sources = list(sources)
    inventory = Inventory()
    found: list[Clip] = []
    for source in map(Path, sources):
        if source.is_dir():
            found += _from_folder(source, inventory.passed_over)
        elif source.suffix.lower() in _TABLES:
            found += from_table(
                source,
                file_column,
                label_column,
                group_column,
                split_column,
                None if root is None else Path(root),
                faults=inventory.faults,
            )
        else:
            found.append(Clip(source, ""))
    inventory.clips = list({os.path.abspath(clip.path): clip for clip in reversed(found)}.values())
    inventory.clips.sort()
    if not inventory.clips and not inventory.faults:
        named = ", ".join(repr(os.fspath(source)) for source in sources)
        raise ParameterError(
            f"no audio files under {named}: give files, a table, or a folder that holds some "
            f"({' '.join(AUDIO_SUFFIXES)})"
        )
    return inventory


def _from_folder(folder: Path, passed_over: Counter[str]) -> list[Clip]:
    paths = audio_files(folder, "**/*")
    for path in folder.glob("**/*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.suffix.lower() not in AUDIO_SUFFIXES and path.is_file():
            passed_over[path.suffix.lower()] += 1
    parents = [path.relative_to(folder).parts[:-1] for path in paths]
    tops = {parts[0].lower() for parts in parents if parts}
    in_splits = bool(tops) and tops <= _SPLITS
    depth = 1 if in_splits else 0
    labels = [parts[depth] if len(parts) > depth else "" for parts in parents]
    if len({*labels} - {""}) < 2:
        labels = [""] * len(labels)
    splits = [parts[0] if in_splits and parts else None for parts in parents]
    return [
        Clip(path, label, split=split)
        for path, label, split in zip(paths, labels, splits, strict=True)
    ]
