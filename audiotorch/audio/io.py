"""Audio files to waveforms and back: `load`, `info`, `save`, over libsndfile and soxr."""

import collections
import math
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch
from torch import Tensor

from audiotorch.audio.preprocess import check_rate
from audiotorch.audio.source import AudioReader, Source, bit_depth, open_source
from audiotorch.errors import DecodeError, ParameterError

__all__ = ["AUDIO_SUFFIXES", "AudioInfo", "Source", "info", "load", "save"]

# suffix -> libsndfile container and the encoding `save` takes by default.
_WRITERS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".oga": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
    ".au": ("AU", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
    ".rf64": ("RF64", "PCM_16"),
}
AUDIO_SUFFIXES: tuple[str, ...] = (*_WRITERS, ".aifc", ".wave", ".snd", ".sph", ".voc")
"""Lower-case suffixes of the files that `load` reads; folder scans go by them."""

_BLOCK = 1 << 16  # frames a write call handles
_SYSTEM_ERROR = 2  # libsndfile's code for what the operating system refused
# An MP3 frame draws on bits of up to nine before it: after a seek, decoded without them, it is
# silence.
_MP3_LEAD_IN = 10 * 1152
_FLOATING = ("FLOAT", "DOUBLE")
# Float files may hold integers' full scale, 2e9; the power of 1e19 is no float32 any more.
_LOUDEST = 1e12


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says, from `info`.

    Attributes:
        file: the path, the file object's name, or `<bytes>`.
        sample_rate: Hz.
        n_channels: number of channels.
        n_frames: samples per channel (for MP3 without a length tag, the decoder's estimate).
        duration_seconds: `n_frames / sample_rate`.
        container: file format, such as `WAV`, `FLAC`, `MP3`, `OGG`.
        codec: encoding, such as `PCM_16`, `FLAC`, `MPEG_LAYER_III`, `VORBIS`, `OPUS`.
        bit_depth: bits a sample of linear PCM or float; `None` for lossy codecs.
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

    Integer samples are scaled to [-1, 1). Channels are averaged first, then the average is
    resampled with soxr at quality HQ, to `ceil(n_frames * sample_rate / file_rate)` samples.
    Only the wanted part is decoded. A file without samples gives `(channel, 0)`.

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
        DecodeError: the file is missing, unreadable, of a format not supported, corrupt, shorter
            than its header promises, or holds samples that are NaN, infinite or beyond 1e12.

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
    _check_part(sample_rate, offset, duration)
    with open_source(source) as reader:
        name, file_rate = reader.label, reader.samplerate
        samples = _read_part(reader, offset, duration)
    _check_finite(samples, name, file_rate, offset)
    if mono and samples.shape[1] > 1:
        samples = samples.mean(axis=1, keepdims=True)
    if sample_rate is None or sample_rate == file_rate:
        return torch.from_numpy(np.ascontiguousarray(samples.T)), file_rate
    return torch.from_numpy(_resample(samples, file_rate, sample_rate)), int(sample_rate)


def info(source: Source) -> AudioInfo:
    """Read a file's properties from its header, without decoding the audio.

    A FLAC stream that does not state its length is the exception: it is decoded to count.

    Args:
        source: path, a file's content as bytes, or a binary file object.

    Raises:
        DecodeError: as `load`, as far as the header tells.
    """
    with open_source(source) as reader:
        n_frames = reader.frames
        if not reader.plausible:
            n_frames = sum(len(block) for block in reader.frames_from_here(None))
        return AudioInfo(
            file=reader.label,
            sample_rate=reader.samplerate,
            n_channels=reader.channels,
            n_frames=n_frames,
            duration_seconds=n_frames / reader.samplerate,
            container="WAV" if reader.format == "WAVEX" else reader.format,
            codec="FLAC" if reader.format == "FLAC" else reader.subtype,
            bit_depth=bit_depth(reader.subtype),
        )


def save(
    path: str | os.PathLike[str], waveform: Tensor, sample_rate: int, subtype: str | None = None
) -> None:
    """Write a waveform to an audio file; the suffix chooses the format.

    Defaults: 16-bit PCM in WAV, FLAC, AIFF, AU, CAF, W64 and RF64; Vorbis in `.ogg` and `.oga`,
    Opus in `.opus`, MPEG layer III in `.mp3`. The file appears under its name only when it is
    complete: it is written beside it under a temporary name and then renamed.

    Args:
        path: where to; an existing file is replaced.
        waveform: float tensor of finite samples, within [-1, 1] unless `subtype` is a float one.
        sample_rate: Hz.
        subtype: libsndfile's name of another encoding the format allows, such as `PCM_24`,
            `FLOAT` or `DOUBLE`.

    Shape:
        - waveform: `(time,)` or `(channel, time)`

    Raises:
        ParameterError: unknown suffix or encoding, a rate or channel count the format refuses,
            a missing folder, a wrong shape or type, non-finite samples, or samples that would clip.
        OSError: the folder is read-only or the disk full.
    """
    path = Path(path)
    container, encoding = _writer(path, subtype)
    check_rate("sample_rate", sample_rate)
    samples = _samples_to_write(waveform, encoding)
    partial = path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex}.part")
    try:
        with soundfile.SoundFile(
            str(partial), "w", int(sample_rate), samples.shape[1], encoding, format=container
        ) as file:
            # In blocks: libsndfile's Vorbis encoder keeps a whole call on the stack.
            for start in range(0, len(samples), _BLOCK):
                file.write(samples[start : start + _BLOCK])
        os.replace(partial, path)
    except soundfile.LibsndfileError as error:
        if error.code == _SYSTEM_ERROR:
            raise OSError(f"{path}: cannot be written; check rights and room on disk") from error
        raise ParameterError(
            f"sample_rate={sample_rate!r} with {samples.shape[1]} channel(s): {path.name} "
            f"({container}, {encoding}) cannot be written: {error.error_string.strip()} "
            "Use a rate and channel count the format knows, or another suffix."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _check_part(sample_rate: int | None, offset: float, duration: float | None) -> None:
    if sample_rate is not None:
        check_rate("sample_rate", sample_rate)
    if not (math.isfinite(offset) and offset >= 0):
        raise ParameterError(f"offset={offset!r}: must be 0 or more seconds")
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ParameterError(
            f"duration={duration!r}: must be above 0 seconds; None reads to the end"
        )


def _read_part(
    reader: AudioReader, offset: float, duration: float | None
) -> npt.NDArray[np.float32]:
    """Decode the wanted frames, and refuse to return fewer than the header promises."""
    start = int(offset * reader.samplerate)
    limit = None if duration is None else int(duration * reader.samplerate)
    if not reader.plausible:
        skipped = sum(len(block) for block in reader.frames_from_here(start))
        if skipped < start:
            raise _past_end(reader, offset, skipped)
        return _join_unknown(reader, start, limit)
    if 0 < reader.frames <= start:
        raise _past_end(reader, offset, reader.frames)
    if start:
        lead_in = min(start, _MP3_LEAD_IN) if reader.format == "MP3" else 0
        reader.seek(start - lead_in)
        collections.deque(reader.frames_from_here(lead_in), maxlen=0)
    rest = max(0, reader.frames - start)
    expected = rest if limit is None else min(rest, limit)
    samples = np.empty((expected, reader.channels), np.float32)
    done = sum(len(block) for block in reader.frames_from_here(expected, samples))
    if expected == rest or done < expected:
        reader.check_decoded(expected, done)
    return samples[:done]


def _join_unknown(reader: AudioReader, start: int, limit: int | None) -> npt.NDArray[np.float32]:
    """Decode from `start` on a file whose stated length, if any, must not size an array."""
    blocks = list(reader.frames_from_here(limit))
    samples = np.concatenate([np.empty((0, reader.channels), np.float32), *blocks])
    if reader.promised is not None:
        rest = reader.promised - start
        reader.check_decoded(rest if limit is None else min(rest, limit), len(samples))
    return samples


def _past_end(reader: AudioReader, offset: float, n_frames: int) -> ParameterError:
    return ParameterError(
        f"offset={offset!r}: must lie inside the recording; {reader.label} lasts "
        f"{n_frames / reader.samplerate:.3f} s"
    )


def _check_finite(
    samples: npt.NDArray[np.float32], name: str, file_rate: int, offset: float
) -> None:
    # The quickest way to look at all: no sum of squares hides a NaN or a larger sample.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.vdot(samples, samples) <= _LOUDEST**2:
            return
    sound = (np.abs(samples) <= _LOUDEST).all(axis=1)
    if sound.all():
        return
    first = int(np.argmin(sound))
    seconds = (int(offset * file_rate) + first) / file_rate
    raise DecodeError(
        f"{name}: {int((~sound).sum())} frame(s) hold NaN or infinite samples, the first at "
        f"{seconds:.3f} s (beyond {_LOUDEST:g} counts as infinite); repair or leave out the file"
    )


def _resample(
    samples: npt.NDArray[np.float32], file_rate: int, sample_rate: int
) -> npt.NDArray[np.float32]:
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


def _writer(path: Path, subtype: str | None) -> tuple[str, str]:
    """Container and encoding for a path, checked."""
    if path.suffix.lower() not in _WRITERS:
        raise ParameterError(f"path={str(path)!r}: its suffix must be one of {', '.join(_WRITERS)}")
    if not path.parent.is_dir():
        raise ParameterError(f"path={str(path)!r}: its folder does not exist; create it first")
    container, default = _WRITERS[path.suffix.lower()]
    encoding = default if subtype is None else subtype.upper()
    if not soundfile.check_format(container, encoding):
        known = ", ".join(soundfile.available_subtypes(container))
        raise ParameterError(f"subtype={subtype!r}: must be, in {container}, one of {known}")
    return container, encoding


def _samples_to_write(waveform: Tensor, encoding: str) -> npt.NDArray[np.floating]:
    """The waveform as `(time, channel)` numpy samples, refused if they would be damaged."""
    waveform = torch.as_tensor(waveform).detach().cpu()
    if waveform.dim() not in (1, 2) or not waveform.is_floating_point():
        raise ParameterError(
            f"waveform of shape {tuple(waveform.shape)} and {waveform.dtype}: must be a float "
            "tensor (time,) or (channel, time)"
        )
    wide = encoding == "DOUBLE" or waveform.dtype == torch.float64
    samples = torch.atleast_2d(waveform).to(torch.float64 if wide else torch.float32)
    if not bool(torch.isfinite(samples).all()):
        raise ParameterError("waveform holds NaN or infinite samples: must be finite; clean it")
    peak = float(samples.abs().max()) if samples.numel() else 0.0
    if peak > 1 and encoding not in _FLOATING:
        raise ParameterError(
            f"waveform peaks at {peak:.4g} and would clip in {encoding}: must stay within [-1, 1]; "
            'apply Normalize() first, or save a WAV with subtype="FLOAT"'
        )
    array: npt.NDArray[np.floating] = samples.T.contiguous().numpy()
    return array
