"""Rows of the contract table: onset strength, tempogram, tempo and beats."""

import librosa
import numpy as np
import torch
from contract import Row, absolute_error, peak_error, unequal_frames
from references import HOP, centred_frames
from torch import Tensor, nn

from audiotorch.features import BeatTracker, OnsetStrength, Tempo, Tempogram

__all__ = ["ROWS"]

TINY = {"sample_rate": 8000, "n_fft": 16, "hop_length": 4, "n_mels": 4}

# librosa rounds spectra and decibels of up to 100 to float32: 8e-6 dB each.
ONSET = {torch.float64: 1e-8, torch.float32: 1e-3}
# The same onsets in units of a frame's own greatest autocorrelation.
SHARE = {torch.float64: 1e-8, torch.float32: 1e-4}
# The same lag: one number of a table, rounded to float32 or not.
SAME = {torch.float64: 1e-9, torch.float32: 1e-4}
# In a pause, beats 67 and then 68 frames apart score exactly as much as 68 and then 67: which it is
# hangs on the last bit of the onsets, and two frames of the 431 in 5 s differ.
EQUAL_PATHS = {torch.float64: 5e-3, torch.float32: 5e-3}


class BeatsAndTempo(nn.Module):
    """Both answers of a `BeatTracker` as one feature of two rows."""

    def __init__(self, tracker: BeatTracker) -> None:
        super().__init__()
        self.tracker = tracker

    def frame_counts(self, lengths: Tensor) -> Tensor:
        return self.tracker.frame_counts(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        beats, tempo = self.tracker(waveform, lengths)
        frame = torch.arange(beats.shape[-1], device=beats.device)
        tempo = tempo.expand(beats.shape)
        if lengths is not None:
            counts = self.tracker.frame_counts(lengths).unsqueeze(-1)
            tempo = tempo.masked_fill(frame >= counts, 0.0)
        return torch.stack([beats.to(tempo.dtype), tempo], dim=-2)


def onset_of(y: np.ndarray, rate: int, **settings: object) -> np.ndarray:
    return librosa.onset.onset_strength(y=y, sr=rate, **settings)[None]


def tempogram_of(y: np.ndarray, rate: int, max_size: int, **settings: object) -> np.ndarray:
    onset = librosa.onset.onset_strength(y=y, sr=rate, max_size=max_size)
    return librosa.feature.tempogram(onset_envelope=onset, sr=rate, **settings)


def tempo_of_frames(y: np.ndarray, rate: int) -> np.ndarray:
    return librosa.feature.tempo(
        y=y, sr=rate, start_bpm=90, std_bpm=0.5, ac_size=4.0, max_tempo=None, aggregate=None
    )[None]


def beats_of(y: np.ndarray, rate: int, **settings: object) -> np.ndarray:
    tempo, found = librosa.beat.beat_track(y=y, sr=rate, **settings)
    beats = np.zeros((2, centred_frames(len(y))))
    beats[0, found] = 1.0
    beats[1] = tempo
    return beats


ROWS = [
    Row(
        "OnsetStrength",
        build=OnsetStrength,
        tiny=lambda: OnsetStrength(**TINY),
        reference=onset_of,
        error=absolute_error,
        tolerance=ONSET,
        formula=centred_frames,
        refusals=[
            (OnsetStrength, {"lag": 0}, r"lag=0: must be greater than 0"),
            (OnsetStrength, {"max_size": -1}, r"max_size=-1: must be greater than 0"),
            (OnsetStrength, {"aggregate": "max"}, r"aggregate='max': must be 'mean' or 'median'"),
            (OnsetStrength, {"fmax": 12000.0}, r"fmax=12000\.0: need .* 11025\.0 Hz"),
        ],
    ),
    Row(
        "OnsetStrength, median",
        build=lambda rate: OnsetStrength(rate, aggregate="median"),
        tiny=lambda: OnsetStrength(**{**TINY, "n_mels": 3}, aggregate="median"),
        reference=lambda y, rate: onset_of(y, rate, aggregate=np.median),
        error=absolute_error,
        tolerance=ONSET,
        formula=centred_frames,
    ),
    Row(
        "OnsetStrength, vibrato suppressed",
        build=lambda rate: OnsetStrength(
            rate, lag=2, max_size=4, detrend=True, center=False, n_mels=40
        ),
        tiny=lambda: OnsetStrength(**TINY, lag=2, max_size=3, detrend=True, center=False),
        reference=lambda y, rate: onset_of(
            y, rate, lag=2, max_size=4, detrend=True, center=False, n_mels=40
        )[:, : centred_frames(len(y))],
        error=absolute_error,
        tolerance=ONSET,
        formula=centred_frames,
    ),
    Row(
        "Tempogram",
        build=Tempogram,
        tiny=lambda: Tempogram(**TINY, win_length=6),
        reference=lambda y, rate: librosa.feature.tempogram(y=y, sr=rate),
        error=absolute_error,
        tolerance=SHARE,
        formula=centred_frames,
        refusals=[
            (Tempogram, {"win_length": 0}, r"win_length=0: must be greater than 0"),
            (Tempogram, {"norm": 0.0}, r"norm=0\.0: must be greater than 0"),
            (Tempogram, {"window": "hamm1ng"}, r"window='hamm1ng': scipy\.signal\.get_window says"),
            (Tempogram, {"lag": 0}, r"lag=0: must be greater than 0"),
        ],
    ),
    Row(
        "Tempogram, frames of unit energy",
        build=lambda rate: Tempogram(rate, win_length=201, norm=2, max_size=3),
        tiny=lambda: Tempogram(**TINY, win_length=5, norm=2, max_size=3),
        reference=lambda y, rate: tempogram_of(y, rate, 3, win_length=201, norm=2),
        error=absolute_error,
        tolerance=SHARE,
        formula=centred_frames,
    ),
    Row(
        "Tempogram, not centred",
        build=lambda rate: Tempogram(
            rate, win_length=9, center=False, window="hamming", norm=None, max_size=3
        ),
        tiny=lambda: Tempogram(**TINY, win_length=5, center=False, window="hamming", norm=None),
        reference=lambda y, rate: tempogram_of(
            y, rate, 3, win_length=9, center=False, window="hamming", norm=None
        ),
        error=peak_error,
        tolerance=SHARE,
        min_size=8 * HOP,
        formula=lambda n: max(0, n // HOP - 7),
    ),
    Row(
        "Tempo",
        build=Tempo,
        tiny=lambda: Tempo(**TINY),
        reference=lambda y, rate: librosa.feature.tempo(y=y, sr=rate),
        error=absolute_error,
        tolerance=SAME,
        frames=False,
        formula=centred_frames,
        differentiable=False,
        refusals=[
            (Tempo, {"start_bpm": 0.0}, r"start_bpm=0\.0: must be greater than 0"),
            (Tempo, {"std_bpm": -1.0}, r"std_bpm=-1\.0: must be greater than 0"),
            (Tempo, {"max_tempo": 0.0}, r"max_tempo=0\.0: must be greater than 0"),
            (Tempo, {"ac_size": 0.04}, r"ac_size=0\.04: must be at least 0\.0464 s, two frames"),
            (Tempo, {"aggregate": "max"}, r"aggregate='max': must be 'mean' or None"),
            (Tempo, {"max_size": 0}, r"max_size=0: must be greater than 0"),
        ],
    ),
    Row(
        "Tempo of each frame",
        build=lambda rate: Tempo(
            rate, start_bpm=90.0, std_bpm=0.5, ac_size=4.0, max_tempo=None, aggregate=None
        ),
        tiny=lambda: Tempo(**TINY, aggregate=None),
        reference=tempo_of_frames,
        error=absolute_error,
        tolerance=SAME,
        formula=centred_frames,
        differentiable=False,
    ),
    Row(
        "BeatTracker",
        build=lambda rate: BeatsAndTempo(BeatTracker(rate)),
        tiny=lambda: BeatsAndTempo(BeatTracker(**TINY)),
        reference=beats_of,
        error=unequal_frames,
        tolerance=EQUAL_PATHS,
        formula=centred_frames,
        differentiable=False,
        exportable=False,
        module="BeatTracker",
        refusals=[
            (BeatTracker, {"tightness": 0.0}, r"tightness=0\.0: must be greater than 0"),
            (BeatTracker, {"start_bpm": -1.0}, r"start_bpm=-1\.0: must be greater than 0"),
            (BeatTracker, {"bpm": 0.0}, r"bpm=0\.0: must be greater than 0"),
            (BeatTracker, {"bpm": 6000.0}, r"bpm=6000\.0: must be below 5167\.97, or beats share"),
            (BeatTracker, {"lag": 0}, r"lag=0: must be greater than 0"),
        ],
    ),
    Row(
        "BeatTracker, known tempo",
        build=lambda rate: BeatsAndTempo(BeatTracker(rate, bpm=150.0, tightness=30.3, trim=False)),
        tiny=lambda: BeatsAndTempo(BeatTracker(**TINY, bpm=6000.0)),
        reference=lambda y, rate: beats_of(y, rate, bpm=150.0, tightness=30.3, trim=False),
        error=unequal_frames,
        tolerance=EQUAL_PATHS,
        formula=centred_frames,
        differentiable=False,
        exportable=False,
        module="BeatTracker",
    ),
]
