"""Which recordings, with which labels: clips read from class folders, a pattern, or a table."""

import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audiotorch.audio.io import AUDIO_SUFFIXES
from audiotorch.data.tables import missing_column, read_rows
from audiotorch.errors import ParameterError, printable

__all__ = [
    "NORMAL",
    "Clip",
    "audio_files",
    "check_clips",
    "from_folder",
    "from_glob",
    "from_table",
    "sort_labels",
]

log = logging.getLogger(__name__)

NORMAL = "normal"
"""The label of what a detector is trained on, unless another is named."""


@dataclass(frozen=True, order=True)
class Clip:
    """One labelled recording.

    Args:
        path: the audio file, absolute.
        label: the class it belongs to.
        group: the speaker, recording session or machine it comes from; None if unknown.
        split: the part a table assigns it to, as written there; None if it assigns none.
        machine: what a detector is judged by, one at a time; None if unknown.
    """

    path: Path
    label: str
    group: str | None = None
    split: str | None = None
    machine: str | None = None


def from_folder(root: str | Path, detection: bool = False) -> list[Clip]:
    """Read one folder per class: `root/<label>/**/<audio file>`.

    The label is the folder's name, blanks included. Files and folders whose name starts with a
    dot are left out, and so are folders without audio (with a warning in the log).

    Args:
        root: the folder that holds the class folders.
        detection: for a detector: one class will do, and audio in no class folder is `normal` where
            there are no class folders.

    Returns:
        The clips, sorted by path, whatever the order of the file system.

    Raises:
        ParameterError: the folder is missing or empty, holds no audio in class folders, or its
            labels are refused by `check_clips`.

    Example:
        >>> from_folder("no/such/folder")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ParameterError: root='no/such/folder': must be an existing folder; ...
    """
    folder = _existing_folder(root)
    clips = []
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        if class_folder.name.startswith("."):
            continue
        files = audio_files(class_folder, "**/*")
        if not files:
            log.warning("%s holds no audio and makes no class", printable(str(class_folder)))
        clips += [Clip(path, class_folder.name) for path in files]
    files = audio_files(folder, "*")
    if not clips and detection:
        clips = [Clip(path, NORMAL) for path in files]
    elif clips and files:
        log.warning(
            "%s: %d audio files lie in no class folder and are left out",
            printable(str(folder)),
            len(files),
        )
    if not clips:
        loose = len(files)
        reason = (
            f"its {loose} audio files lie in no class folder; make one folder per class, or give "
            "data.pattern and data.regex to take the label from the file name"
            if loose
            else f"it holds no file ending in {_suffixes()}; point it at the recordings"
        )
        raise ParameterError(
            f"root='{root}': must hold one folder of audio per class, but {reason}"
        )
    return _checked(clips, str(root), detection)


def from_glob(
    root: str | Path, pattern: str = "**/*", *, regex: str, detection: bool = False
) -> list[Clip]:
    """Read the audio files that match a pattern, with label and group from their paths.

    Args:
        root: the folder that the pattern starts from.
        pattern: glob pattern; `**` crosses folders. Files that are not audio are left out.
        regex: regular expression, searched in the path relative to `root` with `/` between
            folders. Its named group `label` gives the class; optional ones are `group`, `machine`
            and, for the part a clip belongs to, `split`.
        detection: for a detector: one class will do.

    Returns:
        The clips, sorted by path.

    Raises:
        ParameterError: the folder is missing, nothing matches the pattern, the expression is
            broken, has no group `label` or does not match every file, or `check_clips` refuses.
    """
    try:
        matcher = re.compile(regex)
    except re.error as error:
        raise ParameterError(f"regex={regex!r}: must be a regular expression; {error}") from error
    if "label" not in matcher.groupindex:
        raise ParameterError(f"regex={regex!r}: must hold a named group; write (?P<label>...)")
    folder = _existing_folder(root)
    if not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise ParameterError(f"pattern={pattern!r}: must stay below root; write e.g. '**/*'")
    clips, unmatched = [], []
    for path in audio_files(folder, pattern):
        relative = path.relative_to(folder).as_posix()
        found = matcher.search(relative)
        if found is None:
            unmatched.append(relative)
            continue
        parts = found.groupdict()
        group, split, machine = (
            (parts.get(name) or "").strip() or None for name in ("group", "split", "machine")
        )
        clips.append(Clip(path, parts["label"] or "", group, split, machine))
    if unmatched:
        raise ParameterError(
            f"regex={regex!r}: must match every file of pattern={pattern!r}, but not "
            f"{_some(unmatched)}; widen the expression or narrow the pattern"
        )
    if not clips:
        raise ParameterError(
            f"pattern={pattern!r}: must match audio under '{root}' (files ending in "
            f"{_suffixes()}), but matches none; check the pattern"
        )
    return _checked(clips, str(root), detection)


