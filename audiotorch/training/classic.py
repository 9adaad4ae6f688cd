"""From recordings to a fitted scikit-learn model, judged by folds, in an exported Pipeline."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import sklearn
import skops
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from audiotorch.data.datamodule import AudioDataModule
from audiotorch.errors import ParameterError, printable
from audiotorch.features.pooling import column_names
from audiotorch.models.calibration import abstain_threshold, coverage
from audiotorch.models.classic import fit_classifier, with_settings
from audiotorch.models.evaluation import Evaluation, Fold, evaluate, leakage, table
from audiotorch.models.folds import Part, grouped_parts, stratified_parts
from audiotorch.models.importance import families, named_columns, permutation_importance
from audiotorch.models.search import search
from audiotorch.models.tensorize import ClassicModel, steady
from audiotorch.pipeline import Pipeline
from audiotorch.training.answered import class_answers
from audiotorch.training.board import board
from audiotorch.training.build import build, build_pipeline
from audiotorch.training.classic_drawings import draw_classic, draw_data
from audiotorch.training.fitted import save_classifier_run
from audiotorch.training.front import fit_features, place_features, scales
from audiotorch.training.progress import quiet
from audiotorch.training.results import clear_figures, draw, run_facts, write_results, write_text
from audiotorch.training.settings import check_count, check_number, check_sizes
from audiotorch.training.vectors import Vectors, compute_vectors

__all__ = ["ClassicTask", "train_classic"]

log = logging.getLogger(__name__)

_IMPORTANCE = ("auto", "features", "families")


@dataclass(frozen=True)
class ClassicTask:
    """How a scikit-learn model is fitted and judged.

    Args:
        folds: of the stratified cross-validation; groups have their own.
        copies: augmented versions of each clip that are fitted on as well, by `data.augment`.
        abstain: confidence below which no label is given; None always gives one.
        abstain_accuracy: instead, the accuracy that given labels shall have; the confidence is then
            chosen on the out-of-fold answers, of left-out groups where groups are known.
        importance: `features` permutes single features, `families` those together that differ in
            the number at the end, `auto` single ones where they are few; None skips it.
        search_trials: settings that Optuna tries inside each fold, and on the whole for the model
            that is handed out; 0 takes the settings as they are.

    Raises:
        ParameterError: a setting out of range, or both abstain settings.
    """

    folds: int = 5
    copies: int = 0
    abstain: float | None = None
    abstain_accuracy: float | None = None
    importance: str | None = "auto"
    search_trials: int = 0

    def __post_init__(self) -> None:
        check_count("task.folds", self.folds, 2, 1000)
        check_count("task.copies", self.copies, 0, 1000)
        check_count("task.search_trials", self.search_trials, 0, 100_000)
        if self.abstain is not None and self.abstain_accuracy is not None:
            raise ParameterError("task.abstain, task.abstain_accuracy: give one of the two")
        for name in ("abstain", "abstain_accuracy"):
            if getattr(self, name) is not None:
                check_number(f"task.{name}", getattr(self, name), 0, 1)
        if self.abstain_accuracy == 0:
            raise ParameterError("task.abstain_accuracy=0: must be above 0; null always answers")
        if self.importance is not None and self.importance not in _IMPORTANCE:
            raise ParameterError(
                f"task.importance={self.importance!r}: must be one of {', '.join(_IMPORTANCE)}, "
                "or null"
            )


def train_classic(config: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Fit, judge, test and export the scikit-learn model that a configuration describes.

    Cross-validation takes the place of a validation part: unless the table or `data.validation`
    names one, all clips but the test's are fitted on.

    Args:
        config: the composed configuration; `trainer` says where features are computed.
        run_dir: where `model.ts model.pt2 metrics.json answers.csv config.yaml checkpoints/ tb/
            figures/` go.

    Returns:
        What `metrics.json` holds: `cv/...` of stratified folds, `cv_grouped/...` of left-out
        groups, `val/...` and `test/...` of the exported model, `leakage`, `importance`.

    Raises:
        AudioTorchError: a setting or a recording is not admissible; the text says which.
    """
    start = time.perf_counter()
    task: ClassicTask = build(config.task)
    with quiet():
        L.seed_everything(config.seed, workers=True, verbose=False)
        data = _read(config)
        plain: Any = OmegaConf.to_container(config, resolve=True)
        pipeline = _front_end(plain, config, data)
        write_text(run_dir / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        parts = _vectors(pipeline, data, task, config.seed)
        scale = scales(config.model, pipeline)
        classifier = build(config.model, without=("scale", "init_from"), scale=scale)
        tune = _search(config, task, scale)
        evaluations = _judge(classifier, parts["train"], data, task, config.seed, tune)
        threshold = _threshold(evaluations[-1], task)
        classifier, settings = _tuned(classifier, parts["train"], tune)
        fitted = _fit(classifier, parts["train"], config.seed)
    pipeline.model = ClassicModel(fitted, len(data.labels))
    pipeline.cpu().eval()
    scored = {name: _score(pipeline, parts[name], name) for name in parts if name != "train"}
    found = {**_protocols(evaluations), **scored}
    metrics: dict[str, Any] = {}
    for name, evaluation in found.items():
        metrics |= _flat(name, evaluation)
    metrics["leakage"] = leakage(evaluations)
    metrics |= _abstain(pipeline, found, threshold)
    importance = _importance(fitted, classifier, parts, data, column_names(pipeline.features), task)
    metrics["importance"] = {name: list(drop) for name, drop in importance.items()}
    metrics |= {"settings": settings, "copies": task.copies}
    metrics["fixed_schedule"] = data.fixed_schedule
    metrics |= run_facts(pipeline, data)
    metrics["versions"] |= {"scikit-learn": sklearn.__version__, "skops": skops.__version__}
    metrics["seconds"] = round(time.perf_counter() - start, 1)
    save_classifier_run(run_dir / "checkpoints", fitted, pipeline, plain)
    logger, answers = board(run_dir), class_answers(found, data)
    clear_figures(run_dir / "figures")
    draw_classic(run_dir / "figures", logger, data, found, importance)
    vectors = {name: part.x for name, part in parts.items()}
    draw_data(logger, pipeline, data, answers, vectors, copies=task.copies > 0)
    write_results(run_dir, pipeline, metrics, plain, logger, answers)
    draw(run_dir / "figures", pipeline, data, metrics)
    return metrics


def _read(config: DictConfig) -> AudioDataModule:
    """Read the data, refusing what only networks have."""
    if config.ckpt_path is not None:
        raise ParameterError(
            f"ckpt_path={config.ckpt_path!r}: {config.model.name} has no epochs to resume; leave "
            "it out"
        )
    data: AudioDataModule = build(config.data)
    if data.validation is None:
        data.validation = "given"
    data.setup()
    return data


def _front_end(plain: Any, config: DictConfig, data: AudioDataModule) -> Pipeline:
    """The Pipeline whose model is still to be fitted."""
    pipeline = build_pipeline(plain, data.labels, model=nn.Identity())
    check_sizes(pipeline, data)
    fit_features(pipeline, data)
    place_features(pipeline, config.trainer)
    return pipeline


def _vectors(
    pipeline: Pipeline, data: AudioDataModule, task: ClassicTask, seed: int
) -> dict[str, Vectors]:
    """Vectors of the training clips and, where there are some, of the validation's and test's."""
    augment: Any = data.augment
    if task.copies and augment is None:
        raise ParameterError(f"task.copies={task.copies}: needs data.augment to make them")
    train = compute_vectors(pipeline, data.train_set, task.copies, augment, seed)
    if any(np.array_equal(copy, train.x) for copy in train.copies):
        raise ParameterError(
            f"task.copies={task.copies}: data.augment leaves the waveforms as they are; set "
            "gain_db, noise_snr_db, time_shift or speed; the rest is for networks"
        )
    rounded = np.split(steady(np.concatenate([train.x, *train.copies])), 1 + task.copies)
    parts = {"train": replace(train, x=rounded[0], copies=rounded[1:])}
    for name, clips in (("val", data.val_set), ("test", data.test_set)):
        if len(clips):
            parts[name] = compute_vectors(pipeline, clips)
    return parts


def _search(
    config: DictConfig, task: ClassicTask, scale: bool
) -> Callable[..., Mapping[str, Any]] | None:
    """What chooses settings on a training part, if anything does."""
    if not task.search_trials:
        return None
    name, trials, seed = config.model.name, task.search_trials, config.seed
    return partial(search, name, trials=trials, seed=seed, scale=scale)


def _judge(
    classifier: Any,
    train: Vectors,
    data: AudioDataModule,
    task: ClassicTask,
    seed: int,
    tune: Callable[..., Mapping[str, Any]] | None,
) -> list[Evaluation]:
    log.info("cross-validation of %d clips, %d numbers each", *train.x.shape)
    evaluations = evaluate(
        classifier,
        train.x,
        train.y,
        data.labels,
        groups=train.groups,
        copies=train.copies,
        n_splits=task.folds,
        seed=seed,
        tune=tune,
    )
    log.info("%s", table(evaluations))
    for note in dict.fromkeys(note for found in evaluations for note in found.notes):
        log.warning("%s", printable(note))
    if sentence := leakage(evaluations):
        log.warning("%s", sentence)
    return evaluations


def _tuned(
    classifier: Any, train: Vectors, tune: Callable[..., Mapping[str, Any]] | None
) -> tuple[Any, dict[str, Any]]:
    """The classifier with the settings that a search on all training clips chose, and these."""
    if tune is None:
        return classifier, {}
    settings = dict(tune(train.x, train.y, groups=train.groups, copies=train.copies))
    return with_settings(classifier, settings), settings


def _fit(classifier: Any, part: Vectors, seed: int) -> Any:
    return fit_classifier(
        classifier, part.x, part.y, groups=part.groups, copies=part.copies, seed=seed
    )


def _score(pipeline: Pipeline, part: Vectors, name: str) -> Evaluation:
    """What the exported model answers to clips that it was not fitted on."""
    with torch.no_grad():
        x = torch.from_numpy(part.x)
        logits = pipeline.model(x, torch.ones(len(x), dtype=torch.int64))
    answers = logits.softmax(dim=1).numpy()
    acc = float((answers.argmax(axis=1) == part.y).mean())
    folds = (Fold((name,), acc, len(part.y)),)
    return Evaluation(name, tuple(pipeline.labels), folds, answers, part.y)


def _protocols(evaluations: list[Evaluation]) -> dict[str, Evaluation]:
    """Cross-validations under the names of `metrics.json`."""
    return dict(zip(("cv", "cv_grouped"), evaluations, strict=False))


def _flat(name: str, evaluation: Evaluation) -> dict[str, Any]:
    """Figures under flat names; folds of one part tell nothing."""
    figures = evaluation.as_dict()
    left_out = () if name.startswith("cv") else ("protocol", "folds", "notes", "acc_std")
    return {f"{name}/{key}": value for key, value in figures.items() if key not in left_out}


def _threshold(judged: Evaluation, task: ClassicTask) -> float | None:
    """The confidence below which no label is given, if any."""
    if task.abstain_accuracy is None:
        return task.abstain
    try:
        return abstain_threshold(judged.probabilities, judged.targets, task.abstain_accuracy)
    except ParameterError as error:
        raise ParameterError(f"task.abstain_{error}") from error


def _abstain(
    pipeline: Pipeline, found: Mapping[str, Evaluation], threshold: float | None
) -> dict[str, Any]:
    """Let the Pipeline abstain, and say how much it then answers, and how well."""
    if threshold is None:
        return {}
    pipeline.abstain_below(threshold)
    figures: dict[str, Any] = {"abstain": threshold}
    for name, evaluation in found.items():
        given = coverage(evaluation.probabilities, evaluation.targets, threshold)
        figures |= {f"{name}/answered": given.share, f"{name}/answered_acc": given.acc}
    return figures


def _importance(
    fitted: Any,
    classifier: Any,
    parts: Mapping[str, Vectors],
    data: AudioDataModule,
    names: list[str],
    task: ClassicTask,
) -> dict[str, Any]:
    """Drops in accuracy on clips that were not fitted on, the largest first."""
    if task.importance is None:
        return {}
    single = {name: [column] for column, name in enumerate(names)}
    choices = {"auto": named_columns(names), "families": families(names), "features": single}
    held_out = parts.get("test", parts.get("val"))
    if held_out is None:
        rows, left_out = _one_fold(parts["train"], data)
        held_out = parts["train"].select(left_out)
        fitted = _fit(classifier, parts["train"].select(rows), data.seed)
    drops = permutation_importance(fitted, held_out.x, held_out.y, choices[task.importance])
    return dict(sorted(drops.items(), key=lambda item: -item[1].mean))


def _one_fold(train: Vectors, data: AudioDataModule) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to score: of unseen groups where there are some."""

    def n_classes(part: Part) -> int:
        return len(np.unique(train.y[part.train]))

    labels, seed = data.labels, data.seed
    grouped = grouped_parts(train.y, labels, train.groups, seed).parts
    parts = [part for part in grouped if n_classes(part) > 1]
    best = max(parts or stratified_parts(train.y, labels, 5, seed).parts, key=n_classes)
    return best.train, best.test
