"""Measure what a recording of many hours takes: python scripts/long_recording.py --hours 10.

A FLAC of that length is made on the spot. Features and predictions over its windows must stay
below 1 GB of memory, and ten seconds near its end be read in 0.2 s; else the exit status is 1.
Several lengths, --hours 0.1 1, also show that memory does not grow with them.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

RATE = 44100
MAX_MB = 1000.0
MAX_GROWTH_MB = 50.0  # what allocators keep, more or less
MAX_READ_SECONDS = 0.2
_PIECE_SECONDS = 20
_LOOK_SECONDS = 0.01  # from look to look at a process's memory

# Each runs in a process of its own, whose peak is then its own.
_EXPORT = """
import sys, torch
import audiotorch as at
from audiotorch.models import CNN
torch.manual_seed(0)
features = at.features.SpectrogramImage(22050, n_mels=64)
model = CNN(3, features.output_shape, channels=(8, 16))
at.export(at.Pipeline(features, model, labels=["a", "b", "c"], sample_rate=22050), sys.argv[1])
"""
_READ = """
import sys, time
import audiotorch as at
path, seconds, rate = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
times = []
for share in (0.9, 0.89, 0.91, 0.88, 0.92):
    started = time.perf_counter()
    waveform, _ = at.load(path, offset=share * seconds, duration=10.0)
    times.append(time.perf_counter() - started)
    assert waveform.shape == (1, 220500), waveform.shape
print(sorted(times)[2])
"""


class Row(NamedTuple):
    """What one work took.

    Attributes:
        work: its name.
        hours: of the recording.
        seconds: how long it took.
        peak_mb: the most memory its process had, in MB of 1e6 bytes.
        own_mb: the most that was its own, without the pages of files: of these, those of torch's
            libraries come and go by 100 MB from run to run. The peak, where there is no /proc.
        holds: whether it is within its limit.
    """

    work: str
    hours: float
    seconds: float
    peak_mb: float
    own_mb: float
    holds: bool


def make_recording(path: Path, seconds: float) -> None:
    """Write a stereo FLAC of decaying notes over faint noise, a piece at a time."""
    generator = np.random.default_rng(0)
    size = _PIECE_SECONDS * RATE
    piece = np.stack([_notes(generator, size), _notes(generator, size)], axis=1)
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16", format="FLAC") as file:
        left = round(seconds * RATE)
        while left > 0:
            # Other notes together each time: no two pieces sound alike.
            block = piece // 2 + np.roll(piece, int(generator.integers(size)), axis=0) // 2
            file.write(block[:left])
            left -= size


def _notes(generator: np.random.Generator, size: int) -> np.ndarray:
    time_axis = np.arange(RATE) / RATE
    sound = 30.0 * generator.standard_normal(size)
    for start in range(0, size, RATE // 2):
        pitch = 110.0 * 2.0 ** (generator.integers(48) / 12.0)
        note = 9000.0 * np.exp(-5.0 * time_axis) * np.sin(2 * np.pi * pitch * time_axis)
        sound[start : start + RATE] += note[: size - start]
    return sound.clip(-32767, 32767).astype(np.int16)


def run(arguments: Sequence[str], output: Path) -> tuple[float, float, float]:
    """Run Python with these arguments; return its seconds, its peak and its own memory in MB.

    Of the peak, 540 MB are torch's at its import, and 130 more pages of its libraries' files that
    are only looked at when the process ends.
    """
    started = time.perf_counter()
    own = 0.0
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, *arguments], stdout=file)
        # Not resource.getrusage, which gives the largest of all children. What this process holds
        # counts as a child's own until that runs: so torch is not imported here.
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            own = max(own, _own_mb(process.pid))
            time.sleep(_LOOK_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments[:4])} ... ended with status {process.returncode}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return time.perf_counter() - started, peak, own or peak


def _own_mb(pid: int) -> float:
    """Anonymous memory that a process has now; 0 where the system does not tell, or it ended."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    found = re.search(r"^RssAnon:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def smallest(arguments: Sequence[str], output: Path, repeats: int) -> tuple[float, float, float]:
    """Run Python so many times; return the shortest time and the smallest peaks.

    What is kept of a recording is kept each time; what an allocator keeps by chance is not.
    """
    seconds, peaks, own = zip(*(run(arguments, output) for _ in range(repeats)), strict=True)
    return min(seconds), min(peaks), min(own)


