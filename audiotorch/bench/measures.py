"""How far one clip's answer is from its reference."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from audiotorch.bench.quantities import build
from audiotorch.bench.references import REFERENCES, Sound

__all__ = [
    "Comparison",
    "absolute",
    "bins_off",
    "chroma",
    "chroma_tuning",
    "hertz",
    "line",
    "n_unequal",
    "of_peak",
    "of_range",
    "relative",
    "summary",
    "summary_rolloff",
    "tonnetz_determined",
]

Array = npt.NDArray[Any]

# Two tunings differ by far more.
_CHROMA_LIMIT = 1e-4
_TONNETZ_LIMIT = 1e-2


class Comparison(NamedTuple):
    """One clip's answer beside what it must be.

    Attributes:
        ours: the answer.
        expected: the reference's, of the same shape.
        sound: the clip.
    """

    ours: Array
    expected: Array
    sound: Sound

    @property
    def difference(self) -> Array:
        """Absolute differences, in float64."""
        return np.abs(self.ours.astype(np.float64) - self.expected.astype(np.float64))


def of_peak(x: Comparison) -> Array:
    """Differences as shares of the clip's maximum."""
    return x.difference / (np.abs(x.expected).max() or 1.0)


def absolute(x: Comparison) -> Array:
    """Differences as they are."""
    return x.difference


def relative(x: Comparison) -> Array:
    """Differences as shares of the expected values, or as they are where those are 0."""
    return x.difference / np.where(x.expected == 0, 1.0, np.abs(x.expected))


def hertz(x: Comparison) -> Array:
    """Differences as shares of frequencies, beyond 0.01 Hz."""
    return np.maximum(x.difference - 0.01, 0.0) / (x.expected + 1e-9)


def bins_off(x: Comparison) -> Array:
    """Differences of frequencies in bins of an FFT of 2048."""
    return np.round(x.difference / (x.sound.sample_rate / 2048))


def of_range(x: Comparison) -> Array:
    """Largest difference of each row as a share of its range.

    The range takes in 0: rows of very short clips are all but constant.
    """
    expected = x.expected
    span = np.maximum(expected.max(axis=-1), 0.0) - np.minimum(expected.min(axis=-1), 0.0)
    # A range within rounding is that of a row of zeros.
    scale = np.where(span <= 1e-9 * max(1.0, float(span.max())), 1.0, span)
    return x.difference.max(axis=-1) / scale


def line(x: Comparison) -> Array:
    """Differences of slope and height as shares of the largest, slopes taken over 10 kHz."""
    unit = np.array([[10_000.0], [1.0]])
    return x.difference * unit / ((np.abs(x.expected) * unit).max() or 1.0)


def n_unequal(x: Comparison) -> Array:
    """How many values differ by more than rounding: one number for the clip."""
    return np.array([(x.difference > 1e-6 * np.abs(x.expected)).sum()])


def chroma(x: Comparison) -> Array:
    """Differences, of clips that both take to be tuned alike; of others, none."""
    return x.difference if _tuned_alike(x.ours, x.sound) else np.zeros(0)


def chroma_tuning(x: Comparison) -> Array:
    """One number: 0 where both take the clip to be tuned alike, else 1."""
    return np.array([0.0 if _tuned_alike(x.ours, x.sound) else 1.0])


def tonnetz_determined(x: Comparison) -> Array:
    """Differences in frames whose tonnetz librosa gives alike in float32 and float64.

    Where a recording is digital silence, its harmonic part is the rounding of an FFT, and chroma
    makes full-scale numbers of that.
    """
    if x.difference.max() <= _TONNETZ_LIMIT:
        return x.difference
    other = REFERENCES["tonnetz"](x.sound.other_precision)
    kept = np.abs(other - x.expected).max(axis=0) <= _TONNETZ_LIMIT
    return x.difference[:, kept]


def summary(x: Comparison) -> Array:
    """Differences of columns but rolloff's; chroma's are 0 where the tuning differs."""
    names = _column_names(x)
    skipped = np.array(["rolloff" in name for name in names])
    if not _tuned_alike(_chroma_of(x.sound), x.sound):
        skipped |= np.array(["chroma" in name for name in names])
    return np.where(skipped, 0.0, x.difference)


def summary_rolloff(x: Comparison) -> Array:
    """Differences of rolloff's columns; 0 for all others."""
    return np.where(["rolloff" in name for name in _column_names(x)], x.difference, 0.0)


def _column_names(x: Comparison) -> list[str]:
    module: Any = build("summary_vector", x.sound.sample_rate)
    return list(module.names)


def _chroma_of(sound: Sound) -> Array:
    waveform = torch.from_numpy(sound.waveform)[None]
    answer: Array = build("chroma_stft", sound.sample_rate)(waveform)[0].numpy()
    return answer


def _tuned_alike(ours: Array, sound: Sound) -> bool:
    if np.abs(ours - sound.chroma).max() <= _CHROMA_LIMIT:
        return True
    return not sound.is_chroma_of_another_tuning(ours, _CHROMA_LIMIT)
