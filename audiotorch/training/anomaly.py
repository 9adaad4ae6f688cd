"""Detectors through the Hydra entry: fitted on normal clips, calibrated on others, exported."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from audiotorch.data.datamodule import AudioDataModule
from audiotorch.data.splits import MIN_GROUPS, group_count
from audiotorch.errors import ParameterError
from audiotorch.models.conformal import (
    Threshold,
    clips_needed,
    conformal_thresholds,
    cross_thresholds,
    mean_p_calibration,
    n_held_back,
    one_per_group,
    with_room,
)
from audiotorch.models.detection import Detection, evaluate_detection, table
from audiotorch.models.detectors import (
    anomaly_scores,
    build_detector,
    fit_detector,
    normal_statistics,
)
from audiotorch.models.fusion import CrossFit, cross_fit
from audiotorch.models.tensorize import steady
from audiotorch.pipeline import Pipeline
from audiotorch.training.anomaly_drawings import draw_detector
from audiotorch.training.answered import score_answers
from audiotorch.training.autoencoding import train_autoencoder
from audiotorch.training.board import board
from audiotorch.training.build import build, build_pipeline
from audiotorch.training.checkpoint import keep_calibration
from audiotorch.training.fitted import FittedDetector, detector_model, save_detector_run
from audiotorch.training.front import (
    fit_features,
    learns_from_clips,
    place_features,
    scales,
)
from audiotorch.training.progress import quiet
from audiotorch.training.results import (
    clear_figures,
    is_first_process,
    run_facts,
    write_results,
    write_text,
)
from audiotorch.training.settings import check_count, check_number, check_sizes
from audiotorch.training.vectors import compute_windows, score_clips

__all__ = ["AnomalyTask", "train_anomaly"]

log = logging.getLogger(__name__)

# Both build scikit-learn estimators; knn is a name of either kind.
_FITTED = ("detectors.build_detector", "classic.build_classifier")


@dataclass(frozen=True)
class AnomalyTask:
    """How a detector is calibrated and judged, and how autoencoders are trained.

    Args:
        false_alarm_rate: of normal clips, between 0 and 1; or several by name, such as
            `{warning: 0.1, alarm: 0.05}`, of which the smallest decides what an anomaly is.
        conformal: `split` holds normal clips back for the threshold; `cross` fits as many detectors
            as there are folds, each calibrated on one, and promises twice the rate only.
        folds: of `cross`, and of the normal scores that a fusion compares with.
        max_fpr: false-alarm rate up to which the partial AUC looks.
        n_bootstrap: draws for the intervals of the figures.
        optimizer: of autoencoders.
        scheduler: of autoencoders.
        ema_decay: of autoencoders' averaged weights; None keeps no average.
        frames_per_step: of autoencoders, frames of all blocks of a batch.

    Raises:
        ParameterError: a setting out of range.
    """

    false_alarm_rate: float | Mapping[str, float] = 0.05
    conformal: str = "split"
    folds: int = 5
    max_fpr: float = 0.1
    n_bootstrap: int = 1000
    optimizer: Any = None
    scheduler: Any = None
    ema_decay: float | None = None
    frames_per_step: int = 2560

    def __post_init__(self) -> None:
        if not self.rates:
            raise ParameterError("task.false_alarm_rate: name one rate at least, or give a number")
        for name, rate in self.rates.items():
            check_number(f"task.false_alarm_rate ({name})", rate, 1e-6, 0.999999)
        if self.conformal not in ("split", "cross"):
            raise ParameterError(f"task.conformal={self.conformal!r}: must be split or cross")
        check_count("task.folds", self.folds, 2, 1000)
        check_number("task.max_fpr", self.max_fpr, 1e-6, 1)
        check_count("task.n_bootstrap", self.n_bootstrap, 0, 1_000_000)

    @property
    def rates(self) -> dict[str, float]:
        """False-alarm rates by the thresholds' names."""
        rate = self.false_alarm_rate
        return (
            {str(k): v for k, v in rate.items()} if isinstance(rate, Mapping) else {"alarm": rate}
        )


def train_anomaly(config: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Fit, calibrate, judge and export the detector that a configuration describes.

    Args:
        config: the composed configuration.
        run_dir: where `model.ts model.pt2 metrics.json answers.csv config.yaml checkpoints/ tb/
            figures/` go.

    Returns:
        What `metrics.json` holds: `thresholds`, what they promise and from how many clips,
        `test/...` of labelled anomalies where there are some.

    Raises:
        AudioTorchError: a setting or a recording is not admissible; the text says which.
    """
    start = time.perf_counter()
    task: AnomalyTask = build(config.task)
    fitted = str(config.model._target_).endswith(_FITTED)
    _check(config, task, fitted)
    with quiet():
        L.seed_everything(config.seed, workers=True, verbose=False)
        data = _read(config, task)
        plain: Any = OmegaConf.to_container(config, resolve=True)
        pipeline = build_pipeline(plain, (), model=nn.Identity() if fitted else None)
        check_sizes(pipeline, data)
        write_text(run_dir / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        if fitted:
            found = _fit(config, task, pipeline, data)
            logger = board(run_dir)
            facts: dict[str, Any] = {}
        else:
            found = None
            facts = train_autoencoder(config, plain, pipeline, data, run_dir)
            logger = facts.pop("logger")
    pipeline.cpu().eval()
    parts = {"train": data.train_set, "held_back": data.val_set, "test": data.test_set}
    scores = {name: score_clips(pipeline, clips) for name, clips in parts.items() if len(clips)}
    thresholds = _calibrate(pipeline, scores, data, task, found)
    metrics: dict[str, Any] = {"conformal": task.conformal, **_promises(thresholds)}
    judged = _judge(scores.get("test"), data, thresholds, task, config.seed)
    if judged is not None:
        metrics |= {f"test/{name}": value for name, value in judged.as_dict().items()}
    metrics |= {**facts, **run_facts(pipeline, data), "fixed_schedule": True}
    metrics["seconds"] = round(time.perf_counter() - start, 1)
    if is_first_process():
        if found is None:
            keep_calibration(run_dir / "checkpoints", pipeline)
        else:
            save_detector_run(run_dir / "checkpoints", found, pipeline, plain)
        clear_figures(run_dir / "figures")
        answers = score_answers(pipeline, scores, data)
        draw_detector(run_dir / "figures", logger, pipeline, data, scores, answers)
        write_results(run_dir, pipeline, metrics, plain, logger, answers)
    return metrics


def _check(config: DictConfig, task: AnomalyTask, fitted: bool) -> None:
    """Refuse classifiers, and what only networks have, or only fitted detectors."""
    target = str(config.model._target_)
    if target.startswith("audiotorch.") and not (fitted or hasattr(get_object(target), "loss")):
        raise ParameterError(
            f"task=anomaly with {target}: is a classifier; choose model=autoencoder_dense, "
            "gaussian or another detector, or leave out task=anomaly"
        )
    if fitted and config.ckpt_path is not None:
        raise ParameterError(
            f"ckpt_path={config.ckpt_path!r}: {config.model.name} has no epochs to resume; leave "
            "it out"
        )
    if task.conformal == "cross" and not fitted:
        raise ParameterError(
            "task.conformal='cross': fits a detector for each fold, which is for "
            "isolation_forest, gaussian, gmm and knn; take split"
        )
    if task.conformal == "cross" and config.pipeline.get("window") is not None:
        raise ParameterError(
            "task.conformal='cross': its p-values are of whole clips; leave out pipeline.window, "
            "or take split"
        )
    if task.conformal == "cross" and config.model.name == "fusion":
        raise ParameterError("task.conformal='cross': is for one detector; take split for a fusion")


def _read(config: DictConfig, task: AnomalyTask) -> AudioDataModule:
    data: AudioDataModule = build(config.data)
    if task.conformal == "cross":
        data.for_detection(lambda n: 0)
    else:
        data.for_detection(partial(n_held_back, rate=min(task.rates.values())))
    data.setup()
    return data


def _fit(
    config: DictConfig, task: AnomalyTask, pipeline: Pipeline, data: AudioDataModule
) -> FittedDetector:
    """Fit the detectors on the normal clips' windows, and put them into the Pipeline."""
    if task.conformal == "cross" and learns_from_clips(pipeline):
        raise ParameterError(
            "task.conformal='cross': features.normalize=dataset learns from all clips, the folds "
            "that calibrate too; take another normalize, or split"
        )
    fit_features(pipeline, data)
    place_features(pipeline, config.trainer)
    clips = compute_windows(pipeline, data.train_set)
    pipeline.cpu()
    # What the rounding of features decides, no detector is to be fitted on.
    normals = steady(np.concatenate(clips))
    log.info("fitting %s on %d vectors of %d numbers", config.model.name, *normals.shape)
    groups = [clip.group for clip in data.train_set.clips]
    detectors = _detectors(config, pipeline)
    notes: list[str] = []
    cross: list[CrossFit] = []
    if len(detectors) > 1 or task.conformal == "cross":
        cross = [_cross_fit(d, clips, groups, task, config.seed) for d in detectors]
    if task.conformal == "cross":
        members = cross[0].members
        references = [with_room(scores).astype(np.float64) for scores in cross[0].calibration]
        combine = "conformal"
    else:
        members = [fit_detector(d, normals, config.seed, notes=notes) for d in detectors]
        references = [fold.scores for fold in cross]
        combine = config.model.get("combine") or "p_value"
    for note in dict.fromkeys(notes):
        log.warning("%s", note)
    found = FittedDetector(members, normal_statistics(normals), references, combine)
    pipeline.model = detector_model(found)
    return found


def _detectors(config: DictConfig, pipeline: Pipeline) -> list[Any]:
    """The unfitted detectors: one, or those of a fusion."""
    model: Any = OmegaConf.to_container(config.model, resolve=True)
    scale = scales(config.model, pipeline)
    if model["name"] == "fusion":
        members = model["members"]
        # null leaves out one of the defaults
        members = {name: own for name, own in (members or {}).items() if own is not None}
        if len(members) < 2:
            raise ParameterError(
                f"model.members={members!r}: must name two detectors at least, each with its "
                "settings or {}"
            )
        return [
            build_detector(name, **{"scale": scale, "seed": config.seed, **own})
            for name, own in members.items()
        ]
    left_out = ["_target_", "scale", "init_from"]
    if model["_target_"].endswith(_FITTED[1]):  # what only the classifier of this name has
        left_out += ["calibration", "weights"]
    settings = {key: value for key, value in model.items() if key not in left_out}
    return [build_detector(scale=scale, **settings)]


def _cross_fit(
    detector: Any,
    clips: Sequence[np.ndarray],
    groups: Sequence[str | None],
    task: AnomalyTask,
    seed: int,
) -> CrossFit:
    """Detectors that were each fitted without a fold of the clips, and the mean of its windows."""

    def fit(rows: np.ndarray) -> Any:
        own = steady(np.concatenate([clips[i] for i in rows]))
        return fit_detector(detector, own, seed, notes=[])

    def score(fitted: Any, rows: np.ndarray) -> np.ndarray:
        # In float32, as the Pipeline's scores are: an equal score must count as equal.
        found = [anomaly_scores(fitted, clips[i]).mean() for i in rows]
        return np.asarray(found, dtype=np.float32)

    return cross_fit(
        fit, score, np.arange(len(clips)), groups=groups, n_folds=task.folds, seed=seed
    )


def _calibrate(
    pipeline: Pipeline,
    scores: Mapping[str, Tensor],
    data: AudioDataModule,
    task: AnomalyTask,
    found: FittedDetector | None,
) -> list[Threshold]:
    """Set thresholds and normal scores, and say what they promise."""
    if task.conformal == "cross":
        assert found is not None
        n_members, n = len(found.references), len(found.references[0])
        calibration = torch.from_numpy(mean_p_calibration(n_members, n))
        thresholds = cross_thresholds(n_members, n, task.rates)
    else:
        groups = [clip.group for clip in data.val_set.clips]
        if data.splits.validation == "clip":
            groups = [None] * len(groups)
        rows = one_per_group(groups, data.seed)
        calibration = torch.from_numpy(with_room(scores["held_back"][rows].numpy()))
        thresholds = conformal_thresholds(calibration.numpy(), task.rates)
        recordings = (
            f", one of each of {len(rows)} groups counts" if len(rows) < len(groups) else ""
        )
        log.info("normal clips held back: %d%s", len(groups), recordings)
    pipeline.calibrate(calibration, {each.name: each.value for each in thresholds})
    for each in thresholds:
        log.info(
            "%s: score above %.6g; at most %.3g %% false alarms",
            each.name,
            each.value,
            100 * each.promised,
        )
        if each.note:
            log.warning("%s: %s", each.name, each.note + _remedy(each, task, data))
    return thresholds


def _remedy(threshold: Threshold, task: AnomalyTask, data: AudioDataModule) -> str:
    """How a user comes by more clips to hold back."""
    if task.conformal == "cross" or data.splits.validation == "given":
        return ""
    what = "groups of normal clips" if data.splits.validation == "group" else "normal clips"
    return f" Half are held back at most: it takes {2 * clips_needed(threshold.rate)} {what}."


def _promises(thresholds: Sequence[Threshold]) -> dict[str, Any]:
    return {
        "held_back": thresholds[-1].n,
        "thresholds": {
            each.name: {
                "score": each.value,
                "false_alarm_rate": each.rate,
                "promised_rate": each.promised,
                "note": each.note,
            }
            for each in thresholds
        },
    }


def _judge(
    scores: Tensor | None,
    data: AudioDataModule,
    thresholds: Sequence[Threshold],
    task: AnomalyTask,
    seed: int,
) -> Detection | None:
    """How well labelled anomalies are told from normal clips that nothing was fitted on."""
    if scores is None:
        return None
    machines = [clip.machine for clip in data.test_set.clips]
    groups = [clip.group for clip in data.test_set.clips]
    judged = evaluate_detection(
        scores.numpy(),
        data.test_set.targets.numpy().astype(bool),
        machines=machines if any(machine is not None for machine in machines) else None,
        # A few groups drawn again are the same ones: such an interval would have no width.
        groups=groups if group_count(data.test_set.clips) >= MIN_GROUPS else None,
        thresholds={each.name: each.value for each in thresholds},
        max_fpr=task.max_fpr,
        n_bootstrap=task.n_bootstrap,
        seed=seed,
    )
    log.info("%s", table(judged))
    return judged
