"""The checks that every module must pass; `test_features.py` holds the table of features."""

import copy
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_flatten, tree_map_only

from audiotorch.errors import ParameterError

__all__ = [
    "Row",
    "absolute_error",
    "check_device",
    "check_edges",
    "check_exported",
    "check_gradient",
    "check_independence",
    "check_parity",
    "check_refusals",
    "check_scripted",
    "check_state",
    "deviation",
    "exported",
    "peak_error",
    "relative_error",
    "row_error",
    "run_on_fake_cuda",
    "scripted",
    "unequal_frames",
]


def peak_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the expected maximum; absolute where that is 0."""
    return float(np.abs(ours - expected).max() / (np.abs(expected).max() or 1.0))


def absolute_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference in the feature's own unit."""
    return float(np.abs(ours - expected).max())


def share_beyond(limit: float) -> Callable[[np.ndarray, np.ndarray], float]:
    """Make an error for steps: the share of values that differ by more than the limit."""

    def error(ours: np.ndarray, expected: np.ndarray) -> float:
        compared = ~np.isnan(expected)
        return (
            float(np.mean(~(np.abs(ours - expected)[compared] <= limit))) if compared.any() else 0
        )

    return error


def row_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of a derivative's row as a share of the row's range.

    The range takes in 0: the row of a clip of 9 or 10 frames is all but constant, and float32's
    rounding of its value may then exceed 1e-5 of what little it varies.
    """
    span = np.maximum(expected.max(axis=-1), 0.0) - np.minimum(expected.min(axis=-1), 0.0)
    # A range within float64's rounding is that of a row of zeros.
    scale = np.where(span <= 1e-9 * max(1.0, float(span.max())), 1.0, span)
    return float((np.abs(ours - expected).max(axis=-1) / scale).max())


def relative_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the expected value; absolute where that is 0."""
    return float((np.abs(ours - expected) / np.where(expected == 0, 1.0, np.abs(expected))).max())


def unequal_frames(ours: np.ndarray, expected: np.ndarray) -> float:
    """Share of frames that differ by more than rounding."""
    return float((np.abs(ours - expected) > 1e-6 * np.abs(expected)).any(axis=-2).mean())


