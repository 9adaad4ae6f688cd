"""A synthetic corpus that needs no download: eight sounds told apart by their course in time.

Every sound visits the same pitches for the same time, only in another order, so that its mean
spectrum does not tell what it is: a classifier has to look at the spectrogram.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audiotorch.audio.io import save
from audiotorch.data.corpus import check_counts, write_once
from audiotorch.data.datamodule import AudioDataModule
from audiotorch.data.manifest import Clip, from_glob
from audiotorch.errors import ParameterError

__all__ = ["CLASSES", "SAMPLE_RATE", "DemoDataModule", "device_names", "write_corpus"]

Array = npt.NDArray[np.float64]

SAMPLE_RATE = 16000
"""Rate of the corpus in Hz."""

CLASSES = ("drops", "fall", "peak", "ramps", "rise", "siren", "steps", "valley")
"""The sounds: three falls in a row, one fall, up and down, three rises in a row, one rise, up and
down three times, eight held pitches in random order, down and up."""

NAME = "audiotorch demo"
VERSION = 1  # counts changes of the sounds, so that an older corpus is written anew


@dataclass(frozen=True)
class _Device:
    """What colours all recordings of one device."""

    pitch: float  # Hz, the lower end of the sweep
    tempo: float
    gain: float
    noise: float
    harmonics: Array
    colour: Array


def device_names(n_devices: int = 10) -> list[str]:
    """The names that groups have in the corpus: `device00`, `device01`, ..."""
    return [f"device{i:02d}" for i in range(n_devices)]


def write_corpus(
    root: str | Path, seed: int = 0, *, n_devices: int = 10, n_takes: int = 9
) -> list[Clip]:
    """Write the corpus, or find it written already, and return its clips.

    Files are `root/<class>/<class>_<device>_<take>.flac`, mono, 16 kHz, 0.9 to 1.7 s. The folder
    appears complete or not at all; a corpus with other settings is replaced. The same settings
    give the same samples.

    Args:
        root: the corpus's own folder.
        seed: what the sounds are drawn from, >= 0.
        n_devices: number of devices, which are the groups, from 2 to 99. Each has its own pitch,
            tempo, level, noise and frequency response.
        n_takes: recordings of each class on each device, at least 1.

    Raises:
        ParameterError: a number out of range, or `root` holds something that is not this corpus.
    """
    check_counts(seed=(seed, 0, 2**31), n_devices=(n_devices, 2, 99), n_takes=(n_takes, 1, 999))
    settings = {
        "corpus": NAME,
        "version": VERSION,
        "seed": seed,
        "n_devices": n_devices,
        "n_takes": n_takes,
    }
    return _read(write_once(root, settings, _write))


def synthesize(label: str, device: int, take: int, seed: int = 0) -> Array:
    """One recording of the corpus, `(time,)` in [-1, 1].

    A tone with harmonics runs through 1.1 octaves or so, linearly in log frequency, in the course
    that `label` names; the device's filter, level and noise follow.

    Args:
        label: one of `CLASSES`.
        device: number of the device.
        take: number of the recording.
        seed: the corpus's seed.
    """
    voice = _device(seed, device)
    rng = np.random.default_rng([seed, 1, CLASSES.index(label), device, take])
    seconds = 1.05 * voice.tempo * rng.uniform(0.9, 1.1)
    n = round(seconds * SAMPLE_RATE)
    position = _course(label, np.arange(n) / n, rng)
    octaves = rng.uniform(1.0, 1.2)
    pitch = voice.pitch * rng.uniform(0.95, 1.05) * 2.0 ** (octaves * position)
    phase = 2 * math.pi * np.cumsum(pitch) / SAMPLE_RATE + rng.uniform(0, 2 * math.pi)
    tone = np.zeros(n)
    for number, level in enumerate(voice.harmonics, 1):
        tone += level * np.sin(number * phase)
    tone *= _envelope(n, rng)
    before, after = (round(rng.uniform(0.02, 0.12) * SAMPLE_RATE) for _ in range(2))
    sound = np.pad(tone, (before, after))
    sound += voice.noise * rng.standard_normal(len(sound))
    sound = np.convolve(sound, voice.colour, mode="same")
    return sound * (voice.gain * rng.uniform(0.8, 1.0) / np.abs(sound).max())


class DemoDataModule(AudioDataModule):
    """The synthetic corpus as a data module: written when it is missing.

    Devices are the groups; the last two are kept for the test. Other arguments are
    `AudioDataModule`'s.

    Args:
        root: the corpus's own folder.
        corpus_seed: what the sounds are drawn from.
        n_devices: number of devices.
        n_takes: recordings of each class on each device.
        test_group: devices that are kept for the test; None keeps the last two.
        sample_rate: rate of the waveforms in Hz.
        **settings: further arguments of `AudioDataModule`.
    """

    def __init__(
        self,
        root: str | Path = "demo_corpus",
        *,
        corpus_seed: int = 0,
        n_devices: int = 10,
        n_takes: int = 9,
        test_group: Any = None,
        sample_rate: int = SAMPLE_RATE,
        **settings: Any,
    ) -> None:
        for name in ("manifest", "pattern", "regex"):
            if settings.get(name) is not None:
                raise ParameterError(
                    f"{name}={settings[name]!r}: must be left out, the demo has its own corpus; "
                    "take data=default for recordings of your own"
                )
        if test_group is None:
            test_group = device_names(n_devices)[-2:]
        super().__init__(root=root, test_group=test_group, sample_rate=sample_rate, **settings)
        self.corpus = {"seed": corpus_seed, "n_devices": n_devices, "n_takes": n_takes}

    def prepare_data(self) -> None:
        """Write the corpus if it is missing, in one process only."""
        self.read_clips()

    def read_clips(self) -> list[Clip]:
        """The corpus's clips, written if they are missing."""
        assert self.root is not None
        return write_corpus(self.root, **self.corpus)


