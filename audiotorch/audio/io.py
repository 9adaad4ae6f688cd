"""Audio files to waveforms: `load`, `info` and `stream`; `save` is their way back."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr
import torch
from torch import Tensor

from audiotorch.audio.demuxer import SUFFIXES
from audiotorch.audio.preprocess import check_rate
from audiotorch.audio.reader import AudioFile, open_audio
from audiotorch.audio.source import Source
from audiotorch.audio.writer import WRITERS, save
from audiotorch.errors import DecodeError, ParameterError

__all__ = [
    "AUDIO_SUFFIXES",
    "LOUDEST",
    "AudioInfo",
    "Source",
    "check_part",
    "info",
    "load",
    "save",
    "stream",
]

AUDIO_SUFFIXES: tuple[str, ...] = (*WRITERS, ".aifc", ".wave", ".snd", ".sph", ".voc", *SUFFIXES)
"""Lower-case suffixes of the files that folder scans take for audio; `load` goes by content."""

Samples = npt.NDArray[np.float32]

# Float files may hold integers' full scale, 2e9; the power of 1e19 is no float32 any more.
LOUDEST = 1e12
"""What lies beyond counts as infinite."""
_FOREVER = 1e9  # seconds, more than any recording lasts
_MOST_UPSAMPLING = 256  # times; beyond it, it is a header's wrong rate that would fill the memory
_CHUNK = 1 << 16  # samples that the streaming resampler gets at a time, at least


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says, from `info`.

    Attributes:
        file: the path, the file object's name, or `<bytes>`.
        sample_rate: Hz.
        n_channels: number of channels.
        n_frames: samples per channel as the header states them (for MP3 without a length tag, the
            decoder's estimate).
        duration_seconds: `n_frames / sample_rate`.
        container: file format: `WAV FLAC MP3 OGG ...`, `MP4 MATROSKA ASF AAC ...`.
        codec: encoding: `PCM_16 FLAC MPEG_LAYER_III VORBIS OPUS ...`, and in FFmpeg's words, in
            lower case, `aac alac wmav2 ...`.
        bit_depth: bits a sample of lossless codings, where the header tells; else `None`.
    """

    file: str
    sample_rate: int
    n_channels: int
    n_frames: int
    duration_seconds: float
    container: str
    codec: str
    bit_depth: int | None


def load(
    source: Source,
    sample_rate: int | None = 22050,
    mono: bool = True,
    offset: float = 0.0,
    duration: float | None = None,
) -> tuple[Tensor, int]:
    """Read a recording, or a part of it, as a float32 waveform at the wanted rate.

    libsndfile reads what it can (WAV, FLAC, MP3, Ogg, AIFF ...), FFmpeg's libraries in the PyAV
    wheel the rest (m4a, AAC, ALAC, WMA, WebM, AC-3, AMR, the sound of videos ...). Integer samples
    are scaled to [-1, 1), channels come in WAV's order. They are averaged first, then the average
    is resampled with soxr at quality HQ, to `ceil(n_frames * sample_rate / file_rate)` samples.

    Only the wanted part is decoded. It starts at the very sample; but in lossy codings and beyond
    the first minute of containers with a coarse clock (WebM, Matroska, ASF) it may be 1 ms off.
    A file without samples gives `(channel, 0)`. One that is cut off or damaged at an end gives
    what is left, with a `TruncationWarning`.

    Args:
        source: path, a file's content as bytes, or a binary file object (read from its start).
        sample_rate: rate of the result in Hz; `None` keeps the file's.
        mono: average the channels into one.
        offset: seconds to skip, at least 0.
        duration: seconds to read, above 0; `None` reads to the end. A part that reaches past
            the end is as long as the file allows.

    Returns:
        The waveform `(channel, time)` and its sample rate.

    Raises:
        ParameterError: an argument is out of range, or `offset` lies past the end.
        DecodeError: the file is missing, unreadable, of a format not supported, corrupt in the
            middle, or holds samples that are NaN, infinite or beyond 1e12.

    Reference:
        Same values as `librosa.load(res_type="soxr_hq")` of librosa 0.11.

    Example:
        >>> import io, soundfile, torch
        >>> file = io.BytesIO()
        >>> soundfile.write(file, torch.zeros(44100, 2).numpy(), 44100, format="WAV")
        >>> waveform, rate = load(file, sample_rate=22050)
        >>> waveform.shape, rate
        (torch.Size([1, 22050]), 22050)
    """
    check_part(sample_rate, offset, duration)
    with open_audio(source) as file:
        start = _in_samples(offset, file.sample_rate)
        limit = None if duration is None else _in_samples(duration, file.sample_rate)
        file.skip_to(start)
        samples = file.read(limit)
        name, file_rate, end = file.label, file.sample_rate, file.position
        file.warn_of_damage()
    if start > 0 and len(samples) == 0 and end > 0 and limit != 0:
        raise _past_end(offset, name, end / file_rate)
    _check_finite(samples, name, file_rate, start)
    if mono and samples.shape[1] > 1:
        samples = samples.mean(axis=1, keepdims=True)
    if sample_rate is None or sample_rate == file_rate:
        return torch.from_numpy(np.ascontiguousarray(samples.T)), file_rate
    _check_ratio(name, file_rate, sample_rate)
    return torch.from_numpy(_resample(samples, file_rate, sample_rate)), int(sample_rate)


