"""What is timed: the same work by audiotorch and by librosa, as one writes it with either."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
from torch import nn

import audiotorch as at
from audiotorch.bench.references import harmonic_ratio_of, summary_of
from audiotorch.recipes.clips import TABLE

__all__ = ["SAMPLE_RATE", "WORKS", "Work", "reference_table"]

Array = npt.NDArray[Any]

SAMPLE_RATE = 22050


@dataclass(frozen=True)
class Work:
    """A row of the table: the same work by both.

    Attributes:
        title: what is done, in words.
        theirs: does it by librosa, for one clip `(time,)` or one file: quantities by name.
        goal: how many times faster audiotorch should be.
        make: gives the module that does it for a batch; its answer is a dict as that of `theirs`,
            or the one quantity.
        ours: or else what does it for one file.
    """

    title: str
    theirs: Callable[[Any], Mapping[str, Array]]
    goal: float
    make: Callable[[], nn.Module] | None = None
    ours: Callable[[Path], Mapping[str, Array]] | None = None


def reference_table() -> nn.Module:
    """Return the extractor of every feature of the introductory article."""
    return at.FeatureExtractor(TABLE, SAMPLE_RATE)


def _table_by_librosa(y: Array) -> dict[str, Array]:
    """Each function on its own, as they are called; the separation alone is kept."""
    given: dict[str, Any] = {"y": y, "sr": SAMPLE_RATE}
    harmonic, _ = librosa.effects.hpss(y)
    return {
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(y),
        "rms": librosa.feature.rms(y=y),
        "spectral_centroid": librosa.feature.spectral_centroid(**given),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(**given),
        "spectral_rolloff": librosa.feature.spectral_rolloff(**given),
        "spectral_contrast": librosa.feature.spectral_contrast(**given),
        "mfcc": librosa.feature.mfcc(**given, n_mfcc=13),
        "tempo": librosa.feature.tempo(**given),
        "chroma_stft": librosa.feature.chroma_stft(**given),
        "chroma_cens": librosa.feature.chroma_cens(**given),
        "harmonic_ratio": harmonic_ratio_of(y, harmonic),
        "tonnetz": librosa.feature.tonnetz(y=harmonic, sr=SAMPLE_RATE),
    }


def _deltas_by_librosa(y: Array) -> dict[str, Array]:
    mfcc = librosa.feature.mfcc(y=y, sr=SAMPLE_RATE, n_mfcc=13)
    return {
        "mfcc": mfcc,
        "delta_mfcc": librosa.feature.delta(mfcc),
        "delta2_mfcc": librosa.feature.delta(mfcc, order=2),
    }


def _deltas() -> at.FeatureExtractor:
    return at.FeatureExtractor(["mfcc", "delta_mfcc", "delta2_mfcc"], SAMPLE_RATE)


def _one(name: str, function: Callable[..., Array]) -> Callable[[Array], dict[str, Array]]:
    return lambda y: {name: function(y=y, sr=SAMPLE_RATE)}


WORKS: Mapping[str, Work] = {
    "summary": Work(
        "`SummaryVector`, 270 numbers",
        lambda y: {"summary_vector": summary_of(y, SAMPLE_RATE)},
        8,
        lambda: at.SummaryVector(SAMPLE_RATE),
    ),
    "table": Work("12 features of the article", _table_by_librosa, 12, reference_table),
    "hpss": Work(
        "`HPSS`",
        lambda y: {"hpss": np.stack(librosa.effects.hpss(y))},
        6,
        lambda: at.features.HPSS(SAMPLE_RATE),
    ),
    "cqt": Work(
        "`CQT`, 84 bins",
        lambda y: {"cqt": np.abs(librosa.cqt(y, sr=SAMPLE_RATE))},
        5,
        lambda: at.features.CQT(SAMPLE_RATE),
    ),
    "chroma_cqt": Work(
        "`ChromaCQT`",
        _one("chroma_cqt", librosa.feature.chroma_cqt),
        5,
        lambda: at.features.ChromaCQT(SAMPLE_RATE),
    ),
    "tonnetz": Work(
        "`Tonnetz`",
        _one("tonnetz", librosa.feature.tonnetz),
        5,
        lambda: at.features.Tonnetz(SAMPLE_RATE),
    ),
    "mel": Work(
        "`MelSpectrogram`, 128 bands",
        _one("mel_spectrogram", librosa.feature.melspectrogram),
        4,
        lambda: at.features.MelSpectrogram(SAMPLE_RATE),
    ),
    "mfcc": Work("13 MFCC and both deltas", _deltas_by_librosa, 4, _deltas),
    "load": Work(
        "`load` of WAV, 44.1 to 22.05 kHz",
        lambda path: {"load": librosa.load(path, sr=SAMPLE_RATE)[0]},
        1,
        ours=lambda path: {"load": at.load(path, SAMPLE_RATE)[0][0].numpy()},
    ),
}
"""Name on the command line -> work."""
