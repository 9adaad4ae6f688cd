"""Which recordings are meant: files as they are given, folders by what lies in them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

from audiotorch.audio.io import AUDIO_SUFFIXES
from audiotorch.errors import ParameterError

__all__ = ["common_folder", "find_audio"]


def find_audio(
    sources: Iterable[str | os.PathLike[str]], suffixes: str | Iterable[str] = AUDIO_SUFFIXES
) -> list[str]:
    """Files as they are given, folders as the audio files in them at any depth, sorted.

    Hidden files and folders are left out, and links to folders are not followed.

    Args:
        sources: files and folders.
        suffixes: of the files that folders are searched for, in upper case or lower, with their dot
            or without; or one alone.

    Raises:
        ParameterError: there is no file at all.
        OSError: a folder that cannot be listed.
    """
    several = [suffixes] if isinstance(suffixes, str) else suffixes
    ends = tuple(f".{suffix.lower().lstrip('.')}" for suffix in several)
    files: list[str] = []
    names = [os.fspath(source) for source in sources]
    for source in names:
        if os.path.isdir(source):
            files.extend(sorted(_walk(source, ends)))
        else:
            files.append(source)
    if not files:
        named = ", ".join(map(repr, names))
        raise ParameterError(
            f"no audio files under {named}: give files, or a folder that holds some "
            f"({' '.join(ends)})"
        )
    return files


def common_folder(files: Sequence[str]) -> str:
    """The folder that all names begin with, and the separator behind it; `""` if there is none.

    Args:
        files: names, absolute or not.
    """
    if len(files) < 2 or len({os.path.isabs(file) for file in files}) > 1:
        return ""
    common = os.path.commonpath([os.path.dirname(file) for file in files])
    return common if common in ("", os.sep) else common + os.sep


def _walk(folder: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        # Hidden: thumbnails' and synchronisers' folders, macOS's "._clip.wav" beside clip.wav.
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield os.path.join(parent, name)


def _refuse(error: OSError) -> NoReturn:
    raise error
