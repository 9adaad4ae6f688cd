"""Training: augmentation, tasks, checkpoints and the Hydra entry."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from audiotorch.training.augment import Augment

if TYPE_CHECKING:
    from audiotorch.training.build import config_dir
    from audiotorch.training.checkpoint import load_checkpoint_pipeline
    from audiotorch.training.tasks import ClassificationTask

__all__ = ["Augment", "ClassificationTask", "config_dir", "load_checkpoint_pipeline"]

# These import lightning and hydra, which augmentation does not need.
_LAZY = {
    "ClassificationTask": "audiotorch.training.tasks",
    "config_dir": "audiotorch.training.build",
    "load_checkpoint_pipeline": "audiotorch.training.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