def _course(label: str, time: Array, rng: np.random.Generator) -> Array:
    """Position in the pitch range, from 0 to 1, over time from 0 to 1; uniform on the whole."""
    if label == "rise":
        return time
    if label == "fall":
        return 1 - time
    if label == "peak":
        return 1 - np.abs(2 * time - 1)
    if label == "valley":
        return np.abs(2 * time - 1)
    if label == "ramps":
        return (3 * time) % 1
    if label == "drops":
        return 1 - (3 * time) % 1
    if label == "siren":
        return 1 - np.abs(2 * ((3 * time) % 1) - 1)
    held = rng.permutation(8)
    return (held[np.minimum((8 * time).astype(int), 7)] + 0.5) / 8


def _device(seed: int, number: int) -> _Device:
    rng = np.random.default_rng([seed, 0, number])
    level = 10 ** (rng.uniform(-12, 0, 4) / 20) / np.arange(1, 5)
    level[0] = 1.0
    # A smooth random response: a few cosines over log frequency, within about 6 dB.
    bins = np.linspace(0, 1, 65)
    response_db = sum(rng.normal(0, 3 / k) * np.cos(math.pi * k * bins) for k in range(1, 5))
    impulse = np.fft.irfft(10 ** (np.asarray(response_db) / 20))
    colour = np.fft.fftshift(impulse) * np.hanning(len(impulse))
    return _Device(
        pitch=300 * 2 ** rng.uniform(0, 1.2),
        tempo=rng.uniform(0.85, 1.25),
        gain=0.9 * 10 ** (rng.uniform(-14, 0) / 20),
        noise=10 ** (rng.uniform(-42, -26) / 20),
        harmonics=level,
        colour=colour,
    )


def _envelope(n: int, rng: np.random.Generator) -> Array:
    """Slow swell of a few dB with soft ends, unrelated to the class."""
    knots = rng.uniform(-4, 0, 6)
    swell = 10 ** (np.interp(np.linspace(0, 5, n), np.arange(6), knots) / 20)
    ramp = round(0.01 * SAMPLE_RATE)
    edge = np.minimum(1.0, np.arange(1, n + 1) / ramp)
    return swell * edge * edge[::-1]


def _write(folder: Path, settings: dict[str, Any]) -> None:
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for number, device in enumerate(device_names(settings["n_devices"])):
            for take in range(settings["n_takes"]):
                sound = synthesize(label, number, take, settings["seed"])
                waveform = torch.from_numpy(sound).float().unsqueeze(0)
                save(folder / label / f"{label}_{device}_{take:03d}.flac", waveform, SAMPLE_RATE)


def _read(folder: Path) -> list[Clip]:
    return from_glob(folder, "*/*.flac", regex=r"^(?P<label>[^/]+)/.*_(?P<group>device\d+)_\d+")
