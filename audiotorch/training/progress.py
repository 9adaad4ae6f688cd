"""What a training shows while it runs: a progress bar on a terminal, lines of text elsewhere."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar

__all__ = ["EpochLines", "progress", "quiet"]

log = logging.getLogger(__name__)

# What Lightning says to developers, and a user of audiotorch can do nothing about.
_NOISE = (
    r".*is smaller than the logging interval.*",
    r".*defined a `validation_step` but have no `val_dataloader`.*",
    r".*does not have many workers.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
)


class EpochLines(Callback):
    """Logs one line for each epoch: losses, validation accuracy, seconds."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the line."""
        metrics = trainer.callback_metrics
        shown = {"train/loss_epoch": "train/loss", "val/loss": "val/loss", "val/acc": "val/acc"}
        parts = [f"{label} {float(metrics[k]):.4f}" for k, label in shown.items() if k in metrics]
        seconds = time.perf_counter() - self.start
        done = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        log.info("%s", "  ".join([done, *parts, f"{seconds:.1f} s"]))


def progress() -> Callback:
    """The progress bar if somebody watches, else one line for each epoch."""
    if sys.stdout.isatty():
        return RichProgressBar(leave=False)
    return EpochLines()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's hints about itself away; real warnings pass."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for pattern in _NOISE:
            warnings.filterwarnings("ignore", message=pattern)
        try:
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