def from_table(
    path: str | Path,
    file_column: str = "file",
    label_column: str | None = "label",
    group_column: str | None = None,
    split_column: str | None = None,
    root: str | Path | None = None,
    faults: list[str] | None = None,
    machine_column: str | None = None,
    detection: bool = False,
) -> list[Clip]:
    """Read a CSV, TSV or JSON-lines table with one row per recording.

    The suffix tells the format: `.csv` (commas, or semicolons where the header has no comma),
    `.tsv` (tabs), `.jsonl` (one object a line). Text is UTF-8, with or without a byte-order mark.

    Args:
        path: the table.
        file_column: column with the audio file, absolute or relative to `root`.
        label_column: column with the class; None if there is none, and labels are empty.
        group_column: column with the speaker, recording or machine; None if there is none. Clips
            with an empty cell belong to no group.
        split_column: column that assigns each clip to `train`, `val` or `test`; None if none.
        root: folder that relative file names start from; the table's own folder by default.
        faults: takes what is wrong with single rows, which are left out then; and labels may be
            such that no classifier can be trained on them. None refuses all that.
        machine_column: column with what a detector is judged by, one at a time; None if none.
        detection: for a detector: one class will do.

    Returns:
        The clips, sorted by path.

    Raises:
        ParameterError: the table is missing, of another kind, without rows or the named columns,
            has empty cells or files listed twice, none of its files exists, or `check_clips`
            refuses its labels.
    """
    table = Path(path).expanduser()
    if not table.is_file():
        raise ParameterError(f"manifest='{path}': must be an existing file; check the path")
    columns, rows = read_rows(table)
    named = {
        "file_column": file_column,
        "label_column": label_column,
        "group_column": group_column,
        "split_column": split_column,
        "machine_column": machine_column,
    }
    for argument, column in named.items():
        if column is not None and column not in columns:
            raise ParameterError(missing_column(argument, column, columns, path))
    folder = Path(os.path.abspath(Path(root).expanduser() if root is not None else table.parent))
    clips: list[Clip] = []
    lines: dict[Path, int] = {}
    for line, cells in rows:
        try:
            _check_cells(path, line, cells, (file_column, label_column, split_column))
            # normpath, not resolve: links keep the names that the table gives them.
            file = Path(os.path.normpath(folder / cells[file_column].strip()))
            if file in lines:
                raise ParameterError(
                    f"{path}, line {line}: '{cells[file_column]}' is listed in line {lines[file]} "
                    "already; each file must stand once, drop one of the rows"
                )
        except ParameterError as error:
            if faults is None:
                raise
            faults.append(str(error))
            continue
        lines[file] = line
        label = cells[label_column] if label_column is not None else ""
        group = _cell(cells, group_column)
        split = cells[split_column].strip() if split_column is not None else None
        clips.append(Clip(file, label, group, split, _cell(cells, machine_column)))
    if clips and not any(clip.path.exists() for clip in clips):
        raise ParameterError(
            f"manifest='{path}': none of its {len(clips)} files exists, the first would be "
            f"'{clips[0].path}'; relative names start from '{folder}': set data.root to change that"
        )
    if faults is not None:
        return sorted(map(_stripped, clips))
    return _checked(clips, str(path), detection)


