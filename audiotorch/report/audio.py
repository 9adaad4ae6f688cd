"""Sounds and small spectrograms for a page that must stay small enough to mail."""

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiotorch.audio.io import Source, info, load
from audiotorch.report.page import Picture

__all__ = ["PAGE_BYTES", "Budget", "Excerpt", "encode_mp3", "excerpt", "mp3", "thumbnail"]

PAGE_BYTES = 14_000_000
"""What a page may weigh, so that it can be mailed: below 15 MB with all that is not counted."""

# MP3's rates; in between there is none.
_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_QUIET, _MOST_GAIN = 0.1, 100.0  # a lower peak is raised to this, but not by more than that
_THUMB = (320, 128)  # pixels
_RANGE_DB = 80.0
_COLOURS = 48


class Budget:
    """How much may still go into a page. Who is refused leaves it out, and the page says so.

    Args:
        n_bytes: of the page; what is in base64 counts as long as it is in there.
    """

    def __init__(self, n_bytes: int = PAGE_BYTES) -> None:
        self.left = n_bytes
        self.refused = 0

    def take(self, n_bytes: int, base64: bool = True) -> bool:
        """Whether so much fits; if so, it is taken.

        Args:
            n_bytes: of the file.
            base64: whether it goes in as a data URI, which makes it a third longer.
        """
        cost = -(-n_bytes // 3) * 4 if base64 else n_bytes
        if cost > self.left:
            self.refused += 1
            return False
        self.left -= cost
        return True

    def part(self, fraction: float) -> "Budget":
        """A budget of a part of what is left, which is taken from this one; see `give_back`.

        Args:
            fraction: from 0 to 1.
        """
        share = Budget(int(self.left * fraction))
        self.left -= share.left
        return share

    def give_back(self, share: "Budget") -> None:
        """Take what a part did not need.

        Args:
            share: as `part` gave it.
        """
        self.left += share.left
        share.left = 0


@dataclass(frozen=True)
class Excerpt:
    """A piece of a recording, as a page plays and draws it.

    Args:
        waveform: `(time,)`, mono, within [-1, 1].
        sample_rate: Hz.
        start_seconds: where it starts in the recording.
        whole_seconds: how long the recording lasts.
        gain_db: by how much it was raised, since it was too quiet to be heard; below 0 if it was
            lowered to what a sound card takes. Mostly 0.
    """

    waveform: Tensor
    sample_rate: int
    start_seconds: float
    whole_seconds: float
    gain_db: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.waveform.shape[-1] / self.sample_rate

    @property
    def told(self) -> str:
        """What a listener must know: which part it is, and what was done to its level."""
        told = []
        if self.seconds < self.whole_seconds - 0.05:
            end = self.start_seconds + self.seconds
            told.append(f"{self.start_seconds:.1f} to {end:.1f} s of {self.whole_seconds:.1f} s")
        if self.gain_db:
            told.append(
                f"played {abs(self.gain_db):.0f} dB {'louder' if self.gain_db > 0 else 'softer'}"
            )
        return ", ".join(told)


def excerpt(
    source: Source,
    *,
    around_seconds: float | None = None,
    max_seconds: float = 8.0,
    max_rate: int = 32000,
) -> Excerpt:
    """Read a piece of a recording.

    Levels stay as they are, so that clips can be compared; but a peak below -20 dB is raised to
    that, by 40 dB at most, and one beyond full scale is lowered to it.

    Args:
        source: a recording.
        around_seconds: what must be in it, in its middle where there is room; `None` = the start.
        max_seconds: how long it may be.
        max_rate: Hz, one of MP3's; a higher rate is brought down to it.

    Raises:
        DecodeError: it cannot be read.
    """
    header = info(source)
    whole, start = header.duration_seconds, 0.0
    if around_seconds is not None and whole > max_seconds:
        start = min(max(0.0, around_seconds - max_seconds / 2), whole - max_seconds)
    rate = next(known for known in _RATES if known >= min(header.sample_rate, max_rate))
    waveform = load(source, rate, offset=start, duration=max_seconds)[0][0]
    peak = float(waveform.abs().amax()) if waveform.numel() else 0.0
    gain = 1.0
    if 0 < peak < _QUIET:
        gain = min(_QUIET / peak, _MOST_GAIN)
    elif peak > 1:
        gain = 1 / peak
    db = 20 * math.log10(gain)
    return Excerpt((waveform * gain).clamp(-1, 1), rate, start, whole, db if abs(db) > 0.5 else 0.0)


def mp3(piece: Excerpt, budget: Budget | None = None, kbps: int = 48) -> bytes | None:
    """Encode a piece as mono MP3; `None` if the budget does not allow it or there is no sound.

    Args:
        piece: as `excerpt` gives it.
        budget: what the page may still take; `None` = anything.
        kbps: bit rate, thousands a second.
    """
    if piece.waveform.numel() == 0:
        return None
    data = encode_mp3([piece.waveform], piece.sample_rate, kbps)
    return data if budget is None or budget.take(len(data)) else None


def encode_mp3(blocks: Iterable[Tensor], sample_rate: int, kbps: int) -> bytes:
    """Encode a recording of any length as mono MP3, block by block.

    Args:
        blocks: `(time,)`, float; what is beyond [-1, 1] is clipped.
        sample_rate: Hz, one of MP3's.
        kbps: bit rate, thousands a second.
    """
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        track = container.add_stream("libmp3lame", rate=sample_rate, layout="mono")
        track.bit_rate = 1000 * kbps
        for block in blocks:
            if block.numel() == 0:
                continue
            samples = np.ascontiguousarray(block.clamp(-1, 1).numpy()[None])
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = sample_rate
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return file.getvalue()


def thumbnail(piece: Excerpt, budget: Budget | None = None, name: str = "") -> Picture | None:
    """Draw a small mel spectrogram, in dB; `None` if the budget does not allow it.

    Args:
        piece: as `excerpt` gives it.
        budget: what the page may still take; `None` = anything.
        name: of the recording, for the picture's description.
    """
    from matplotlib import colormaps
    from PIL import Image

    from audiotorch.features import MelSpectrogram

    width, height = _THUMB
    rate, n = piece.sample_rate, piece.waveform.numel()
    if n == 0:
        return None
    n_fft = 2 ** round(math.log2(0.032 * rate))
    with torch.inference_mode():
        mel = MelSpectrogram(rate, n_fft, max(16, n // width), n_mels=min(64, n_fft // 8))(
            piece.waveform
        )
    level = 10 * torch.log10(mel.clamp(min=1e-12))
    level = ((level - level.amax()) / _RANGE_DB + 1).clamp(0, 1)
    levels = (level.flip(0) * (_COLOURS - 1)).round().to(torch.uint8).numpy()
    image = Image.fromarray(levels, "P").resize((width, height), Image.Resampling.NEAREST)
    colours = colormaps["magma"](np.linspace(0, 1, _COLOURS), bytes=True)[:, :3]
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    data = file.getvalue()
    if budget is not None and not budget.take(len(data)):
        return None
    start, end = piece.start_seconds, piece.start_seconds + piece.seconds
    return Picture(
        data,
        f"Mel spectrogram of {name or 'the clip'}, {start:.1f} to {end:.1f} s, 0 to "
        f"{rate / 2000:g} kHz, {_RANGE_DB:g} dB down from its loudest",
        x_ticks=[(0.0, f"{start:.1f} s"), (1.0, f"{end:.1f} s")],
        y_ticks=_frequency_ticks(rate),
        spans=True,
    )


def _frequency_ticks(rate: int) -> list[tuple[float, str]]:
    """Where 1 and 4 kHz and the top lie on the mel axis."""
    from audiotorch.features.filters import hz_to_mel

    top = float(hz_to_mel(np.array(rate / 2)))
    ticks = [(1.0, f"{rate / 2000:.3g} kHz")]
    for frequency in (1000, 4000):
        if frequency < 0.6 * rate / 2:
            where = float(hz_to_mel(np.array(float(frequency)))) / top
            ticks.append((where, f"{frequency // 1000}"))
    return ticks
