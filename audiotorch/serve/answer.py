"""A model's answer to one recording, in what JSON knows."""

import math
import os
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from torch import nn

from audiotorch.answers import Prediction, WindowPrediction, predict, timeline
from audiotorch.answers.asking import check_task, least_seconds
from audiotorch.answers.prediction import named_thresholds
from audiotorch.errors import AudioTorchError, ParameterError
from audiotorch.export import load_pipeline
from audiotorch.serve.clip import Clip, decode
from audiotorch.serve.pictures import explained, spectrogram_picture
from audiotorch.serve.question import Question
from audiotorch.serve.refusal import Refused
from audiotorch.serve.upload import Upload
from audiotorch.serve.work import Deadline

__all__ = ["Asker"]

_CLASS = ("label", "confidence", "probabilities")
_DETECTOR = ("label", "score", "threshold", "p_value", "is_anomaly")
_MOST_WINDOWS = 2000
_AUTO_SECONDS = 1.0  # windows where the request leaves it to us
_AUTO_WINDOWS = 64  # at most, by making them longer


class Asker:
    """A model that is asked for one upload after the other.

    Args:
        model: exported `.ts` file, or a Pipeline.
        max_seconds: that a recording may last.
        device: `"cpu"`, `"cuda"` ...; `None` = where the model is.

    Raises:
        DecodeError: it is no exported model.
        ParameterError: its answers have no names, or the device is not there.
    """

    def __init__(
        self, model: str | os.PathLike[str] | nn.Module, max_seconds: float, device: str | None
    ) -> None:
        self._module: Any = model if isinstance(model, nn.Module) else load_pipeline(model)
        self._max_seconds = max_seconds
        self._device = device
        check_task(self._module)
        self._module.eval()

    def about(self) -> dict[str, Any]:
        """What the model says about itself."""
        module = self._module
        return {
            "task": module.task,
            "labels": list(module.labels),
            "sample_rate": int(module.sample_rate),
            "thresholds": _finite(named_thresholds(module)),
            "max_seconds": self._max_seconds,
            "version": version("audiotorch"),
        }

    def warm_up(self) -> None:
        """Answer silence, so that nobody waits for what is done once: compiling, fonts."""
        import torch

        rate = self._module.sample_rate
        seconds = min(self._max_seconds, max(1.0, least_seconds(self._module)))
        clip = Clip("silence", 1e-3 * torch.randn(round(seconds * rate)), rate)
        predict(self._module, clip.file(), device=self._device)
        spectrogram_picture(clip, 400)

    def answer(self, upload: Upload, question: Question, deadline: Deadline) -> dict[str, Any]:
        """Answer a recording.

        Args:
            upload: what came.
            question: what is wanted beside the answer.
            deadline: looked at between steps.

        Raises:
            Refused: the recording or the question is not admissible, or the time is over.
            Gone: nobody waits any more.
        """
        deadline.check()
        clip = decode(upload, self._module.sample_rate, self._max_seconds, deadline)
        deadline.check()
        found = predict(self._module, clip.file(), device=self._device)[0]
        if found.error is not None:
            raise Refused(400, found.error)
        told = {"file": clip.name, **self._fields(found), "seconds": clip.seconds}
        if clip.warning:
            told["warning"] = clip.warning
        if question.window is not None:
            told.update(self._time_line(clip, question, deadline))
        if question.explain:
            deadline.check()
            told.update(self._reasons(clip, question))
        if question.spectrogram:
            deadline.check()
            told["spectrogram"] = spectrogram_picture(clip, question.width, question.dark)
        return told

    def _fields(self, found: Prediction | WindowPrediction) -> dict[str, Any]:
        keys: tuple[str, ...] = _CLASS
        if self._module.task == "anomaly":
            several = len(self._module.threshold_names) > 1
            keys = (*_DETECTOR, "level") if several else _DETECTOR
        return _finite({key: getattr(found, key) for key in keys})

    def _time_line(self, clip: Clip, question: Question, deadline: Deadline) -> dict[str, Any]:
        window, hop = self._sizes(clip, question)
        if (clip.seconds - window) / hop > _MOST_WINDOWS:
            raise Refused(
                422,
                f"window={window:g}, hop={hop:g}: gives more than {_MOST_WINDOWS} windows; take "
                "longer ones, further apart",
            )
        sizes = {"window_seconds": window, "hop_seconds": hop}
        if question.window == "auto" and clip.seconds <= window:
            return {**sizes, "windows": []}
        return {**sizes, "windows": list(self._windows(clip, window, hop, deadline))}

    def _windows(
        self, clip: Clip, window: float, hop: float, deadline: Deadline
    ) -> Iterator[dict[str, Any]]:
        try:
            for found in timeline(self._module, clip.file(), window, hop, device=self._device):
                deadline.check()
                times = {"start_seconds": found.start_seconds, "end_seconds": found.end_seconds}
                yield {**times, **self._fields(found)}
        except ParameterError as error:
            raise Refused(422, str(error)) from error

    def _sizes(self, clip: Clip, question: Question) -> tuple[float, float]:
        """Window and hop in seconds: as asked for, else the model's own, else about a second."""
        module = self._module
        if isinstance(question.window, float):
            return question.window, question.hop or question.window
        if module.task == "anomaly" and module.window > 0:
            return module.window, module.hop
        least = max(_AUTO_SECONDS, module.min_duration, least_seconds(module))
        # Whole samples, that a window of exactly what the features need does not fall below it.
        rate, n_samples = module.sample_rate, len(clip.waveform)
        window = math.ceil(max(least, 2 * clip.seconds / _AUTO_WINDOWS) * rate)
        # Overlapping by half or a little more, so that the last one is no shorter than the others.
        n_hops = max(1, math.ceil(2 * (n_samples - window) / window))
        return window / rate, max(1, math.ceil((n_samples - window) / n_hops)) / rate

    def _reasons(self, clip: Clip, question: Question) -> dict[str, Any]:
        try:
            width = question.width if question.explanation else None
            return _finite(explained(self._module, clip, self._device, width))
        except ParameterError as error:
            raise Refused(422, str(error)) from error
        except AudioTorchError as error:
            raise Refused(400, str(error)) from error


def _finite(value: Any) -> Any:
    """JSON has neither infinity nor NaN: a threshold that none can exceed is none."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