def check_clips(clips: Sequence[Clip], source: str, detection: bool = False) -> None:
    """Refuse clips that no classifier, or no detector, can be trained on.

    Args:
        clips: the clips.
        source: where they come from; error messages begin with it.
        detection: for a detector: one class will do, of any size.

    Raises:
        ParameterError: an empty label, labels that differ only by case, width or surrounding
            blanks; for a classifier fewer than two classes, or a class with a single clip.
    """
    spellings: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if not clip.label.strip():
            raise ParameterError(f"{source}: '{clip.path}' has an empty label; give it a class")
        key = unicodedata.normalize("NFKC", clip.label).strip().casefold()
        spellings[key].add(clip.label)
    for names in spellings.values():
        if len(names) > 1:
            raise ParameterError(
                f"{source}: labels {sorted(names)} differ only by case or blanks; they must be "
                "spelt alike if they are one class, or more differently if they are not"
            )
    if detection:
        return
    counts = Counter(clip.label for clip in clips)
    if len(counts) < 2:
        raise ParameterError(
            f"{source}: {len(counts)} class {sorted(counts)}; there must be at least two to tell "
            "apart, add recordings of another class"
        )
    single = sort_labels(label for label, count in counts.items() if count == 1)
    if single:
        raise ParameterError(
            f"{source}: {_some(single)} has one clip only; every class must have at least two "
            "(one to train on, one to check with), record more or drop the class"
        )


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Sort labels without repeats: as numbers if all are integers, else as text.

    Args:
        labels: names, with repeats or without.

    Example:
        >>> sort_labels(["10", "9", "9"]), sort_labels(["b", "10", "9"])
        (['9', '10'], ['10', '9', 'b'])
    """
    unique = sorted(set(labels))
    if all(re.fullmatch(r"[+-]?[0-9]+", label) for label in unique):
        unique.sort(key=int)
    return unique


def _checked(clips: list[Clip], source: str, detection: bool) -> list[Clip]:
    # The check comes first: stripping would silently merge "Dog" and "Dog ".
    check_clips(clips, source, detection)
    return sorted(map(_stripped, clips))


def _stripped(clip: Clip) -> Clip:
    return replace(clip, label=clip.label.strip())


def _cell(cells: Mapping[str, str], column: str | None) -> str | None:
    """What a cell holds; None for nothing."""
    return cells.get(column, "").strip() or None if column is not None else None


def _check_cells(
    path: str | Path, line: int, cells: dict[str, str], columns: Iterable[str | None]
) -> None:
    for column in columns:
        if column is not None and not cells.get(column, "").strip():
            raise ParameterError(
                f"{path}, line {line}: column '{column}' is empty; fill it in or drop the row"
            )


def _existing_folder(root: str | Path) -> Path:
    folder = Path(os.path.abspath(Path(root).expanduser()))
    if not str(root) or not folder.is_dir():
        raise ParameterError(f"root='{root}': must be an existing folder; check data.root")
    if next(folder.iterdir(), None) is None:
        raise ParameterError(f"root='{root}': the folder is empty; put the recordings there")
    return folder


def audio_files(folder: Path, pattern: str) -> list[Path]:
    """List the audio files below a folder, sorted; hidden ones (._x.wav of macOS) left out.

    Args:
        folder: where to look.
        pattern: glob pattern; `**` crosses folders.

    Raises:
        ParameterError: the pattern is none.
    """
    try:
        found = sorted(folder.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise ParameterError(f"pattern={pattern!r}: must be a glob pattern; {error}") from error
    return [
        path
        for path in found
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.is_dir()  # a dangling link is told as unreadable
    ]


def _suffixes() -> str:
    return " ".join(AUDIO_SUFFIXES)


def _some(names: Sequence[str], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
