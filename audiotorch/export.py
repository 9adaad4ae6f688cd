"""A Pipeline as files: TorchScript, the torch.export program, what they say, and reading them."""

import copy
import io
import json
import math
import os
import platform
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from audiotorch.audio.resample import Resample
from audiotorch.errors import AudioTorchError, DecodeError, ParameterError
from audiotorch.pipeline import Pipeline

__all__ = ["ExportError", "export", "load_pipeline", "read_metadata"]

FORMAT_VERSION = 1
METADATA = "metadata.json"
# A larger metadata file is not ours; a small zip can unpack to gigabytes.
MAX_METADATA_BYTES = 1 << 24
CHECK_SECONDS = (0.3, 0.5, 1.0, 2.7, 5.0)
CHECK_BATCHES = (1, 2, 8)
EXAMPLE_SECONDS = 1.3
TOLERANCE = 1e-5


class _Case(NamedTuple):
    name: str
    waveform: Tensor
    lengths: Tensor
    answer: Tensor


class ExportError(AudioTorchError, RuntimeError):
    """An exported file does not compute what the Pipeline computes; nothing was written."""


def export(
    pipeline: Pipeline,
    path: str | os.PathLike[str],
    input_sample_rate: int | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Write a Pipeline as a TorchScript file, and as a torch.export program beside it.

    The `.ts` file takes `(waveform (batch, time), lengths (batch,) or None)` and loads with
    `torch.jit.load` alone, in Python without audiotorch or in C++; `sample_rate`, `labels` and
    `task` are attributes of what it gives. The `.pt2` file takes `(waveform, lengths)`, both
    required, with any batch size and time. Both carry a `metadata.json`: see `read_metadata`.

    What is exported is a copy on the CPU in evaluation mode; the pipeline itself is not touched.
    Both files are reloaded and compared with the eager copy at several lengths and batch sizes
    before they are put in place.

    Args:
        pipeline: the trained Pipeline.
        path: file to write, ending in `.ts`, in a directory that exists.
        input_sample_rate: Hz; puts a resampler in front, so that the files take audio (and
            lengths) at this rate, which becomes their `sample_rate`. None keeps the pipeline's.
        metrics: figures of the training to keep in the metadata; must be JSON values.

    Returns:
        The path of the `.ts` file.

    Raises:
        ParameterError: path does not end in `.ts`, its directory is missing, the metrics are not
            JSON, or `input_sample_rate` is not a positive integer.
        ExportError: a file gives other answers than the Pipeline (more than 1e-5 apart), an
            answer is not finite, or a part of the Pipeline cannot be exported.
    """
    target = _check_path(Path(path))
    module = copy.deepcopy(pipeline).cpu().eval().requires_grad_(False)
    if input_sample_rate is not None:
        module = _with_input_rate(module, input_sample_rate)
    metadata = _encode_metadata(module, metrics)
    # Same directory, so that the final renames stay on one file system and are atomic.
    with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
        script = Path(folder) / "model.ts"
        program = Path(folder) / "model.pt2"
        cases = _answer_cases(module)
        _save_script(module, script, metadata)
        _check_file(script, cases)
        _save_program(module, program, metadata)
        _check_file(program, cases)
        _put_in_place({program: target.with_suffix(".pt2"), script: target})
    return target


def load_pipeline(path: str | os.PathLike[str]) -> torch.jit.ScriptModule:
    """Load a `.ts` file that `export` wrote, on the CPU.

    The file is checked to be audiotorch's first, and nothing is unpickled.

    Args:
        path: the `.ts` file.

    Returns:
        The scripted Pipeline: call it with `(waveform (batch, time), lengths (batch,) or None)`
        at its `sample_rate`.

    Raises:
        DecodeError: the file is missing, truncated, or something else than audiotorch's `.ts`.
    """
    metadata = read_metadata(path)
    if metadata["container"] != "torchscript":
        raise DecodeError(
            f"{os.fspath(path)!r} is a torch.export program, not TorchScript: give the .ts file "
            "beside it, or open this one with torch.export.load"
        )
    try:
        # torch does not look at the archive's checksums: a flipped bit would be a wrong weight.
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        return _load_script(path)
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError) as error:
        raise DecodeError(
            f"{os.fspath(path)!r} is damaged and does not load ({_first_line(error)}): "
            "copy or export it again"
        ) from error


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what an exported file says about itself, without loading the model.

    Keys: `format` ("audiotorch"), `format_version`, `container` ("torchscript" or
    "torch.export"), `task`, `labels`, `sample_rate` (Hz), `min_duration` (seconds), `preprocess`
    and `features` (class and settings of each module), `model` (class), `n_parameters`,
    `metrics`, `versions`; of detectors with windows `window`, `hop` (seconds) and `aggregate`.

    Args:
        path: a `.ts` or `.pt2` file that `export` wrote.

    Returns:
        The metadata.

    Raises:
        DecodeError: the file is missing, truncated, or not one that audiotorch wrote.
    """
    name = os.fspath(path)
    remedy = "give a .ts file that audiotorch exported"
    if not os.path.isfile(name):
        raise DecodeError(f"{name!r}: no such file; {remedy}")
    try:
        with zipfile.ZipFile(name) as archive:
            content, is_program = _extract_metadata(archive)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DecodeError(
            f"{name!r} is not a model file, or is truncated ({_first_line(error)}); "
            f"{remedy}, or copy it again"
        ) from error
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{name!r} holds no readable {METADATA} ({error}); {remedy}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != "audiotorch":
        raise DecodeError(f"{name!r} was not written by audiotorch; {remedy}")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise DecodeError(
            f"{name!r} has format version {metadata.get('format_version')!r}, this audiotorch "
            f"{version('audiotorch')} reads {FORMAT_VERSION}: export it again or update audiotorch"
        )
    return {**metadata, "container": "torch.export" if is_program else "torchscript"}


def _extract_metadata(archive: zipfile.ZipFile) -> tuple[bytes, bool]:
    """The bytes of the metadata (empty if none), and whether the archive is a `.pt2`."""
    members = archive.infolist()
    # torch puts everything under one folder, named after the file at the time of writing.
    inner = {member.filename.partition("/")[2]: member for member in members}
    member = inner.get(f"extra/{METADATA}")
    if member is None or member.file_size > MAX_METADATA_BYTES:
        return b"", False
    return archive.read(member), "archive_format" in inner


def _check_path(path: Path) -> Path:
    if path.suffix != ".ts":
        raise ParameterError(f"path={os.fspath(path)!r}: must end in .ts; the .pt2 goes beside it")
    if not path.parent.is_dir():
        raise ParameterError(f"path={os.fspath(path)!r}: its directory is missing; make it first")
    for file in (path, path.with_suffix(".pt2")):
        if file.is_dir():
            raise ParameterError(f"path={os.fspath(file)!r}: is a directory; choose another name")
    return path


def _with_input_rate(pipeline: Pipeline, rate: int) -> Pipeline:
    """Let a Pipeline, which is the exporter's own copy, take audio at another rate."""
    resample = Resample(rate, pipeline.sample_rate)
    pipeline.preprocess.steps = nn.ModuleList([resample, *pipeline.preprocess.steps])
    pipeline.sample_rate = rate
    return pipeline


def _describe(module: nn.Module) -> dict[str, Any]:
    """Class name and plain settings of a module and, nested, of the modules inside it."""
    settings: dict[str, Any] = {"type": type(module).__name__}
    for name, value in vars(module).items():
        if not name.startswith("_") and name != "training" and _is_plain(value):
            settings[name] = value
    for name, child in module.named_children():
        settings[name] = _describe(child)
    return settings


def _is_plain(value: object) -> bool:
    items = value if isinstance(value, list | tuple) else [value]
    return all(item is None or isinstance(item, bool | int | float | str) for item in items)


def _without_nan(value: Any) -> Any:
    """None for numbers that JSON does not know, such as the recall of a class without clips."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _encode_metadata(pipeline: Pipeline, metrics: Mapping[str, Any] | None) -> str:
    metadata = {
        "format": "audiotorch",
        "format_version": FORMAT_VERSION,
        "task": pipeline.task,
        "labels": list(pipeline.labels),
        "sample_rate": pipeline.sample_rate,
        "min_duration": pipeline.min_duration,
        **{k: getattr(pipeline, k) for k in ("window", "hop", "aggregate") if pipeline.window},
        "preprocess": [_describe(step) for step in pipeline.preprocess.steps],
        "features": _describe(pipeline.features),
        "model": {"type": type(pipeline.model).__name__},
        "n_parameters": sum(parameter.numel() for parameter in pipeline.parameters()),
        "metrics": _without_nan(dict(metrics or {})),
        "versions": {
            "audiotorch": version("audiotorch"),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }
    try:
        return json.dumps(metadata, indent=2)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"metrics={metrics!r}: must hold JSON values only ({error}); "
            "give numbers, strings, lists and mappings"
        ) from error


@contextmanager
def _ignore_torchscript_deprecation() -> Iterator[None]:
    """Let torch's notice pass that TorchScript is deprecated; the `.pt2` is its successor."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"`torch\.jit\.(script|save|load)` is deprecated", category=Warning
        )
        yield


