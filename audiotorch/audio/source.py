"""Open a path, bytes or file object as a libsndfile reader that refuses truncated audio.

libsndfile shortens what is cut off and goes on; the checks here compare what a file promises
with what it holds.
"""

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import soundfile

from audiotorch.errors import DecodeError, ParameterError

__all__ = ["AudioReader", "Source", "bit_depth", "open_source", "source_name"]

Source = str | os.PathLike[str] | bytes | BinaryIO
"""What can be read: a path, a file's whole content, or an open binary file."""

_BLOCK = 1 << 18  # frames a read call handles
_DENSEST = 256  # samples a byte, above which a header's frame count earns no allocation
_UNKNOWN = 1 << 62  # libsndfile gives 2**63 - 1 frames to a FLAC stream that does not state them
_PLACEHOLDER = 0x7FFF0000  # streaming writers declare a size from here up, not knowing the real one
_OGG_PAGE = 65307  # the longest Ogg page in bytes
_TAGS = 8192  # bytes of tags that may follow an MP3's audio
_MP3_SLACK = 2 * 1152  # samples: what decoders differ by at an MP3's ends
_FLOATING = {"FLOAT": 32, "DOUBLE": 64}

# How libsndfile's log names the declared size it corrected to what the file holds.
_DECLARED = {
    "WAV": "data",
    "WAVEX": "data",
    "AIFF": "SSND",
    "AU": "Data Size",
    "CAF": "data",
    "W64": "riff",
    "RF64": "Riff size",
}


def bit_depth(subtype: str) -> int | None:
    """Bits a sample of one of libsndfile's encodings; None where there is no such number."""
    linear = re.fullmatch(r"(?:PCM|ALAC)_[SU]?(\d+)", subtype)
    return int(linear.group(1)) if linear else _FLOATING.get(subtype)


