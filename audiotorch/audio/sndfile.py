"""WAV, FLAC, MP3, Ogg, AIFF and their like, through libsndfile.

libsndfile shortens what is cut off and goes on; the checks here compare what a file promises with
what it holds.
"""

import collections
import os
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from audiotorch.audio.source import peek
from audiotorch.errors import DecodeError

__all__ = ["VORBIS_ORDER", "SoundFileReader", "cut_page", "last_ogg_page"]

Samples = npt.NDArray[np.float32]

_BLOCK = 1 << 18  # frames a read call handles
_DENSEST = 256  # samples a byte, above which a header's frame count earns no allocation
_UNKNOWN = 1 << 62  # libsndfile gives 2**63 - 1 frames to a FLAC stream that does not state them
_PLACEHOLDER = 0x7FFF0000  # streaming writers declare a size from here up, not knowing the real one
_OGG_PAGE = 65307  # the longest Ogg page in bytes
_READ_AHEAD = 1 << 16  # bytes
_TAGS = 8192  # bytes of tags that may follow an MP3's audio
_MP3_SLACK = 2 * 1152  # samples: what decoders differ by at an MP3's ends
# An MP3 frame draws on bits of up to nine before it: after a seek, decoded without them, it is
# silence.
_MP3_LEAD_IN = 10 * 1152
_OPUS_LEAD_IN = 0.08  # seconds, RFC 7845; up to 2e-3 are left after any lead-in
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

# Where each of WAV's channels stands in Vorbis and Opus, by their number; libsndfile leaves it so.
VORBIS_ORDER = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 5, 3, 4],
    7: [0, 2, 1, 6, 5, 3, 4],
    8: [0, 2, 1, 7, 5, 6, 3, 4],
}


