"""The Hydra entry: from a configuration to a trained, tested and exported Pipeline."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback, EarlyStopping
from omegaconf import DictConfig, OmegaConf

import audiotorch
from audiotorch.data.datamodule import AudioDataModule
from audiotorch.errors import ParameterError
from audiotorch.pipeline import Pipeline
from audiotorch.training.answered import AnswerCollector
from audiotorch.training.build import build, build_pipeline
from audiotorch.training.checkpoint import (
    Checkpoints,
    find_checkpoint,
    read_checkpoint,
)
from audiotorch.training.drawings import Drawings, draw_network
from audiotorch.training.entry import run_hydra
from audiotorch.training.progress import quiet
from audiotorch.training.results import (
    clear_figures,
    draw,
    finish,
    is_first_process,
    report,
    run_facts,
    write_results,
    write_text,
)
from audiotorch.training.tasks import ClassificationTask
from audiotorch.training.trainer import Loaders, build_trainer, prepare

__all__ = ["main", "train"]

log = logging.getLogger(__name__)


def main(
    argv: Sequence[str] | None = None, finished: Callable[[Path], object] | None = None
) -> int:
    """Run `python scripts/train.py` or `audiotorch train`: Hydra overrides in, a run directory out.

    Args:
        argv: the overrides; None takes the command line's.
        finished: see `train`; called for each run of a sweep.

    Returns:
        Exit status: 0, or 2 with one line on stderr for wrong use.
    """
    return run_hydra(partial(_job, finished=finished), sys.argv[1:] if argv is None else argv)


def _job(config: DictConfig, finished: Callable[[Path], object] | None) -> float | None:
    """One run, and what it prints; returns what a sweep compares."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if not is_first_process():
        logging.getLogger().setLevel(logging.ERROR)
    metrics = train(config, run_dir, finished)
    if is_first_process():
        report(metrics, run_dir)
    value = metrics.get(config.objective)
    if isinstance(value, int | float):
        return float(value)
    if HydraConfig.get().runtime.choices.get("sweep") is not None:
        raise ParameterError(
            f"objective={config.objective!r}: must be a figure of metrics.json that is a number, "
            "such as val/acc, which needs a validation: data.validation=clip"
        )
    return None


def train(
    config: DictConfig,
    run_dir: str | os.PathLike[str],
    finished: Callable[[Path], object] | None = None,
) -> dict[str, Any]:
    """Train, test and export what a configuration describes.

    Args:
        config: the composed configuration, see `configs/train.yaml`.
        run_dir: where `model.ts model.pt2 metrics.json answers.csv config.yaml checkpoints/ tb/
            figures/` go; made when missing.
        finished: called with `run_dir` once all of these are written, unless `report` is false, on
            the process that writes. An `AudioTorchError` or `OSError` of it is logged.

    Returns:
        What `metrics.json` holds: figures of the exported weights under flat names such as
        `val/acc` and `test/recall`, sizes, epochs, seconds and versions.

    Raises:
        AudioTorchError: a setting or a recording is not admissible; the text says which.
    """
    run_dir = Path(run_dir)
    _check_settings(config)
    metrics = _run(config, run_dir)
    finish(run_dir, finished if config.get("report", True) else None)
    return metrics


def _run(config: DictConfig, run_dir: Path) -> dict[str, Any]:
    """The run, by what kind it is of."""
    if str(config.task._target_).endswith(".ClassicTask"):
        from audiotorch.training.classic import train_classic  # scikit-learn takes a second

        return train_classic(config, run_dir)
    if str(config.task._target_).endswith(".AnomalyTask"):
        from audiotorch.training.anomaly import train_anomaly

        return train_anomaly(config, run_dir)
    return _train_network(config, run_dir)