def stream(
    source: Source,
    block_seconds: float,
    sample_rate: int | None = None,
    overlap_seconds: float = 0.0,
    mono: bool = False,
    offset: float = 0.0,
    duration: float | None = None,
) -> Iterator[Tensor]:
    """Read a recording of any length block by block, at bounded memory.

    Blocks hold `round(block_seconds * rate)` samples, each starting `overlap_seconds` before the
    end of the one before; the last is shorter. Without overlap their concatenation equals
    `load(source, sample_rate, mono, offset, duration)`. A recording without samples gives one empty
    block.

    Args:
        source: path, a file's content as bytes, or a binary file object (read from its start).
        block_seconds: length of a block, above 0.
        sample_rate: rate of the blocks in Hz; `None` keeps the file's.
        overlap_seconds: what a block repeats of the one before; at least 0, below `block_seconds`.
        mono: average the channels into one.
        offset: seconds to skip, at least 0.
        duration: seconds to read, above 0; `None` reads to the end.

    Yields:
        Waveforms `(channel, time)`, float32.

    Raises:
        ParameterError: an argument is out of range, or `offset` lies past the end.
        DecodeError: as `load`; blocks before the damage have been given by then.

    Example:
        >>> import io, soundfile, torch
        >>> file = io.BytesIO()
        >>> soundfile.write(file, torch.zeros(44100, 2).numpy(), 44100, format="WAV")
        >>> [tuple(block.shape) for block in stream(file, block_seconds=0.4, sample_rate=22050)]
        [(2, 8820), (2, 8820), (2, 4410)]
    """
    check_part(sample_rate, offset, duration)
    if not (math.isfinite(block_seconds) and block_seconds > 0):
        raise ParameterError(f"block_seconds={block_seconds!r}: must be above 0 seconds")
    if not 0 <= overlap_seconds < block_seconds:
        raise ParameterError(
            f"overlap_seconds={overlap_seconds!r}: must be at least 0 and below "
            f"block_seconds={block_seconds!r}"
        )
    return _stream(source, block_seconds, sample_rate, overlap_seconds, mono, offset, duration)


def info(source: Source) -> AudioInfo:
    """Read a file's properties from its header, without decoding the audio.

    Files that do not state their length are the exception, such as some FLAC and AAC streams and
    lossless WMA: they are decoded to count.

    Args:
        source: path, a file's content as bytes, or a binary file object.

    Raises:
        DecodeError: as `load`, as far as the header tells.
    """
    with open_audio(source) as file:
        n_frames = file.count()
        file.warn_of_damage()
        reader = file.reader
        return AudioInfo(
            file=reader.label,
            sample_rate=reader.sample_rate,
            n_channels=reader.n_channels,
            n_frames=n_frames,
            duration_seconds=n_frames / reader.sample_rate,
            container=reader.container,
            codec=reader.codec,
            bit_depth=reader.bit_depth,
        )


def check_part(sample_rate: int | None, offset: float, duration: float | None) -> None:
    """Refuse what is no part of a recording.

    Args:
        sample_rate: Hz; `None` passes.
        offset: seconds to skip.
        duration: seconds to take; `None` passes.

    Raises:
        ParameterError: naming the setting and its value.
    """
    if sample_rate is not None:
        check_rate("sample_rate", sample_rate)
    if not (isinstance(offset, Real) and 0 <= offset < math.inf):
        raise ParameterError(f"offset={offset!r}: must be 0 or more seconds")
    if duration is not None and not (isinstance(duration, Real) and 0 < duration < math.inf):
        raise ParameterError(
            f"duration={duration!r}: must be above 0 seconds; None reads to the end"
        )


def _in_samples(seconds: float, sample_rate: int) -> int:
    """Whole samples that a time has passed; `n / sample_rate` is n of them, rounding or not."""
    return int(min(seconds, _FOREVER) * sample_rate + 1e-6)


def _past_end(offset: float, name: str, seconds: float) -> ParameterError:
    return ParameterError(
        f"offset={offset!r}: must lie inside the recording; {name} lasts {seconds:.3f} s"
    )


def _check_finite(samples: Samples, name: str, file_rate: int, start: int) -> None:
    # The quickest way to look at all: no sum of squares hides a NaN or a larger sample.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.vdot(samples, samples) <= LOUDEST**2:
            return
    sound = (np.abs(samples) <= LOUDEST).all(axis=1)
    if sound.all():
        return
    first = int(np.argmin(sound))
    seconds = (start + first) / file_rate
    raise DecodeError(
        f"{name}: {int((~sound).sum())} frame(s) hold NaN or infinite samples, the first at "
        f"{seconds:.3f} s (beyond {LOUDEST:g} counts as infinite); repair or leave out the file"
    )