def measure(folder: Path, hours: float, window: float, hop: float, repeats: int) -> Iterator[Row]:
    """Make a recording, and measure what is done with it."""
    path, output, model = folder / "long.flac", folder / "output", folder / "model.ts"
    started = time.perf_counter()
    make_recording(path, 3600 * hours)
    yield Row("make the file", hours, time.perf_counter() - started, 0.0, 0.0, True)
    sizes = ["--window", str(window), "--hop", str(hop)]
    command = ["-m", "audiotorch.cli"]
    table = folder / "features.parquet"
    # Overwritten: the next repeat would skip what is done.
    features = ["features", str(path), "--out", str(table), "--overwrite"]
    works = {
        "features": [*command, *features, *sizes],
        "prediction": [*command, "predict", str(model), str(path), "--json", *sizes],
    }
    for work, arguments in works.items():
        seconds, peak, own = smallest(arguments, output, repeats)
        yield Row(work, hours, seconds, peak, own, peak <= MAX_MB)
    n_lines = len(output.read_text().splitlines())
    # Until one reaches the end, but none starts past it.
    reaching = 1 + max(0, math.ceil((3600 * hours - window) / hop))
    expected = min(reaching, math.ceil(3600 * hours / hop))
    if n_lines != expected:
        raise SystemExit(f"predict answered {n_lines} windows of {expected}")
    reading = ["-c", _READ, str(path), str(3600 * hours), str(RATE)]
    _, peak, own = smallest(reading, output, repeats)
    seconds = float(output.read_text())
    yield Row(
        "read 10 s", hours, seconds, peak, own, seconds <= MAX_READ_SECONDS and peak <= MAX_MB
    )
    path.unlink()
    for file in folder.glob("features.*"):
        file.unlink()


def grown(rows: Sequence[Row]) -> list[str]:
    """The works that take more memory for longer recordings."""
    peaks: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda row: row.hours):
        peaks.setdefault(row.work, []).append(row.own_mb)
    return [work for work, found in peaks.items() if found[-1] > found[0] + MAX_GROWTH_MB]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--hours", type=float, nargs="+", default=[10.0], help="lengths (10)")
    parser.add_argument("--window", type=float, default=5.0, help="seconds of a window (5)")
    parser.add_argument("--hop", type=float, default=2.5, help="from start to start (2.5)")
    parser.add_argument("--repeats", type=int, default=1, help="runs, the smallest counts (1)")
    parser.add_argument("--folder", help="where the files are made and removed; default: TMPDIR")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    rows = []
    if not options.json:
        print(f"{'work':14}  {'hours':>7}  {'seconds':>8}  {'peak MB':>8}  {'own MB':>8}  holds")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        run(["-c", _EXPORT, str(folder / "model.ts")], folder / "output")
        for hours in options.hours:
            for row in measure(folder, hours, options.window, options.hop, options.repeats):
                rows.append(row)
                numbers = (
                    f"{row.hours:7.3f}  {row.seconds:8.3f}  {row.peak_mb:8.0f}  {row.own_mb:8.0f}"
                )
                line = f"{row.work:14}  {numbers}  {'yes' if row.holds else 'NO'}"
                print(json.dumps(row._asdict()) if options.json else line, flush=True)
    for work in grown(rows):
        print(f"{work}: takes more memory for a longer recording", file=sys.stderr)
    return 0 if all(row.holds for row in rows) and not grown(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
