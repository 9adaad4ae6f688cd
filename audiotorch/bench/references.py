"""What librosa gives for one clip, at its defaults: the numbers to be met."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import scipy.ndimage

__all__ = ["REFERENCES", "Sound", "beats_of", "harmonic_ratio_of", "summary_of", "summary_parts"]

# librosa's functions are not annotated narrowly enough to say more.
Array = npt.NDArray[Any]

_HOP = 512


class Sound:
    """One clip, and what several references make of it.

    Args:
        waveform: `(time,)`.
        sample_rate: Hz.
        path: the file it was read from, where there is one.
    """

    def __init__(self, waveform: Array, sample_rate: int, path: Path | None = None) -> None:
        self.waveform = waveform
        self.sample_rate = sample_rate
        self.path = path

    @cached_property
    def magnitude(self) -> Array:
        """Spectrogram of magnitudes, `(bins, frames)`."""
        return np.abs(librosa.stft(self.waveform))

    @cached_property
    def parts(self) -> tuple[Array, Array]:
        """Harmonic and percussive waveforms."""
        harmonic, percussive = librosa.effects.hpss(self.waveform)
        return harmonic, percussive

    @cached_property
    def mfcc(self) -> Array:
        """13 coefficients, `(13, frames)`."""
        return librosa.feature.mfcc(**self.arguments, n_mfcc=13)

    @cached_property
    def chroma(self) -> Array:
        """`chroma_stft`, `(12, frames)`."""
        return librosa.feature.chroma_stft(**self.arguments)

    @cached_property
    def other_precision(self) -> "Sound":
        """The same clip in float64, or in float32 if it is in float64."""
        other = np.float64 if self.waveform.dtype == np.float32 else np.float32
        return Sound(self.waveform.astype(other), self.sample_rate, self.path)

    @property
    def file(self) -> Path:
        """The file.

        Raises:
            ValueError: there is none.
        """
        if self.path is None:
            raise ValueError("this clip was not read from a file")
        return self.path

    @property
    def arguments(self) -> dict[str, Any]:
        """What most functions of librosa take."""
        return {"y": self.waveform, "sr": self.sample_rate}

    def is_chroma_of_another_tuning(self, chroma: Array, limit: float) -> bool:
        """Say whether this is `chroma_stft`, but for how the clip was taken to be tuned.

        Args:
            chroma: `(12, frames)`.
            limit: largest difference that counts as none.
        """
        power = self.magnitude**2
        for tuning in np.linspace(-0.5, 0.5, 101)[:-1]:
            other = librosa.feature.chroma_stft(S=power, sr=self.sample_rate, tuning=tuning)
            if np.abs(other - chroma).max() <= limit:
                return True
        return False


def harmonic_ratio_of(waveform: Array, harmonic: Array) -> Array:
    """Share of a clip's energy that its harmonic part has; 0 for silence.

    Args:
        waveform: `(time,)`.
        harmonic: its harmonic part, `(time,)`.
    """
    energy = np.sum(waveform.astype(np.float64) ** 2)
    return np.array([np.sum(harmonic.astype(np.float64) ** 2) / energy if energy else 0.0])


def beats_of(waveform: Array, sample_rate: int) -> Array:
    """`librosa.beat.beat_track` as a mask of frames, `(frames,)`.

    Args:
        waveform: `(time,)`.
        sample_rate: Hz.
    """
    beats = np.zeros(1 + len(waveform) // _HOP, dtype=bool)
    beats[librosa.beat.beat_track(y=waveform, sr=sample_rate)[1]] = True
    return beats


def summary_of(waveform: Array, sample_rate: int) -> Array:
    """The 270 numbers of `SummaryVector`, as a data scientist computes them.

    Args:
        waveform: `(time,)`.
        sample_rate: Hz.
    """
    return np.concatenate(list(summary_parts(waveform, sample_rate).values()))


def summary_parts(waveform: Array, sample_rate: int) -> dict[str, Array]:
    """The numbers of `summary_of`, by the features that they come from, in order.

    Args:
        waveform: `(time,)`.
        sample_rate: Hz.
    """
    given: dict[str, Any] = {"y": waveform, "sr": sample_rate}
    mfcc = librosa.feature.mfcc(**given, n_mfcc=13)
    deltas = {"delta": librosa.feature.delta(mfcc), "delta2": librosa.feature.delta(mfcc, order=2)}
    series = {
        "centroid": librosa.feature.spectral_centroid(**given),
        "bandwidth": librosa.feature.spectral_bandwidth(**given),
        "rolloff": librosa.feature.spectral_rolloff(**given),
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(waveform),
        "rms": librosa.feature.rms(y=waveform),
    }
    chroma = librosa.feature.chroma_stft(**given)
    mel = librosa.feature.melspectrogram(**given, n_mels=40)
    mel_db = librosa.power_to_db(mel, ref=np.max)
    return {
        **{name: _four_statistics(x) for name, x in {"mfcc": mfcc, **deltas}.items()},
        **{name: _mean_and_deviation(x) for name, x in series.items()},
        "chroma": _mean_and_deviation(chroma),
        "mel": _mean_and_deviation(mel_db),
    }


def _four_statistics(x: Array) -> Array:
    return np.concatenate([x.mean(axis=1), x.std(axis=1), x.max(axis=1), x.min(axis=1)])


def _mean_and_deviation(x: Array) -> Array:
    return np.concatenate([x.mean(axis=1), x.std(axis=1)])


def _medians(sound: Sound) -> Array:
    sizes = ((1, 31), (31, 1))
    return np.stack(
        [scipy.ndimage.median_filter(sound.magnitude, size, mode="reflect") for size in sizes]
    )


def _load(sound: Sound) -> Array:
    waveform: Array = librosa.load(sound.file, sr=22050)[0]
    return waveform


def _resampled(sound: Sound) -> Array:
    native, rate = librosa.load(sound.file, sr=None)
    return librosa.resample(native, orig_sr=rate, target_sr=22050)


REFERENCES: Mapping[str, Callable[[Sound], Array]] = {
    "spectrogram": lambda s: np.abs(librosa.stft(s.waveform)) ** 2,
    "mel_spectrogram": lambda s: librosa.feature.melspectrogram(**s.arguments),
    "power_to_db": lambda s: librosa.power_to_db(librosa.feature.melspectrogram(**s.arguments)),
    "mfcc": lambda s: s.mfcc,
    "delta_mfcc": lambda s: librosa.feature.delta(s.mfcc),
    "delta2_mfcc": lambda s: librosa.feature.delta(s.mfcc, order=2),
    "spectral_centroid": lambda s: librosa.feature.spectral_centroid(**s.arguments),
    "spectral_bandwidth": lambda s: librosa.feature.spectral_bandwidth(**s.arguments),
    "spectral_rolloff": lambda s: librosa.feature.spectral_rolloff(**s.arguments),
    "spectral_contrast": lambda s: librosa.feature.spectral_contrast(**s.arguments),
    "spectral_flatness": lambda s: librosa.feature.spectral_flatness(y=s.waveform),
    "poly_features": lambda s: librosa.feature.poly_features(**s.arguments),
    "zero_crossing_rate": lambda s: librosa.feature.zero_crossing_rate(s.waveform),
    "rms": lambda s: librosa.feature.rms(y=s.waveform, dtype=s.waveform.dtype),
    "tuning": lambda s: np.array([librosa.estimate_tuning(**s.arguments)]),
    "chroma_stft": lambda s: s.chroma,
    "cqt": lambda s: np.abs(librosa.cqt(**s.arguments)),
    "vqt": lambda s: np.abs(librosa.vqt(**s.arguments)),
    "chroma_cqt": lambda s: librosa.feature.chroma_cqt(**s.arguments),
    "chroma_cens": lambda s: librosa.feature.chroma_cens(**s.arguments),
    "waveform_tonnetz": lambda s: librosa.feature.tonnetz(**s.arguments),
    "tonnetz": lambda s: librosa.feature.tonnetz(y=s.parts[0], sr=s.sample_rate),
    "hpss": lambda s: np.stack(s.parts),
    "hpss_medians": _medians,
    "harmonic_ratio": lambda s: harmonic_ratio_of(s.waveform, s.parts[0]),
    "onset_strength": lambda s: librosa.onset.onset_strength(**s.arguments)[None],
    "tempogram": lambda s: librosa.feature.tempogram(**s.arguments),
    "tempo": lambda s: librosa.feature.tempo(**s.arguments),
    "beats": lambda s: beats_of(s.waveform, s.sample_rate),
    "summary_vector": lambda s: summary_of(s.waveform, s.sample_rate),
    "resample": _resampled,
    "load": _load,
}
"""Quantity -> what librosa makes of a clip."""
