"""An upload, decoded once: at the model's rate, and no longer than allowed."""

import io
import warnings
from dataclasses import dataclass

import soundfile
import torch
from torch import Tensor

from audiotorch.audio import stream
from audiotorch.audio.clips import check_seconds
from audiotorch.audio.reader import open_audio
from audiotorch.errors import AudioTorchError, TruncationWarning
from audiotorch.serve.refusal import Gone, Refused
from audiotorch.serve.upload import Upload
from audiotorch.serve.work import Deadline

__all__ = ["Clip", "decode"]

_BLOCK_SECONDS = 1.0
_MOST_CHANNELS = 32  # a second of a file's thousand channels would be gigabytes


class _Named(io.BytesIO):
    """Bytes with the name that messages shall use."""

    name = ""


@dataclass(frozen=True)
class Clip:
    """A decoded recording.

    Args:
        name: as the client calls it.
        waveform: `(time,)`, channels averaged.
        sample_rate: Hz, the model's.
        warning: what is wrong with the file though it could be read; else empty.
    """

    name: str
    waveform: Tensor
    sample_rate: int
    warning: str = ""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.waveform) / self.sample_rate

    def file(self) -> io.BytesIO:
        """The same samples as a file in memory, for whatever reads files."""
        file = _Named()
        rate = self.sample_rate
        soundfile.write(file, self.waveform.numpy(), rate, format="WAV", subtype="FLOAT")
        file.name = self.name
        file.seek(0)
        return file


def decode(upload: Upload, sample_rate: int, max_seconds: float, deadline: Deadline) -> Clip:
    """Decode an upload block by block, and stop where it lasts too long.

    A small file may hold hours of silence, and a header may promise anything: only what has come
    counts.

    Args:
        upload: what came.
        sample_rate: Hz of the waveform.
        max_seconds: that a recording may last.
        deadline: looked at between blocks.

    Raises:
        Refused: no audio, empty, damaged in the middle, not finite, too long, or too many channels.
    """
    source = _Named(upload.content)
    source.name = upload.name
    parts: list[Tensor] = []
    n_samples = 0
    # The one thread that works is the only one that changes how warnings are told.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            _check_channels(source, upload.name)
            for block in stream(source, _BLOCK_SECONDS, sample_rate, mono=True):
                deadline.check()
                parts.append(block[0])
                n_samples += block.shape[1]
                if n_samples > max_seconds * sample_rate:
                    raise _too_long(upload.name, max_seconds)
            check_seconds(source, n_samples / sample_rate)
        except (Refused, Gone):
            raise
        except (AudioTorchError, OSError, ValueError, RuntimeError, MemoryError) as error:
            raise Refused(400, str(error) or f"{upload.name}: cannot be decoded") from error
    damage = [str(found.message) for found in told if found.category is TruncationWarning]
    return Clip(upload.name, torch.cat(parts), sample_rate, " ".join(dict.fromkeys(damage)))


def _check_channels(source: io.BytesIO, name: str) -> None:
    with open_audio(source) as file:
        if file.n_channels > _MOST_CHANNELS:
            found = f"{name}: has {file.n_channels} channels"
            raise Refused(400, f"{found}; this server takes {_MOST_CHANNELS} at most")


def _too_long(name: str, max_seconds: float) -> Refused:
    return Refused(
        413,
        f"{name}: lasts longer than {max_seconds:g} s, the most that this server takes; send a "
        "part, start it with --max-seconds, or use audiotorch predict --window",
    )
