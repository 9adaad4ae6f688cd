"""What TensorBoard and the run's folder show of a scikit-learn model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger

from audiotorch.answers import AnswerTable
from audiotorch.data.datamodule import AudioDataModule
from audiotorch.models.evaluation import Evaluation, table
from audiotorch.models.importance import Importance
from audiotorch.pipeline import Pipeline
from audiotorch.plot import (
    confusion_matrix,
    importance_bars,
    reliability,
    save_figure,
)
from audiotorch.plot.answered import of_part
from audiotorch.training.board import write_picture, write_text_card
from audiotorch.training.drawings import draw_answers
from audiotorch.training.input_drawings import draw_inputs
from audiotorch.training.projector import draw_projector

__all__ = ["draw_classic", "draw_data"]


def draw_classic(
    folder: Path,
    logger: TensorBoardLogger,
    data: AudioDataModule,
    found: Mapping[str, Evaluation],
    importance: Mapping[str, Importance],
) -> None:
    """Draw figures and pictures of all evaluations.

    Args:
        folder: receives the pictures as PNG.
        logger: TensorBoard's.
        data: what was trained and tested on.
        found: evaluations by name: `cv`, `cv_grouped`, `val`, `test`.
        importance: of features, by name.
    """
    writer: Any = logger.experiment
    for name, evaluation in found.items():
        for key in ("acc", "f1", "ece", "loss"):
            writer.add_scalar(f"{name}/{key}", getattr(evaluation, key))
        matrix = np.asarray(evaluation.confusion_matrix)
        figure = confusion_matrix(matrix, data.labels).figure
        write_picture(writer, f"{name}/confusion_matrix", figure)
        if name.startswith("cv"):
            save_figure(figure, folder / f"confusion_{name}.png")
            write_text_card(writer, f"{name}/report", table([evaluation]))
    answers = {of_part(name): (e.probabilities, e.targets) for name, e in found.items()}
    pictures = {"reliability": reliability(answers).figure}
    if importance:
        pictures["importance"] = importance_bars(importance)
    for name, figure in pictures.items():
        save_figure(figure, folder / f"{name}.png")
        write_picture(writer, name, figure)


def draw_data(
    logger: TensorBoardLogger,
    pipeline: Pipeline,
    data: AudioDataModule,
    answers: AnswerTable,
    vectors: Mapping[str, np.ndarray],
    copies: bool,
) -> None:
    """Draw what was fitted on, the worst errors to see and hear, and all clips as points.

    Args:
        logger: TensorBoard's.
        pipeline: what was trained.
        data: what it was trained on.
        answers: to the clips of all parts.
        vectors: that the model gets, by part: `train`, `val`, `test`.
        copies: whether augmented clips were fitted on as well.
    """
    writer: Any = logger.experiment
    augment: Any = data.augment if copies else None
    draw_inputs(writer, pipeline, data.train_set, augment)
    *_, judged = (name for name in answers.parts_present if name.startswith("cv"))
    parts = {judged: data.train_set, "val": data.val_set, "test": data.test_set}
    rows = {judged if name == "train" else name: x for name, x in vectors.items()}
    draw_projector(writer, pipeline, parts, answers, rows)
    with_errors = [name for name in parts if not answers.part(name).right.all()]
    name = with_errors[-1] if with_errors else answers.parts_present[-1]
    draw_answers(writer, name, parts[name], answers.part(name))
