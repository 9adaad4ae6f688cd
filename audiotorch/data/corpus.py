"""Folders of synthetic recordings, which are there whole or not at all."""

import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audiotorch.errors import ParameterError

__all__ = ["check_counts", "write_once"]

log = logging.getLogger(__name__)

_MARKER = "corpus.json"

Settings = dict[str, Any]


def check_counts(**counts: tuple[int, int, int]) -> None:
    """Refuse whole numbers out of range.

    Args:
        counts: by name, each a value with the least and the most that it may be.

    Raises:
        ParameterError: one is.
    """
    for name, (value, least, most) in counts.items():
        if not isinstance(value, int) or not least <= value <= most:
            raise ParameterError(f"{name}={value!r}: must be from {least} to {most}, whole")


def write_once(
    root: str | Path, settings: Settings, write: Callable[[Path, Settings], None]
) -> Path:
    """Write a corpus, or find it written already, and return its folder.

    It is written beside the folder and renamed, so that a killed run leaves no half corpus. One of
    the same name with other settings is replaced.

    Args:
        root: the corpus's own folder.
        settings: all that its samples hang on; `corpus` is its name.
        write: puts the recordings into a folder, which it makes.

    Raises:
        ParameterError: `root` holds something that is not this corpus.
    """
    folder = Path(os.path.abspath(Path(root).expanduser()))
    if _read_marker(folder, settings) != settings:
        _refuse_foreign(folder, settings)
        log.info("writing the %s corpus to %s", _title(settings), folder)
        _write_whole(folder, settings, write)
    return folder


def _title(settings: Settings) -> str:
    return str(settings["corpus"]).removeprefix("audiotorch ")


def _write_whole(folder: Path, settings: Settings, write: Callable[[Path, Settings], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    old = fresh.with_name(f"{fresh.name}-old")
    try:
        write(fresh, settings)
        (fresh / _MARKER).write_text(json.dumps(settings) + "\n", encoding="utf-8")
        # Another process may have been faster; a corpus of these settings is as good as ours.
        if _read_marker(folder, settings) != settings:
            if folder.exists():
                folder.rename(old)
            fresh.rename(folder)
    except OSError:
        if _read_marker(folder, settings) != settings:
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _read_marker(folder: Path, settings: Settings) -> Settings | None:
    """The settings of the corpus of this name in a folder; None if it holds none."""
    try:
        found = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(found, dict) and found.get("corpus") == settings["corpus"]
    return found if ours else None


def _refuse_foreign(folder: Path, settings: Settings) -> None:
    """Only the corpus of this name, or an empty folder, may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f"root='{folder}': must be a folder; it is a file")
    if folder.is_dir() and any(folder.iterdir()) and _read_marker(folder, settings) is None:
        raise ParameterError(
            f"root='{folder}': must be empty or hold the {_title(settings)} corpus; it holds "
            "something else, choose another folder, or data=default to train on it"
        )
