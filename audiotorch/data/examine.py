"""One recording of a data set: what it is, what is wrong with it, and what it can be told by."""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audiotorch.audio.quality import Finding, QualityMeter
from audiotorch.audio.reader import AudioFile, open_audio
from audiotorch.data.fingerprint import Folder
from audiotorch.data.manifest import Clip
from audiotorch.errors import AudioTorchError

__all__ = ["Examined", "FileRecord", "examine"]

# What may be in a file with a suffix: containers, as `info` calls them. A suffix that is not here
# promises nothing.
_HOLDS: dict[str, tuple[str, ...]] = {
    ".wav": ("WAV", "RF64"),
    ".wave": ("WAV", "RF64"),
    ".rf64": ("RF64", "WAV"),
    ".w64": ("W64",),
    ".flac": ("FLAC",),
    ".mp2": ("MP3", "MPEG"),
    ".mp3": ("MP3",),
    ".ogg": ("OGG",),
    ".oga": ("OGG",),
    ".opus": ("OGG",),
    ".spx": ("OGG",),
    ".aiff": ("AIFF",),
    ".aif": ("AIFF",),
    ".aifc": ("AIFF",),
    ".au": ("AU",),
    ".caf": ("CAF",),
    ".sph": ("NIST",),
    ".voc": ("VOC",),
    **dict.fromkeys((".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2"), ("MP4",)),
    ".aac": ("AAC", "LOAS", "MP4"),
    **dict.fromkeys((".ac3", ".eac3", ".ec3"), ("AC3", "EAC3")),
    ".amr": ("AMR",),
    ".ape": ("APE",),
    **dict.fromkeys((".wma", ".wmv", ".asf"), ("ASF",)),
    ".avi": ("AVI",),
    ".dsf": ("DSF",),
    ".dts": ("DTS", "DTSHD", "WAV"),
    ".flv": ("FLV",),
    **dict.fromkeys((".mka", ".mkv", ".webm", ".weba"), ("MATROSKA",)),
    ".mpc": ("MPC",),
    **dict.fromkeys((".mpg", ".mpeg"), ("MPEG", "MPEGTS", "MP3")),
    **dict.fromkeys((".mts", ".m2ts"), ("MPEGTS",)),
    ".mxf": ("MXF",),
    ".tak": ("TAK",),
    ".tta": ("TTA",),
    ".wv": ("WAVPACK",),
}
# Where the container alone is not what the suffix means.
_CODECS = {".opus": "opus", ".spx": "speex"}


@dataclass(frozen=True)
class FileRecord:
    """What is known of one file of a data set.

    What only a readable file has is None in others.

    Attributes:
        file: its path, as it was given.
        label: its class; None if it has none.
        group: its speaker, recording or machine.
        split: the part it is assigned to.
        sample_rate: Hz.
        n_channels: number of channels.
        n_frames: samples per channel, as decoded.
        duration_seconds: `n_frames / sample_rate`.
        container: see `AudioInfo`.
        codec: see `AudioInfo`.
        bit_depth: see `AudioInfo`.
        findings: what is wrong with it: `unreadable truncated lying`, and those of `check`.
    """

    file: str
    label: str | None
    group: str | None = None
    split: str | None = None
    sample_rate: int | None = None
    n_channels: int | None = None
    n_frames: int | None = None
    duration_seconds: float | None = None
    container: str | None = None
    codec: str | None = None
    bit_depth: int | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether it could be decoded to its end."""
        return self.n_frames is not None

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {**asdict(self), "findings": [asdict(finding) for finding in self.findings]}


@dataclass(frozen=True)
class Examined:
    """A file's record, and what it is compared with others by.

    Args:
        record: the record.
        digest: equal for equal samples, rates and channel counts; None of what cannot be read,
            and of silence, which is equal everywhere.
        spectra: fingerprints, see `Folder`; None where there are none.
    """

    record: FileRecord
    digest: bytes | None = None
    spectra: npt.NDArray[np.complex64] | None = None


def examine(clip: Clip, thresholds: Mapping[str, float]) -> Examined:
    """Decode a file once, block by block, and note all that is needed of it.

    Args:
        clip: the file, and what is known of it.
        thresholds: of `check`.
    """
    known = (str(clip.path), clip.label or None, clip.group, clip.split)
    try:
        with open_audio(clip.path) as file:
            return _examine_open(file, clip.path, known, thresholds)
    except (AudioTorchError, OSError, ValueError, MemoryError) as error:
        reason = str(error) or "it takes more memory than there is; cut it into parts"
        return Examined(FileRecord(*known, findings=(Finding("unreadable", reason),)))


def _examine_open(
    file: AudioFile,
    path: Path,
    known: tuple[str, str | None, str | None, str | None],
    thresholds: Mapping[str, float],
) -> Examined:
    blocks = file.blocks()
    # Only with the first block it is sure who reads, and with that the rate.
    first = next(blocks, np.empty((0, file.n_channels), np.float32))
    rate, n_channels = file.sample_rate, file.n_channels
    meter = QualityMeter(rate, n_channels, **thresholds)
    folder = Folder(rate)
    digest = hashlib.sha256(f"{rate} {n_channels}".encode())
    n_frames = 0
    finite = True
    for block in itertools.chain([first], blocks):
        n_frames += len(block)
        meter.update(torch.from_numpy(np.ascontiguousarray(block.T)))
        # Negative zeros are zeros.
        digest.update((block + np.float32(0)).tobytes())
        finite = finite and bool(np.isfinite(block).all())
        if finite:
            folder.add(block.mean(axis=1))
    quality = meter.result()
    reader = file.reader
    record = FileRecord(
        *known,
        sample_rate=rate,
        n_channels=n_channels,
        n_frames=n_frames,
        duration_seconds=n_frames / rate,
        container=reader.container,
        codec=reader.codec,
        bit_depth=reader.bit_depth,
        findings=(*_file_findings(file, path), *quality.findings),
    )
    if not finite or not quality.peak > 0:
        return Examined(record)
    return Examined(record, digest.digest(), folder.spectra())


def _file_findings(file: AudioFile, path: Path) -> list[Finding]:
    """What is wrong with the file, rather than with the recording in it."""
    found = []
    if file.reader.damage is not None:
        found.append(Finding("truncated", f"{file.reader.damage}: fetch or record it again."))
    suffix, holds = path.suffix.lower(), file.reader.container
    if holds not in _HOLDS.get(suffix, (holds,)):
        found.append(Finding("lying", f"It is named {suffix} and holds {holds}: rename it."))
    elif file.reader.codec.lower() != _CODECS.get(suffix, file.reader.codec.lower()):
        found.append(
            Finding("lying", f"It is named {suffix} and holds {file.reader.codec}: rename it.")
        )
    return found