def _train_network(config: DictConfig, run_dir: Path) -> dict[str, Any]:
    start = time.perf_counter()
    with quiet():
        L.seed_everything(config.seed, workers=True, verbose=False)
        resume = None if config.ckpt_path is None else find_checkpoint(config.ckpt_path, ("last",))
        first_epoch = 0 if resume is None else int(read_checkpoint(resume)["epoch"]) + 1
        data: AudioDataModule = build(config.data)
        data.setup()
        plain = OmegaConf.to_container(config, resolve=True)
        assert isinstance(plain, dict)
        pipeline = build_pipeline(plain, data.labels)
        prepare(pipeline, config, data, resume)
        task = _build_task(config, plain, pipeline, data)
        checkpoints = Checkpoints(
            run_dir / "checkpoints", keep_best=bool(data.splits.val) and not data.fixed_schedule
        )
        collector = AnswerCollector(data)
        trainer = _build_trainer(config, data, run_dir, checkpoints, collector)
        if resume is not None and is_first_process():
            checkpoints.adopt(resume)
        write_text(run_dir / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        loaders = Loaders(data, first_epoch)
        trainer.fit(task, datamodule=loaders, ckpt_path=resume, weights_only=True)
        logger = trainer.logger
        metrics = _finish(trainer, task, data, checkpoints)
    metrics["seconds"] = round(time.perf_counter() - start, 1)
    if trainer.is_global_zero:
        answers = collector.table()
        draw_network(logger, pipeline, data, metrics, answers)
        write_results(run_dir, pipeline, metrics, plain, logger, answers)
        clear_figures(run_dir / "figures")
        draw(run_dir / "figures", pipeline, data, metrics)
    trainer.strategy.barrier()
    return metrics


def _check_settings(config: DictConfig) -> None:
    """Refuse numbers that Lightning would take for something else or stumble over later."""
    for key, least, most in (
        ("seed", 0, 2**32 - 1),
        ("trainer.log_every_n_steps", 0, math.inf),
        ("trainer.max_epochs", 1, math.inf),
        ("early_stopping_patience", 0, math.inf),
    ):
        value = OmegaConf.select(config, key)
        optional = value is None and key in ("trainer.max_epochs", "early_stopping_patience")
        if not optional and (type(value) is not int or not least <= value <= most):
            end = f" to {most}" if most < math.inf else ""
            raise ParameterError(f"{key}={value!r}: must be a whole number from {least}{end}")


def _build_task(
    config: DictConfig, plain: dict[Any, Any], pipeline: Pipeline, data: AudioDataModule
) -> ClassificationTask:
    task: ClassificationTask = build(
        config.task,
        pipeline=pipeline,
        class_counts=data.class_counts,
        augment=data.augment,
        seed=config.seed,
        record={"config": plain, "version": audiotorch.__version__},
    )
    return task


def _build_trainer(
    config: DictConfig,
    data: AudioDataModule,
    run_dir: Path,
    checkpoints: Checkpoints,
    collector: AnswerCollector,
) -> L.Trainer:
    callbacks: list[Callback] = [Drawings(data), collector, checkpoints]
    patience = config.early_stopping_patience
    if patience is not None and checkpoints.keep_best:
        callbacks.append(EarlyStopping("val/loss", patience=patience))
    elif patience is not None:
        log.warning("early_stopping_patience=%s is ignored: the schedule is fixed", patience)
    # A logging interval longer than an epoch would log nothing.
    interval = min(config.trainer.log_every_n_steps, len(data.train_dataloader()))
    return build_trainer(
        config, run_dir, callbacks, validates=bool(data.splits.val), log_every_n_steps=interval
    )


def _finish(
    trainer: L.Trainer, task: ClassificationTask, data: AudioDataModule, checkpoints: Checkpoints
) -> dict[str, Any]:
    """Take the weights that the run hands out, test them, and gather the figures."""
    epochs = trainer.current_epoch
    chosen = read_checkpoint(checkpoints.chosen)
    task.load_state_dict(chosen["state_dict"])
    task.scores = dict(chosen["audiotorch"]["scores"])
    if data.splits.val:
        # The same figures again, for the answers; they are no further point of the curves.
        loggers, trainer.loggers = trainer.loggers, []
        trainer.validate(task, datamodule=data, verbose=False)
        trainer.loggers = loggers
    if data.splits.test:
        trainer.test(task, datamodule=data, verbose=False)
    task.use_average()
    pipeline = task.pipeline
    metrics: dict[str, Any] = {
        f"{stage}/{name}": value
        for stage, scores in task.scores.items()
        for name, value in scores.items()
    }
    return {
        **metrics,
        **run_facts(pipeline, data),
        "fixed_schedule": data.fixed_schedule,
        "epochs": epochs,
        "exported_epoch": int(chosen["epoch"]) + 1,
    }


if __name__ == "__main__":
    sys.exit(main())
