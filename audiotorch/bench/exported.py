"""How long an exported model takes for one clip."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import audiotorch as at
from audiotorch.bench.table import hardware, versions
from audiotorch.bench.threads import threads

__all__ = ["time_exported"]

_WARM_UP = 10


def time_exported(path: Path, seconds: float, n_runs: int) -> str:
    """Time a file, and the eager checkpoint beside it where there is one, on the same clip.

    Args:
        path: exported `.ts` file.
        seconds: length of the clip.
        n_runs: timed calls.

    Returns:
        A line for each.
    """
    modules: dict[str, Any] = {"exported": at.load_pipeline(path)}
    if (path.parent / "checkpoints").is_dir():
        # Imported here: it takes Lightning along.
        from audiotorch.training.checkpoint import load_checkpoint_pipeline

        modules["eager"] = load_checkpoint_pipeline(path.parent).eval()
    n_samples = round(seconds * modules["exported"].sample_rate)
    waveform = 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(0))
    lines = [f"{versions(['torch'])}; {hardware()}; one thread; {seconds:g} s clip"]
    with threads(1):
        for name, module in modules.items():
            times = _milliseconds(module, waveform, n_runs)
            lines.append(
                f"{name:8}  median {statistics.median(times):6.2f} ms  "
                f"fastest {min(times):6.2f} ms  slowest {max(times):6.2f} ms"
            )
    if len(modules) == 2:
        with torch.no_grad():
            a, b = (module(waveform) for module in modules.values())
        lines.append(f"largest difference {float((a - b).abs().max()):.1e}")
    return "\n".join(lines) + "\n"


def _milliseconds(module: nn.Module, waveform: Tensor, n_runs: int) -> list[float]:
    """Times of single calls, after the warm-up in which TorchScript optimises."""
    times = []
    with torch.no_grad():
        for _ in range(n_runs + _WARM_UP):
            start = time.perf_counter()
            module(waveform)
            times.append(1000 * (time.perf_counter() - start))
    return times[_WARM_UP:]