def _check_ratio(name: str, file_rate: int, sample_rate: int) -> None:
    if sample_rate > _MOST_UPSAMPLING * file_rate:
        raise DecodeError(
            f"{name}: its header says {file_rate} Hz, which is too low for {sample_rate} Hz; if it "
            "is true, load with sample_rate=None"
        )


def _resample(samples: Samples, file_rate: int, sample_rate: int) -> Samples:
    """Resample `(time, channel)` to `(channel, time)` with librosa's length rule."""
    n_wanted = math.ceil(len(samples) * (float(sample_rate) / file_rate))
    if n_wanted == 0:
        return np.zeros((samples.shape[1], 0), np.float32)
    if samples.shape[1] == 1:
        # soxr takes longer for a second axis, even of one channel.
        samples = samples[:, 0]
    resampled = soxr.resample(samples, file_rate, sample_rate, quality="HQ")[:n_wanted]
    channels = np.atleast_2d(resampled.T)
    n_missing = n_wanted - channels.shape[1]
    return np.ascontiguousarray(
        np.pad(channels, ((0, 0), (0, n_missing))) if n_missing else channels
    )


def _stream(
    source: Source,
    block_seconds: float,
    sample_rate: int | None,
    overlap_seconds: float,
    mono: bool,
    offset: float,
    duration: float | None,
) -> Iterator[Tensor]:
    with open_audio(source) as file:
        start = _in_samples(offset, file.sample_rate)
        limit = None if duration is None else _in_samples(duration, file.sample_rate)
        file.skip_to(start)
        blocks = _larger(file.blocks(limit))
        first = next(blocks, None)  # only now it is sure who reads, and with that the rate
        if start > 0 and first is None and file.position > 0 and limit != 0:
            raise _past_end(offset, file.label, file.position / file.sample_rate)
        chained = itertools.chain([] if first is None else [first], blocks)
        decoded = _sound(chained, file, mono, start)
        rate = file.sample_rate if sample_rate is None else sample_rate
        _check_ratio(file.label, file.sample_rate, rate)
        size = max(1, round(min(block_seconds, _FOREVER) * rate))
        hop = max(1, size - round(overlap_seconds * rate))
        kept: list[Samples] = []
        n_kept = 0
        started = False
        for block in _resampled(decoded, file.sample_rate, rate):
            kept.append(block)
            n_kept += len(block)
            if n_kept < size:
                continue
            joined = np.concatenate(kept)
            for start in range(0, n_kept - size + 1, hop):
                yield _as_waveform(joined[start : start + size])
                started = True
            rest = joined[((n_kept - size) // hop + 1) * hop :].copy()
            kept, n_kept = [rest], len(rest)
        file.warn_of_damage()
        # What the last block shares with the one before it is no block of its own.
        if not started or n_kept > size - hop:
            nothing = np.empty((0, 1 if mono else file.n_channels), np.float32)
            yield _as_waveform(np.concatenate([nothing, *kept]))


def _sound(
    blocks: Iterator[Samples], file: AudioFile, mono: bool, n_frames: int
) -> Iterator[Samples]:
    """Blocks, checked and mixed; the first comes after so many frames of the file."""
    for block in blocks:
        _check_finite(block, file.label, file.sample_rate, n_frames)
        n_frames += len(block)
        yield block.mean(axis=1, keepdims=True) if mono and block.shape[1] > 1 else block


def _resampled(blocks: Iterator[Samples], file_rate: int, rate: int) -> Iterator[Samples]:
    """Blocks resampled as one piece, as `_resample` would."""
    if rate == file_rate:
        yield from blocks
        return
    resampler: Any = None
    n_in = n_out = n_channels = 0
    for block in blocks:
        if resampler is None:
            n_channels = block.shape[1]
            resampler = soxr.ResampleStream(
                file_rate, rate, n_channels, dtype="float32", quality="HQ"
            )
        n_in += len(block)
        resampled = resampler.resample_chunk(block)
        n_out += len(resampled)
        yield resampled
    if resampler is not None:
        tail = resampler.resample_chunk(np.empty((0, n_channels), np.float32), last=True)
        yield _fit(tail, math.ceil(n_in * (float(rate) / file_rate)) - n_out)


def _larger(blocks: Iterator[Samples]) -> Iterator[Samples]:
    """FFmpeg's small blocks joined to ones worth a call of the resampler."""
    kept: list[Samples] = []
    n_kept = 0
    try:
        for block in blocks:
            kept.append(block)
            n_kept += len(block)
            if n_kept >= _CHUNK:
                yield np.concatenate(kept)
                kept, n_kept = [], 0
    except DecodeError:
        # What is sound comes before the error.
        if kept:
            yield np.concatenate(kept)
        raise
    if kept:
        yield np.concatenate(kept)


def _fit(samples: Samples, n_wanted: int) -> Samples:
    """Cut or pad with zeros to a length."""
    missing = max(0, n_wanted - len(samples))
    return np.pad(samples[:n_wanted], ((0, missing), (0, 0))) if missing else samples[:n_wanted]


def _as_waveform(samples: Samples) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(samples.T))
