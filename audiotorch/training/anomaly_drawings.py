"""What TensorBoard and the run's folder show of a detector."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from audiotorch.answers import AnswerTable
from audiotorch.answers.prediction import named_thresholds
from audiotorch.data.datamodule import AudioDataModule
from audiotorch.pipeline import Pipeline
from audiotorch.plot import roc, save_figure, score_histogram
from audiotorch.training.board import write_picture
from audiotorch.training.drawings import draw_clip
from audiotorch.training.input_drawings import draw_inputs
from audiotorch.training.projector import draw_projector

__all__ = ["draw_detector"]

_N_CLIPS = 4


def draw_detector(
    folder: Path,
    logger: TensorBoardLogger,
    pipeline: Pipeline,
    data: AudioDataModule,
    scores: Mapping[str, Tensor],
    answers: AnswerTable,
) -> None:
    """Draw the scores of all parts with the thresholds, and the errors to see and hear.

    Without labelled anomalies, the held-back clips that score highest are shown.

    Args:
        folder: receives the pictures as PNG.
        logger: TensorBoard's.
        pipeline: the calibrated detector.
        data: what it was fitted and judged on.
        scores: of each part's clips: `train`, `held_back`, `test`.
        answers: the same with what they say, for the projector.
    """
    writer: Any = logger.experiment
    thresholds = named_thresholds(pipeline)
    parts = {name.replace("_", " "): scores[name].numpy() for name in scores if name != "test"}
    if "test" in scores:
        anomalous = data.test_set.targets == 1
        for name, chosen in (("test, normal", ~anomalous), ("test, anomalies", anomalous)):
            if bool(chosen.any()):
                parts[name] = scores["test"][chosen].numpy()
    figure = score_histogram(parts, thresholds).figure
    save_figure(figure, folder / "scores.png")
    # Not the name of the pictures that an autoencoder's epochs have, at other steps.
    write_picture(writer, "final/scores", figure)
    if len(set(answers.part("test").targets.tolist())) == 2:
        # The intervals are in `metrics.json`, and take seconds.
        write_picture(writer, "final/roc", roc(answers, part="test", n_bootstrap=0).figure)
    draw_inputs(writer, pipeline, data.train_set)
    _draw_clips(writer, pipeline, data, scores)
    clips = {"train": data.train_set, "held_back": data.val_set, "test": data.test_set}
    draw_projector(writer, pipeline, clips, answers)


def _draw_clips(
    writer: Any, pipeline: Pipeline, data: AudioDataModule, scores: Mapping[str, Tensor]
) -> None:
    """Show the clips that lie farthest on the wrong side, or closest to it."""
    name = "test" if "test" in scores else "held_back"
    if name not in scores:
        return
    clips = data.test_set if name == "test" else data.val_set
    above = scores[name] - pipeline.thresholds[-1]
    wrong = above * (1 - 2 * clips.targets)
    for rank, i in enumerate(wrong.argsort(descending=True, stable=True)[:_N_CLIPS].tolist(), 1):
        verdict = "alarm" if above[i] > 0 else "no alarm"
        label = data.given_labels[clips.clips[i].path]
        text = f"{label}: {verdict}, score {float(scores[name][i]):.4g}"
        draw_clip(writer, f"{name}_hardest/{rank}", clips, i, text)