class AudioReader(soundfile.SoundFile):
    """A SoundFile read front to back, that knows its name and its size in bytes.

    Args:
        handle: seekable binary file.
        name: what messages call it.
    """

    def __init__(self, handle: BinaryIO, name: str) -> None:
        self.handle = handle
        self.label = name
        self.n_bytes = handle.seek(0, os.SEEK_END)
        handle.seek(0)
        # By its descriptor libsndfile reads an opened file itself, without a call back into Python
        # every 8 KB; on Windows its descriptors are others than Python's.
        descriptor = getattr(handle, "descriptor", None)
        super().__init__(handle if descriptor is None else descriptor, closefd=False)

    def seekable(self) -> bool:
        """No: SoundFile then leaves out a seek per block.

        Those fail at the end of a FLAC stream that does not state its length. An explicit `seek`
        still works.
        """
        return False

    @property
    def plausible(self) -> bool:
        """Whether the header's frame count may be true, given the file's size."""
        return bool(self.frames * self.channels <= _DENSEST * self.n_bytes)

    @property
    def promised(self) -> int | None:
        """Frames the header states; None where it states none."""
        return None if self.frames >= _UNKNOWN else int(self.frames)

    def frames_from_here(
        self, limit: int | None, out: npt.NDArray[np.float32] | None = None
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Decode on, at most `limit` frames, a block `(time, channel)` at a time.

        Args:
            limit: frames; `None` = to the end.
            out: `(limit, channel)`, of which the blocks are parts; `None` = arrays of their own.

        Raises:
            DecodeError: the decoder meets corrupt data.
        """
        done = 0
        while limit is None or done < limit:
            n = _BLOCK if limit is None else min(_BLOCK, limit - done)
            try:
                part = None if out is None else out[done : done + n]
                block = self._read_block(n, part)
            except soundfile.LibsndfileError as error:
                raise DecodeError(
                    f"{self.label}: corrupt after {done / self.samplerate:.3f} s of audio: "
                    f"{error.error_string.strip() or 'the decoder gives up.'} "
                    "Fetch or record it again"
                ) from error
            if len(block) == 0:
                return
            done += len(block)
            yield block

    def _read_block(
        self, n_frames: int, out: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.float32]:
        if self.subtype != "PCM_16":
            return self.read(n_frames, dtype="float32", always_2d=True, out=out)
        # The same numbers as libsndfile's own conversion, which takes three times as long.
        block = self.read(n_frames, dtype="int16", always_2d=True)
        room = None if out is None else out[: len(block)]
        return np.multiply(block, np.float32(2.0**-15), out=room, dtype=np.float32)

    def check_decoded(self, expected: int, decoded: int) -> None:
        """Refuse a decoding that ended before its due frames, or before the file's end.

        Args:
            expected: frames that were due, as far as the header says.
            decoded: frames that came.

        Raises:
            DecodeError: some are missing.
        """
        stop = self.handle.tell()
        exact = self.format != "MP3" or _has_length_tag(self.handle)
        slack = _MP3_SLACK if self.format == "MP3" else 0
        if decoded + slack < expected and (exact or decoded == 0):
            raise DecodeError(
                f"{self.label}: truncated or corrupt: {expected} frames promised, {decoded} "
                "decoded; fetch or record it again"
            )
        if not exact and self.n_bytes - stop > max(_TAGS, self.n_bytes // 50):
            raise DecodeError(
                f"{self.label}: the MP3 decoder stopped at byte {stop} of {self.n_bytes}, after "
                f"{decoded} frames; convert the file to WAV or FLAC with a tool that can read it"
            )


@contextmanager
def open_source(source: Source) -> Iterator[AudioReader]:
    """Open a source and check what its container says of itself.

    Args:
        source: path, a file's content as bytes, or a binary file object (read from its start).

    Raises:
        ParameterError: `source` is none of these.
        DecodeError: it is missing, unreadable, of a format not supported, corrupt or truncated.
    """
    name = source_name(source)
    with _binary(source, name) as handle:
        if handle.seek(0, os.SEEK_END) == 0:
            raise DecodeError(f"{name}: the file is empty (0 bytes); fetch or record it again")
        _check_ogg_end(handle, name)
        try:
            reader = AudioReader(handle, name)
        except soundfile.LibsndfileError as error:
            # The decoder behind MP3 calls an audio stream it cannot find a missing file.
            reason = error.error_string.strip().replace(
                "File does not exist or is not a regular file (possibly a pipe?).",
                "It holds no decodable MPEG audio.",
            )
            raise DecodeError(
                f"{name}: not a readable audio file: {reason or 'Its header is corrupt.'} "
                "WAV, FLAC, MP3, OGG, Opus and AIFF are read; convert other formats first"
            ) from error
        with reader:
            _check_container(reader)
            yield reader


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
        return os.fspath(source)
    if not hasattr(source, "read") or isinstance(source, io.TextIOBase):
        raise ParameterError(
            f"source={source!r}: must be a path, bytes or a file object opened in binary mode"
        )
    return str(getattr(source, "name", f"<{type(source).__name__}>"))


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


@contextmanager
def _binary(source: Source, name: str) -> Iterator[BinaryIO]:
    """Give any source as a seekable binary file; close it only if it was opened here."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield cast(BinaryIO, _Handle(io.BytesIO(source)))
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
        seekable = source if source.seekable() else io.BytesIO(source.read())
        yield cast(BinaryIO, _Handle(seekable))


def _check_container(reader: AudioReader) -> None:
    """Refuse a file whose container declares more audio than follows its header."""
    declared = found = 0
    frame_bytes = reader.channels * (bit_depth(reader.subtype) or 8) // 8
    if reader.format in _DECLARED:
        pattern = rf"^\s*{_DECLARED[reader.format]}\s*:\s*(\d+)\s*\(should be (\d+)\)"
        cut = re.search(pattern, reader.extra_info, re.MULTILINE)
        if cut is not None:
            declared, found = int(cut.group(1)), int(cut.group(2))
    elif reader.format == "NIST":
        stated = re.search(rb"sample_count -i (\d+)", _peek(reader.handle, 0, 1024))
        declared = int(stated.group(1)) * frame_bytes if stated else 0
        found = reader.frames * frame_bytes
    elif reader.format == "VOC" and "truncated file" in reader.extra_info:
        raise DecodeError(f"{reader.label}: truncated: its last block is cut; fetch it again")
    # A writer may count a pad byte that it did not write: less than one frame is nothing lost.
    if found + frame_bytes <= declared < _PLACEHOLDER:
        raise DecodeError(
            f"{reader.label}: truncated: its header declares {declared} bytes, the file holds "
            f"{found}; fetch or record it again"
        )


def _check_ogg_end(handle: BinaryIO, name: str) -> None:
    """Refuse an Ogg file cut inside a page, which the decoder would just drop."""
    if _peek(handle, 0, 4) != b"OggS":
        return
    tail = _peek(handle, max(0, handle.seek(0, os.SEEK_END) - _OGG_PAGE), _OGG_PAGE)
    page = tail[tail.rfind(b"OggS\0") :]
    # A page is 27 bytes of header, its segment table, and the segments' bytes.
    n_segments = page[26] if len(page) > 26 else 255
    if len(page) < 27 + n_segments + sum(page[27 : 27 + n_segments]):
        raise DecodeError(f"{name}: truncated: its last Ogg page is cut; fetch it again")


def _has_length_tag(handle: BinaryIO) -> bool:
    """Whether an MP3 states its frames in a Xing or Info tag; without, their count is a guess."""
    head = _peek(handle, 0, 10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        # ID3v2 gives its size in four bytes of seven bits.
        start = 10 + int("".join(f"{byte & 0x7F:07b}" for byte in head[6:]), 2)
    frame = _peek(handle, start, 256)
    tag = max(frame.find(b"Xing"), frame.find(b"Info"))
    return tag >= 0 and len(frame) > tag + 7 and bool(frame[tag + 7] & 1)


def _peek(handle: BinaryIO, start: int, n_bytes: int) -> bytes:
    """Some bytes of a file, which stays where it was."""
    position = handle.tell()
    handle.seek(start)
    data = handle.read(n_bytes)
    handle.seek(position)
    return data
