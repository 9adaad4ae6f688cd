"""How much memory extraction takes, beside the clips."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from audiotorch.bench.clips import data_root, five_seconds
from audiotorch.errors import AudioTorchError, ParameterError

__all__ = ["LIMIT", "MemoryRow", "extract", "peak_memory", "run_memory"]

LIMIT = 1.5e9
"""Bytes that extraction may take, whatever the number of clips."""

_SETTLING = 100e6  # what allocators keep, more or less


class MemoryRow(NamedTuple):
    """What one work took for N clips, and for 2 N.

    Attributes:
        work: its name.
        n_clips: N and 2 N.
        growth: bytes by which the process grew at its peak, the answers among them.
        answers: bytes of the answers.
    """

    work: str
    n_clips: tuple[int, int]
    growth: tuple[int, int]
    answers: tuple[int, int]

    @property
    def holds(self) -> bool:
        """Whether memory is bounded, and twice the clips take no more but for the answers."""
        beyond = [grown - own for grown, own in zip(self.growth, self.answers, strict=True)]
        return max(self.growth) <= LIMIT and beyond[1] <= beyond[0] + _SETTLING


def run_memory(n_clips: int, n_threads: int = 1) -> list[MemoryRow]:
    """Measure works in processes of their own.

    Args:
        n_clips: N; each work is measured for N and for 2 N clips.
        n_threads: torch's threads.

    Raises:
        ParameterError: the system does not tell peaks of memory.
        AudioTorchError: a process failed.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise ParameterError("--memory: needs Linux, whose /proc tells peaks of memory")
    rows = []
    for work in ("summary", "table"):
        found = [_in_a_process(work, count, n_threads) for count in (n_clips, 2 * n_clips)]
        (growth, answers), (growth_2, answers_2) = found
        pairs = (n_clips, 2 * n_clips), (growth, growth_2), (answers, answers_2)
        rows.append(MemoryRow(work, *pairs))
    return rows


def _in_a_process(work: str, n_clips: int, n_threads: int) -> tuple[int, int]:
    code = "import sys; from audiotorch.bench.memory import extract; extract(*sys.argv[1:])"
    command = [sys.executable, "-c", code, work, str(n_clips), str(n_threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise AudioTorchError(f"memory of {work}: {result.stderr.strip()[-500:]}")
    growth, answers = result.stdout.split()
    return int(growth), int(answers)


def extract(work: str, n_clips: str, n_threads: str) -> None:
    """Extract features of clips, and print how many bytes that took at most, and the answers take.

    Args:
        work: `summary` or `table`.
        n_clips: clips; those there are, over and over.
        n_threads: torch's threads.
    """
    from audiotorch.bench.works import WORKS

    torch.set_num_threads(int(n_threads))
    make = WORKS[work].make
    assert make is not None
    module = make().eval()
    known = five_seconds(data_root(), int(n_clips))
    rows = [torch.from_numpy(known[place % len(known)]) for place in range(int(n_clips))]
    waveform = torch.stack(rows)
    # Libraries are loaded and buffers made at the first call.
    with torch.no_grad():
        module(waveform[:2])
        # From here on the peak counts anew.
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        output = module(waveform)
    outputs = output.values() if isinstance(output, dict) else [output]
    print(peak_memory() - before, sum(x.numel() * x.element_size() for x in outputs))


def peak_memory() -> int:
    """Return how many bytes this process took at most, since it started or the peak was cleared.

    Raises:
        ParameterError: the system does not tell.
    """
    if not Path("/proc/self/status").exists():
        raise ParameterError("peaks of memory: need Linux, whose /proc tells them")
    return _status("VmHWM")


def _status(name: str) -> int:
    """Bytes that the kernel has on this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])
