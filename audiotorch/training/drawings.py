"""What TensorBoard shows beside curves: confusion matrix, worst errors to see and hear, graph."""

import heapq
import logging
import warnings
from collections.abc import Mapping
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from audiotorch.data.datamodule import Batch
from audiotorch.plot import confusion_matrix, pixels, spectrogram
from audiotorch.training.tasks import ClassificationTask

__all__ = ["Drawings", "board_writer", "draw_error", "flatten", "is_due"]

log = logging.getLogger(__name__)

# Drawings of a run: enough to see it change, few enough not to slow it down.
_DRAWINGS = 5


class Drawings(Callback):
    """Draws the validation into TensorBoard, a few times on the way to the last planned epoch.

    The confusion matrix, and of the clips that were answered wrongly those with the largest loss:
    their spectrogram and their audio to play, tagged by rank. The model's graph is drawn
    once.

    Args:
        n_errors: how many clips to show.
    """

    def __init__(self, n_errors: int = 4) -> None:
        self.n_errors = n_errors
        self.worst: list[tuple[float, int, str, Tensor]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the graph."""
        writer = board_writer(trainer)
        if writer is not None:
            _draw_graph(writer, cast(ClassificationTask, pl_module))

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the clips of the last time."""
        self.worst = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remember the worst errors."""
        if not is_due(trainer):
            return
        labels = cast(ClassificationTask, pl_module).pipeline.labels
        losses = outputs["loss"].tolist()
        answers = outputs["probabilities"].argmax(-1).tolist()
        targets = batch.target.tolist()
        for k, (loss, answer, target) in enumerate(zip(losses, answers, targets, strict=True)):
            if answer != target:
                text = f"{labels[target]} heard as {labels[answer]}"
                clip = batch.waveform[k, : int(batch.lengths[k])].cpu()
                self.worst.append((loss, int(batch.index[k]), text, clip))
        self.worst = heapq.nlargest(self.n_errors, self.worst, key=lambda error: error[:2])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, if it is time; by now the task has the figures of the validation."""
        writer = board_writer(trainer)
        task = cast(ClassificationTask, pl_module)
        if writer is None or "val" not in task.scores or not is_due(trainer):
            return
        step = trainer.global_step
        matrix = np.asarray(task.scores["val"]["confusion_matrix"])
        picture = pixels(confusion_matrix(matrix, list(task.pipeline.labels)).figure)
        writer.add_image("val/confusion_matrix", picture, step, dataformats="HWC")
        for rank, (loss, _, text, clip) in enumerate(self.worst, start=1):
            told = f"{text}, loss {loss:.2f}"
            draw_error(writer, f"val_errors/{rank}", clip, task.pipeline.sample_rate, told, step)


def is_due(trainer: L.Trainer) -> bool:
    """Whether this epoch is drawn: a few on the way to the last planned one, and that one.

    Args:
        trainer: of the run.
    """
    total = trainer.max_epochs or 1
    epoch = trainer.current_epoch + 1
    return epoch >= total or epoch % max(1, total // _DRAWINGS) == 0


def draw_error(writer: Any, tag: str, clip: Tensor, sample_rate: int, text: str, step: int) -> None:
    """Show a clip in TensorBoard that was answered wrongly: to read, to hear and to see.

    Args:
        writer: TensorBoard's.
        tag: where it stands there.
        clip: `(time,)`.
        sample_rate: Hz.
        text: what was said and should have been.
        step: of the training.
    """
    writer.add_text(tag, text, step)
    sound = clip / clip.abs().max().clamp(min=1e-6)
    writer.add_audio(tag, sound[None], step, sample_rate=sample_rate)
    picture = pixels(spectrogram(clip, sample_rate, text.partition(",")[0]))
    writer.add_image(tag, picture, step, dataformats="HWC")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level with dotted names, lists and nothing as text.

    Example:
        >>> flatten({"data": {"seed": 1, "root": None}})
        {'data.seed': 1, 'data.root': 'None'}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            plain = isinstance(value, bool | int | float | str)
            flat[f"{prefix}{key}"] = value if plain else str(value)
    return flat


def board_writer(trainer: L.Trainer) -> Any:
    """TensorBoard's writer on the process that writes, else None.

    Args:
        trainer: of the run.
    """
    if not trainer.is_global_zero or trainer.sanity_checking:
        return None
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None


def _draw_graph(writer: Any, task: ClassificationTask) -> None:
    """Draw the model as traced; a model that does not trace is trained all the same."""
    rate = task.pipeline.sample_rate
    was_training = task.pipeline.training
    task.pipeline.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # Deprecation of the tracer, and its remarks on sizes: the graph is only looked at.
            warnings.simplefilter("ignore")
            waveform = torch.randn(2, rate, device=task.device)
            lengths = torch.full((2,), rate, device=task.device)
            x, counts = task.pipeline.front(waveform, lengths)
            writer.add_graph(task.pipeline.model, (x, counts))
    except (RuntimeError, TypeError, ValueError) as error:
        log.info("TensorBoard shows no model graph: %s", str(error).strip().splitlines()[0])
    finally:
        task.pipeline.train(was_training)
