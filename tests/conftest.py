"""Seeded signals and real recordings for every test."""

import csv
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

# librosa's compiled functions: two processes that fill one cache at the same time can each load
# what the other compiled for other types, and crash. Set before numba is loaded.
os.environ["NUMBA_CACHE_DIR"] = str(
    Path(tempfile.gettempdir())
    / f"audiotorch-numba-{os.getuid()}"
    / os.environ.get("PYTEST_XDIST_WORKER", "alone")
)

SIGNAL_RATE = 22050
MAX_SECONDS = 5


class Recording(NamedTuple):
    name: str
    samples: np.ndarray  # (time,) float64, of values that float32 holds exactly
    sample_rate: int


def pytest_configure() -> None:
    # More threads only slow down tensors of this size, and one gives the same sums everywhere.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def one_line(text: str) -> str:
    """What a command complains of, in one line and without a traceback."""
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


def folder_of(variable: str, content: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set: no {content}")
    return Path(folder)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Where the real recordings lie."""
    return folder_of("AUDIOTORCH_DATA", "real recordings")


@pytest.fixture(scope="session")
def whisper_weights() -> Path:
    """Folder of Whisper's checkpoints `tiny.en.pt` and `base.pt`."""
    return folder_of("AUDIOTORCH_WHISPER", "Whisper checkpoints")


def make_signals() -> dict[str, np.ndarray]:
    """One second of each kind of sound, `(time,)` float64 of values that float32 holds exactly."""
    generator = np.random.default_rng(0)
    time = np.arange(SIGNAL_RATE) / SIGNAL_RATE
    clicks = np.zeros(SIGNAL_RATE)
    clicks[::2205] = 1.0
    one_click = np.zeros(SIGNAL_RATE)
    one_click[10_000] = 1.0
    signals = {
        "noise": 0.3 * generator.standard_normal(SIGNAL_RATE),
        "quiet noise": 1e-3 * generator.standard_normal(SIGNAL_RATE),
        "sine": 0.5 * np.sin(2 * np.pi * 440.0 * time),
        "chirp": 0.5 * scipy.signal.chirp(time, 50.0, 1.0, 10_000.0),
        "clicks": clicks,
        "one click": one_click,
        "constant": np.full(SIGNAL_RATE, 0.25),
        "silence": np.zeros(SIGNAL_RATE),
        "one sample": np.array([0.5]),
        "short": 0.3 * generator.standard_normal(700),
    }
    return {name: signal.astype(np.float32).astype(float) for name, signal in signals.items()}


@pytest.fixture(scope="session")
def signals() -> dict[str, np.ndarray]:
    return make_signals()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def recordings(data_root: Path) -> list[Recording]:
    """Spoken digits at 8 kHz, surroundings at 44.1 kHz, music at several rates; 5 s at most."""
    found = []
    for corpus, listing, count in (
        ("fsdd", "labels.csv", 5),
        ("esc10", "labels.csv", 5),
        ("music_examples", "files.csv", 4),
    ):
        rows = table(data_root / corpus / listing)
        for row in rows[:: -(-len(rows) // count)]:
            path = data_root / corpus / row["file"]
            rate = soundfile.info(path).samplerate
            samples = soundfile.read(
                path, frames=MAX_SECONDS * rate, dtype="float32", always_2d=True
            )[0]
            found.append(Recording(path.name, samples.mean(axis=1).astype(float), rate))
    return found
