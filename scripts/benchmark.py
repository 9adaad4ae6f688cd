"""Time an exported model on one thread: python scripts/benchmark.py runs/demo/model.ts.

Prints the median time of one clip, waveform to probabilities, beside the clip's length; the file
and the eager checkpoint beside it, where there is one, answer the same clip.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch

import audiotorch as at
from audiotorch.training.checkpoint import load_checkpoint_pipeline


def milliseconds(module: torch.nn.Module, waveform: torch.Tensor, n_runs: int) -> list[float]:
    """Times of single calls, after the warm-up in which TorchScript optimises."""
    times = []
    with torch.no_grad():
        for _ in range(n_runs + 10):
            start = time.perf_counter()
            module(waveform)
            times.append(1000 * (time.perf_counter() - start))
    return times[10:]


def main() -> None:
    """Read the arguments, time, and print one line a module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="exported .ts file")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of the clip (1)")
    parser.add_argument("--runs", type=int, default=200, help="timed calls (200)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    modules = {"exported": at.load_pipeline(options.model)}
    if (options.model.parent / "checkpoints").is_dir():
        modules["eager"] = load_checkpoint_pipeline(options.model.parent).eval()
    n_samples = round(options.seconds * modules["exported"].sample_rate)
    waveform = 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(0))
    print(
        f"torch {torch.__version__}, {platform.machine()}, one thread, {options.seconds:g} s clip"
    )
    for name, module in modules.items():
        times = milliseconds(module, waveform, options.runs)
        print(
            f"{name:8}  median {statistics.median(times):6.2f} ms  "
            f"fastest {min(times):6.2f} ms  slowest {max(times):6.2f} ms"
        )
    if len(modules) == 2:
        with torch.no_grad():
            a, b = (module(waveform) for module in modules.values())
        print(f"largest difference {float((a - b).abs().max()):.1e}")


if __name__ == "__main__":
    main()