def _save_script(module: nn.Module, path: Path, metadata: str) -> None:
    # In memory first: on a full disk torch's own writer ends the whole process.
    content = io.BytesIO()
    try:
        with _ignore_torchscript_deprecation():
            scripted = torch.jit.script(module)
            torch.jit.save(scripted, content, _extra_files={METADATA: metadata})
    except (RuntimeError, torch.jit.frontend.NotSupportedError) as error:
        raise ExportError(
            f"the Pipeline does not script ({_first_line(error)}): "
            "change the module named there; nothing was written"
        ) from error
    path.write_bytes(content.getvalue())


def _save_program(module: Pipeline, path: Path, metadata: str) -> None:
    """Write the torch.export program, sure that batch and time stayed open."""
    from torch.export import Dim, save
    from torch.export import export as trace
    from torch.fx.experimental.symbolic_shapes import is_concrete_int

    # torch takes sizes of 0 and 1 for special cases, and equal sizes for the same: three clips
    # of an odd length.
    example = _signals(3, round(EXAMPLE_SECONDS * module.sample_rate) | 1, seed=0)
    shapes = ({0: Dim.AUTO, 1: Dim.AUTO}, {0: Dim.AUTO})
    try:
        program = trace(module, example, dynamic_shapes=shapes)
    except Exception as error:  # dozens of kinds, most of them torch's private ones
        raise ExportError(
            f"torch.export does not take the Pipeline ({_first_line(error)}): "
            "change the module named there; nothing was written"
        ) from error
    waveform = next(node for node in program.graph.nodes if node.name == "waveform")
    if any(is_concrete_int(size) for size in waveform.meta["val"].shape):
        raise ExportError(
            f"torch.export fixed the input to sizes {tuple(waveform.meta['val'].shape)}: remove "
            "what depends on the batch size or the number of samples; nothing was written"
        )
    content = io.BytesIO()
    save(program, content, extra_files={METADATA: metadata})
    path.write_bytes(content.getvalue())


