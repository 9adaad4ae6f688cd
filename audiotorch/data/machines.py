"""A synthetic corpus of machines, healthy and faulty, that needs no download.

A healthy machine is its rotation, heard as a tone with harmonics whose speed and load drift, in
broadband noise. Faults come on top of that: clicks of a bearing, an imbalance, a leak.
"""

import csv
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
from audiotorch.data.manifest import Clip
from audiotorch.errors import ParameterError

__all__ = [
    "FAULTS",
    "MACHINES",
    "SAMPLE_RATE",
    "SEVERITIES",
    "MachineDataModule",
    "synthesize",
    "write_machines",
]

Array = npt.NDArray[np.float64]

SAMPLE_RATE = 16000
"""Rate of the corpus in Hz."""

SECONDS = 3.0
"""Length of a recording."""

NAME = "audiotorch machine"
VERSION = 1  # counts changes of the sounds, so that an older corpus is written anew


@dataclass(frozen=True)
class Machine:
    """What all recordings of one machine share.

    Args:
        speed: turns a second.
        harmonics: levels of the tones at 1, 2, ... times the speed, in dB.
        blades: tones of so many times the speed stand out.
        slope_db: how much the noise falls an octave.
        clicks: clicks a turn, of a broken bearing.
        ring: Hz that a click makes the housing ring at.
    """

    speed: float
    harmonics: tuple[float, ...]
    blades: int
    slope_db: float
    clicks: float
    ring: float


MACHINES = {
    "fan": Machine(24.0, (0.0, -6.0, -12.0, -10.0, -18.0, -20.0), 7, 5.0, 3.05, 2900.0),
    "motor": Machine(49.0, (-3.0, 0.0, -14.0, -8.0, -16.0, -22.0), 12, 3.0, 4.12, 4300.0),
    "pump": Machine(37.0, (-4.0, -2.0, -3.0, -9.0, -10.0, -14.0), 5, 4.0, 2.61, 2100.0),
}
"""The machines, by name."""

FAULTS = ("bearing", "imbalance", "leak")
"""Clicks at a rate that goes with the rotation; a rotation that is heard once a turn; a hiss."""

SEVERITIES = {"mild": -3.0, "moderate": 2.0, "severe": 7.0}
"""How loud faults are, in dB."""


def write_machines(
    root: str | Path, seed: int = 0, *, n_normal: int = 20, n_faulty: int = 1
) -> Path:
    """Write the corpus, or find it written already, and return its table.

    Files are `root/<machine>/normal/*.wav` and `root/<machine>/anomaly/*.wav`, mono, 16 kHz, 3 s.
    `labels.csv` names them: `file machine label fault severity recording`. The folder appears
    complete or not at all; a corpus with other settings is replaced. The same settings give the
    same samples.

    Args:
        root: the corpus's own folder.
        seed: what the sounds are drawn from, >= 0.
        n_normal: recordings of each of the three machines while it is healthy, at least 2.
        n_faulty: recordings of each with each fault in each of three severities.

    Raises:
        ParameterError: a number out of range, or `root` holds something that is not this corpus.
    """
    check_counts(seed=(seed, 0, 2**31), n_normal=(n_normal, 2, 999), n_faulty=(n_faulty, 0, 99))
    settings = {
        "corpus": NAME,
        "version": VERSION,
        "seed": seed,
        "n_normal": n_normal,
        "n_faulty": n_faulty,
    }
    return write_once(root, settings, _write) / "labels.csv"


def synthesize(
    machine: str, take: int, seed: int = 0, *, fault: str | None = None, severity: str = "severe"
) -> Array:
    """One recording, `(time,)` within [-1, 1].

    The same numbers without a fault give the same machine in the same state, healthy.

    Args:
        machine: one of `MACHINES`.
        take: number of the recording.
        seed: the corpus's seed.
        fault: one of `FAULTS`; None is healthy.
        severity: one of `SEVERITIES`.
    """
    kind = MACHINES[machine]
    rng = np.random.default_rng([seed, list(MACHINES).index(machine), take])
    n = round(SECONDS * SAMPLE_RATE)
    # Speed and load drift slowly, each recording about a state of its own.
    speed = kind.speed * (1 + rng.uniform(-0.015, 0.015) + _drift(n, 0.004, rng))
    turns = np.cumsum(speed) / SAMPLE_RATE + rng.uniform()
    load = 10 ** ((rng.normal(0, 0.5) + _drift(n, 0.5, rng)) / 20)
    tones = np.zeros(n)
    for number, level in enumerate(kind.harmonics, 1):
        tones += _tone(turns, number, level + rng.normal(0, 0.5), rng)
    for number in (kind.blades, 2 * kind.blades):
        tones += _tone(turns, number, rng.normal(-12, 0.5), rng)
    noise = _coloured(rng.standard_normal(n), kind.slope_db + rng.normal(0, 0.15))
    sound = load * (0.05 * tones + 0.06 * 10 ** (rng.normal(0, 0.5) / 20) * noise)
    if fault is not None:
        sound = _with_fault(sound, kind, turns, fault, SEVERITIES[severity], rng)
    # Peaks lie near 0.5; the limit is for the rare one that does not.
    return sound * min(1.0, 0.98 / float(np.abs(sound).max()))


