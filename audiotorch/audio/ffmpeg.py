"""What libsndfile cannot read, through FFmpeg's libraries inside the PyAV wheel."""

import collections
import itertools
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from audiotorch.audio.demuxer import CONTAINERS, ffmpeg_reason, open_container
from audiotorch.audio.sndfile import cut_page, last_ogg_page
from audiotorch.audio.source import peek
from audiotorch.errors import DecodeError

__all__ = ["FFmpegReader"]

Samples = npt.NDArray[np.float32]

# Streams without a table of contents: their stated length is a guess from the bit rate.
_RAW = {"AAC", "AC3", "AMR", "DTS", "DTSHD", "EAC3", "LOAS", "MLP", "MP3", "TRUEHD", "MPEG"}
_INDEXED = {name for name, ours in CONTAINERS.items() if ours == "MP4"}  # places of all packets
_LOSSLESS = {"alac", "als", "ape", "flac", "mlp", "shorten", "tak", "truehd", "tta", "wavpack"}
_LOSSLESS |= {"wmalossless"}
_SLACK = 8192  # samples by which a stated length may pass what is decoded: one long codec frame
_INEXACT_SLACK = 0.25  # seconds, where the container's clock is coarser than a sample
_LEAD_IN = 0.5  # seconds that a lossy decoder needs to settle after a seek
_NEAR = 60.0  # seconds up to which decoding is quick enough to make a coarse seek needless
_MOST_PLANES = 8  # from here on frames of one plane a channel are packed first
_GAP = 0.1  # seconds that time stamps may jump; less is their coarseness
_HOPELESS = 200  # packets in a row that cannot be decoded
_MAX_CHANNELS = 1024  # as libsndfile


