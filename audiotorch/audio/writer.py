"""Waveforms to audio files, through libsndfile."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torch import Tensor

from audiotorch.audio.preprocess import check_rate
from audiotorch.audio.sndfile import VORBIS_ORDER
from audiotorch.audio.whole import written_whole
from audiotorch.errors import ParameterError

__all__ = ["WRITERS", "save"]

# suffix -> libsndfile container and the encoding `save` takes by default.
WRITERS = {
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

_BLOCK = 1 << 16  # frames a write call handles
_SYSTEM_ERROR = 2  # libsndfile's code for what the operating system refused
_FLOATING = ("FLOAT", "DOUBLE")


def save(
    path: str | os.PathLike[str], waveform: Tensor, sample_rate: int, subtype: str | None = None
) -> None:
    """Write a waveform to an audio file; the suffix chooses the format.

    Defaults: 16-bit PCM in WAV, FLAC, AIFF, AU, CAF, W64 and RF64; Vorbis in `.ogg` and `.oga`,
    Opus in `.opus`, MPEG layer III in `.mp3`. The file appears under its name only when it is
    complete: it is written beside it under a temporary name and then renamed. Channels are given in
    WAV's order, also where the format has another (Vorbis, Opus).

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
    if container == "OGG" and samples.shape[1] in VORBIS_ORDER:
        samples = samples[:, np.argsort(VORBIS_ORDER[samples.shape[1]])]
    try:
        with (
            written_whole(path) as partial,
            soundfile.SoundFile(
                str(partial), "w", int(sample_rate), samples.shape[1], encoding, format=container
            ) as file,
        ):
            # In blocks: libsndfile's Vorbis encoder keeps a whole call on the stack.
            for start in range(0, len(samples), _BLOCK):
                file.write(samples[start : start + _BLOCK])
    except soundfile.LibsndfileError as error:
        if error.code == _SYSTEM_ERROR:
            raise OSError(f"{path}: cannot be written; check rights and room on disk") from error
        raise ParameterError(
            f"sample_rate={sample_rate!r} with {samples.shape[1]} channel(s): {path.name} "
            f"({container}, {encoding}) cannot be written: {error.error_string.strip()} "
            "Use a rate and channel count the format knows, or another suffix."
        ) from error


def _writer(path: Path, subtype: str | None) -> tuple[str, str]:
    """Container and encoding for a path, checked."""
    if path.suffix.lower() not in WRITERS:
        raise ParameterError(f"path={str(path)!r}: its suffix must be one of {', '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise ParameterError(f"path={str(path)!r}: its folder does not exist; create it first")
    container, default = WRITERS[path.suffix.lower()]
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