class MachineDataModule(AudioDataModule):
    """The synthetic machines as a data module: written when they are missing.

    Other arguments are `AudioDataModule`'s.

    Args:
        root: the corpus's own folder.
        corpus_seed: what the sounds are drawn from.
        n_normal: recordings of each machine while it is healthy.
        n_faulty: recordings of each machine with each fault in each severity.
        sample_rate: rate of the waveforms in Hz.
        machine_column: the table's column of machines.
        **settings: further arguments of `AudioDataModule`.
    """

    def __init__(
        self,
        root: str | Path = "machine_corpus",
        *,
        corpus_seed: int = 0,
        n_normal: int = 20,
        n_faulty: int = 1,
        sample_rate: int = SAMPLE_RATE,
        machine_column: str | None = "machine",
        **settings: Any,
    ) -> None:
        for name in ("manifest", "pattern", "regex"):
            if settings.get(name) is not None:
                raise ParameterError(
                    f"{name}={settings[name]!r}: must be left out, the demo has its own corpus; "
                    "take data=default for recordings of your own"
                )
        super().__init__(
            root=root, sample_rate=sample_rate, machine_column=machine_column, **settings
        )
        self.corpus = {"seed": corpus_seed, "n_normal": n_normal, "n_faulty": n_faulty}

    def prepare_data(self) -> None:
        """Write the corpus if it is missing, in one process only."""
        self.read_clips()

    def read_clips(self) -> list[Clip]:
        """The corpus's clips, written if they are missing."""
        assert self.root is not None
        self.manifest = write_machines(self.root, **self.corpus)
        return super().read_clips()


def _drift(n: int, size: float, rng: np.random.Generator) -> Array:
    """A slow walk about 0."""
    knots = size * rng.standard_normal(6)
    return np.interp(np.linspace(0, 5, n), np.arange(6), knots)


def _tone(turns: Array, number: int, level_db: float, rng: np.random.Generator) -> Array:
    tone: Array = 10 ** (level_db / 20) * np.sin(2 * math.pi * (number * turns + rng.uniform()))
    return tone


def _coloured(white: Array, slope_db: float) -> Array:
    """Noise of root mean square 1 that falls so many dB an octave above 100 Hz."""
    frequency = np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequency, 100.0) / 100.0)
    noise = np.fft.irfft(np.fft.rfft(white) * 10 ** (-slope_db * octaves / 20), len(white))
    return noise / _rms(noise)


def _band(white: Array, low: float, high: float) -> Array:
    frequency = np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE)
    inside = (frequency >= low) & (frequency <= high)
    noise = np.fft.irfft(np.fft.rfft(white) * inside, len(white))
    return noise / _rms(noise)


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _with_fault(
    sound: Array,
    kind: Machine,
    turns: Array,
    fault: str,
    level_db: float,
    rng: np.random.Generator,
) -> Array:
    gain = 10 ** ((level_db + rng.normal(0, 0.5)) / 20)
    if fault == "imbalance":
        # The shaft's whirl is heard itself, and in all else, once a turn.
        whirl = np.sin(2 * math.pi * turns)
        depth = min(0.9, 0.45 * gain)
        return (1 + depth * whirl) * sound + 0.12 * gain * whirl
    if fault == "leak":
        hiss = _band(rng.standard_normal(len(sound)), 4500.0, 7500.0)
        return sound + 0.025 * gain * (1 + _drift(len(sound), 0.1, rng)) * hiss
    return sound + 0.12 * gain * _clicks(kind, turns, rng)


def _clicks(kind: Machine, turns: Array, rng: np.random.Generator) -> Array:
    """Ringing of the housing at each pass over the flaw, louder where that bears the load."""
    passes = np.diff(np.floor(kind.clicks * turns), prepend=np.floor(kind.clicks * turns[0]))
    jitter = 0.01 * SAMPLE_RATE / kind.clicks / kind.speed
    hits = np.flatnonzero(passes)
    late = np.round(rng.normal(0, jitter, len(hits))).astype(int)
    hits = np.clip(hits + late, 0, len(turns) - 1)
    impulses = np.zeros(len(turns))
    impulses[hits] = (1 + 0.3 * np.sin(2 * math.pi * turns[hits])) * rng.uniform(
        0.85, 1.15, len(hits)
    )
    time = np.arange(round(0.01 * SAMPLE_RATE)) / SAMPLE_RATE
    ringing = np.exp(-time / 0.0015) * np.sin(2 * math.pi * kind.ring * time)
    return np.convolve(impulses, ringing)[: len(turns)]


def _write(folder: Path, settings: dict[str, Any]) -> None:
    rows = []
    for machine in MACHINES:
        cases = [("normal", "", "")] * settings["n_normal"]
        for fault in FAULTS:
            cases += [("anomaly", fault, level) for level in SEVERITIES] * settings["n_faulty"]
        for take, (label, fault, severity) in enumerate(cases):
            sound = synthesize(
                machine,
                take,
                settings["seed"],
                fault=fault or None,
                severity=severity or "severe",
            )
            recording = "_".join(
                filter(None, [machine, fault or "normal", severity, f"{take:03d}"])
            )
            file = folder / machine / label / f"{recording}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            save(file, torch.from_numpy(sound).float().unsqueeze(0), SAMPLE_RATE)
            name = file.relative_to(folder).as_posix()
            rows.append((name, machine, label, fault, severity, recording))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(("file", "machine", "label", "fault", "severity", "recording"))
        writer.writerows(rows)
