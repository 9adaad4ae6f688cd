"""Answers window by window: recordings of hours at bounded memory."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from audiotorch.answers.asking import PAD, answering, ask, check_task, least_seconds, placed
from audiotorch.answers.prediction import WindowPrediction, named
from audiotorch.audio import Source
from audiotorch.audio.clips import check_seconds
from audiotorch.audio.windows import read_windows, window_samples
from audiotorch.errors import AudioTorchError, ParameterError

__all__ = ["score_windows", "timeline"]

_MAX_SAMPLES = 1 << 20  # of a batch: long recordings must not take more memory than short ones


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
    check_task(module)
    pipeline = placed(module, device, batch_size)
    hop_seconds = window_seconds if hop_seconds is None else hop_seconds
    windows = read_windows(source, pipeline.sample_rate, window_seconds, hop_seconds)
    size = _batch_size(pipeline, window_seconds, batch_size)
    return _named(pipeline, source, _walk(pipeline, source, _batches(windows, size), None))


def score_windows(module: Any, source: Source, batch_size: int = 8) -> tuple[Tensor, Tensor]:
    """Score a recording of any length in a detector's own windows, while it is decoded.

    The windows are those of `Pipeline.windows`: the last one is moved back to end with the
    recording. `module.combine` makes the clip's score of theirs.

    Args:
        module: detector with `window`, eager or exported.
        source: a path, bytes or open file.
        batch_size: windows scored together; fewer where they are long.

    Shape:
        - Output: start seconds `(n,)`, float64, and scores `(n,)` in the module's dtype

    Raises:
        ParameterError: the features need more than a window.
        DecodeError: the recording cannot be read, is empty or too short.
    """
    rate = module.sample_rate
    n_samples, _ = window_samples(rate, module.window, module.hop)
    size = _batch_size(module, module.window, batch_size)
    windows = _full(read_windows(source, rate, module.window, module.hop), rate, n_samples)
    starts, scores = [], []
    for start, _, score in _walk(module, source, _batches(windows, size), module.logits):
        starts.append(start / rate)
        scores.append(score)
    return torch.tensor(starts, dtype=torch.float64), torch.tensor(scores).to(module.temperature)


def _batch_size(module: Any, window_seconds: float, wanted: int) -> int:
    """How many windows go together, once they are known to be long enough."""
    needed = least_seconds(module)
    n_samples = round(window_seconds * module.sample_rate)
    if n_samples / module.sample_rate < needed:
        raise ParameterError(
            f"window_seconds={window_seconds!r}: the features need {needed:.3f} s; take longer "
            "windows, or build the Pipeline with min_duration"
        )
    return min(wanted, max(1, _MAX_SAMPLES // n_samples))


def _full(
    windows: Iterator[tuple[float, Tensor]], rate: int, n_samples: int
) -> Iterator[tuple[float, Tensor]]:
    """Move a short last window back to the recording's end: the one before has what it lacks."""
    before, before_start = torch.zeros(0), 0
    for start, row in windows:
        place = round(start * rate)
        if len(before) and len(row) < n_samples:
            new = row[before_start + n_samples - place :]
            start = (before_start + len(new)) / rate
            row = torch.cat([before, new])[-n_samples:]
        yield start, row
        before, before_start = row, place


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
    module: Any,
    source: Source,
    batches: Iterator[list[tuple[float, Tensor]]],
    method: Callable[..., Tensor] | None,
) -> Iterator[tuple[int, int, Any]]:
    """First sample, length and answer of each window."""
    rate, needed = module.sample_rate, least_seconds(module)
    for batch in batches:
        starts = [round(start * rate) for start, _ in batch]
        rows = [row for _, row in batch]
        if starts[0] == 0:
            check_seconds(source, len(rows[0]) / rate, needed, PAD)
        waveform = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        # A short last window needs room as beside longer ones, where it is not the only one.
        missing = math.ceil(needed * rate) - waveform.shape[1]
        waveform = nn.functional.pad(waveform, [0, max(0, missing)])
        lengths = torch.tensor([len(row) for row in rows])
        with answering(module):
            answers = ask(module, waveform, lengths, method)
        yield from zip(starts, lengths.tolist(), answers, strict=True)


def _named(
    module: Any, source: Source, windows: Iterator[tuple[int, int, Any]]
) -> Iterator[WindowPrediction]:
    rate = module.sample_rate
    for start, length, answer in windows:
        seconds = start / rate, (start + length) / rate
        yield WindowPrediction(*seconds, **named(module, answer, source))
