"""What a run leaves behind: exported files, figures, pictures, and its last lines."""

import json
import logging
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import audiotorch
from audiotorch.answers import AnswerTable
from audiotorch.data.datamodule import AudioDataModule
from audiotorch.errors import AudioTorchError, printable
from audiotorch.export import export
from audiotorch.pipeline import Pipeline
from audiotorch.plot import confusion_matrix, prediction_strip, save_figure
from audiotorch.training.answered import write_answers
from audiotorch.training.board import write_settings

__all__ = [
    "REPORT_FILE",
    "clear_figures",
    "draw",
    "finish",
    "is_first_process",
    "report",
    "run_facts",
    "write_results",
    "write_text",
]

log = logging.getLogger(__name__)

REPORT_FILE = "report.html"
"""What the command line has written of a run, once all its other files are there."""

_STRIP = 8  # clips, one a class, that the picture of answers shows


def run_facts(pipeline: Pipeline, data: AudioDataModule) -> dict[str, Any]:
    """Sizes and versions, as `metrics.json` holds them.

    Args:
        pipeline: what was trained.
        data: what it was trained on.
    """
    return {
        "validation": data.splits.validation,
        "train_clips": len(data.splits.train),
        "val_clips": len(data.splits.val),
        "test_clips": len(data.splits.test),
        "n_parameters": sum(parameter.numel() for parameter in pipeline.parameters()),
        "versions": {
            "audiotorch": audiotorch.__version__,
            "lightning": str(L.__version__),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


def write_results(
    run_dir: Path,
    pipeline: Pipeline,
    metrics: Mapping[str, Any],
    config: Mapping[Any, Any],
    logger: Any,
    answers: AnswerTable | None,
) -> None:
    """Export the Pipeline, write `metrics.json` and `answers.csv`, and close TensorBoard's file.

    Args:
        run_dir: where both go.
        pipeline: what was trained.
        metrics: plain figures.
        config: the resolved configuration.
        logger: of the run; gets the settings beside the final figures.
        answers: to each clip that the run is judged by, if any.
    """
    # Of an earlier run in this directory; it would tell of other figures.
    (run_dir / REPORT_FILE).unlink(missing_ok=True)
    log.info("writing model.ts and model.pt2, and comparing them with the Pipeline")
    export(pipeline, run_dir / "model.ts", metrics=metrics)
    write_text(run_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_answers(run_dir, answers)
    stages = ("cv", "cv_grouped", "val", "test")
    names = [f"{stage}/{name}" for stage in stages for name in ("acc", "f1", "ece")]
    names += [f"test/{name}" for name in ("auc", "pauc", "ap")]
    final = {name: metrics[name] for name in names if metrics.get(name) is not None}
    if isinstance(logger, TensorBoardLogger):
        write_settings(logger, config, final)
        logger.finalize("success")


def clear_figures(folder: Path) -> None:
    """Remove the pictures of an earlier run in the same directory.

    Args:
        folder: of the pictures; it may be missing.
    """
    for picture in folder.glob("*.png"):
        picture.unlink()


def draw(folder: Path, pipeline: Pipeline, data: AudioDataModule, metrics: dict[str, Any]) -> None:
    """Draw the test, or the validation where there is none: confusion matrix, some answers.

    Args:
        folder: of the pictures.
        pipeline: what was trained.
        data: what it was trained on.
        metrics: the run's figures.
    """
    stage, clips = ("test", data.test_set) if len(data.test_set) else ("val", data.val_set)
    if len(clips):
        matrix = np.asarray(metrics[f"{stage}/confusion_matrix"])
        save_figure(confusion_matrix(matrix, data.labels).figure, folder / "confusion.png")
        targets = clips.targets.tolist()
        chosen = [targets.index(target) for target in sorted(set(targets))][:_STRIP]
        truth = [data.labels[targets[i]] for i in chosen]
        strip = prediction_strip(pipeline.cpu().eval(), [clips[i][0] for i in chosen], truth)
        save_figure(strip, folder / "predictions.png")


def write_text(path: Path, text: str) -> None:
    """Write a file that is complete or not there; further processes of a run write nothing.

    Args:
        path: the file; its folder is made when missing.
        text: what it holds.
    """
    if not is_first_process():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def is_first_process() -> bool:
    """Whether this is the process of a run that writes and prints."""
    return getattr(rank_zero_only, "rank", 0) == 0


def finish(run_dir: Path, finished: Callable[[Path], object] | None) -> None:
    """Say that a run's files are complete; what goes wrong with it does not lose the run.

    Args:
        run_dir: the run directory.
        finished: called with it, on the process that writes.
    """
    if finished is None or not is_first_process():
        return
    try:
        finished(run_dir)
    except (AudioTorchError, OSError) as error:
        log.warning("no report: %s", printable(str(error)))


def report(metrics: Mapping[str, Any], run_dir: Path) -> None:
    """Print the last lines of a run.

    Args:
        metrics: its figures.
        run_dir: where its files lie.
    """
    if "val/acc" in metrics:
        seen = metrics["validation"] == "clip"
        remark = " (on groups that also train)" if seen and metrics["fixed_schedule"] else ""
        print(f"validation accuracy: {metrics['val/acc']:.4g}{remark}")
    if "test/acc" in metrics:
        print(f"test accuracy: {metrics['test/acc']:.4g}")
    split = metrics.get("conformal") == "split"
    where = "normal clips held back:" if split else "cross-conformal, normal clips:"
    for name, threshold in metrics.get("thresholds", {}).items():
        promised = 100 * threshold["promised_rate"]
        print(
            f"{name}: score above {threshold['score']:.6g}, at most {promised:.3g} % false alarms "
            f"({where} {metrics['held_back']})"
        )
    if metrics.get("test/auc") is not None:
        print(f"test AUC: {metrics['test/auc']:.4g}")
    print(f"model: {run_dir / 'model.ts'}")
    if (run_dir / REPORT_FILE).is_file():
        print(f"report: {run_dir / REPORT_FILE}")
    if (run_dir / "figures").is_dir():
        print(f"figures: {run_dir / 'figures'}")
    print(f"curves: tensorboard --logdir {run_dir / 'tb'}")
    print(f"run directory: {run_dir}", flush=True)
