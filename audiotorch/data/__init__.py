"""Recordings to batches: manifests, splits, and the Lightning data modules."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from audiotorch.data.manifest import (
    Clip,
    check_clips,
    from_folder,
    from_glob,
    from_table,
    sort_labels,
)
from audiotorch.data.splits import Splits, split_clips

if TYPE_CHECKING:
    from audiotorch.data.datamodule import AudioDataModule
    from audiotorch.data.dataset import AudioDataset, Batch, collate
    from audiotorch.data.demo import DemoDataModule, write_corpus
    from audiotorch.data.doctor import DatasetFinding, DatasetReport, check_dataset
    from audiotorch.data.inventory import Inventory, take_inventory

__all__ = [
    "AudioDataModule",
    "AudioDataset",
    "Batch",
    "Clip",
    "DatasetFinding",
    "DatasetReport",
    "DemoDataModule",
    "Inventory",
    "Splits",
    "check_clips",
    "check_dataset",
    "collate",
    "from_folder",
    "from_glob",
    "from_table",
    "sort_labels",
    "split_clips",
    "take_inventory",
    "write_corpus",
]

# These import what reading a manifest does not need, lightning and scipy among it.
_LAZY = {
    "AudioDataModule": "audiotorch.data.datamodule",
    "AudioDataset": "audiotorch.data.dataset",
    "Batch": "audiotorch.data.dataset",
    "DatasetFinding": "audiotorch.data.doctor",
    "DatasetReport": "audiotorch.data.doctor",
    "DemoDataModule": "audiotorch.data.demo",
    "Inventory": "audiotorch.data.inventory",
    "check_dataset": "audiotorch.data.doctor",
    "collate": "audiotorch.data.dataset",
    "take_inventory": "audiotorch.data.inventory",
    "write_corpus": "audiotorch.data.demo",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
