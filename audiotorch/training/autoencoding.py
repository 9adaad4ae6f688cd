"""Training of autoencoders by Lightning, on normal clips only."""

import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import audiotorch
from audiotorch.pipeline import Pipeline
from audiotorch.training.autoencoder_drawings import AutoencoderDrawings
from audiotorch.training.blocks import BlockLoaders, ImageBatch
from audiotorch.training.build import build
from audiotorch.training.checkpoint import Checkpoints, find_checkpoint, read_checkpoint
from audiotorch.training.progress import quiet
from audiotorch.training.results import is_first_process
from audiotorch.training.stepping import PipelineTask
from audiotorch.training.trainer import Loaders, build_trainer, prepare

__all__ = ["AutoencoderTask", "train_autoencoder"]


class AutoencoderTask(PipelineTask):
    """Trains a Pipeline's autoencoder to predict blocks of normal sound.

    It steps through blocks `(batch, channel, n_mels, n_frames)` of the training clips' images.
    Whole images of the clips held back are scored in each epoch, for the curve only: they choose
    neither epoch nor setting, so that a threshold may be calibrated on them.

    Args and errors as `PipelineTask`.
    """

    def training_step(self, batch: Tensor, step: int) -> Tensor:
        """Loss of one batch of blocks."""
        counts = torch.full([len(batch)], batch.shape[-1], device=batch.device)
        loss: Tensor = self.pipeline.model.loss(batch, counts)  # type: ignore[operator]
        self.log_loss(loss, len(batch))
        return loss

    def on_train_epoch_end(self) -> None:
        """Keep the epoch's loss; stop a training that has diverged."""
        super().on_train_epoch_end()
        self.scores["train"] = {"loss": float(self.trainer.callback_metrics["train/loss_epoch"])}

    def validation_step(self, batch: ImageBatch, step: int) -> Tensor:
        """Scores of held-back clips."""
        scores: Tensor = self.network(batch.image, batch.counts).float()
        self.log("val/loss", scores.mean(), batch_size=len(scores), prog_bar=True, sync_dist=True)
        return scores

    def on_validation_epoch_end(self) -> None:
        """Keep the mean score."""
        self.scores["val"] = {"loss": float(self.trainer.callback_metrics["val/loss"])}


def train_autoencoder(
    config: DictConfig,
    plain: dict[Any, Any],
    pipeline: Pipeline,
    data: Any,
    run_dir: str | os.PathLike[str],
) -> dict[str, Any]:
    """Train a Pipeline's autoencoder on a data module's training clips, all of them normal.

    The schedule is fixed: the last epoch's weights, averaged where averaging is on, are handed out.
    `checkpoints/last.ckpt` and TensorBoard's `tb/` are written in `run_dir`. An interrupted run
    that `config.ckpt_path` names is resumed after its last finished epoch.

    Args:
        config: the whole configuration; `task` gives optimizer, scheduler, ema_decay and
            frames_per_step, `trainer` the epochs.
        plain: the same, resolved to plain data, for the checkpoint.
        pipeline: gets the trained weights, in evaluation mode.
        data: after its `setup`, with `train_set`, `val_set` (normal clips held back) and
            `test_set` (for the drawings; targets 0 = normal, 1 = anomaly).
        run_dir: the run directory.

    Returns:
        `epochs`, `train/loss`, with held-back clips `val/loss`, and the TensorBoard `logger`.

    Raises:
        ParameterError: a setting is not admissible, or the loss is no longer finite.
        DecodeError: `ckpt_path` is damaged.
    """
    run_dir = Path(run_dir)
    with quiet():
        resume = None if config.ckpt_path is None else find_checkpoint(config.ckpt_path, ("last",))
        first_epoch = 0 if resume is None else int(read_checkpoint(resume)["epoch"]) + 1
        prepare(pipeline, config, data, resume)
        blocks = BlockLoaders(
            pipeline, data, frames_per_step=config.task.frames_per_step, seed=config.seed
        )
        task = _build_task(config, plain, pipeline)
        checkpoints = Checkpoints(run_dir / "checkpoints", keep_best=False)
        trainer = build_trainer(
            config,
            run_dir,
            [AutoencoderDrawings(blocks), checkpoints],
            validates=len(data.val_set) > 0,
            log_every_n_steps=config.trainer.log_every_n_steps,
        )
        if resume is not None and is_first_process():
            checkpoints.adopt(resume)
        trainer.fit(
            task, datamodule=Loaders(blocks, first_epoch), ckpt_path=resume, weights_only=True
        )
    last = read_checkpoint(checkpoints.chosen)
    task.load_state_dict(last["state_dict"])
    task.use_average()
    pipeline.eval()
    scores = last["audiotorch"]["scores"]
    losses = {
        f"{stage}/loss": scores[stage]["loss"] for stage in ("train", "val") if stage in scores
    }
    return {"epochs": int(last["epoch"]) + 1, **losses, "logger": trainer.logger}


def _build_task(config: DictConfig, plain: dict[Any, Any], pipeline: Pipeline) -> AutoencoderTask:
    keys = ("optimizer", "scheduler", "ema_decay")
    target = f"{AutoencoderTask.__module__}.{AutoencoderTask.__name__}"
    section = {"_target_": target, **{key: plain["task"][key] for key in keys}}
    task: AutoencoderTask = build(
        OmegaConf.create(section),
        pipeline=pipeline,
        seed=config.seed,
        record={"config": plain, "version": audiotorch.__version__},
    )
    return task
