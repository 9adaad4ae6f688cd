"""What every training by steps shares: optimizer, averaged weights, what a checkpoint keeps."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from audiotorch.errors import ParameterError
from audiotorch.pipeline import Pipeline

__all__ = ["PipelineTask", "check_share", "full_precision"]


class PipelineTask(L.LightningModule):
    """Trains a Pipeline's model by steps; the loss is for subclasses to say.

    With `ema_decay` an exponential moving average of the model's weights and buffers is kept; it is
    what `network` gives to validation and test, and what export and a later
    `load_checkpoint_pipeline` use. Early in training the decay is min(ema_decay, (1 + n) / (10 +
    n)) after n steps, so that the random start is forgotten.

    Args:
        pipeline: the Pipeline to train.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and `total_steps`, stepped every step; None keeps the
            learning rate.
        ema_decay: of the averaged weights, from 0 to below 1; None keeps no average.
        seed: of what a step draws.
        record: plain data to keep in each checkpoint, next to labels and scores.

    Raises:
        ParameterError: a setting lies outside its range.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        *,
        ema_decay: float | None = None,
        seed: int = 42,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.seed = seed
        self.record = dict(record or {})
        self.scores: dict[str, dict[str, Any]] = {}
        self.average: AveragedModel | None = None
        if ema_decay is not None:
            check_share("ema_decay", ema_decay)
            self.average = AveragedModel(
                pipeline.model, multi_avg_fn=_ramped_average(ema_decay), use_buffers=True
            )
            # Else DistributedDataParallel waits for gradients that never come.
            self.average.requires_grad_(False)

    @property
    def network(self) -> Any:
        """The model that is handed out: with averaged weights, if they are on."""
        return self.pipeline.model if self.average is None else self.average.module

    def configure_optimizers(self) -> Any:
        """Build the optimizer and, if any, the schedule over all steps of the run."""
        try:
            optimizer = self.optimizer([p for p in self.pipeline.parameters() if p.requires_grad])
        except ValueError as error:
            raise ParameterError(f"task.optimizer: {error}; change that setting") from error
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer, total_steps=self.trainer.estimated_stepping_batches)
        return {
            "optimizer": optimizer,
            # The name of the curve that Lightning draws of it.
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "train/lr"},
        }

    def log_loss(self, loss: Tensor, batch_size: int) -> None:
        """Log a step's training loss, and its mean over the epoch.

        Args:
            loss: a number.
            batch_size: what it is the mean of.
        """
        self.log(
            "train/loss",
            loss,
            on_step=True,
            on_epoch=True,
            prog_bar=True,
            batch_size=batch_size,
            sync_dist=True,
        )

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the averaged weights towards the new ones."""
        if self.average is not None:
            self.average.update_parameters(self.pipeline.model)

    def on_train_epoch_end(self) -> None:
        """Stop a training that has diverged."""
        loss = self.trainer.callback_metrics.get("train/loss_epoch")
        if loss is not None and not torch.isfinite(loss):
            raise ParameterError(
                f"train/loss={float(loss)} in epoch {self.current_epoch}: must be finite; "
                "lower task.optimizer.lr"
            )

    def use_average(self) -> None:
        """Put the averaged weights, if they are on, into the Pipeline."""
        if self.average is not None:
            self.pipeline.model.load_state_dict(self.average.module.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is needed to rebuild the Pipeline: plain data only, read without pickle."""
        checkpoint["audiotorch"] = {
            **self.record,
            "labels": list(self.pipeline.labels),
            "scores": self.scores,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume a run that had other labels, or another network."""
        labels = checkpoint.get("audiotorch", {}).get("labels")
        if labels != list(self.pipeline.labels):
            raise ParameterError(
                f"ckpt_path: that run has the labels {labels}, this one "
                f"{list(self.pipeline.labels)}; fine-tune with model.init_from= instead"
            )
        own = {name: value.shape for name, value in self.state_dict().items()}
        if {name: value.shape for name, value in checkpoint["state_dict"].items()} != own:
            raise ParameterError(
                "ckpt_path: that run has another network; take the model=, features= and task "
                "settings of its config.yaml, or fine-tune with model.init_from= instead"
            )


def check_share(name: str, value: float) -> None:
    """Refuse what is not from 0 to below 1.

    Args:
        name: of the setting, a key of `task`.
        value: to be checked.

    Raises:
        ParameterError: it is not.
    """
    if not 0 <= value < 1:
        raise ParameterError(f"{name}={value!r}: must be from 0 to below 1; change task.{name}")


def full_precision(waveform: Tensor) -> torch.autocast:
    """No mixed precision for resampling and features: half of it would drown quiet bands.

    Args:
        waveform: what they get.
    """
    return torch.autocast(waveform.device.type, enabled=False)


def _ramped_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average, in place, of lists of tensors of one dtype and device."""

    @torch.no_grad()
    def update(averages: list[Tensor], currents: list[Tensor], n_averaged: Tensor) -> None:
        n = int(n_averaged)
        share = 1 - min(decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, share)
        else:  # counters, such as batch norm's
            for average, current in zip(averages, currents, strict=True):
                average.copy_(current)

    return update
