"""What TensorBoard shows of a classifier beside curves: matrix, clips to see and hear, graph."""

import heapq
import logging
import math
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from audiotorch.answers import AnswerTable
from audiotorch.data.datamodule import AudioDataModule, AudioDataset, Batch
from audiotorch.errors import printable
from audiotorch.pipeline import Pipeline
from audiotorch.plot import confusion_matrix, new_figure
from audiotorch.plot.figure import plain
from audiotorch.plot.sounds import draw_mel
from audiotorch.training.board import (
    board_writer,
    excerpt,
    write_picture,
    write_sound,
    write_text_card,
)
from audiotorch.training.input_drawings import draw_inputs
from audiotorch.training.projector import draw_projector
from audiotorch.training.tasks import ClassificationTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Drawings", "draw_answers", "draw_clip", "draw_network", "is_due"]

log = logging.getLogger(__name__)

# Drawings of a run: enough to see it change, few enough not to slow it down.
_DRAWINGS = 4
# Clips shown on the way, and at the end.
_HARDEST, _HARDEST_FINAL = 3, 4
# Samples of a clip to see and hear, on the way and at the end: a run stays at a few MB.
_LIVE, _FINAL = 80_000, 200_000


class Drawings(Callback):
    """Draws the validation into TensorBoard, a few times on the way to the last planned epoch.

    The confusion matrix, and the clips with the largest loss: their spectrogram and their audio to
    play, tagged by rank. What the model learns from, augmented and not, and the model's graph are
    drawn once, before the first step.

    Args:
        data: what is trained and validated on.
    """

    def __init__(self, data: AudioDataModule) -> None:
        self.data = data
        self.hardest: list[tuple[float, int, str]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the graph and the inputs."""
        writer, task = board_writer(trainer), cast(ClassificationTask, pl_module)
        if writer is not None:
            _draw_graph(writer, task)
            draw_inputs(
                writer, task.pipeline, self.data.train_set, task.augment, trainer.global_step
            )

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the clips of the last time."""
        self.hardest = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remember the clips with the largest losses."""
        if not is_due(trainer):
            return
        labels = cast(ClassificationTask, pl_module).pipeline.labels
        losses = outputs["loss"].tolist()
        answers = outputs["probabilities"].argmax(-1).tolist()
        rows = zip(losses, batch.index.tolist(), batch.target.tolist(), answers, strict=True)
        found = [(x, i, _told(labels[target], labels[answer])) for x, i, target, answer in rows]
        self.hardest = heapq.nlargest(_HARDEST, self.hardest + found)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, if it is time; by now the task has the figures of the validation."""
        writer = board_writer(trainer)
        task = cast(ClassificationTask, pl_module)
        if writer is None or "val" not in task.scores or not is_due(trainer):
            return
        step = trainer.global_step
        matrix = np.asarray(task.scores["val"]["confusion_matrix"])
        axes = confusion_matrix(matrix, list(task.pipeline.labels))
        write_picture(writer, "val/confusion_matrix", axes.figure, step)
        for rank, (loss, index, text) in enumerate(self.hardest, start=1):
            told = f"{text}, loss {loss:.2f}"
            draw_clip(writer, f"val_hardest/{rank}", self.data.val_set, index, told, step, _LIVE)


def draw_answers(
    writer: Any, name: str, clips: AudioDataset, answers: AnswerTable, step: int = 0
) -> None:
    """Show the clips of a part whose right class had least probability.

    Args:
        writer: TensorBoard's.
        name: of the part.
        clips: of the part.
        answers: to these clips, in their order.
        step: of the training.
    """
    losses = answers.losses
    for rank, i in enumerate(np.argsort(-losses, kind="stable")[:_HARDEST_FINAL].tolist(), start=1):
        text = f"{_told(answers.truth[i], answers.answers[i])}, loss {losses[i]:.2f}"
        draw_clip(writer, f"{name}_hardest/{rank}", clips, i, text, step)


def draw_network(
    logger: Any,
    pipeline: Pipeline,
    data: AudioDataModule,
    metrics: Mapping[str, Any],
    answers: AnswerTable | None,
) -> None:
    """Draw what the exported weights make of the test, and all held-out clips as points.

    Args:
        logger: the run's; nothing is drawn where it is not TensorBoard's.
        pipeline: what was trained.
        data: what it was trained on.
        metrics: the run's figures.
        answers: of the validation and test, if any.
    """
    if not isinstance(logger, TensorBoardLogger):
        return
    writer: Any = logger.experiment
    if "test/confusion_matrix" in metrics:
        matrix = np.asarray(metrics["test/confusion_matrix"])
        axes = confusion_matrix(matrix, data.labels)
        write_picture(writer, "test/confusion_matrix", axes.figure)
    if answers is not None and len(answers.part("test")) == len(data.test_set) > 0:
        draw_answers(writer, "test", data.test_set, answers.part("test"))
    parts = {"train": data.train_set, "val": data.val_set, "test": data.test_set}
    draw_projector(writer, pipeline.eval(), parts, answers)


def _told(label: str, answer: str) -> str:
    return f"{label}, heard right" if label == answer else f"{label} heard as {answer}"


def is_due(trainer: L.Trainer) -> bool:
    """Whether this epoch is drawn: a few on the way to the last planned one, and that one.

    Args:
        trainer: of the run.
    """
    total = trainer.max_epochs or 1
    epoch = trainer.current_epoch + 1
    return epoch >= total or epoch % math.ceil(total / _DRAWINGS) == 0


def draw_clip(
    writer: Any,
    tag: str,
    clips: AudioDataset,
    index: int,
    text: str,
    step: int = 0,
    n_samples: int = _FINAL,
) -> None:
    """Show a clip in TensorBoard: to read, to hear and to see.

    Args:
        writer: TensorBoard's.
        tag: where it stands there.
        clips: the part that it belongs to.
        index: its place there.
        text: what was said and should have been.
        step: of the training.
        n_samples: of a longer clip, the loudest part is shown, this long.
    """
    clip, rate = clips.whole(index), clips.sample_rate
    start, part = excerpt(clip, n_samples)
    shown = f"{len(clip) / rate:.2f} s"
    if len(part) < len(clip):
        shown = f"{start / rate:.2f} to {(start + len(part)) / rate:.2f} s of {shown}"
    path = Path(clips.clips[index].path)
    told = [text, f"{path.parent.name}/{path.name}, {shown}"]
    write_text_card(writer, tag, "\n".join(map(printable, told)), step)
    # Of one tag, TensorBoard would take the picture for a sound as well.
    write_sound(writer, f"{tag}/sound", part, rate, step)
    write_picture(writer, f"{tag}/picture", _clip_figure(part, rate, text), step)


def _clip_figure(clip: Tensor, sample_rate: int, title: str) -> "Figure":
    figure = new_figure(4.0, 3.0)
    axes = figure.add_subplot()
    draw_mel(axes, clip, sample_rate)
    axes.set_ylabel("kHz")
    axes.set_title(textwrap.fill(plain(printable(title)), 46, max_lines=2), fontsize=9)
    return figure


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
