"""The contract rows of the harmonic part."""

import librosa
import numpy as np
import torch
from contract import Row, peak_error, relative_error
from references import TINY
from torch import Tensor, nn

from audiotorch.features import HPSS, Harmonic, HarmonicRatio

__all__ = ["ROWS", "Both", "hpss_of"]

WAVEFORMS = {torch.float64: 1e-7, torch.float32: 1e-5}
HAMMING = {"hop_length": 300, "win_length": 1200, "window": "hamming", "center": False}
MARGINS = {"kernel_size": (13, 20), "power": 1.0, "margin": (1.5, 4.0), "pad_mode": "reflect"}
SIZES = [
    ({"n_fft": 0}, r"n_fft=0: must be greater than 0"),
    ({"hop_length": 0}, r"hop_length=0: must be greater than 0"),
    ({"kernel_size": 0}, r"kernel_size=0: must be at least 1"),
    ({"kernel_size": (31, 0)}, r"kernel_size=0: must be at least 1"),
    ({"kernel_size": (31, 31, 31)}, r"kernel_size=\(31, 31, 31\): must be one number, or a pair"),
    ({"power": 0.0}, r"power=0\.0: must be greater than 0"),
    ({"margin": 0.5}, r"margin=0\.5: must be at least 1"),
    ({"margin": (1.0, 0.5)}, r"margin=\(1\.0, 0\.5\): must be at least 1"),
    ({"window": "hamm1ng"}, r"window='hamm1ng': scipy\.signal\.get_window says"),
    ({"pad_mode": "wrap"}, r"pad_mode='wrap': must be 'constant', 'reflect' or"),
]


class Both(nn.Module):
    """The parts as two rows, since the table's modules give one tensor."""

    def __init__(self, hpss: HPSS) -> None:
        super().__init__()
        self.hpss = hpss

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        harmonic, percussive = self.hpss(waveform, lengths)
        return torch.stack((harmonic, percussive), dim=-2)


_known: dict[tuple[bytes, str], np.ndarray] = {}


def hpss_of(
    y: np.ndarray,
    *,
    kernel_size: int | tuple[int, int] = 31,
    power: float = 2.0,
    margin: float | tuple[float, float] = 1.0,
    window: str = "hann",
    **stft,
) -> np.ndarray:
    """`librosa.effects.hpss` as `(2, time)`, made of its parts.

    `effects.hpss` itself drops `window`. And scipy, given few frames, reads memory in front of the
    array, which may hold anything, even NaN: mirrored by hand, no window leaves the spectrogram.
    """
    settings = {"kernel_size": kernel_size, "power": power, "margin": margin}
    key = (y.tobytes(), repr((settings, window, stft)))
    if key not in _known:
        spectrum = librosa.stft(y, window=window, **stft)
        mirrored = np.pad(np.abs(spectrum), ((0, 0), (32, 32)), mode="symmetric")
        masks = librosa.decompose.hpss(mirrored, mask=True, **settings)
        stft = {name: value for name, value in stft.items() if name != "pad_mode"}
        _known[key] = np.stack(
            [
                librosa.istft(
                    spectrum * mask[:, 32:-32],
                    window=window,
                    n_fft=2048,
                    length=len(y),
                    dtype=y.dtype,
                    **stft,
                )
                for mask in masks
            ]
        )
    return _known[key]


def ratio_of(y: np.ndarray) -> np.ndarray:
    energy = np.sum(y**2)
    return np.array([np.sum(hpss_of(y)[0] ** 2) / energy if energy > 0 else 0.0])


ROWS = [
    Row(
        "HPSS",
        module="HPSS",
        build=lambda rate: Both(HPSS(rate)),
        tiny=lambda: Both(HPSS(**TINY, kernel_size=(7, 3))),
        reference=lambda y, rate: hpss_of(y),
        error=peak_error,
        tolerance=WAVEFORMS,
        refusals=[(HPSS, settings, message) for settings, message in SIZES],
    ),
    Row(
        "HPSS, margins",
        module="HPSS",
        build=lambda rate: Both(HPSS(rate, **MARGINS)),
        tiny=lambda: Both(HPSS(**TINY, **{**MARGINS, "kernel_size": (3, 4)})),
        light=lambda rate: Both(HPSS(rate, **{**MARGINS, "kernel_size": (3, 4)})),
        reference=lambda y, rate: hpss_of(y, **MARGINS),
        error=peak_error,
        tolerance=WAVEFORMS,
    ),
    Row(
        "HPSS, not centred",
        module="HPSS",
        build=lambda rate: Both(HPSS(rate, **HAMMING)),
        tiny=lambda: Both(HPSS(**TINY, window="hamming", center=False, kernel_size=5)),
        light=lambda rate: Both(HPSS(rate, **HAMMING, kernel_size=(7, 3))),
        reference=lambda y, rate: hpss_of(y, **HAMMING),
        error=peak_error,
        tolerance=WAVEFORMS,
        min_size=2048,
    ),
    Row(
        "Harmonic",
        build=Harmonic,
        tiny=lambda: Harmonic(**TINY, kernel_size=(7, 3)),
        light=lambda rate: Harmonic(rate, kernel_size=(7, 3)),
        reference=lambda y, rate: hpss_of(y)[0],
        error=peak_error,
        tolerance=WAVEFORMS,
        refusals=[(Harmonic, settings, message) for settings, message in SIZES],
    ),
    Row(
        "HarmonicRatio",
        build=HarmonicRatio,
        tiny=lambda: HarmonicRatio(**TINY, kernel_size=(7, 3)),
        light=lambda rate: HarmonicRatio(rate, kernel_size=(7, 3)),
        reference=lambda y, rate: ratio_of(y),
        error=relative_error,
        tolerance={torch.float64: 1e-9, torch.float32: 1e-4},
        frames=False,
        refusals=[(HarmonicRatio, settings, message) for settings, message in SIZES],
    ),
]
