"""What a module must be to be asked, and how it is asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError

__all__ = [
    "PAD",
    "answering",
    "ask",
    "check_classes",
    "check_detector",
    "check_explains",
    "check_task",
    "least_seconds",
    "placed",
]

PAD = "pad the clip, or build the Pipeline with min_duration"


def check_task(module: Any) -> None:
    """Refuse a module whose answers have no names.

    Args:
        module: a Pipeline, eager or exported.

    Raises:
        ParameterError: it has no labels, and is no detector.
    """
    if module.task != "anomaly" and not module.labels:
        raise ParameterError("labels=[]: predict answers by name; build the Pipeline with labels")


def check_classes(module: Any) -> None:
    """Refuse a module whose answers are no probabilities of named classes.

    Args:
        module: a Pipeline, eager or exported.

    Raises:
        ParameterError: it has no labels, or is a detector.
    """
    if module.task == "anomaly":
        raise ParameterError(
            "task='anomaly': this is a detector, which has no classes; use audiotorch detect"
        )
    check_task(module)


def check_detector(module: Any) -> None:
    """Refuse a module that does not score anomalies.

    Args:
        module: a Pipeline, eager or exported.

    Raises:
        ParameterError: it answers with classes.
    """
    if module.task != "anomaly":
        raise ParameterError(
            f"task={module.task!r}: this is no detector, it answers with classes; use audiotorch "
            "predict"
        )


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
    if n_features and module.task == "anomaly":
        raise ParameterError(
            f"explain={n_features}: is for classes; what deviates from normal sound is told by "
            "audiotorch.explain.explain_detection"
        )
    if n_features and not getattr(module.model, "explains", False):
        raise ParameterError(
            f"explain={n_features}: this model does not say what each feature adds; trees, "
            "forests, boosters, logistic regression and linear SVMs do, behind a StandardScaler "
            "at most, and networks on vectors: take one of these, or leave it out"
        )


def placed(module: nn.Module, device: str | None, batch_size: int) -> Any:
    """Return the module on the device, once the batch size is checked.

    Args:
        module: a Pipeline, eager or exported.
        device: as torch names it; `None` = where it is.
        batch_size: at least 1.

    Raises:
        ParameterError: the batch size is less, or torch does not have the device.
    """
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
def answering(module: nn.Module) -> Iterator[None]:
    """Leave training mode and gradients aside.

    Args:
        module: what is asked meanwhile.
    """
    was_training = module.training
    module.eval()
    try:
        # Not inference_mode: TorchScript fails in it once it has run with gradients.
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


def least_seconds(module: Any) -> float:
    """Return what the features need of a recording; 0 where `min_duration` makes up for it.

    Args:
        module: a Pipeline, eager or exported.
    """
    needed: float = module.features.min_samples / module.features.sample_rate
    return needed if module.min_duration < needed else 0.0


def ask(
    module: Any, waveform: Tensor, lengths: Tensor, method: Callable[..., Tensor] | None = None
) -> list[Any]:
    """Return answers as Python's numbers.

    Args:
        module: a Pipeline, eager or exported.
        waveform: `(batch, time)`.
        lengths: `(batch,)`.
        method: the method to call; `None` = `forward`.
    """
    # No parameter need exist; the temperature always does.
    where = module.temperature.device
    answers: list[Any] = (method or module)(waveform.to(where), lengths.to(where)).tolist()
    return answers
