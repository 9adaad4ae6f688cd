"""A classifier's settings, chosen on inner folds of the training clips."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.models.classic import (
    CLASSIFIERS,
    build_classifier,
    check_vectors,
    fit_classifier,
    uncalibrated,
    with_settings,
)
from audiotorch.models.folds import inner_splits

__all__ = ["SPACES", "search"]

SPACES: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "logistic": {"C": ("log", 1e-3, 1e2)},
    "random_forest": {
        "max_features": ("sqrt", "log2", 0.1, 0.3),
        "min_samples_leaf": ("int", 1, 8),
        "criterion": ("gini", "entropy"),
    },
    "gradient_boost": {
        "learning_rate": ("log", 0.02, 0.3),
        "n_estimators": ("int", 50, 200),
        "max_depth": ("int", 1, 5),
        "subsample": ("float", 0.5, 1.0),
    },
    "svm": {"C": ("log", 0.1, 1e3), "gamma": ("log", 0.05, 20.0)},
    "extra_trees": {
        "max_features": ("sqrt", "log2", 0.1, 0.3),
        "min_samples_leaf": ("int", 1, 8),
        "criterion": ("gini", "entropy"),
    },
    "hist_gradient_boost": {
        "learning_rate": ("log", 0.02, 0.3),
        "max_iter": ("int", 50, 200),
        "max_leaf_nodes": ("int", 4, 63),
        "min_samples_leaf": ("int", 5, 40),
        "l2_regularization": ("float", 0.0, 10.0),
    },
    "knn": {"n_neighbors": ("int", 1, 25), "weights": ("uniform", "distance")},
}
"""What is searched: ranges of whole (`int`), evenly (`float`) or geometrically (`log`) spaced
numbers, or choices. `gamma` of an SVM is in units of scikit-learn's `scale`, 1 / (d * variance).
The number of a forest's trees is not among them: more are never worse, only slower."""

_RANGES = ("int", "float", "log")


def search(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    *,
    groups: Sequence[str | None] | None = None,
    copies: Sequence[np.ndarray] = (),
    trials: int = 20,
    n_splits: int = 3,
    seed: int = 42,
    scale: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Search a classifier's settings with Optuna, by accuracy on inner folds.

    The first trial has the default settings, so that on the inner folds none worse are chosen. The
    folds keep groups apart where groups are known. What was chosen here flatters the clips given:
    to judge it, let `evaluate` search inside each of its folds,
    `evaluate(..., tune=functools.partial(search, name))`.

    Args:
        name: of the classifier, as for `build_classifier`.
        x: vectors, `(n, d)`, float64.
        y: classes, `(n,)`, int.
        groups: speaker, recording or machine of each clip.
        copies: augmented versions of the same clips, fitted on and never scored.
        trials: settings tried; each is fitted `n_splits` times.
        n_splits: inner folds.
        seed: of the trials, the folds and the classifier.
        scale: as for `build_classifier`.
        settings: of the classifier, which are kept as they are given.

    Returns:
        The settings found, in scikit-learn's names, without the given ones: for
        `build_classifier(name, **found)`.

    Raises:
        ParameterError: an unknown name, fewer than one trial, or as `fit_classifier`.
        MissingDependencyError: Optuna is not installed.
    """
    check_vectors(x, y, groups, copies)
    bare = uncalibrated(build_classifier(name, scale=scale, seed=seed, **settings))
    if trials < 1 or n_splits < 2:
        raise ParameterError(
            f"trials={trials}, n_splits={n_splits}: must be at least 1 and at least 2"
        )
    space = {key: value for key, value in SPACES[name].items() if key not in settings}
    if not space:
        return {}
    # Scaled columns have a variance of 1.
    unit = 1.0 / (x.shape[1] * (1.0 if scale else max(float(x.var()), 1e-12)))
    splits = inner_splits(y, groups, n_splits=n_splits, seed=seed)[0]

    def accuracy(trial: Any) -> float:
        chosen = {key: _suggest(trial, key, of) for key, of in space.items()}
        classifier = with_settings(bare, _in_units(chosen, unit))
        hits = []
        for train, test in splits:
            rows = [copy[train] for copy in copies]
            fitted = fit_classifier(classifier, x[train], y[train], copies=rows, notes=[])
            hits.append(float(np.mean(fitted.predict(x[test]) == y[test])))
        return float(np.mean(hits))

    with _quiet_optuna() as optuna:
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed)
        )
        study.enqueue_trial(_defaults(name, space))
        study.optimize(accuracy, n_trials=trials)
    return _in_units(study.best_params, unit)


def _suggest(trial: Any, key: str, of: Sequence[Any]) -> Any:
    if of[0] == "int":
        return trial.suggest_int(key, of[1], of[2])
    if of[0] in _RANGES:
        return trial.suggest_float(key, of[1], of[2], log=of[0] == "log")
    return trial.suggest_categorical(key, list(of))


def _in_units(chosen: Mapping[str, Any], unit: float) -> dict[str, Any]:
    """An SVM's gamma in scikit-learn's own units."""
    return {key: value * unit if key == "gamma" else value for key, value in chosen.items()}


def _defaults(name: str, space: Mapping[str, Any]) -> dict[str, Any]:
    kind, ours = CLASSIFIERS[name]
    known = {**kind().get_params(), **ours, "gamma": 1.0}
    return {key: known[key] for key in space}


@contextmanager
def _quiet_optuna() -> Iterator[Any]:
    """Optuna without its lines for each trial and its warnings of what may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import optuna
        except ImportError as error:
            raise MissingDependencyError(
                "a search over settings needs Optuna: pip install 'audiotorch[sweep]'"
            ) from error
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            yield optuna
        finally:
            optuna.logging.set_verbosity(level)