class FFmpegReader:
    """A recording, or the first sound track of a video, decoded front to back.

    Rate and channel count are those of the first decoded frame; frames that differ later are
    brought to them.

    Args:
        handle: seekable binary file.
        name: what messages call it.

    Raises:
        DecodeError: FFmpeg finds none of the known containers, no audio, or nothing to decode.
    """

    def __init__(self, handle: BinaryIO, name: str) -> None:
        self.label = name
        self.position = 0
        self.damage: str | None = None
        self._handle = handle
        self._n_bytes = handle.seek(0, 2)
        self._open()
        context = self._stream.codec_context
        first = next(self._decoded, None)
        if first is None:
            self._refuse_nothing()
        self.sample_rate = int(context.sample_rate if first is None else first.sample_rate)
        self.n_channels = int((context if first is None else first).layout.nb_channels)
        if not (self.sample_rate > 0 and 0 < self.n_channels <= _MAX_CHANNELS):
            raise DecodeError(
                f"{name}: not a readable audio file: {self.n_channels} channels at "
                f"{self.sample_rate} Hz cannot be"
            )
        self.container = CONTAINERS[self._container.format.name]
        self.codec = context.codec.canonical_name
        self.bit_depth = _bit_depth(context)
        self._layout = (context if first is None else first).layout
        self._n_first = 0 if first is None else first.samples
        self._origin = _start(first, self.sample_rate)
        self._frames: Iterator[Any] = itertools.chain([first] if first else [], self._decoded)
        self._rest: Samples = np.zeros((0, self.n_channels), np.float32)
        self._converter: tuple[Any, Any] = (None, None)

    def _open(self) -> None:
        """Open the container from its start; also sets off a new decoding."""
        self._container, self._stream = open_container(self._handle, self.label)
        self._n_packets = 0
        self._n_lost = self._n_skipped = 0
        self._last_error = "frames are missing"
        self._decoded = self._decode()

    def _decode(self) -> Iterator[Any]:
        """Decoded frames; packets that cannot be decoded are counted where no frame follows."""
        import av

        started = False
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except (av.error.FFmpegError, ValueError) as error:
                self._n_lost += 1
                self._last_error = ffmpeg_reason(error)
                if self._n_lost >= _HOPELESS:
                    break
                continue
            if packet is None:
                break
            self._n_packets += packet.size > 0
            for frame in frames:
                # Without a packet it is the decoder's rest.
                if started and packet.size:
                    if self._n_lost:
                        self._raise_corrupt(frame)  # what follows would stand too early
                    self._look_for_a_gap(frame)
                if self._n_lost and not started:
                    self.damage = f"its first {self._n_lost} packet(s) cannot be decoded"
                    self._n_lost = 0
                started = True
                yield frame

    def _look_for_a_gap(self, frame: Any) -> None:
        """Compare a frame's time stamp with what came before it.

        Raises:
            DecodeError: frames of a FLAC file, which are numbered, are missing.
        """
        if frame.pts is None:
            return
        ahead = _start(frame, self.sample_rate) - self._origin - self.position - self._n_skipped
        numbered = self.container == "FLAC" and frame.time_base * self.sample_rate == 1
        if numbered and ahead:
            self._raise_corrupt(frame)
        if abs(ahead) > _GAP * self.sample_rate:
            self._n_skipped += ahead
            if ahead > 0 and self.damage is None:
                at = self.position / self.sample_rate
                self.damage = f"{ahead / self.sample_rate:.3f} s are missing after {at:.3f} s"

    def _raise_corrupt(self, frame: Any) -> NoReturn:
        raise DecodeError(
            f"{self.label}: corrupt after {self.position / frame.sample_rate:.3f} s of audio: "
            f"{self._last_error}. Fetch or record it again"
        )

    def _refuse_nothing(self) -> None:
        """Tell a container that holds no audio from one whose audio is lost."""
        if self._n_lost:
            raise DecodeError(
                f"{self.label}: none of its {self._n_lost} packet(s) can be decoded: "
                f"{self._last_error}"
            )
        if self._container.format.name in _INDEXED and len(self._stream.index_entries):
            raise DecodeError(
                f"{self.label}: its {len(self._stream.index_entries)} packet(s) of audio are not "
                "in the file: truncated, or kept in another one; fetch the whole recording"
            )

    def _n_beyond(self) -> int:
        """Packets that an MP4's index places past the file's end."""
        if self._container.format.name not in _INDEXED:
            return 0
        return sum(entry.pos + entry.size > self._n_bytes for entry in self._stream.index_entries)

    @property
    def _exact(self) -> bool:
        """Whether the container's clock tells single samples."""
        base = self._stream.time_base
        return bool(base and (1 / base) % self.sample_rate == 0)

    @property
    def _lossless(self) -> bool:
        return self.codec in _LOSSLESS or self.codec.startswith("pcm_")

    @property
    def is_raw(self) -> bool:
        """Whether it is a bare stream of packets, whose length nothing states."""
        return self.container in _RAW

    @property
    def trusted_frames(self) -> int | None:
        """Samples per channel that the container states; None where it guesses or states none."""
        stream = self._stream
        if self.is_raw or self._n_first == 0:
            return None
        # An AVI's length is that of its longest track, an Ogg's that of its last page.
        vague = self.container == "AVI" or (self.container == "OGG" and self._lossless)
        if self._exact and not vague and stream.duration:
            return int(stream.duration * stream.time_base * self.sample_rate)
        # Coarser statements are worth it only where decoding would take long.
        seconds = (self._container.duration or 0) / 1_000_000
        return round(seconds * self.sample_rate) if self._far(seconds) else None

    def _far(self, seconds: float) -> bool:
        """Whether to go by a clock that does not tell samples."""
        return seconds > _NEAR and not self._lossless

    def count_packets(self) -> int:
        """Samples per channel, as many packets as the first; found without decoding them."""
        import av

        try:
            for packet in self._container.demux(self._stream):
                self._n_packets += packet.size > 0
        except av.error.FFmpegError as error:
            self.damage = f"its end cannot be read: {ffmpeg_reason(error)}"
        return self._n_packets * self._n_first

    def blocks(self, limit: int | None = None) -> Iterator[Samples]:
        """Decode on, at most `limit` samples, a block `(time, channel)` at a time."""
        done = 0
        while limit is None or done < limit:
            block = self._next_block()
            if block is None:
                self._note_the_end()
                return
            wanted = block if limit is None else block[: limit - done]
            done += len(wanted)
            self.position += len(wanted)
            self._rest = block[len(wanted) :]  # of a block that the limit cuts
            yield wanted

    def _next_block(self) -> Samples | None:
        if len(self._rest):
            return self._rest
        frame = next(self._frames, None)
        return None if frame is None else self._samples(frame)

    def _samples(self, frame: Any) -> Samples:
        """Samples `(time, channel)` of a frame, at the first frame's rate and channels."""
        n_channels = frame.layout.nb_channels
        if frame.sample_rate != self.sample_rate or n_channels != self.n_channels:
            return self._converted(frame, "flt")
        # PyAV 18 reads past the end of a frame with eight planes and more.
        if frame.format.is_planar and n_channels >= _MOST_PLANES:
            return self._converted(frame, frame.format.name.removesuffix("p"))
        values = frame.to_ndarray()
        if not frame.format.is_planar:
            values = values.reshape(-1, self.n_channels).T
        return _to_float(values).T

    def _converted(self, frame: Any, packed: str) -> Samples:
        """Samples of a frame brought to a packed format, and to the first frame's kind."""
        import av

        kind = (frame.sample_rate, frame.layout.name, frame.format.name)
        known, resampler = self._converter
        try:
            parts: list[Any] = []
            if kind != known:
                parts = [] if resampler is None else resampler.resample(None)
                resampler = av.AudioResampler(packed, self._layout, self.sample_rate)
                self._converter = (kind, resampler)
            parts += resampler.resample(frame)
        except (av.error.FFmpegError, ValueError) as error:
            raise DecodeError(
                f"{self.label}: changes to {frame.layout.nb_channels} channels at "
                f"{frame.sample_rate} Hz after {self.position / self.sample_rate:.3f} s, which "
                f"cannot be followed: {ffmpeg_reason(error)}"
            ) from error
        blocks = [_to_float(part.to_ndarray().reshape(-1, self.n_channels)) for part in parts]
        return np.concatenate([np.zeros((0, self.n_channels), np.float32), *blocks])

    def _note_the_end(self) -> None:
        """Compare what came with what was stated."""
        seconds = self.position / self.sample_rate
        if n_beyond := self._n_beyond():
            self.damage = f"{n_beyond} of its packets lie past the file's end"
        elif self._n_lost:
            self.damage = f"its last {self._n_lost} packet(s) cannot be decoded"
        elif cut := self._cut_file():
            self.damage = cut
        elif seconds + self._n_skipped / self.sample_rate + self._slack < self._stated_seconds:
            self.damage = f"{self._stated_seconds:.3f} s promised, {seconds:.3f} decoded"

    def _cut_file(self) -> str | None:
        """What the bytes themselves tell of an end that is missing."""
        if self.container == "OGG":
            return cut_page(last_ogg_page(self._handle, self._n_bytes))
        head = peek(self._handle, 0, 8)
        size = int.from_bytes(head[4:], "little") + 8
        # The largest number stands for a size that was not known.
        if head[:4] == b"RIFF" and self._n_bytes + 1 < size < 0xFFFFFFFF:
            return f"its header declares {size} bytes, the file holds {self._n_bytes}"
        return None

    @property
    def _stated_seconds(self) -> float:
        """What the container says of the track's length, or of its own where it has no other."""
        stream = self._stream
        if self.is_raw or self.container == "MP4":
            return 0.0
        if stream.duration:
            return float(stream.duration * stream.time_base)
        alone = len(self._container.streams) == 1
        return (self._container.duration or 0) / 1_000_000 if alone else 0.0

    @property
    def _slack(self) -> float:
        """Seconds by which a stated length may pass what is decoded."""
        exact = self._exact and self.container not in ("AVI", "OGG")
        return _SLACK / self.sample_rate if exact else _INEXACT_SLACK

    def skip_to(self, start: int) -> None:
        """Move forward to a sample, or to the end where that lies before it.

        To the sample in lossless codings and where the container's clock tells samples; else, and
        beyond the first minute, as exact as that clock.
        """
        ahead = start - self.position
        # After a seek FFmpeg only estimates where in an Ogg page it is.
        exact = self._exact and self.container != "OGG" and ahead > 2 * self.sample_rate
        if exact or self._far(ahead / self.sample_rate):
            self._seek(start)
        collections.deque(self.blocks(start - self.position), maxlen=0)

    def _seek(self, start: int) -> None:
        """Decode from before a sample on; where that fails, from the start."""
        import av

        lead_in = 0 if self._lossless else int(_LEAD_IN * self.sample_rate)
        seconds = (self._origin + max(0, start - lead_in)) / self.sample_rate
        base = self._stream.time_base
        try:
            self._container.seek(int(seconds / base), stream=self._stream, backward=True)
            self._n_lost = self._n_skipped = 0
            self._decoded = self._decode()
            landed = next(self._decoded, None)
        except (av.error.FFmpegError, ValueError, OverflowError, DecodeError):
            landed = None
        if landed is not None and landed.pts is not None:
            self.position = _start(landed, self.sample_rate) - self._origin
            self._frames = itertools.chain([landed], self._decoded)
            self._rest = self._rest[:0]
        if landed is None or landed.pts is None or not 0 <= self.position <= start:
            self._container.close()
            self._open()
            self._frames, self._rest, self.position = self._decoded, self._rest[:0], 0

    def close(self) -> None:
        """Release the decoder."""
        self._container.close()


def _start(frame: Any, sample_rate: int) -> int:
    """The sample at which a frame says it starts."""
    if frame is None or frame.pts is None:
        return 0
    return round(frame.pts * frame.time_base * sample_rate)


def _to_float(values: npt.NDArray[Any]) -> Samples:
    """Scale integers to [-1, 1), exactly."""
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    bits = 8 * values.dtype.itemsize
    if values.dtype.kind == "u":
        values = values.astype(np.int64) - (1 << (bits - 1))
    return np.multiply(values, 2.0 ** (1 - bits), dtype=np.float64).astype(np.float32)


def _bit_depth(context: Any) -> int | None:
    """Bits a sample of lossless codings that tell it."""
    name, header = context.codec.canonical_name, context.extradata or b""
    if name == "flac" and len(header) >= 14:
        return ((header[12] & 1) << 4 | header[13] >> 4) + 1
    if name == "alac" and len(header) >= 18:
        return int(header[17])
    if name.startswith("pcm_"):
        digits = "".join(letter for letter in name.split("_")[1] if letter.isdigit())
        return int(digits) if digits else None
    sixteen = context.format is not None and context.format.name.startswith("s16")
    return 16 if name in _LOSSLESS and sixteen else None
