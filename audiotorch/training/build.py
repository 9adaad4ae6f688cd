"""Objects from configuration: where the configs lie, and what a `_target_` becomes."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

import audiotorch
from audiotorch.errors import AudioTorchError, ParameterError
from audiotorch.pipeline import Pipeline

__all__ = ["build", "build_pipeline", "config_dir"]


def config_dir() -> Path:
    """Directory of the YAML files: inside an installed package, else at the checkout's top."""
    package = Path(audiotorch.__file__).resolve().parent
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def build(
    section: DictConfig, *, without: Sequence[str] = (), trusted: bool = True, **objects: Any
) -> Any:
    """Build what a section of the configuration names in `_target_`, with its keys as arguments.

    Args:
        section: the section; nested sections with a `_target_` are built first.
        without: keys that are not arguments.
        trusted: False refuses targets that are not modules of audiotorch.
        objects: arguments that no YAML file can hold. They are passed as they are, not copied.

    Raises:
        ParameterError: the target does not exist, does not take a key or value, or is refused.
        AudioTorchError: what the target itself raises.
    """
    plain = OmegaConf.to_container(section, resolve=True)
    assert isinstance(plain, dict)
    config = {str(key): value for key, value in plain.items() if key not in without}
    target = config.get("_target_")
    if not trusted:
        _refuse_foreign(config)
    try:
        factory = instantiate({**config, "_partial_": True}, _convert_="all")
        return factory(**objects)
    except InstantiationException as error:
        if isinstance(error.__cause__, AudioTorchError):
            raise error.__cause__ from error
        reason = str(error).splitlines()[0]
        raise ParameterError(f"{target}: cannot be built ({reason}); check its keys") from error
    except AudioTorchError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        # A missing, unknown or null argument; other TypeErrors are faults of ours.
        told = "argument" in str(error) or "not supported between" in str(error)
        if isinstance(error, TypeError) and not told:
            raise
        raise ParameterError(f"{target}: {error}; check its keys") from error


def build_pipeline(
    config: Any, labels: Sequence[str], trusted: bool = True, model: nn.Module | None = None
) -> Pipeline:
    """Build the untrained Pipeline that a run's configuration describes.

    Args:
        config: the whole configuration; its `features`, `model`, `pipeline` and
            `data.sample_rate` are read.
        labels: the classes; none for a detector.
        trusted: False builds classes of audiotorch only.
        model: stands in place of the configuration's.
    """
    config = OmegaConf.create(config)
    features = build(config.features, trusted=trusted)
    detector = str(OmegaConf.select(config, "task._target_")).endswith(".AnomalyTask")
    if model is None:
        answers = {} if detector else {"n_classes": len(labels)}
        model = build(
            config.model,
            without=("init_from",),
            trusted=trusted,
            input_shape=list(features.output_shape),
            **answers,
        )
    return build(
        config.pipeline,
        trusted=trusted,
        features=features,
        model=model,
        labels=list(labels),
        sample_rate=config.data.sample_rate,
        **({"task": "anomaly"} if detector else {}),
    )


def _refuse_foreign(node: Any) -> None:
    """Allow module classes of audiotorch only: a name such as `audiotorch.x.os.system` is not."""
    if isinstance(node, list):
        for item in node:
            _refuse_foreign(item)
    if not isinstance(node, dict):
        return
    for item in node.values():
        _refuse_foreign(item)
    if "_target_" not in node:
        return
    module, _, name = str(node["_target_"]).rpartition(".")
    found = None
    if module.split(".")[0] == "audiotorch":
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError:
            found = None
    ours = isinstance(found, type) and issubclass(found, nn.Module)
    if not ours or not str(getattr(found, "__module__", "")).startswith("audiotorch."):
        raise ParameterError(
            f"_target_={node['_target_']!r}: must be a module of audiotorch; "
            "pass trusted=True if the file is your own"
        )
