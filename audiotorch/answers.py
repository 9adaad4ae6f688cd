"""A Pipeline's answers to files, and to the windows of recordings of any length."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor, nn

from audiotorch.audio import Source
from audiotorch.audio.clips import check_seconds, padded_batches, read_clip
from audiotorch.audio.source import source_name
from audiotorch.audio.windows import read_windows, window_samples
from audiotorch.errors import AudioTorchError, ParameterError
from audiotorch.features.pooling import column_names

__all__ = [
    "Prediction",
    "WindowPrediction",
    "check_classes",
    "check_explains",
    "predict",
    "timeline",
]

_MAX_SAMPLES = 1 << 22  # of a batch of files; a CNN's images take a hundred bytes a sample
_MAX_WINDOW_SAMPLES = 1 << 20  # of a batch of windows: long recordings must not take more memory
_PAD = "pad the clip, or build the Pipeline with min_duration"


@dataclass(frozen=True)
class Prediction:
    """The answer for one file, or the reason why there is none.

    Args:
        file: path or name of the file; `"<bytes>"` for bytes.
        label: most probable class; `None` where `error` says why, or where the confidence lies
            below what the Pipeline asks for (`Pipeline.abstain_below`).
        confidence: probability of the most probable class.
        probabilities: probability of each class by name.
        error: what was wrong with the file; `None` where there is an answer.
        contributions: where asked for, what features add to the most probable class, by name, the
            largest first: see `ClassicModel.contributions`.
    """

    file: str
    label: str | None = None
    confidence: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    contributions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WindowPrediction:
    """The answer for one window of a recording.

    Args:
        start_seconds: where the window starts.
        end_seconds: where it ends; the last one at the recording's end at the latest.
        label: most probable class; `None` for a detector, or where the Pipeline abstains.
        confidence: probability of the most probable class.
        probabilities: probability of each class by name.
        score: a detector's score, higher = more anomalous; `None` for classes.
    """

    start_seconds: float
    end_seconds: float
    label: str | None = None
    confidence: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    score: float | None = None


def predict(
    module: nn.Module,
    sources: Source | Iterable[Source],
    *,
    device: str | None = None,
    batch_size: int = 8,
    explain: int = 0,
) -> list[Prediction]:
    """Answer files with a Pipeline, or with a module that `load_pipeline` gave.

    Any sample rate and channel count is brought to what the module takes. A file that cannot be
    read, is empty or too short gets a `Prediction` with `error`; the others are answered. Each
    file is decoded as a whole and answered as one clip: recordings of many minutes go through
    `timeline`.

    Args:
        module: classification or multilabel Pipeline, eager or exported.
        sources: a path, bytes or open file, or several of them.
        device: `"cpu"`, `"cuda"` ...: the module is moved there; `None` = where it is.
        batch_size: clips decoded and answered together, at least 1.
        explain: features to name that weigh most in each answer: of trees, forests, boosters and
            logistic regression.

    Raises:
        ParameterError: `batch_size` below 1, a device that torch does not have, a module without
            labels or for another task, or a model that cannot explain its answers.
    """
    check_classes(module)
    check_explains(module, explain)
    module = _placed(module, device, batch_size)
    single = isinstance(sources, (str, os.PathLike, bytes)) or hasattr(sources, "read")
    remaining: Iterator[Source] = iter(cast(Any, [sources] if single else sources))
    found: list[Prediction] = []
    with ThreadPoolExecutor() as pool, _answering(module):
        while chunk := list(islice(remaining, batch_size)):
            clips = list(pool.map(lambda source: _decode(module, source), chunk))
            found.extend(_answer(module, chunk, clips, explain))
    return found


def timeline(
    module: nn.Module,
    source: Source,
    window_seconds: float,
    hop_seconds: float | None = None,
    *,
    device: str | None = None,
    batch_size: int = 8,
) -> Iterator[WindowPrediction]:
    """Answer window by window while the recording is decoded: hours of it at bounded memory.

    The windows and answers are those of `Pipeline.timeline` on the whole waveform: windows start
    at multiples of the hop until one reaches the end; that last one keeps its own shorter length,
    and counts as padded to `min_duration`. With a `min_duration` shorter than the features need,
    the last window may be shorter than that; it is answered from the few frames that it has.

    Args:
        module: Pipeline, eager or exported, for any task.
        source: a path, bytes or open file, at any rate and with any number of channels.
        window_seconds: length of a window.
        hop_seconds: from one start to the next; `None` = the window.
        device: `"cpu"`, `"cuda"` ...: the module is moved there; `None` = where it is.
        batch_size: windows answered together, at least 1; fewer where they are long.

    Yields:
        The windows' answers, in order. A recording that breaks is answered up to there first.

    Raises:
        ParameterError: at the call, a window or hop shorter than one sample, or a window shorter
            than the features need; `batch_size`, `device` and labels as for `predict`.
        DecodeError: the recording cannot be read from some place on, is empty or too short.
    """
    if module.task != "anomaly":
        check_classes(module)
    pipeline = _placed(module, device, batch_size)
    rate = pipeline.sample_rate
    hop_seconds = window_seconds if hop_seconds is None else hop_seconds
    windows = read_windows(source, rate, window_seconds, hop_seconds)
    n_samples, _ = window_samples(rate, window_seconds, hop_seconds)
    needed = _least_seconds(pipeline)
    if n_samples / rate < needed:
        raise ParameterError(
            f"window_seconds={window_seconds!r}: the features need {needed:.3f} s; take longer "
            "windows, or build the Pipeline with min_duration"
        )
    batch_size = min(batch_size, max(1, _MAX_WINDOW_SAMPLES // n_samples))
    return _walk(pipeline, source, _batches(windows, batch_size))


def check_classes(module: Any) -> None:
    """Refuse a module whose answers are no probabilities of named classes.

    Args:
        module: a Pipeline, eager or exported.

    Raises:
        ParameterError: it has no labels, or is a detector.
    """
    if module.task == "anomaly":
        raise ParameterError("task='anomaly': predict answers with classes; this is a detector")
    if not module.labels:
        raise ParameterError("labels=[]: predict answers by name; build the Pipeline with labels")


def check_explains(module: Any, n_features: int) -> None:
    """Refuse to explain answers of a model that has no contributions of features.

    Args:
        module: a Pipeline, eager or exported.
        n_features: to name; 0 asks for no explanation.

    Raises:
        ParameterError: no whole number, below 0, or the model has none.
    """
    if not isinstance(n_features, Integral) or n_features < 0:
        raise ParameterError(f"explain={n_features!r}: must be 0 or the number of features to name")
    if n_features and not getattr(module.model, "explains", False):
        raise ParameterError(
            f"explain={n_features}: this model does not say what each feature adds; trees, "
            "forests, boosters, logistic regression and linear SVMs do, behind a StandardScaler "
            "at most: take one of these, or leave it out"
        )


def _placed(module: nn.Module, device: str | None, batch_size: int) -> Any:
    """Return the module on the device, once the batch size is checked."""
    if batch_size < 1:
        raise ParameterError(f"batch_size={batch_size}: must be at least 1")
    if device is None:
        return module
    try:
        return module.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(f"device={device!r}: torch cannot use it: {reason}") from error


@contextmanager
def _answering(module: nn.Module) -> Iterator[None]:
    """Leave training mode and gradients aside."""
    was_training = module.training
    module.eval()
    try:
        # Not inference_mode: TorchScript fails in it once it has run with gradients.
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


def _least_seconds(module: Any) -> float:
    """What the features need of a recording; 0 where `min_duration` makes up for it."""
    needed: float = module.features.min_samples / module.features.sample_rate
    return needed if module.min_duration < needed else 0.0


def _decode(module: Any, source: Source) -> Tensor | AudioTorchError | OSError:
    """Return samples at the module's rate, or what is wrong with the file."""
    return read_clip(source, module.sample_rate, _least_seconds(module), _PAD)


