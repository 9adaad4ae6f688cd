"""scikit-learn's classifiers on pooled vectors: built by name, and fitted."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from audiotorch.errors import ParameterError
from audiotorch.models.folds import inner_splits

__all__ = [
    "CALIBRATIONS",
    "CLASSIFIERS",
    "build_classifier",
    "check_settings",
    "check_vectors",
    "convergence_told",
    "fewer_neighbours",
    "fit_classifier",
    "uncalibrated",
    "with_settings",
]

log = logging.getLogger(__name__)

CLASSIFIERS: Mapping[str, tuple[type[BaseEstimator], dict[str, Any]]] = {
    "logistic": (LogisticRegression, {"C": 1.0, "max_iter": 500}),
    "random_forest": (RandomForestClassifier, {"n_estimators": 100}),
    "gradient_boost": (GradientBoostingClassifier, {"n_estimators": 100}),
    "svm": (SVC, {"C": 10.0, "kernel": "rbf", "gamma": "scale"}),
    "extra_trees": (ExtraTreesClassifier, {"n_estimators": 300}),
    "hist_gradient_boost": (HistGradientBoostingClassifier, {}),
    # A tree of neighbours, which scikit-learn takes for short vectors, cannot be stored safely.
    "knn": (KNeighborsClassifier, {"n_neighbors": 5, "algorithm": "brute"}),
}
"""Classes and the settings in which they differ from scikit-learn's defaults; seeds come on top."""

CALIBRATIONS = ("sigmoid", "isotonic", "temperature")


def build_classifier(
    name: str,
    *,
    scale: bool = True,
    seed: int = 42,
    calibration: str | None = None,
    **settings: Any,
) -> Pipeline:
    """Build an unfitted scikit-learn Pipeline: a scaler, then the classifier.

    A calibrated classifier comes inside `CalibratedClassifierCV(ensemble=False)`, which learns on
    inner folds how far its probabilities can be believed. An SVM, which has none of its own, always
    does.

    Args:
        name: `logistic`, `random_forest`, `gradient_boost`, `svm`, `extra_trees`,
            `hist_gradient_boost` or `knn`.
        scale: put a StandardScaler in front; False for vectors that are normalised already.
        seed: `random_state`, where the classifier has one.
        calibration: `sigmoid`, `isotonic` (for a thousand clips and more), `temperature`, or None:
            the classifier's own probabilities, a sigmoid for `svm`.
        settings: of the classifier, in scikit-learn's names.

    Returns:
        A Pipeline with the steps `scaler` (if any) and `classifier`.

    Raises:
        ParameterError: an unknown name, calibration or setting.
    """
    if name not in CLASSIFIERS:
        raise ParameterError(f"classifier={name!r}: must be one of {', '.join(CLASSIFIERS)}")
    if calibration not in (None, *CALIBRATIONS):
        raise ParameterError(
            f"calibration={calibration!r}: must be one of {', '.join(CALIBRATIONS)}, or None"
        )
    kind, defaults = CLASSIFIERS[name]
    known = check_settings(name, kind, settings)
    seeded = {"random_state": seed} if "random_state" in known else {}
    classifier = kind(**{**defaults, **seeded, **settings})
    if name == "svm" or calibration is not None:
        method = calibration or "sigmoid"
        classifier = CalibratedClassifierCV(classifier, method=method, ensemble=False)
    scaler = [("scaler", StandardScaler())] if scale else []
    return Pipeline([*scaler, ("classifier", classifier)])


