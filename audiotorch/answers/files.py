"""Answers to files, each as one clip."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn

from audiotorch.answers.asking import (
    PAD,
    answering,
    ask,
    check_explains,
    check_task,
    least_seconds,
    placed,
)
from audiotorch.answers.prediction import Prediction, best_class, named
from audiotorch.answers.windows import score_windows
from audiotorch.audio import Source
from audiotorch.audio.clips import padded_batches, read_clip
from audiotorch.audio.source import source_name
from audiotorch.errors import AudioTorchError
from audiotorch.features.pooling import column_names

__all__ = ["predict"]

_MAX_SAMPLES = 1 << 22  # of a batch; a CNN's images take a hundred bytes a sample


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
    file is answered as one clip and, but by a detector with a `window`, decoded as a whole:
    recordings of many minutes go through `timeline`.

    Args:
        module: Pipeline, eager or exported, for any task.
        sources: a path, bytes or open file, or several of them.
        device: `"cpu"`, `"cuda"` ...: the module is moved there; `None` = where it is.
        batch_size: clips, or a detector's windows, decoded and answered together, at least 1.
        explain: features to name that weigh most in each answer: of trees, forests, boosters,
            linear models and networks on vectors.

    Raises:
        ParameterError: `batch_size` below 1, a device that torch does not have, a module without
            labels that is no detector, or a model that cannot explain its answers.
    """
    check_task(module)
    check_explains(module, explain)
    pipeline = placed(module, device, batch_size)
    single = isinstance(sources, (str, os.PathLike, bytes)) or hasattr(sources, "read")
    remaining: Iterator[Source] = iter(cast(Any, [sources] if single else sources))
    if pipeline.task == "anomaly" and pipeline.window > 0:
        return [_scored(pipeline, source, batch_size) for source in remaining]
    found: list[Prediction] = []
    with ThreadPoolExecutor() as pool, answering(pipeline):
        while chunk := list(islice(remaining, batch_size)):
            clips = list(pool.map(lambda source: _decode(pipeline, source), chunk))
            found.extend(_answer(pipeline, chunk, clips, explain))
    return found


def _scored(module: Any, source: Source, batch_size: int) -> Prediction:
    """A detector's answer, window by window: at bounded memory."""
    name = source_name(source)
    try:
        _, scores = score_windows(module, source, batch_size)
        score = module.combine(scores[None], torch.ones_like(scores[None], dtype=torch.bool))
        return Prediction(name, **named(module, float(score), source))
    except (AudioTorchError, OSError) as error:
        return Prediction(name, error=str(error))


def _decode(module: Any, source: Source) -> Tensor | AudioTorchError | OSError:
    """Return samples at the module's rate, or what is wrong with the file."""
    return read_clip(source, module.sample_rate, least_seconds(module), PAD)


def _answer(
    module: Any,
    sources: list[Source],
    clips: list[Tensor | AudioTorchError | OSError],
    explain: int,
) -> list[Prediction]:
    found = [Prediction(source_name(s), error=str(c)) for s, c in zip(sources, clips, strict=True)]
    waveforms = {i: clip for i, clip in enumerate(clips) if isinstance(clip, Tensor)}
    for batch, padded, lengths in padded_batches(waveforms, _MAX_SAMPLES):
        rows = ask(module, padded, lengths)
        reasons = _contributions(module, padded, lengths, rows, explain)
        for i, row, reason in zip(batch, rows, reasons, strict=True):
            found[i] = _prediction(module, sources[i], row, reason)
    return found


def _prediction(module: Any, source: Source, row: Any, reason: dict[str, float]) -> Prediction:
    name = source_name(source)
    try:
        return Prediction(name, **named(module, row, source), contributions=reason)
    except AudioTorchError as error:
        return Prediction(name, error=str(error))


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
        values = parts[:, best_class(row)]
        order = values.abs().argsort(descending=True, stable=True)[:n_features].tolist()
        found.append({names[i]: float(values[i]) for i in order})
    return found