def _ask(module: Any, waveform: Tensor, lengths: Tensor) -> list[Any]:
    # No parameter need exist; the temperature always does.
    where = module.temperature.device
    answers: list[Any] = module(waveform.to(where), lengths.to(where)).tolist()
    return answers


def _named(module: Any, row: Sequence[float]) -> tuple[str | None, float, dict[str, float]]:
    """The most probable class if it is probable enough, its probability, that of every class."""
    best = _best(row)
    label = None if row[best] < _least_confidence(module) else module.labels[best]
    return label, row[best], dict(zip(module.labels, row, strict=True))


def _best(row: Sequence[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)


def _least_confidence(module: Any) -> float:
    named = dict(zip(module.threshold_names, module.thresholds.tolist(), strict=True))
    return named.get("abstain", 0.0)


def _answer(
    module: Any,
    sources: list[Source],
    clips: list[Tensor | AudioTorchError | OSError],
    explain: int,
) -> list[Prediction]:
    found = [Prediction(source_name(s), error=str(c)) for s, c in zip(sources, clips, strict=True)]
    waveforms = {i: clip for i, clip in enumerate(clips) if isinstance(clip, Tensor)}
    for batch, padded, lengths in padded_batches(waveforms, _MAX_SAMPLES):
        rows = _ask(module, padded, lengths)
        reasons = _contributions(module, padded, lengths, rows, explain)
        for i, row, reason in zip(batch, rows, reasons, strict=True):
            name = source_name(sources[i])
            found[i] = Prediction(name, *_named(module, row), contributions=reason)
    return found


def _contributions(
    module: Any, waveform: Tensor, lengths: Tensor, rows: list[Any], n_features: int
) -> list[dict[str, float]]:
    """The features that weigh most in the most probable class of each clip."""
    if not n_features:
        return [{} for _ in rows]
    where = module.temperature.device
    x, counts = module.front(waveform.to(where), lengths.to(where))
    names = column_names(module.features)
    found = []
    for row, parts in zip(rows, module.model.contributions(x, counts), strict=True):
        values = parts[:, _best(row)]
        order = values.abs().argsort(descending=True, stable=True)[:n_features].tolist()
        found.append({names[i]: float(values[i]) for i in order})
    return found


def _batches(
    windows: Iterator[tuple[float, Tensor]], size: int
) -> Iterator[list[tuple[float, Tensor]]]:
    """Windows in lists of some; those before an error come before it is raised."""
    batch: list[tuple[float, Tensor]] = []
    try:
        for window in windows:
            batch.append(window)
            if len(batch) == size:
                yield batch
                batch = []
    except (AudioTorchError, OSError):
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _walk(
    module: Any, source: Source, batches: Iterator[list[tuple[float, Tensor]]]
) -> Iterator[WindowPrediction]:
    rate, needed = module.sample_rate, _least_seconds(module)
    for batch in batches:
        starts = [round(start * rate) for start, _ in batch]
        rows = [row for _, row in batch]
        if starts[0] == 0:
            check_seconds(source, len(rows[0]) / rate, needed, _PAD)
        waveform = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        # A short last window needs room as beside longer ones, where it is not the only one.
        missing = math.ceil(needed * rate) - waveform.shape[1]
        waveform = nn.functional.pad(waveform, [0, max(0, missing)])
        with _answering(module):
            answers = _ask(module, waveform, torch.tensor([len(row) for row in rows]))
        for start, row, answer in zip(starts, rows, answers, strict=True):
            seconds = start / rate, (start + len(row)) / rate
            if module.task == "anomaly":
                yield WindowPrediction(*seconds, score=answer)
            else:
                label, confidence, probabilities = _named(module, answer)
                yield WindowPrediction(*seconds, label, confidence, probabilities)