class SoundFileReader:
    """A recording decoded front to back by libsndfile.

    Args:
        handle: seekable binary file.
        name: what messages call it.

    Raises:
        DecodeError: libsndfile does not know the format, or the header is corrupt.
    """

    def __init__(self, handle: BinaryIO, name: str) -> None:
        self.label = name
        self.position = 0
        self._handle = handle
        self._n_bytes = handle.seek(0, os.SEEK_END)
        self._file = self._open()
        file = self._file
        # SoundFile looks these two up in its tables at each access.
        container, self._subtype = file.format, file.subtype
        self.sample_rate = int(file.samplerate)
        self.n_channels = int(file.channels)
        self.container = "WAV" if container == "WAVEX" else container
        self.codec = "FLAC" if container == "FLAC" else self._subtype
        linear = re.fullmatch(r"(?:PCM|ALAC)_[SU]?(\d+)", self._subtype)
        self.bit_depth = int(linear.group(1)) if linear else _FLOATING.get(self._subtype)
        self._order = VORBIS_ORDER.get(self.n_channels) if container == "OGG" else None
        if self._order is not None and _discrete_opus(handle):
            self._order = None
        # An MP3 without a length tag: its number of frames is an estimate.
        self.guessed = container == "MP3" and not _has_length_tag(handle)
        if container == "WAV" and self._unfinished():
            raise DecodeError(f"{name}: its header says that it has no samples")
        self.damage = self._cut_container(container)
        if container == "OGG":
            page = last_ogg_page(handle, self._n_bytes)
            self.damage = cut_page(page)
            # A stream's serial number stands from the fifteenth byte of its pages on.
            if self.damage is None and peek(handle, 14, 4) != page[14:18]:
                self.damage = "it is a chain of recordings, of which only the first is read"

    def _unfinished(self) -> bool:
        """Whether a recorder was killed before it wrote sizes into the header of its WAV."""
        riff = int.from_bytes(peek(self._handle, 4, 4), "little")
        return self._file.frames == 0 and riff + 8 + _TAGS < self._n_bytes

    def _open(self) -> soundfile.SoundFile:
        self._handle.seek(0)
        # By its descriptor libsndfile reads an opened file itself, without a call back into Python
        # every 8 KB; on Windows its descriptors are others than Python's.
        descriptor = getattr(self._handle, "descriptor", None)
        try:
            return _Unseekable(self._handle if descriptor is None else descriptor, closefd=False)
        except soundfile.LibsndfileError as error:
            # The decoder behind MP3 calls an audio stream it cannot find a missing file.
            reason = error.error_string.strip().replace(
                "File does not exist or is not a regular file (possibly a pipe?).",
                "It holds no decodable MPEG audio.",
            )
            raise DecodeError(
                f"{self.label}: not a readable audio file: {reason or 'Its header is corrupt.'}"
            ) from error

    def _cut_container(self, container: str) -> str | None:
        """What is wrong with a file that declares more audio than follows its header."""
        declared = found = 0
        frame_bytes = self.n_channels * (self.bit_depth or 8) // 8
        if container in _DECLARED:
            pattern = rf"^\s*{_DECLARED[container]}\s*:\s*(\d+)\s*\(should be (\d+)\)"
            cut = re.search(pattern, self._file.extra_info, re.MULTILINE)
            if cut is not None:
                declared, found = int(cut.group(1)), int(cut.group(2))
        elif container == "NIST":
            stated = re.search(rb"sample_count -i (\d+)", peek(self._handle, 0, 1024))
            declared = int(stated.group(1)) * frame_bytes if stated else 0
            found = self._file.frames * frame_bytes
        elif container == "VOC" and "truncated file" in self._file.extra_info:
            return "its last block is cut"
        # A writer may count a pad byte that it did not write: less than one frame is nothing lost.
        if found + frame_bytes <= declared < _PLACEHOLDER:
            return f"its header declares {declared} bytes of audio, the file holds {found}"
        return None

    @property
    def n_frames(self) -> int | None:
        """Samples per channel that the header states; None where it states none."""
        return None if self._file.frames >= _UNKNOWN else int(self._file.frames)

    @property
    def trusted_frames(self) -> int | None:
        """The header's number where it may be true, given the file's size."""
        n_frames = self.n_frames
        plausible = (n_frames or 0) * self.n_channels <= _DENSEST * self._n_bytes
        return n_frames if plausible else None

    def blocks(self, limit: int | None = None, out: Samples | None = None) -> Iterator[Samples]:
        """Decode on, at most `limit` samples, a block `(time, channel)` at a time.

        Args:
            limit: samples per channel; `None` = to the end.
            out: `(time, channel)`, no longer than the limit and the rest of the recording; the
                blocks are parts of it. `None` = arrays of their own.

        Raises:
            DecodeError: the decoder meets corrupt data, or gives up before the file's end.
        """
        done = 0
        if out is not None:
            limit = len(out)
        elif limit is None and self.trusted_frames is not None:
            limit = max(0, self.trusted_frames - self.position)
        while limit is None or done < limit:
            n = _BLOCK if limit is None else min(_BLOCK, limit - done)
            try:
                block = self._read_block(n, None if out is None else out[done : done + n])
            except soundfile.LibsndfileError as error:
                raise DecodeError(
                    f"{self.label}: corrupt after {self.position / self.sample_rate:.3f} s of "
                    f"audio: {error.error_string.strip() or 'the decoder gives up.'} "
                    "Fetch or record it again"
                ) from error
            if len(block) == 0:
                break
            done += len(block)
            self.position += len(block)
            yield block
        if done != limit or self.position == self.trusted_frames:
            self._note_the_end()

    def _read_block(self, n_frames: int, out: Samples | None) -> Samples:
        if self._subtype != "PCM_16":
            samples: Samples = self._file.read(n_frames, dtype="float32", always_2d=True, out=out)
            if self._order is not None:
                samples[:] = samples[:, self._order]
            return samples
        # The same numbers as libsndfile's own conversion, which takes three times as long.
        block = self._file.read(n_frames, dtype="int16", always_2d=True)
        room = None if out is None else out[: len(block)]
        return np.multiply(block, np.float32(2.0**-15), out=room, dtype=np.float32)

    def _note_the_end(self) -> None:
        """Compare what came with what the header promises, and with where the file ends."""
        n_frames = self.n_frames
        if not self.guessed:
            slack = _MP3_SLACK if self.container == "MP3" else 0
            if n_frames is not None and self.position + slack < n_frames:
                self.damage = f"{n_frames} frames promised, {self.position} decoded"
            elif self.container in ("MP3", "FLAC") and self._goes_on():
                self.damage = f"its header states {n_frames} frames, but more follow"
            return
        stop = self._handle.tell()
        # libsndfile never gives more than its guess.
        if self.position == n_frames or self._n_bytes - stop > max(_TAGS, self._n_bytes // 50):
            raise DecodeError(
                f"{self.label}: the MP3 decoder stopped at byte {stop} of {self._n_bytes}, after "
                f"{self.position} frames; convert the file to WAV or FLAC with a tool that can "
                "read it"
            )

    def _goes_on(self) -> bool:
        """Whether more than tags lies behind what has been decoded."""
        left = self._n_bytes - self._handle.tell()
        if left <= max(_READ_AHEAD, self._n_bytes // 50):
            return False
        tail = peek(self._handle, self._n_bytes - 160, 160)
        return b"APETAGEX" not in tail and b"3DI" not in tail

    def skip_to(self, start: int) -> None:
        """Move forward to a sample, or to the end where that lies before it."""
        n_frames = self.trusted_frames
        if n_frames is not None:
            start = min(start, n_frames)
            target = start - min(start - self.position, self._lead_in)
            if target > self.position:
                self._seek(target)
        collections.deque(self.blocks(start - self.position), maxlen=0)

    @property
    def _lead_in(self) -> int:
        """Samples that a decoder must have heard before those that count."""
        if self.container == "MP3":
            return _MP3_LEAD_IN
        return round(_OPUS_LEAD_IN * self.sample_rate) if self.codec == "OPUS" else 0

    def _seek(self, target: int) -> None:
        if self.container == "FLAC" and _false_block_size(self._handle):
            return
        try:
            self._file.seek(target)
            self.position = target
        except soundfile.LibsndfileError:
            # Such as FLAC with tags before its header: from the start.
            self._file.close()
            self._file = self._open()
            self.position = 0

    def close(self) -> None:
        """Release the decoder."""
        self._file.close()


class _Unseekable(soundfile.SoundFile):
    def seekable(self) -> bool:
        """No: SoundFile then leaves out a seek per block.

        Those fail at the end of a FLAC stream that does not state its length. An explicit `seek`
        still works.
        """
        return False


def last_ogg_page(handle: BinaryIO, n_bytes: int) -> bytes:
    """The last page of an Ogg file, or what is left of it.

    Args:
        handle: the file.
        n_bytes: its size.
    """
    tail = peek(handle, max(0, n_bytes - _OGG_PAGE), _OGG_PAGE)
    return tail[tail.rfind(b"OggS\0") :]


def cut_page(page: bytes) -> str | None:
    """What is wrong with an Ogg page cut in two, which decoders would just drop.

    Args:
        page: what there is of it.
    """
    # A page is 27 bytes of header, its segment table, and the segments' bytes.
    n_segments = page[26] if len(page) > 26 else 255
    if len(page) < 27 + n_segments + sum(page[27 : 27 + n_segments]):
        return "its last Ogg page is cut"
    return None


def _discrete_opus(handle: BinaryIO) -> bool:
    """Whether an Opus file's channels are no speakers: then their order is their own."""
    head = peek(handle, 0, 256)
    start = head.find(b"OpusHead")
    return start >= 0 and head[start + 18 : start + 19] == b"\xff"


def _false_block_size(handle: BinaryIO) -> bool:
    """Whether a FLAC header states another block size than its first frame.

    libsndfile seeks by the header's and would land elsewhere.
    """
    head = peek(handle, 0, 12)
    if head[:4] != b"fLaC" or head[8:10] != head[10:12]:
        return False  # blocks of several sizes are sought by what the frames say
    start = 4
    while len(block := peek(handle, start, 4)) == 4:
        start += 4 + int.from_bytes(block[1:], "big")
        if block[0] & 0x80:  # the last before the frames
            break
    frame = peek(handle, start, 4)
    code = frame[2] >> 4 if len(frame) == 4 else 0
    sizes = {1: 192, **{k: 144 << k for k in range(2, 6)}, **{k: 1 << k for k in range(8, 16)}}
    return code in sizes and sizes[code] != int.from_bytes(head[8:10], "big")


def _has_length_tag(handle: BinaryIO) -> bool:
    """Whether an MP3 states its frames, in a Xing, Info or VBRI tag; else they are guessed."""
    head = peek(handle, 0, 10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        # ID3v2 gives its size in four bytes of seven bits.
        start = 10 + int("".join(f"{byte & 0x7F:07b}" for byte in head[6:]), 2)
    frame = peek(handle, start, 256)
    if frame.find(b"VBRI") >= 0:
        return True
    tag = max(frame.find(b"Xing"), frame.find(b"Info"))
    return tag >= 0 and len(frame) > tag + 7 and bool(frame[tag + 7] & 1)
