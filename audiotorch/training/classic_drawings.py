"""What TensorBoard and the run's folder show of a scikit-learn model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger

from audiotorch.data.datamodule import AudioDataModule
from audiotorch.models.evaluation import Evaluation, table
from audiotorch.models.importance import Importance
from audiotorch.plot import (
    confusion_matrix,
    importance_bars,
    pixels,
    reliability,
    save_figure,
)
from audiotorch.plot.answered import of_part
from audiotorch.training.drawings import draw_error

__all__ = ["draw_classic"]

_N_ERRORS = 4


def draw_classic(
    folder: Path,
    logger: TensorBoardLogger,
    data: AudioDataModule,
    found: Mapping[str, Evaluation],
    importance: Mapping[str, Importance],
) -> None:
    """Draw figures and pictures of all evaluations, and the worst errors to see and hear.

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
        writer.add_image(f"{name}/confusion_matrix", pixels(figure), dataformats="HWC")
        if name.startswith("cv"):
            save_figure(figure, folder / f"confusion_{name}.png")
            text = "\n".join(f"    {line}" for line in table([evaluation]).splitlines())
            writer.add_text(f"{name}/report", text)
    answers = {of_part(name): (e.probabilities, e.targets) for name, e in found.items()}
    pictures = {"reliability": reliability(answers).figure}
    if importance:
        pictures["importance"] = importance_bars(importance)
    for name, figure in pictures.items():
        save_figure(figure, folder / f"{name}.png")
        writer.add_image(name, pixels(figure), dataformats="HWC")
    _draw_errors(writer, data, found)


def _draw_errors(writer: Any, data: AudioDataModule, found: Mapping[str, Evaluation]) -> None:
    """Show clips of the last evaluation with errors whose right class had least probability."""
    with_errors = [name for name, evaluation in found.items() if evaluation.acc < 1]
    if not with_errors:
        return
    name = with_errors[-1]
    targets, probabilities = found[name].targets, found[name].probabilities
    right = probabilities[np.arange(len(targets)), targets]
    answers = probabilities.argmax(axis=1)
    worst = [int(i) for i in np.argsort(right, kind="stable") if answers[i] != targets[i]]
    clips = {"val": data.val_set, "test": data.test_set}.get(name, data.train_set)
    for rank, i in enumerate(worst[:_N_ERRORS], start=1):
        label, answer = data.labels[targets[i]], data.labels[answers[i]]
        text = f"{label} heard as {answer}, probability of the right class {right[i]:.3f}"
        draw_error(writer, f"{name}_errors/{rank}", clips[i][0], data.sample_rate, text, 0)
