"""One recording open for reading: libsndfile's reader, or FFmpeg's where that one gives up."""

import collections
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from audiotorch.audio.ffmpeg import FFmpegReader
from audiotorch.audio.sndfile import SoundFileReader
from audiotorch.audio.source import Source, open_binary, source_name
from audiotorch.errors import DecodeError, TruncationWarning

__all__ = ["AudioFile", "open_audio"]

Samples = npt.NDArray[np.float32]

_MOST_AT_ONCE = 1 << 28  # numbers: for more, a header's word is not enough to allocate them
_MALFORMED = 3  # libsndfile's code for a format it knows, in a file that breaks its rules


class AudioFile:
    """A recording read front to back.

    libsndfile reads what it can; from where it gives up on, FFmpeg goes on.

    Args:
        handle: seekable binary file, not empty.
        name: what messages call it.

    Raises:
        DecodeError: neither can read it.
    """

    def __init__(self, handle: BinaryIO, name: str) -> None:
        self.label = name
        self._handle = handle
        self._untouched = True
        self._reader: SoundFileReader | FFmpegReader
        try:
            self._reader = SoundFileReader(handle, name)
        except DecodeError as error:
            self._reader = FFmpegReader(handle, name)
            if getattr(error.__cause__, "code", None) == _MALFORMED:
                # FFmpeg says nothing of sizes beyond the file's end.
                self._reader.damage = "its header is malformed, or the file cut off"

    @property
    def reader(self) -> SoundFileReader | FFmpegReader:
        """Who reads now; knows `container codec bit_depth`."""
        return self._reader

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._reader.sample_rate

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self._reader.n_channels

    @property
    def position(self) -> int:
        """The sample that comes next."""
        return self._reader.position

    def blocks(self, limit: int | None = None, out: Samples | None = None) -> Iterator[Samples]:
        """Decode on, at most `limit` samples, a block `(time, channel)` at a time.

        Args:
            limit: samples per channel; `None` = to the end.
            out: what libsndfile fills, see `SoundFileReader.blocks`; `None` = arrays of their own.

        Raises:
            DecodeError: neither reader can decode on.
        """
        done = 0
        reader = self._reader
        if isinstance(reader, SoundFileReader):
            try:
                for block in reader.blocks(limit, out):
                    done += len(block)
                    self._untouched = False
                    yield block
                return
            except DecodeError as error:
                self._go_on_with_ffmpeg(error)
        yield from self._reader.blocks(None if limit is None else limit - done)

    def _go_on_with_ffmpeg(self, error: DecodeError) -> None:
        given_up = self._reader
        try:
            other = FFmpegReader(self._handle, self.label)
        except DecodeError:
            raise error from None
        same = (other.sample_rate, other.n_channels) == (self.sample_rate, self.n_channels)
        try:
            other.skip_to(given_up.position)
        except DecodeError:
            other.close()
            raise
        if other.position < given_up.position or not (same or self._untouched):
            other.close()
            raise error
        # It is no damage that libsndfile stops where it had guessed the length.
        if not self._untouched and given_up.position != given_up.trusted_frames:
            at = given_up.position / self.sample_rate
            other.damage = f"one decoder gives up after {at:.3f} s, another goes on"
        given_up.close()
        self._reader = other

    def read(self, limit: int | None = None) -> Samples:
        """Decode on, at most `limit` samples, as one array `(time, channel)`."""
        reader = self._reader
        out = None
        rest = max(0, (reader.trusted_frames or 0) - reader.position)
        size = rest if limit is None else min(limit, rest)
        known = reader.trusted_frames is not None and size * reader.n_channels <= _MOST_AT_ONCE
        if isinstance(reader, SoundFileReader) and known:
            out = np.empty((size, reader.n_channels), np.float32)
        blocks = list(self.blocks(limit, out))
        if out is not None and self._reader is reader:
            return out[: sum(len(block) for block in blocks)]
        return np.concatenate([np.empty((0, self.n_channels), np.float32), *blocks])

    def count(self) -> int:
        """Samples per channel, by the header; else packets or, at last, samples are counted."""
        # libsndfile may know a header and not what follows it.
        next(self.blocks(1), None)
        reader = self._reader
        if isinstance(reader, SoundFileReader) and reader.guessed:
            return FFmpegReader(self._handle, self.label).count_packets()
        if isinstance(reader, FFmpegReader) and reader.is_raw:
            return reader.count_packets()
        if reader.trusted_frames is not None:
            return reader.trusted_frames
        collections.deque(self.blocks(), maxlen=0)
        return self.position

    def skip_to(self, start: int) -> None:
        """Move forward to a sample, or to the end where that lies before it."""
        if start <= self.position:
            return
        try:
            self._reader.skip_to(start)
        except DecodeError as error:
            if not isinstance(self._reader, SoundFileReader):
                raise
            self._go_on_with_ffmpeg(error)
            self._reader.skip_to(start)

    def warn_of_damage(self) -> None:
        """Say what of the recording is missing, if anything, once it has been read."""
        if self._reader.damage is not None:
            # To whoever called `load` or went through `stream`.
            warnings.warn(
                TruncationWarning(
                    f"{self.label}: truncated or damaged: {self._reader.damage}; what can be "
                    "decoded is used. Fetch or record it again"
                ),
                stacklevel=3,
            )

    def close(self) -> None:
        """Release the decoder."""
        self._reader.close()


@contextmanager
def open_audio(source: Source) -> Iterator[AudioFile]:
    """Open a recording.

    Args:
        source: path, a file's content as bytes, or a binary file object (read from its start).

    Raises:
        ParameterError: `source` is none of these.
        DecodeError: it is missing, empty, unreadable, or of a format not supported.
    """
    name = source_name(source)
    with open_binary(source, name) as handle:
        if handle.seek(0, os.SEEK_END) == 0:
            raise DecodeError(f"{name}: the file is empty (0 bytes); fetch or record it again")
        file = AudioFile(handle, name)
        try:
            yield file
        finally:
            file.close()