def check_settings(
    name: str, kind: type[BaseEstimator], settings: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Refuse settings that an estimator does not have, and return those that it has.

    Args:
        name: of the estimator, for the message.
        kind: its class.
        settings: in scikit-learn's names.

    Raises:
        ParameterError: an unknown one.
    """
    known: Mapping[str, Any] = kind().get_params()
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ParameterError(
            f"{name}: has no setting {unknown[0]!r}; must be one of {', '.join(sorted(known))}"
        )
    return known


def fit_classifier(
    classifier: BaseEstimator,
    x: np.ndarray,
    y: np.ndarray,
    *,
    groups: Sequence[str | None] | None = None,
    copies: Sequence[np.ndarray] = (),
    seed: int = 42,
    notes: list[str] | None = None,
) -> Any:
    """Clone a classifier and fit it.

    The inner folds of a calibration keep a group, or else a clip with all its copies, on one side,
    so that probabilities are judged on what was not fitted. Without groups and copies they are
    scikit-learn's own five. There are fewer where a class has few groups or clips.

    Args:
        classifier: from `build_classifier`, or another classifier of scikit-learn's.
        x: vectors, `(n, d)`, float64.
        y: classes, `(n,)`, int.
        groups: speaker, recording or machine of each clip; a clip with None is alone in its group.
        copies: augmented versions of the same clips, `(n, d)` each, which are fitted on as well.
        seed: of the inner folds' choice of groups.
        notes: receives what the user has to know, one sentence each; None logs it as warnings.

    Raises:
        ParameterError: vectors that are not finite, shapes that do not fit, fewer than two classes,
            or settings that scikit-learn refuses.
    """
    check_vectors(x, y, groups, copies)
    if len(np.unique(y)) < 2:
        raise ParameterError("y: holds one class only; give clips of at least two")
    rows, targets = np.concatenate([x, *copies]), np.tile(y, 1 + len(copies))
    fitted = clone(classifier)
    told: list[str] = []
    n_fitted = len(rows)
    calibrator = _last(fitted)
    calibrated = isinstance(calibrator, CalibratedClassifierCV)
    if calibrated:
        folds = calibrator.cv
        splits, told = inner_splits(y, groups, n_copies=len(copies), seed=seed)
        calibrator.set_params(cv=splits)
        n_fitted = min(len(train) for train, _ in splits)
    told += fewer_neighbours(fitted, n_fitted)
    try:
        with convergence_told(
            told,
            "the classifier stopped before it converged: raise max_iter, lower C, or scale the "
            "vectors",
        ):
            fitted.fit(rows, targets)
    except (ValueError, RuntimeError) as error:
        raise ParameterError(f"{_name(fitted)} cannot be fitted: {error}") from error
    if calibrated:
        # Row numbers are of no use to a stored classifier, and wrong for a clone's other clips.
        calibrator.set_params(cv=folds)
    if notes is not None:
        notes += told
    else:
        for note in told:
            log.warning("%s", note)
    return fitted


def uncalibrated(classifier: BaseEstimator) -> Any:
    """Return a clone without calibration: of an SVM, answers only.

    Args:
        classifier: from `build_classifier`.
    """
    bare = clone(classifier)
    if isinstance(_last(bare), CalibratedClassifierCV):
        bare.set_params(classifier=_last(bare).estimator)
    return bare


def with_settings(classifier: BaseEstimator, settings: Mapping[str, Any]) -> Any:
    """Return a clone with other settings.

    Args:
        classifier: from `build_classifier`.
        settings: of the classifier itself, as `build_classifier` takes them.
    """
    changed = clone(classifier)
    _innermost(changed).set_params(**settings)
    return changed


def check_vectors(
    x: np.ndarray,
    y: np.ndarray,
    groups: Sequence[str | None] | None = None,
    copies: Sequence[np.ndarray] = (),
) -> None:
    """Refuse what no classifier can be fitted on.

    Args:
        x: vectors, `(n, d)`.
        y: classes, `(n,)`.
        groups: group of each clip, or None.
        copies: further vectors of the same clips.

    Raises:
        ParameterError: shapes that do not fit, classes that are not counted from 0, or a row with
            values that are not finite.
    """
    if x.ndim != 2 or not x.size or y.shape != (len(x),):
        raise ParameterError(
            f"x has shape {x.shape}, y {y.shape}: need (n, d) and (n,), with at least one row"
        )
    if y.dtype.kind not in "iu" or y.min() < 0:
        raise ParameterError(f"y: must hold whole numbers from 0, has dtype {y.dtype}")
    if groups is not None and len(groups) != len(x):
        raise ParameterError(f"groups: {len(groups)} for {len(x)} rows; need one a row, or None")
    for i, part in enumerate([x, *copies]):
        name = f"copies[{i - 1}]" if i else "x"
        if part.shape != x.shape:
            raise ParameterError(f"{name} has shape {part.shape}: must be {x.shape} as x")
        bad = np.argwhere(~np.isfinite(part))
        if len(bad):
            row, column = bad[0]
            raise ParameterError(
                f"{name}: row {row} holds {part[row, column]} in column {column}; leave that clip "
                "out, or check its audio"
            )


def _last(classifier: Any) -> Any:
    return classifier[-1] if isinstance(classifier, Pipeline) else classifier


def _innermost(classifier: Any) -> Any:
    last = _last(classifier)
    return last.estimator if isinstance(last, CalibratedClassifierCV) else last


def _name(classifier: Any) -> str:
    return type(_innermost(classifier)).__name__


def fewer_neighbours(estimator: Any, n_fitted: int) -> list[str]:
    """Ask no more neighbours than there are rows, which scikit-learn refuses only at the answer.

    Args:
        estimator: about to be fitted; one without neighbours stays as it is.
        n_fitted: number of rows.

    Returns:
        What the user has to know of it.
    """
    neighbours = _innermost(estimator)
    wanted = neighbours.get_params().get("n_neighbors")
    if not isinstance(wanted, int) or wanted <= n_fitted:
        return []
    neighbours.set_params(n_neighbors=n_fitted)
    return [f"n_neighbors={n_fitted} instead of {wanted}: there are no more rows to fit on"]


@contextmanager
def convergence_told(notes: list[str], note: str) -> Iterator[None]:
    """Turn any number of convergence warnings into one note; let others pass.

    Args:
        notes: receives it.
        note: what happened, and the remedy.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield
    others = [w for w in caught if not issubclass(w.category, ConvergenceWarning)]
    if len(others) < len(caught):
        notes.append(note)
    for other in others:
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
