"""What audiotorch gives for the quantities that are compared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import audiotorch as at
from audiotorch.bench.references import Sound

__all__ = ["QUANTITIES", "Quantity", "as_tensor", "build", "padded"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Quantity:
    """One quantity, as audiotorch computes it.

    Attributes:
        make: gives the module that computes it of waveforms, for a sample rate.
        measure: or else what computes it of one clip.
        continuous: a small change of the sound makes a small change of it.
    """

    make: Callable[[int], nn.Module] | None = None
    measure: Callable[[Sound], Array] | None = None
    continuous: bool = True


class _Decibels(nn.Module):
    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.mel = at.features.MelSpectrogram(sample_rate)
        self.db = at.features.PowerToDB()

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        counts = None if lengths is None else self.mel.frame_counts(lengths)
        return self.db(self.mel(waveform, lengths), counts)


class _Beats(nn.Module):
    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.tracker = at.features.BeatTracker(sample_rate)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        beats: Tensor = self.tracker(waveform, lengths)[0]
        return beats


def _feature(name: str, sample_rate: int) -> nn.Module:
    return at.FEATURES[name](sample_rate=sample_rate)


def _medians(sound: Sound) -> Array:
    """Medians of librosa's own spectrogram: they are exact, given the same numbers."""
    from audiotorch.features.median import MedianFilter

    specgram = torch.from_numpy(np.ascontiguousarray(sound.magnitude))[None]
    median = MedianFilter(31)
    n_bins, n_frames = (torch.tensor([n]) for n in specgram.shape[1:])
    lasting = median(specgram.transpose(1, 2), n_frames).transpose(1, 2)
    return torch.cat([lasting, median(specgram, n_bins)]).numpy()


def _load(sound: Sound) -> Array:
    return at.load(sound.file, sample_rate=22050)[0][0].numpy()


def _resampled(sound: Sound) -> Array:
    waveform, rate = at.load(sound.file, sample_rate=None)
    resampled: Tensor = at.Resample(rate, 22050)(waveform)[0]
    return resampled[0].numpy()


_DISCONTINUOUS = ("spectral_rolloff", "chroma_stft", "chroma_cqt", "chroma_cens", "tonnetz")

QUANTITIES: Mapping[str, Quantity] = {
    **{
        name: Quantity(partial(_feature, name), continuous=name not in (*_DISCONTINUOUS, "tempo"))
        for name in at.FEATURES
    },
    "power_to_db": Quantity(_Decibels),
    "vqt": Quantity(lambda rate: at.features.VQT(rate)),
    "waveform_tonnetz": Quantity(lambda rate: at.features.Tonnetz(rate), continuous=False),
    "tuning": Quantity(lambda rate: at.features.Tuning(rate), continuous=False),
    "hpss": Quantity(lambda rate: at.features.HPSS(rate)),
    "hpss_medians": Quantity(measure=_medians),
    "beats": Quantity(_Beats, continuous=False),
    # Most of it is continuous, but rolloff and chroma are in it.
    "summary_vector": Quantity(lambda rate: at.SummaryVector(rate), continuous=False),
    "resample": Quantity(measure=_resampled),
    "load": Quantity(measure=_load),
}
"""Every quantity that `REFERENCES` has."""


@cache
def build(name: str, sample_rate: int) -> nn.Module:
    """Return the module of a quantity, made once for each sample rate.

    Args:
        name: a key of `QUANTITIES` that has one.
        sample_rate: Hz.
    """
    make = QUANTITIES[name].make
    assert make is not None
    return make(sample_rate).eval()


def as_tensor(output: Any) -> Tensor:
    """Return what a module gives as one tensor: several stand side by side after the batch.

    Args:
        output: a tensor, or a tuple of such.
    """
    return output if isinstance(output, Tensor) else torch.stack(list(output), dim=1)


def padded(waveforms: list[Array]) -> tuple[Tensor, Tensor]:
    """Return clips as a batch `(batch, time)`, zeros behind each, and their lengths.

    Args:
        waveforms: each `(time,)`.
    """
    rows = [torch.from_numpy(waveform) for waveform in waveforms]
    lengths = torch.tensor([len(row) for row in rows])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths
