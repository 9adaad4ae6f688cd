"""Checkpoints: written each epoch, resumed from, fine-tuned from, turned back into a Pipeline."""

import logging
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from omegaconf import OmegaConf
from torch import Tensor, nn

from audiotorch.answers.prediction import named_thresholds
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.models.ensemble import Ensemble
from audiotorch.pipeline import Pipeline
from audiotorch.training.build import build_pipeline
from audiotorch.training.fitted import FITTED, MISFITS, load_fitted_pipeline, misfit

__all__ = [
    "Checkpoints",
    "find_checkpoint",
    "keep_calibration",
    "load_checkpoint_pipeline",
    "read_checkpoint",
    "take_weights",
]

log = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` after each epoch, and `best.ckpt` when the validation is the best yet.

    Best is the highest accuracy, among equals the lowest loss, among those the first. A file is
    complete or not there. The record of the best lies in the checkpoint, so that a resumed run
    picks as an uninterrupted one does.

    Args:
        folder: where the files go; made when missing.
        keep_best: False writes `last.ckpt` only.
    """

    def __init__(self, folder: str | os.PathLike[str], keep_best: bool = True) -> None:
        self.folder = Path(folder)
        self.keep_best = keep_best
        self.best: list[float] | None = None

    @property
    def chosen(self) -> Path:
        """The checkpoint whose weights the run hands out."""
        best = self.folder / "best.ckpt"
        return best if self.keep_best and best.is_file() else self.folder / "last.ckpt"

    def adopt(self, source: Path) -> None:
        """Take over `source`, which is resumed from, and the best checkpoint beside it."""
        if source.parent.resolve() == self.folder.resolve():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(source, self.folder / "last.ckpt")
        best = source.parent / "best.ckpt"
        if self.keep_best and best.is_file():
            _replace(best, self.folder / "best.ckpt")
        else:
            (self.folder / "best.ckpt").unlink(missing_ok=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the files; Lightning calls this after validation and after other callbacks."""
        scores = getattr(pl_module, "scores", {}).get("val")
        better = False
        if self.keep_best and scores is not None:
            rank = [scores["acc"], -scores["loss"]]
            better = self.best is None or rank > self.best
            self.best = rank if better else self.best
        partial = self.folder / ".last.ckpt.tmp"
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            if better:
                _replace(partial, self.folder / "best.ckpt")
            elif self.best is None:  # An earlier run in this directory left one.
                (self.folder / "best.ckpt").unlink(missing_ok=True)
            os.replace(partial, self.folder / "last.ckpt")
            (self.folder / FITTED).unlink(missing_ok=True)
        trainer.strategy.barrier()

    def state_dict(self) -> dict[str, Any]:
        """The figures of the best checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint's record, unless its best file is lost."""
        if self.keep_best and (self.folder / "best.ckpt").is_file():
            self.best = state_dict["best"]


def _replace(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, partial)
    os.replace(partial, target)


def find_checkpoint(path: str | os.PathLike[str], names: Sequence[str] = ("best", "last")) -> Path:
    """Resolve a run directory to its checkpoint; a file stays as it is.

    Args:
        path: a run directory, its `checkpoints` directory, or a checkpoint.
        names: which checkpoints of a directory to take, the preferred one first; where there is
            none, a scikit-learn model's.

    Raises:
        ParameterError: there is no such file or directory, or it holds no checkpoint.
    """
    given = Path(path)
    if given.is_file():
        return given
    candidates = [
        folder / name
        for folder in (given / "checkpoints", given)
        for name in [*(f"{name}.ckpt" for name in names), FITTED]
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ParameterError(
        f"checkpoint {os.fspath(path)!r}: must be a checkpoint or a run directory that holds "
        f"checkpoints/{names[-1]}.ckpt; check the path"
    )


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of a training run; nothing but plain data and tensors is unpickled.

    Raises:
        DecodeError: the file is damaged, or not a checkpoint of audiotorch.
    """
    if Path(path).suffix == Path(FITTED).suffix:
        raise DecodeError(
            f"{os.fspath(path)!r} holds a scikit-learn model, which has no weights or epochs to go "
            "on from; name the run of a network"
        )
    try:
        # torch reads anything else with its legacy unpickler, which fails in many ways.
        if os.path.isfile(path) and not zipfile.is_zipfile(path):
            raise ValueError("not a zip archive")
        with warnings.catch_warnings():  # torch's own, on a model.ts
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DecodeError(
            f"{os.fspath(path)!r} is not a checkpoint, or is truncated ({reason[:120]}); "
            "give checkpoints/best.ckpt or last.ckpt of a run directory"
        ) from error
    ours = checkpoint.get("audiotorch") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or not {"labels", "config"} <= ours.keys():
        raise DecodeError(
            f"{os.fspath(path)!r} is not a checkpoint that audiotorch wrote; "
            "give checkpoints/best.ckpt or last.ckpt of a run directory"
        )
    return cast(dict[str, Any], checkpoint)


def load_checkpoint_pipeline(path: str | os.PathLike[str], trusted: bool = False) -> Pipeline:
    """Rebuild the Pipeline of a training run, with its averaged weights where these are on.

    Args:
        path: a checkpoint, or a run directory, of which the best checkpoint is taken.
        trusted: build classes from outside audiotorch too, if the checkpoint names some. The file
            then decides what code runs: only for files of your own.

    Raises:
        ParameterError: nothing is there.
        DecodeError: the file is damaged, not audiotorch's, does not fit its own configuration, or
            names a class from outside audiotorch.
    """
    file = find_checkpoint(path)
    if file.suffix == Path(FITTED).suffix:
        return load_fitted_pipeline(file, trusted)
    checkpoint = read_checkpoint(file)
    ours = checkpoint["audiotorch"]
    try:
        config = OmegaConf.create(ours["config"])
        if config.model.get("pretrained"):
            config.model.pretrained = False  # No download of what is replaced at once.
        pipeline = build_pipeline(config, ours["labels"], trusted)
        state = _part(checkpoint["state_dict"], "pipeline.")
        averaged = _part(checkpoint["state_dict"], "average.module.")
        pipeline.load_state_dict(state)
        if averaged:
            pipeline.model.load_state_dict(averaged)
        if "calibration" in ours:
            pipeline.calibrate(ours["calibration"], ours["thresholds"])
    except MISFITS as error:
        raise misfit(file, error) from error
    return pipeline.eval()


def keep_calibration(folder: Path, pipeline: Pipeline) -> None:
    """Add a detector's thresholds and normal scores to the last checkpoint.

    Args:
        folder: of the run's checkpoints.
        pipeline: the calibrated detector.
    """
    checkpoint = read_checkpoint(folder / "last.ckpt")
    thresholds = named_thresholds(pipeline)
    checkpoint["audiotorch"] |= {
        "calibration": pipeline.calibration,
        "thresholds": thresholds,
    }
    partial = folder / ".last.ckpt.tmp"
    torch.save(checkpoint, partial)
    os.replace(partial, folder / "last.ckpt")


def take_weights(pipeline: Pipeline, source: str | os.PathLike[str]) -> None:
    """Start a Pipeline's model from an earlier run: weights of the same name and shape are taken.

    Where the labels are not the earlier run's, the last linear layer stays new. What was taken and
    what was not is logged.

    Args:
        pipeline: its model is changed in place.
        source: the earlier run's directory, or one of its checkpoints.

    Raises:
        ParameterError: nothing is there, or no weight fits.
        DecodeError: the file is damaged or not audiotorch's.
    """
    file = find_checkpoint(source)
    checkpoint = read_checkpoint(file)
    state = checkpoint["state_dict"]
    earlier = _part(state, "average.module.") or _part(state, "pipeline.model.")
    own = pipeline.model.state_dict()
    new = set()
    if checkpoint["audiotorch"]["labels"] != list(pipeline.labels):
        new = _head(pipeline.model, len(pipeline.labels))
    taken = {
        name: value
        for name, value in earlier.items()
        if name not in new and name in own and own[name].shape == value.shape
    }
    if not taken:
        raise ParameterError(
            f"init_from={os.fspath(source)!r}: must hold weights of the same model; "
            "choose the model= and features= of that run"
        )
    pipeline.model.load_state_dict(taken, strict=False)
    left = [name for name in own if name not in taken]
    log.info(
        "init_from: %d of %d tensors taken from %s; new: %s",
        len(taken),
        len(own),
        file,
        ", ".join(left) or "none",
    )


def _head(model: nn.Module, n_classes: int) -> set[str]:
    """Names of the parameters of the last linear layer that gives one number for each class."""
    if isinstance(model, Ensemble):
        members = enumerate(model.members)
        return {f"members.{k}.{name}" for k, m in members for name in _head(m, n_classes)}
    heads = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == n_classes
    ]
    return {f"{heads[-1]}.{kind}".lstrip(".") for kind in ("weight", "bias")} if heads else set()


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
