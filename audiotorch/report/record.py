"""What a run left in its directory, as far as it can be read."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from audiotorch.answers.table import ANSWERS_FILE, AnswerTable
from audiotorch.errors import AudioTorchError, ParameterError

__all__ = ["RunRecord", "first_line", "number", "numbers"]

_METRICS, _CONFIG, _MODEL = "metrics.json", "config.yaml", "model.ts"


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run's figures, answers and settings.

    Args:
        folder: the run's directory.
        metrics: what `metrics.json` holds.
        answers: what `answers.csv` holds; None where it lacks or cannot be read.
        config: what `config.yaml` holds; empty where it lacks.
        gaps: what lacks, and how to get it, a sentence each.
    """

    folder: Path
    metrics: Mapping[str, Any]
    answers: AnswerTable | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: str | Path) -> "RunRecord":
        """Read a run's directory.

        Args:
            folder: it; only `metrics.json` must be there.

        Raises:
            ParameterError: `metrics.json` is missing, or is not what a run writes.
        """
        folder = Path(folder)
        metrics = _metrics(folder / _METRICS)
        gaps: list[str] = []
        answers = _answers(folder, gaps)
        config = _config(folder / _CONFIG, gaps)
        return cls(folder, metrics, answers, config, tuple(gaps))

    @property
    def is_detector(self) -> bool:
        """Whether the run trained a detector."""
        if self.answers is not None and len(self.answers):
            return self.answers.is_detector
        return "conformal" in self.metrics or "thresholds" in self.metrics

    @property
    def name(self) -> str:
        """What the report calls the run: its directory's name."""
        return self.folder.resolve().name or str(self.folder)

    @cached_property
    def model(self) -> tuple[Any, str]:
        """The exported model on the CPU, or None and the reason."""
        from audiotorch.export import load_pipeline

        try:
            return load_pipeline(self.folder / _MODEL), ""
        except (AudioTorchError, OSError, RuntimeError) as error:
            return None, first_line(error)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, its kind where it says nothing.

    Args:
        error: any.
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def number(values: Mapping[str, Any], key: str) -> float | None:
    """Return a figure; None where it lacks or is no finite number.

    Args:
        values: figures by name.
        key: its name.
    """
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return figures that are kept under one name; empty where it lacks or is something else.

    Args:
        values: figures by name.
        key: their name.
    """
    value = values.get(key)
    return value if isinstance(value, Mapping) else {}


def _metrics(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise ParameterError(f"{path}: is missing; give the directory of a finished run") from None
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            f"{path}: is no JSON ({first_line(error)}); train again, or take a copy of the run"
        ) from error
    if not isinstance(found, dict):
        raise ParameterError(f"{path}: holds no figures by name; give the directory of a run")
    return found


def _answers(folder: Path, gaps: list[str]) -> AnswerTable | None:
    if not (folder / ANSWERS_FILE).exists():
        gaps.append(
            f"{ANSWERS_FILE} is missing: the run is of an older version, so this report has no "
            "clips to see and hear. The same configuration, trained again, writes it."
        )
        return None
    try:
        return AnswerTable.read(folder)
    except (ParameterError, OSError) as error:
        gaps.append(f"{ANSWERS_FILE} cannot be read ({first_line(error)}); train again.")
        return None


def _config(path: Path, gaps: list[str]) -> Mapping[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        found: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except FileNotFoundError:
        gaps.append(f"{_CONFIG} is missing: the settings are not known.")
        return {}
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        gaps.append(f"{_CONFIG} cannot be read ({first_line(error)}).")
        return {}
    return found if isinstance(found, Mapping) else {}
