"""What a run answered to each clip that it is judged by, for `answers.csv`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from audiotorch.answers import AnswerTable
from audiotorch.answers.prediction import named_thresholds
from audiotorch.answers.table import ANSWERS_FILE
from audiotorch.data.datamodule import AudioDataModule, Batch
from audiotorch.models.evaluation import Evaluation
from audiotorch.pipeline import Pipeline

__all__ = ["AnswerCollector", "class_answers", "score_answers", "write_answers"]

log = logging.getLogger(__name__)


class AnswerCollector(Callback):
    """Keeps what the network answers to the clips of validation and test, once it is trained.

    Each process of a distributed run evaluates every clip, so the first one has them all.

    Args:
        data: gives the clips.
    """

    def __init__(self, data: AudioDataModule) -> None:
        self.data = data
        self.found: dict[str, list[tuple[Tensor, Tensor]]] = {"val": [], "test": []}

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Keep the answers, but not of the epochs of the training."""
        if trainer.state.fn == TrainerFn.VALIDATING and trainer.is_global_zero:
            self._keep("val", outputs, batch)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Keep the answers."""
        if trainer.is_global_zero:
            self._keep("test", outputs, batch)

    def _keep(self, part: str, outputs: Any, batch: Batch) -> None:
        self.found[part].append((batch.index.cpu(), outputs["probabilities"].float().cpu()))

    def table(self) -> AnswerTable | None:
        """The answers, in the order of the clips; None where nothing was evaluated."""
        tables = []
        for part, clips in (("val", self.data.val_set), ("test", self.data.test_set)):
            if not self.found[part]:
                continue
            rows, shares = (torch.cat(column) for column in zip(*self.found[part], strict=True))
            order = rows.argsort()
            rows, shares = rows[order], shares[order]
            chosen = [clips.clips[i] for i in rows.tolist()]
            tables.append(
                AnswerTable.of_classes(
                    part,
                    self.data.labels,
                    [clip.path for clip in chosen],
                    clips.targets[rows].numpy(),
                    shares.numpy(),
                    [clip.group for clip in chosen],
                )
            )
        return AnswerTable.joined(tables) if tables else None


def class_answers(found: Mapping[str, Evaluation], data: AudioDataModule) -> AnswerTable:
    """Return the answers of a scikit-learn model, out of fold those of cross-validation.

    Args:
        found: evaluations by part: `cv`, `cv_grouped`, `val`, `test`.
        data: what was trained and tested on.
    """
    parts = {"val": data.val_set, "test": data.test_set}
    tables = []
    for name, evaluation in found.items():
        clips = parts.get(name, data.train_set).clips
        tables.append(
            AnswerTable.of_classes(
                name,
                data.labels,
                [clip.path for clip in clips],
                evaluation.targets,
                evaluation.probabilities,
                [clip.group for clip in clips],
            )
        )
    return AnswerTable.joined(tables)


def score_answers(
    pipeline: Pipeline, scores: Mapping[str, Tensor], data: AudioDataModule
) -> AnswerTable:
    """Return a detector's scores; p-values not of the clips that it was fitted on.

    Args:
        pipeline: the calibrated detector.
        scores: of each part's clips: `train`, `held_back`, `test`.
        data: what it was fitted and judged on.
    """
    parts = {"train": data.train_set, "held_back": data.val_set, "test": data.test_set}
    tables = []
    for name, values in scores.items():
        clips = parts[name].clips
        p_values = np.full(len(values), np.nan)
        if name != "train":
            p_values = pipeline.p_value(values).numpy()
        tables.append(
            AnswerTable.of_scores(
                name,
                [clip.path for clip in clips],
                [data.given_labels[clip.path] for clip in clips],
                parts[name].targets.numpy(),
                values.numpy(),
                p_values=p_values,
                thresholds=named_thresholds(pipeline),
                groups=[clip.group for clip in clips],
                machines=[clip.machine for clip in clips],
            )
        )
    return AnswerTable.joined(tables)


def write_answers(run_dir: Path, answers: AnswerTable | None) -> None:
    """Write `answers.csv`, or remove an earlier run's where there is nothing to write.

    Args:
        run_dir: the run directory.
        answers: to each clip.
    """
    path = run_dir / ANSWERS_FILE
    if answers is None:
        path.unlink(missing_ok=True)
        log.info("no clips to validate or test with: there is no %s", ANSWERS_FILE)
    else:
        answers.write(path)
