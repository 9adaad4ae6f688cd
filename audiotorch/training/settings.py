"""Settings as they come from a YAML file, checked one by one."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from omegaconf import DictConfig
from torch import nn

from audiotorch.data.datamodule import AudioDataModule
from audiotorch.errors import ParameterError
from audiotorch.pipeline import Pipeline

__all__ = [
    "accelerator",
    "check_count",
    "check_fractions",
    "check_interval",
    "check_number",
    "check_sizes",
]


def accelerator(trainer: DictConfig) -> str:
    """CUDA or CPU where the choice is ours: Apple's GPU has no float64, which spectra need.

    Args:
        trainer: the section of the configuration.
    """
    if trainer.accelerator != "auto":
        return str(trainer.accelerator)
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_sizes(pipeline: Pipeline, data: AudioDataModule) -> None:
    """Refuse clips and batches that the features or the model cannot compute on.

    Args:
        pipeline: to be trained.
        data: to train on.

    Raises:
        ParameterError: clips may be shorter than the features need, or batches are of one clip
            where the model normalises over the batch.
    """
    needed = pipeline.features.min_samples / pipeline.features.sample_rate  # type: ignore[operator]
    if max(pipeline.min_duration, data.min_duration) < needed:
        raise ParameterError(
            f"pipeline.min_duration={pipeline.min_duration}, data.min_duration="
            f"{data.min_duration}: the features need {needed:.3f} s; raise one of the two"
        )
    if data.batch_size == 1 and any(isinstance(m, nn.BatchNorm1d) for m in pipeline.modules()):
        raise ParameterError(
            "data.batch_size=1: must be at least 2, for this model normalises over the batch"
        )


def check_number(name: str, value: float, low: float, high: float) -> float:
    """Return a number from `low` to `high`; raise ParameterError for anything else."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise ParameterError(
            f"{name}={value!r}: must be a number from {low:g} to {high:g}; choose one in that range"
        )
    return value


def check_count(name: str, value: int, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`; raise ParameterError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ParameterError(
            f"{name}={value!r}: must be a whole number from {low} to {high}; choose one of these"
        )
    return value


def check_interval(
    name: str, value: Sequence[float] | None, low: float, high: float
) -> tuple[float, float] | None:
    """Return two numbers in order, or None; raise ParameterError for anything else."""
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ParameterError(f"{name}={value!r}: must be two numbers (lowest, highest)")
    first = check_number(name, value[0], low, high)
    return first, check_number(name, value[1], first, high)


def check_fractions(
    name: str, value: Sequence[float], low: float, high: float
) -> tuple[Fraction, ...]:
    """Return factors as fractions with small terms; raise ParameterError for anything else."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) == 0:
        raise ParameterError(f"{name}={value!r}: must be a list of factors such as (0.9, 1.0, 1.1)")
    factors = (check_number(name, factor, low, high) for factor in value)
    return tuple(Fraction(factor).limit_denominator(100) for factor in factors)
