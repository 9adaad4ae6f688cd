"""Lightning's Trainer as every training by steps sets it up, and the order of a resumed run."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from omegaconf import DictConfig

from audiotorch.data.datamodule import AudioDataModule, EpochSampler
from audiotorch.pipeline import Pipeline
from audiotorch.training.board import board
from audiotorch.training.build import build
from audiotorch.training.checkpoint import take_weights
from audiotorch.training.front import fit_features
from audiotorch.training.progress import EpochLines, progress
from audiotorch.training.settings import accelerator, check_sizes

__all__ = ["Loaders", "build_trainer", "prepare"]

log = logging.getLogger(__name__)


class Loaders(L.LightningDataModule):
    """A data module's batches from a later epoch on.

    Lightning starts the workers of a resumed run before it tells the sampler the epoch: they would
    begin with the first epoch's order.

    Args:
        data: gives the loaders of training and validation.
        first_epoch: which epoch the run begins with, counted from 0.
    """

    def __init__(self, data: Any, first_epoch: int) -> None:
        super().__init__()
        self.data = data
        self.first_epoch = first_epoch

    def train_dataloader(self) -> Any:
        """Training batches, in the order of the epoch."""
        loader = self.data.train_dataloader()
        cast(EpochSampler, loader.sampler).set_epoch(self.first_epoch)
        return loader

    def val_dataloader(self) -> Any:
        """Validation batches."""
        return self.data.val_dataloader()


def prepare(
    pipeline: Pipeline, config: DictConfig, data: AudioDataModule, resume: Path | None
) -> None:
    """Set what is not learned by steps: normalisation of the training clips, earlier weights.

    Args:
        pipeline: to be trained.
        config: the whole configuration.
        data: after its `setup`.
        resume: the checkpoint that the run goes on from, which holds both; None for a new run.

    Raises:
        ParameterError: as `check_sizes`, or as `take_weights`.
    """
    log.info(
        "%s on %s: %s parameters",
        type(pipeline.model).__name__,
        type(pipeline.features).__name__,
        f"{sum(p.numel() for p in pipeline.parameters()):,}",
    )
    check_sizes(pipeline, data)
    if resume is not None:
        return
    fit_features(pipeline, data)
    if config.model.init_from is not None:
        take_weights(pipeline, config.model.init_from)


def build_trainer(
    config: DictConfig,
    run_dir: Path,
    callbacks: Sequence[Callback],
    *,
    validates: bool,
    log_every_n_steps: int,
) -> L.Trainer:
    """Build the Trainer of a run, with progress and TensorBoard in `tb/`.

    Args:
        config: the whole configuration, of which `trainer` is read.
        run_dir: the run directory.
        callbacks: further ones; what writes checkpoints stands last.
        validates: whether there are validation clips.
        log_every_n_steps: steps from one logged loss to the next.
    """
    bar = progress()
    settings: dict[str, Any] = {
        "callbacks": [bar, LearningRateMonitor("step"), *callbacks],
        "logger": board(run_dir),
        "default_root_dir": run_dir,
        "enable_model_summary": False,
        "enable_progress_bar": not isinstance(bar, EpochLines),
        "accelerator": accelerator(config.trainer),
        "precision": _precision(config.trainer),
        "log_every_n_steps": log_every_n_steps,
    }
    if not validates:
        settings["limit_val_batches"] = 0
    trainer: L.Trainer = build(config.trainer, without=tuple(settings), **settings)
    return trainer


def _precision(trainer: DictConfig) -> Any:
    """Mixed precision where it pays and is safe: on CUDA, in bfloat16 if the device has it."""
    if trainer.precision != "auto":
        return trainer.precision
    if trainer.accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return "32-true"
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if has_bfloat16 else "16-mixed"
