"""Settings as they come from a YAML file, checked one by one."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from omegaconf import DictConfig

from audiotorch.errors import ParameterError

__all__ = ["accelerator", "check_count", "check_fractions", "check_interval", "check_number"]


def accelerator(trainer: DictConfig) -> str:
    """CUDA or CPU where the choice is ours: Apple's GPU has no float64, which spectra need.

    Args:
        trainer: the section of the configuration.
    """
    if trainer.accelerator != "auto":
        return str(trainer.accelerator)
    return "cuda" if torch.cuda.is_available() else "cpu"


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
