"""The checks that every feature must pass; `test_features.py` holds the table of features."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = [
    "Row",
    "deviation",
    "exported",
    "fake_cuda",
    "make_input",
    "run_on_fake_cuda",
    "scripted",
    "shared_scale",
]


def peak_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the expected maximum; absolute where that is 0."""
    return float(np.abs(ours - expected).max() / (np.abs(expected).max() or 1.0))


def absolute_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference in the feature's own unit."""
    return float(np.abs(ours - expected).max())


def row_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of a row as a share of that row's range; constant rows count absolutely.

    A row is constant when its range is within rounding of float64.
    """
    span = np.ptp(expected, axis=-1)
    constant = span <= 1e-9 * max(1.0, float(np.abs(expected).max()))
    return float((np.abs(ours - expected).max(axis=-1) / np.where(constant, 1.0, span)).max())


@dataclass(frozen=True)
class Row:
    """One feature in one setting, its reference, and what it must hold."""

    name: str
    build: Callable[[int], nn.Module]
    """Make the module for a sample rate."""
    tiny: Callable[[], nn.Module]
    """Make a very small one, for gradients."""
    reference: Callable[[np.ndarray, int], np.ndarray]
    """Give the expected feature of one clip from `prepare`'s output and the sample rate."""
    error: Callable[[np.ndarray, np.ndarray], float]
    """Measure ours against the expected."""
    tolerance: dict[torch.dtype, float]
    """What `error` may be, on real recordings."""
    prepare: Callable[[np.ndarray, int], np.ndarray] | None = None
    """Make the module's input from a waveform; `None` = the module takes waveforms."""
    rows: int = 0
    """Rows of the input, where it is no waveform."""
    tiny_rows: int = 0
    min_size: int = 1
    """Shortest input: samples, or frames where the module takes no waveform."""
    batch_only: bool = False
    """Input is `(batch, time)` and nothing else."""
    frames: bool = True
    """The output's last axis is the frames'."""
    formula: Callable[[int], int] | None = None
    """Frames of a clip of n samples, where the module takes waveforms."""
    no_gradient: str = ""
    """Why gradcheck does not apply."""
    refusals: Sequence[tuple[type[nn.Module], dict[str, Any], str]] = field(default_factory=tuple)
    """Class, arguments, and the message of the refusal."""

    def input_of(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Make the module's input from a waveform, zero-padded to the shortest it takes."""
        if self.prepare is None:
            return np.pad(samples, (0, max(0, self.min_size - len(samples))))
        return self.prepare(samples, rate)


def make_input(
    row: Row, sizes: Sequence[int], *, leading: tuple[int, ...] | None = None, tiny: bool = False
) -> tuple[Tensor, Tensor]:
    """Random input with zeros past each clip's size, `(clips, [rows,] size)`, and the sizes."""
    generator = torch.Generator().manual_seed(7)
    shape = [len(sizes), max(sizes)]
    rows = row.tiny_rows if tiny else row.rows
    if rows:
        shape.insert(1, rows)
    x = torch.randn(shape, generator=generator)
    x = x.square() if rows else 0.3 * x
    lengths = torch.tensor(sizes)
    for clip, size in zip(x, sizes, strict=True):
        clip[..., size:] = 0.0
    if leading is not None:
        x, lengths = x.reshape(*leading, *x.shape[1:]), lengths.reshape(leading)
    return x, lengths


def shared_scale(expected: Tensor) -> float:
    """Largest absolute value, at least float32's smallest normal number."""
    return max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)


def deviation(ours: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the expected scale; shapes must agree."""
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    assert torch.isfinite(expected).all()
    return float((ours - expected).abs().max()) / shared_scale(expected)


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    """Script a module; torch's notice that scripting is deprecated is expected."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.*is deprecated")
        return torch.jit.script(module)


def exported(module: nn.Module, x: Tensor, lengths: Tensor) -> nn.Module:
    """Export with dynamic batch and time, and make sure that both stayed dynamic."""
    auto = torch.export.Dim.AUTO
    dynamic = ({0: auto, x.dim() - 1: auto}, {0: auto})
    program = torch.export.export(module, (x, lengths), dynamic_shapes=dynamic)
    inputs = {
        node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"
    }
    first, second = [inputs[name] for name in program.graph_signature.user_inputs]
    for name, size in (("batch", first.shape[0]), ("time", first.shape[-1])):
        assert isinstance(size, torch.SymInt), f"torch.export fixed {name} to {size}"
    assert isinstance(second.shape[0], torch.SymInt)
    return program.module()


def fake_cuda(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """Return a fake tensor on CUDA with the shape and dtype of a real one; needs no GPU."""
    fake = mode.from_tensor(tensor)
    with mode:
        return torch.empty_like(fake, device="cuda")


def run_on_fake_cuda(module: nn.Module, *inputs: Tensor | None) -> Any:
    """Run a module with its parameters, buffers and inputs on a fake CUDA device.

    Any tensor that stayed behind on the CPU makes torch raise, so this finds constants that are
    plain attributes, and results that were made on the wrong device.
    """
    # A copy: the fake tensors must not find their way into the caller's module.
    module = copy.deepcopy(module)
    mode = FakeTensorMode(allow_non_fake_inputs=False)
    tensors = {
        name: fake_cuda(mode, tensor.detach())
        for named in (module.named_parameters(), module.named_buffers())
        for name, tensor in named
    }
    arguments = [None if x is None else fake_cuda(mode, x) for x in inputs]
    with mode:
        return torch.func.functional_call(module, tensors, tuple(arguments))
