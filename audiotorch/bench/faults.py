"""Faults of machines, planted into recordings of healthy ones at a known level."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve

__all__ = [
    "FAULTS",
    "LEVELS_DB",
    "lower_level",
    "plant",
    "plant_clicks",
    "plant_hiss",
    "plant_whine",
]

Array = npt.NDArray[Any]

LEVELS_DB = (0, -6, -12)
"""Levels at which faults are planted, in dB against the clip."""

_DROPS_DB = {0: 12.0, -6: 6.0, -12: 3.0}


def plant(clip: Array, fault: Array, level_db: float) -> Array:
    """Add a fault whose root mean square, over the clip, lies `level_db` above the clip's.

    Args:
        clip: waveform, `(time,)`.
        fault: another as long, of any level.
        level_db: negative = below the clip's.
    """
    gain = np.sqrt(np.mean(clip**2) / np.mean(fault**2)) * 10 ** (level_db / 20)
    return np.asarray(clip + gain * fault)


def plant_clicks(clip: Array, sample_rate: int, level_db: float, seed: int = 0) -> Array:
    """Add the clicks of a damaged bearing: one each rotation, 8 to 30 a second.

    A click rings at 1.5 to 5 kHz and falls by half in 1.4 ms.

    Args:
        clip: waveform, `(time,)`.
        sample_rate: Hz, at least 10000.
        level_db: as `plant`.
        seed: of rate, phase and ringing.
    """
    generator = np.random.default_rng(seed)
    period = sample_rate / generator.uniform(8, 30)
    ring = generator.uniform(1500, 5000)
    time = np.arange(sample_rate // 50) / sample_rate
    beats = np.zeros(len(clip))
    beats[np.arange(generator.uniform(0, period), len(clip), period).astype(int)] = 1.0
    click = np.exp(-time / 0.002) * np.sin(2 * np.pi * ring * time)
    return plant(clip, fftconvolve(beats, click)[: len(clip)], level_db)


def plant_whine(clip: Array, sample_rate: int, level_db: float, seed: int = 0) -> Array:
    """Add a whine: a tone of 600 to 2500 Hz, with two harmonics, that wavers by a percent.

    Args:
        clip: waveform, `(time,)`.
        sample_rate: Hz, at least 15500.
        level_db: as `plant`.
        seed: of pitch and phases.
    """
    generator = np.random.default_rng(seed)
    pitch = generator.uniform(600, 2500)
    time = np.arange(len(clip)) / sample_rate
    phase = 2 * np.pi * pitch * time + 0.01 * pitch / 1.5 * np.sin(2 * np.pi * 1.5 * time)
    tones = [np.sin(k * phase + generator.uniform(0, 2 * np.pi)) / k for k in (1, 2, 3)]
    return plant(clip, np.sum(tones, axis=0), level_db)


def plant_hiss(clip: Array, sample_rate: int, level_db: float, seed: int = 0) -> Array:
    """Add the hiss of a leak: white noise without what lies below 2 kHz.

    Args:
        clip: waveform, `(time,)`.
        sample_rate: Hz, above 4000.
        level_db: as `plant`.
        seed: of the noise.
    """
    noise = np.fft.rfft(np.random.default_rng(seed).standard_normal(len(clip)))
    noise[: int(2000 * len(clip) / sample_rate)] = 0.0
    return plant(clip, np.fft.irfft(noise, len(clip)), level_db)


def lower_level(clip: Array, sample_rate: int, level_db: float, seed: int = 0) -> Array:
    """Lower the whole clip by 12, 6 or 3 dB for a fault of 0, -6 or -12 dB.

    Half of the amplitude is gone at -6 dB, so that what is missing lies 6 dB below the clip; at the
    others it is 2.5 and 10.7 dB below. Exactly 0 dB would be silence, which tests nothing.

    Args:
        clip: waveform, `(time,)`.
        sample_rate: not used: every fault is called alike.
        level_db: one of `LEVELS_DB`.
        seed: not used.
    """
    return np.asarray(clip * 10 ** (-_DROPS_DB[int(level_db)] / 20))


FAULTS: Mapping[str, Callable[[Array, int, float, int], Array]] = {
    "clicks": plant_clicks,
    "whine": plant_whine,
    "hiss": plant_hiss,
    "level drop": lower_level,
}
"""Name in tables -> function of the clip, its sample rate, the level in dB and a seed."""
