"""Where a job writes: what may stand there, for one job at a time, and nothing half-written."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from audiotorch.audio.whole import written_whole
from audiotorch.errors import ParameterError

__all__ = ["check_place", "held", "lock", "partial_name", "replace_file", "telling", "write_all"]


def check_place(path: Path) -> None:
    """Check that a file can be written there.

    Args:
        path: of the output.

    Raises:
        ParameterError: a missing folder, or a folder or protected file in its place.
    """
    if not path.parent.is_dir():
        raise ParameterError(f"out={os.fspath(path)!r}: its folder does not exist; create it first")
    if path.is_dir():
        raise ParameterError(f"out={os.fspath(path)!r}: is a folder; name a file")
    # Renaming over a write-protected file would succeed.
    if path.exists() and not path.stat().st_mode & 0o222:
        raise ParameterError(
            f"out={os.fspath(path)!r}: is write-protected; allow writing, or name another --out"
        )


def lock(handle: IO[bytes], path: Path) -> None:
    """Keep other jobs, of other processes or threads, away until the file is closed.

    Args:
        handle: the open file that stands for the output.
        path: what is told to be in use.

    Raises:
        ParameterError: another job has locked it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ParameterError(
            f"{os.fspath(path)!r}: another job is writing this output; wait for it, or "
            "name another --out"
        ) from error


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Lock an output that is replaced as a whole, by a hidden file beside it.

    The output's own lock would go with the file that is replaced. What a killed job leaves of it
    is an empty file without a lock.

    Args:
        path: of the output.

    Raises:
        ParameterError: another job has locked it.
        OSError: no rights, or no room.
    """
    beside = path.with_name(f".{path.name}.lock")
    while True:
        with open(beside, "ab") as handle:
            lock(handle, path)
            # Another job may have removed the file between opening and locking it.
            if not _is(handle, beside):
                continue
            try:
                yield
            finally:
                beside.unlink(missing_ok=True)
            return


def _is(handle: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def write_all(handle: BinaryIO, data: bytes) -> None:
    """Write all of it: one call may take only a part.

    Args:
        handle: an unbuffered file.
        data: what to write.
    """
    left = memoryview(data)
    while left:
        left = left[handle.write(left) :]


def partial_name(path: Path) -> str:
    """What `replace_file` calls a file that is not complete.

    Args:
        path: of the file.
    """
    # The file's own name may be as long as names can be.
    return os.fsdecode(b"." + os.fsencode(path.name)[:240] + b".part")


def replace_file(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file or replace it at once: whenever it is looked at, it is the old one or the new.

    One job alone writes there.

    Args:
        path: of the file.
        parts: what it is to hold.

    Raises:
        OSError: no room, or no rights; the file is as it was.
    """
    with written_whole(path, partial_name(path)) as partial:
        with open(partial, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, partial)


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Say what could not be written, which the system's own words may leave out.

    Args:
        path: of the output.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: cannot be written ({error.strerror or error}); what was done is kept: give "
            "room or rights and start again"
        ) from error
