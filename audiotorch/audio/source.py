"""Where audio comes from: a path, bytes or a file object, as one seekable binary file."""

import io
import os
import reprlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from audiotorch.errors import DecodeError, ParameterError

__all__ = ["Source", "open_binary", "peek", "source_name"]

Source = str | os.PathLike[str] | bytes | BinaryIO
"""What can be read: a path, a file's whole content, or an open binary file."""


def source_name(source: Source) -> str:
    """What messages call a source: its path, the file object's name, or its type.

    Args:
        source: path, a file's content as bytes, or a binary file object.

    Raises:
        ParameterError: `source` is none of these.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return "<bytes>"
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if not _gives_bytes(source):
        raise ParameterError(
            f"source={reprlib.repr(source)}: must be a path, bytes or a file object "
            "opened in binary mode"
        )
    return str(getattr(source, "name", f"<{type(source).__name__}>"))


def _gives_bytes(source: BinaryIO) -> bool:
    try:
        return isinstance(source.read(0), bytes)
    except (AttributeError, TypeError, ValueError):  # no file, or a closed one
        return False


@contextmanager
def open_binary(source: Source, name: str) -> Iterator[BinaryIO]:
    """Give any source as a seekable binary file; close it only if it was opened here."""
    if isinstance(source, bytes | bytearray | memoryview):
        # A memory view may have gaps, which bytes() leaves out.
        content = source.tobytes() if isinstance(source, memoryview) else source
        yield cast(BinaryIO, _Handle(io.BytesIO(content)))
    elif isinstance(source, str | os.PathLike):
        try:
            mode = os.stat(source).st_mode
            if stat.S_ISDIR(mode):
                raise DecodeError(f"{name}: is a folder; name one audio file in it")
            if not stat.S_ISREG(mode):
                raise DecodeError(f"{name}: is not a regular file; open it and pass the object")
            # Unbuffered: the decoder moves in the same file.
            handle = open(source, "rb", buffering=0)
        except FileNotFoundError as error:
            raise DecodeError(f"{name}: no such file; check the path") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DecodeError(
                f"{name}: cannot be opened: {reason}; check path and rights"
            ) from error
        with handle:
            descriptor = handle.fileno() if os.name == "posix" else None
            yield cast(BinaryIO, _Handle(cast(BinaryIO, handle), descriptor))
    else:
        seekable = hasattr(source, "seekable") and source.seekable()
        yield cast(BinaryIO, _Handle(source if seekable else io.BytesIO(source.read())))


class _Handle:
    """A binary file as libsndfile's callbacks want it: no name to guess from, no exceptions."""

    def __init__(self, file: BinaryIO, descriptor: int | None = None) -> None:
        self._file = file
        self.descriptor = descriptor
        self.read = file.read
        self.tell = file.tell
        if hasattr(file, "readinto"):
            self.readinto = file.readinto

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            # A corrupt header sends the decoder to before the start; it sees that it did not move.
            return self._file.tell()


def peek(handle: BinaryIO, start: int, n_bytes: int) -> bytes:
    """Some bytes of a file, which stays where it was."""
    position = handle.tell()
    handle.seek(max(0, start))
    data = b""
    # A file may give fewer bytes at a time than it is asked for.
    while len(data) < n_bytes and (more := handle.read(n_bytes - len(data))):
        data += more
    handle.seek(position)
    return data