def _signals(batch: int, n_samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Seeded noise of different colour and level, with lengths up to the full time."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, n_samples, generator=generator)
    smooth = torch.cumsum(noise, dim=1)
    smooth = smooth / smooth.abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
    mix = torch.rand(batch, 1, generator=generator)
    level = 10.0 ** (-3.0 * torch.rand(batch, 1, generator=generator))
    waveform = level * (mix * smooth + (1.0 - mix) * noise.clamp(-3.0, 3.0) / 3.0)
    if batch > 2:
        waveform[1] = 0.0  # silence is where divisions and logarithms go wrong
    fraction = torch.linspace(1.0, 0.4, batch)
    return waveform, (fraction * n_samples).long().clamp(min=1)


def _answer_cases(module: Pipeline) -> list[_Case]:
    """The eager module's answers on clips of several lengths in batches of several sizes."""
    cases = []
    for seed, seconds in enumerate(CHECK_SECONDS):
        for batch in CHECK_BATCHES:
            n_samples = max(1, round(seconds * module.sample_rate))
            waveform, lengths = _signals(batch, n_samples, seed)
            with torch.no_grad():
                answer = module(waveform, lengths)
            if not torch.isfinite(answer).all():
                raise ExportError(
                    "the Pipeline's own answers are not finite: train it, and fit its "
                    "normalisation, before exporting; nothing was written"
                )
            cases.append(_Case(f"{batch} clips of {seconds} s", waveform, lengths, answer))
    return cases


def _check_file(path: Path, cases: Iterable[_Case]) -> None:
    """Refuse a file that, as it lies on the disk, answers otherwise than the eager module."""
    script = path.suffix == ".ts"
    module: nn.Module = _load_script(path) if script else torch.export.load(path).module()
    for case in cases:
        what = f"the {path.suffix} file on {case.name}"
        try:
            with torch.no_grad():
                answer = module(case.waveform, case.lengths)
        except (AssertionError, RuntimeError) as error:
            raise ExportError(
                f"{what} fails ({_first_line(error)}): a part of the Pipeline asks more of the "
                "input when exported; nothing was written"
            ) from error
        _compare(case.answer, answer, what)


def _load_script(path: str | os.PathLike[str]) -> torch.jit.ScriptModule:
    with _ignore_torchscript_deprecation():
        return torch.jit.load(os.fspath(path), map_location="cpu")


def _compare(eager: Tensor, answer: Tensor, what: str) -> None:
    if eager.shape != answer.shape or eager.dtype != answer.dtype:
        raise ExportError(
            f"{what} answers {tuple(answer.shape)} {answer.dtype}, the Pipeline "
            f"{tuple(eager.shape)} {eager.dtype}; nothing was written"
        )
    difference = float((eager - answer).abs().amax())
    # Probabilities lie in [0, 1]; an anomaly score may be large, its rounding grows with it.
    if not difference <= TOLERANCE * max(1.0, float(eager.abs().amax())):
        raise ExportError(
            f"{what} differs from the Pipeline by {difference:.2g}, more than {TOLERANCE:g}: "
            "a part of it computes otherwise when exported; nothing was written"
        )


def _put_in_place(moves: Mapping[Path, Path]) -> None:
    """Rename all the files, the last one being the one that people open, or leave none."""
    done: list[Path] = []
    try:
        for source, target in moves.items():
            os.replace(source, target)
            done.append(target)
    except OSError:
        for target in done:
            target.unlink()
        raise


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[0])[:200] if lines else type(error).__name__