@dataclass(frozen=True)
class Row:
    """One feature in one setting, its reference, and what it must hold."""

    name: str
    build: Callable[[int], nn.Module]
    """Make the module for a sample rate."""
    tiny: Callable[[], nn.Module] | None
    """Make a very small one, for gradients; `None` = its sizes are fixed."""
    reference: Callable[[np.ndarray, int], np.ndarray]
    """Give the expected feature of one clip from `prepare`'s output and the sample rate."""
    error: Callable[[np.ndarray, np.ndarray], float]
    """Measure ours against the expected."""
    tolerance: dict[torch.dtype, float]
    """What `error` may be."""
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
    light: Callable[[int], nn.Module] | None = None
    """Make a lighter module for torch.export, where `build`'s many steps take long to trace."""
    unsettled: Sequence[str] = ()
    """Synthetic signals on which rounding decides, librosa's too: they are not compared."""
    rounding: float = 1e-6
    """How far the answers of eager and exported modules may lie apart, as a share of the scale."""
    differentiable: bool = True
    """Otherwise the answer hangs on no gradient."""
    exportable: bool = True
    """`torch.export` takes it; TorchScript takes all."""
    module: str = ""
    """Name of the class under test, where `build` wraps it to make one tensor of its answer."""
    refusals: Sequence[tuple[type[nn.Module], dict[str, Any], str]] = ()
    """Class, arguments, and the message of the refusal."""

    def input_of(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Make the module's input from a waveform, zero-padded to the shortest it takes."""
        if self.prepare is None:
            return np.pad(samples, (0, max(0, self.min_size - len(samples))))
        return quietly(self.prepare, samples, rate)


def quietly(reference: Callable[..., np.ndarray], clip: np.ndarray, rate: int) -> np.ndarray:
    """Call librosa; its notice about clips shorter than a window is expected."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"n_fft=\d+ is too large for input signal")
        warnings.filterwarnings("ignore", message="Trying to estimate tuning from empty")
        return reference(clip, rate)


def make_input(row: Row, sizes: Sequence[int], *, tiny: bool = False) -> tuple[Tensor, Tensor]:
    """Random input with zeros past each clip's size, `(clips, [rows,] size)`, and the sizes."""
    generator = torch.Generator().manual_seed(7)
    shape = [len(sizes), max(sizes)]
    rows = row.tiny_rows if tiny else row.rows
    if rows:
        shape.insert(1, rows)
    x = torch.randn(shape, generator=generator)
    # Away from 0, where decibels bend too sharply for finite differences.
    x = x.square() + 0.1 if rows else 0.3 * x
    for clip, size in zip(x, sizes, strict=True):
        clip[..., size:] = 0.0
    return x, torch.tensor(sizes)


def deviation(ours: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the expected scale; shapes and dtypes must agree."""
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    assert torch.isfinite(expected).all()
    scale = max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
    return float((ours - expected).abs().max()) / scale


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    """Script a module, save and load it; torch's notices of deprecation are expected."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        for name in ("script", "save", "load"):
            warnings.filterwarnings(
                "ignore", message=rf".*torch\.jit\.{name}.*is deprecated", category=FutureWarning
            )
        torch.jit.save(torch.jit.script(module), file)
        file.seek(0)
        return torch.jit.load(file)


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


def run_on_fake_cuda(module: nn.Module, *args: Any) -> Any:
    """Run a module as if on a GPU: anything left on the CPU, or read back from the device, raises.

    Parameters, buffers and tensor arguments become fake `cuda` tensors, which have shapes but no
    values. Fails if an output tensor is not on `cuda`; returns the output.
    """
    with FakeTensorMode() as mode:

        def to_fake(tensor: Tensor) -> Tensor:
            return torch.empty_like(mode.from_tensor(tensor), device="cuda")

        state = {
            name: to_fake(tensor)
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
        }
        output = torch.func.functional_call(
            module, state, tuple(tree_map_only(Tensor, to_fake, args))
        )
    left = [x for x in tree_flatten(output)[0] if isinstance(x, Tensor) and x.device.type != "cuda"]
    assert not left, f"outputs left the device: {left}"
    return output


def run(module: nn.Module, clip: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Give one clip to the module as a batch of one, and return its answer in float64."""
    x = torch.from_numpy(clip).to(dtype)[None]
    answer = module(x)
    assert answer.dtype == dtype
    return answer[0].double().numpy()


def check_parity(
    row: Row, clips: Sequence[tuple[str, np.ndarray, int]]
) -> dict[torch.dtype, float]:
    """Equal to the reference clip by clip, in both precisions; float32 also near our float64.

    Where the reference is NaN, nothing is compared: see the row's error.
    """
    modules = {rate: row.build(rate) for rate in {rate for _, _, rate in clips}}
    worst = dict.fromkeys(row.tolerance, 0.0)
    for name, samples, rate in clips:
        given = row.input_of(samples, rate)
        single = given.astype(np.float32).astype(np.float64)
        answers = {}
        for dtype, limit in row.tolerance.items():
            clip = single if dtype == torch.float32 else given
            answers[dtype] = run(modules[rate], clip, dtype)
            expected = quietly(row.reference, clip, rate)
            error = row.error(answers[dtype], expected)
            worst[dtype] = max(worst[dtype], error)
            assert error <= limit, f"{name}, {dtype}: {error:.3g} from the reference"
        if np.array_equal(single, given):
            wide = np.where(np.isnan(expected), np.nan, answers[torch.float64])
            error = row.error(answers[torch.float32], wide)
            assert error <= row.tolerance[torch.float32], f"{name}: {error:.3g} between precisions"
    return worst


def clip_sizes(row: Row) -> list[int]:
    """Sizes of a mixed batch, the row's shortest (or less than a window) among them."""
    # One sample alone has so flat a spectrum that a normalised image is all rounding.
    shortest = 0 if row.rows or row.min_size > 1 else 699
    steps = (13, shortest, 20, 1) if row.rows else (2500, shortest, 5003, 701)
    return [row.min_size + step for step in steps]


def own_part(row: Row, answer: Tensor, size: int) -> Tensor:
    """Cut the frames of a clip of this size out of its answer; all the others must be 0."""
    if not row.frames:
        return answer
    n_frames = size if row.formula is None else row.formula(size)
    assert not answer[..., n_frames:].any()
    return answer[..., :n_frames]


def check_independence(row: Row) -> None:
    """A clip's answer is its own: alone, stacked, padded, beside NaN, in front of garbage."""
    module = row.build(22050)
    sizes = clip_sizes(row)
    x, lengths = make_input(row, sizes)
    before = x.clone()
    batch = module(x, lengths)
    assert torch.equal(x, before)
    for clip, answer, size in zip(x, batch, sizes, strict=True):
        alone = module(clip[None, ..., :size])[0]
        assert deviation(own_part(row, answer, size), alone) <= 1e-6
    stacked = module(x)
    for clip, answer in zip(x, stacked, strict=True):
        assert deviation(answer, module(clip[None])[0]) <= 1e-6
    if not row.batch_only:
        channels = module(x.unflatten(0, (2, 2)), lengths.unflatten(0, (2, 2)))
        assert deviation(channels.flatten(0, 1), batch) <= 1e-6
        assert deviation(module(x[0]), stacked[0]) <= 1e-6

    garbage = x.clone()
    for clip, size, value in zip(garbage, sizes, (torch.nan, torch.inf, 1.0, 1e6), strict=True):
        clip[..., size:] = value
    assert torch.equal(module(garbage, lengths), batch)
    assert torch.isnan(garbage[1]).any() or torch.isinf(garbage[1]).any()

    spoilt = x.clone()
    spoilt[2, ..., sizes[2] // 2] = torch.nan
    answers = module(spoilt, lengths)
    others = [0, 1, 3]
    assert deviation(answers[others], batch[others]) <= 1e-6
    assert answers[2].isnan().any(), "a NaN must not be answered as if it were sound"


def check_gradient(row: Row) -> None:
    """The gradient in float64 is that of finite differences, of a padded batch too."""
    if row.tiny is None:
        # Too many samples for finite differences: its parts have rows of their own.
        x, lengths = make_input(row, clip_sizes(row))
        row.build(22050)(x.requires_grad_(), lengths).sum().backward()
        assert x.grad.isfinite().all()
        assert x.grad.any()
        return
    module = row.tiny().double()
    x, lengths = make_input(row, [14, 12] if row.rows else [44, 39], tiny=True)
    x = x.double().requires_grad_()
    if not row.differentiable:
        assert not module(x, lengths).requires_grad
        return
    assert torch.autograd.gradcheck(lambda x: module(x, lengths), (x,))


def check_scripted(row: Row) -> None:
    """The scripted module, saved and loaded, equals the eager one at several shapes."""
    module = row.build(22050)
    loaded = scripted(module)
    sizes = clip_sizes(row)
    for some in (sizes, sizes[:1], sizes[1:]):
        x, lengths = make_input(row, some)
        assert deviation(loaded(x, lengths), module(x, lengths)) <= row.rounding
        assert deviation(loaded(x), module(x)) <= row.rounding


def check_exported(row: Row) -> None:
    """The exported program equals the eager module at other batch sizes and lengths."""
    if not row.exportable:
        return
    module = (row.light or row.build)(22050)
    sizes = clip_sizes(row)
    program = exported(module, *make_input(row, sizes[:2]))
    for some in (sizes, sizes[:1], sizes[1:]):
        x, lengths = make_input(row, some)
        assert deviation(program(x, lengths), module(x, lengths)) <= row.rounding


def check_edges(row: Row, rate: int) -> None:
    """Silence, clicks, constants and very short clips: finite, or refused by name."""
    module = row.build(rate)
    longest = row.min_size + (9 if row.rows else 4608)
    for size in (1, 2, 8, 9) if row.rows else (1, 700, 2047, 2048, 2049, 4608, longest):
        shape = (1, row.rows, size) if row.rows else (1, size)
        click = torch.zeros(shape)
        click[..., size // 2] = 1.0
        for x in (torch.zeros(shape), click, torch.full(shape, 0.5), torch.rand(shape)):
            padded = torch.nn.functional.pad(x, (0, longest - size))
            assert module(padded, torch.tensor([size])).isfinite().all()
            if size < row.min_size:
                with pytest.raises(ParameterError, match=r"needs at least"):
                    module(x)
                continue
            answer = module(x)
            assert answer.isfinite().all()
            if row.formula is not None:
                count = row.formula(size)
                assert int(module.frame_counts(torch.tensor(size))) == count
                assert answer.shape[-1] == count or not row.frames


def check_state(row: Row) -> None:
    """State dict, precision changes and a fake CUDA device change nothing."""
    module = row.build(22050)
    x, lengths = make_input(row, clip_sizes(row))
    answer = module(x, lengths)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = row.build(22050)
    for tensor in other.state_dict().values():
        tensor.fill_(torch.nan)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x, lengths), answer)
    # .float() rounds windows and cosine matrices too.
    assert deviation(copy.deepcopy(module).float()(x, lengths), answer) <= 1e-5
    assert torch.equal(copy.deepcopy(module).to("cpu")(x, lengths), answer)


def check_device(row: Row) -> None:
    """Nothing stays on the CPU when module and input move to (fake) CUDA."""
    module = row.build(22050)
    x, lengths = make_input(row, clip_sizes(row))
    for arguments in ((x, lengths), (x,)):
        expected = module(*arguments)
        answer = run_on_fake_cuda(module, *arguments)
        assert (answer.shape, answer.dtype) == (expected.shape, expected.dtype)


def check_refusals(row: Row) -> None:
    """Wrong settings and wrong inputs are refused with the value, as a ValueError too."""
    for build, settings, message in row.refusals:
        with pytest.raises(ParameterError, match=message) as caught:
            build(**settings)
        assert isinstance(caught.value, ValueError)
    module = row.build(22050)
    x, lengths = make_input(row, clip_sizes(row))
    for wrong in (x.mul(100).short(), x.half(), x.to(torch.complex64)):
        with pytest.raises(ParameterError, match=r"must be float32 or float64"):
            module(wrong, lengths)
    with pytest.raises(ParameterError, match=r"must be \(.*got"):
        module(x[0, 0])
    with pytest.raises(ParameterError, match=r"must have the .* 1 leading axes, got 2"):
        module(x, lengths[None])
