"""scikit-learn's classifiers on pooled vectors, by name."""

from collections.abc import Mapping
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from audiotorch.errors import ParameterError

__all__ = ["CLASSIFIERS", "build_classifier"]

CLASSIFIERS: Mapping[str, tuple[type[BaseEstimator], dict[str, Any]]] = {
    "logistic": (LogisticRegression, {"C": 1.0, "max_iter": 500}),
    "random_forest": (RandomForestClassifier, {"n_estimators": 100}),
    "gradient_boost": (GradientBoostingClassifier, {"n_estimators": 100}),
    "svm": (SVC, {"C": 10.0, "kernel": "rbf", "gamma": "scale"}),
    "extra_trees": (ExtraTreesClassifier, {"n_estimators": 300}),
    "hist_gradient_boost": (HistGradientBoostingClassifier, {}),
    "knn": (KNeighborsClassifier, {"n_neighbors": 5}),
}
"""Classes and the settings in which they differ from scikit-learn's defaults; seeds come on top."""


def build_classifier(name: str, *, scale: bool = True, seed: int = 42, **settings: Any) -> Pipeline:
    """Build an unfitted scikit-learn Pipeline: a scaler, then the classifier.

    An SVM, which has no probabilities of its own, comes inside
    `CalibratedClassifierCV(ensemble=False)`, which fits a sigmoid on five inner folds.

    Args:
        name: `logistic`, `random_forest`, `gradient_boost`, `svm`, `extra_trees`,
            `hist_gradient_boost` or `knn`.
        scale: put a StandardScaler in front; False for vectors that are normalised already.
        seed: `random_state`, where the classifier has one.
        settings: of the classifier, in scikit-learn's names.

    Returns:
        A Pipeline with the steps `scaler` (if any) and `classifier`.

    Raises:
        ParameterError: an unknown name or setting.
    """
    if name not in CLASSIFIERS:
        raise ParameterError(f"classifier={name!r}: must be one of {', '.join(CLASSIFIERS)}")
    kind, defaults = CLASSIFIERS[name]
    known = kind().get_params()
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ParameterError(
            f"{name}: has no setting {unknown[0]!r}; must be one of {', '.join(sorted(known))}"
        )
    seeded = {"random_state": seed} if "random_state" in known else {}
    classifier = kind(**{**defaults, **seeded, **settings})
    if name == "svm":
        classifier = CalibratedClassifierCV(classifier, ensemble=False)
    scaler = [("scaler", StandardScaler())] if scale else []
    return Pipeline([*scaler, ("classifier", classifier)])
