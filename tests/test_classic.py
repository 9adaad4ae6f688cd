import logging

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from audiotorch.errors import ParameterError
from audiotorch.models.classic import (
    CLASSIFIERS,
    build_classifier,
    check_vectors,
    fit_classifier,
    uncalibrated,
    with_settings,
)
from audiotorch.models.folds import inner_splits

QUICK = {
    "random_forest": {"n_estimators": 10},
    "extra_trees": {"n_estimators": 10},
    "gradient_boost": {"n_estimators": 5},
    "hist_gradient_boost": {"max_iter": 5},
}


def vectors(n: int = 90, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return make_classification(
        n, 12, n_informative=6, n_classes=n_classes, class_sep=1.5, random_state=3
    )


# --- building -------------------------------------------------------------------------------------


def test_calibration_goes_around_the_classifier():
    assert isinstance(build_classifier("knn")[-1], CLASSIFIERS["knn"][0])
    assert build_classifier("svm")[-1].method == "sigmoid"
    for method in ("sigmoid", "isotonic", "temperature"):
        for name in CLASSIFIERS:
            last = build_classifier(name, calibration=method)[-1]
            assert isinstance(last, CalibratedClassifierCV)
            assert (last.method, last.ensemble) == (method, False)
    with pytest.raises(ParameterError, match="calibration='platt': must be one of sigmoid"):
        build_classifier("svm", calibration="platt")
    with pytest.raises(ParameterError, match="svm: has no setting 'c'"):
        build_classifier("svm", c=1.0)
    with pytest.raises(ParameterError, match="classifier='forest': must be one of logistic"):
        build_classifier("forest")


def test_settings_reach_the_classifier_inside_a_calibration():
    changed = with_settings(build_classifier("svm"), {"C": 3.0})
    assert changed[-1].estimator.C == 3.0
    assert with_settings(build_classifier("knn"), {"n_neighbors": 2})[-1].n_neighbors == 2
    assert isinstance(uncalibrated(build_classifier("svm"))[-1], SVC)


# --- fitting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_fits_as_scikit_learn_does(name):
    x, y = vectors()
    classifier = build_classifier(name, **QUICK.get(name, {}))
    expected = clone(classifier).fit(x, y).predict_proba(x)
    notes = []
    fitted = fit_classifier(classifier, x, y, notes=notes)
    np.testing.assert_array_equal(fitted.predict_proba(x), expected)
    assert notes == []
    assert not hasattr(classifier[-1], "classes_")


def test_calibration_keeps_groups_on_one_side():
    x, y = vectors()
    groups = [f"speaker {i % 6}" for i in range(len(y))]
    fitted = fit_classifier(build_classifier("svm"), x, y, groups=groups, seed=7)
    splits = inner_splits(y, groups, seed=7)[0]
    for train, test in splits:
        assert not {groups[i] for i in train} & {groups[i] for i in test}
        assert set(y[train]) == {0, 1, 2}
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(len(y)))
    svm = SVC(C=10.0, gamma="scale", random_state=42)
    expected = make_pipeline(
        StandardScaler(), CalibratedClassifierCV(svm, ensemble=False, cv=splits)
    ).fit(x, y)
    np.testing.assert_array_equal(fitted.predict_proba(x), expected.predict_proba(x))
    assert fitted[-1].cv is None  # a clone can be fitted on other clips
    clone(fitted).fit(x[:60], y[:60])


def test_copies_train_on_the_side_of_their_clip():
    x, y = vectors()
    copies = [x + 0.1, x - 0.1]
    splits, notes = inner_splits(y, n_copies=2)
    assert notes == []
    for (train, test), (clips, held_out) in zip(
        splits, StratifiedKFold(5).split(x, y), strict=True
    ):
        assert sorted(set(train % len(y))) == sorted(clips)
        assert sorted(set(test % len(y))) == sorted(held_out)
        assert len(train) == 3 * len(clips)
    fitted = fit_classifier(build_classifier("logistic"), x, y, copies=copies)
    expected = build_classifier("logistic").fit(np.concatenate([x, *copies]), np.tile(y, 3))
    np.testing.assert_array_equal(fitted.predict_proba(x), expected.predict_proba(x))
    fit_classifier(build_classifier("svm"), x, y, copies=copies, groups=["a", "b", "c"] * 30)


@pytest.mark.parametrize("calibration", [None, "sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_fits_on_very_few_clips(name, calibration):
    classifier = build_classifier(name, calibration=calibration, **QUICK.get(name, {}))
    x = np.random.default_rng(0).normal(size=(3, 4))
    for y in ([0, 1, 0], [0, 1, 2], [2, 0, 2]):
        notes = []
        fitted = fit_classifier(classifier, x, np.array(y), groups=["a", "a", "b"], notes=notes)
        p = fitted.predict_proba(x)
        assert p.shape == (3, len(set(y)))
        np.testing.assert_allclose(p.sum(axis=1), 1.0)
        assert (len(notes) > 0) == (name in ("svm", "knn") or calibration is not None)


def test_groups_that_cannot_be_parted_are_told(caplog):
    x, y = vectors(40, 2)
    with caplog.at_level(logging.WARNING):
        fit_classifier(build_classifier("svm"), x, y, groups=[f"machine {k}" for k in y])
    assert "inner folds by clip" in caplog.text
    # Class 1 is in two of three groups: whole groups can be parted, into three folds at most.
    groups = ["a" if k == 0 and i % 2 else "bc"[i // 2 % 2] for i, k in enumerate(y)]
    splits, notes = inner_splits(y, groups)
    assert (len(splits), notes) == (3, [])
    assert all(set(y[train]) == {0, 1} for train, _ in splits)


def test_convergence_is_told_once(caplog):
    x, y = vectors()
    classifier = build_classifier("logistic", calibration="sigmoid", max_iter=2)
    with caplog.at_level(logging.WARNING):
        fit_classifier(classifier, 100 * x, y)
    assert len(caplog.records) == 1
    assert "raise max_iter" in caplog.text
    with pytest.warns(ConvergenceWarning):
        LogisticRegression(max_iter=2).fit(100 * x, y)


def test_constant_columns_and_more_columns_than_clips():
    x = np.random.default_rng(0).normal(size=(20, 500))
    x[:, ::3] = 0.1
    y = np.arange(20) % 2
    for name in CLASSIFIERS:
        fitted = fit_classifier(build_classifier(name, **QUICK.get(name, {})), x, y, notes=[])
        assert np.isfinite(fitted.predict_proba(x)).all()


def test_wrong_vectors_are_refused_by_name():
    x, y = vectors()
    bad = x.copy()
    bad[7, 2] = np.nan
    with pytest.raises(ParameterError, match="x: row 7 holds nan in column 2"):
        fit_classifier(build_classifier("knn"), bad, y)
    bad[7, 2] = np.inf
    with pytest.raises(ParameterError, match=r"copies\[1\]: row 7 holds inf"):
        fit_classifier(build_classifier("knn"), x, y, copies=[x, bad])
    with pytest.raises(ParameterError, match=r"copies\[0\] has shape \(89, 12\)"):
        fit_classifier(build_classifier("knn"), x, y, copies=[x[1:]])
    with pytest.raises(ParameterError, match="groups: 3 for 90 rows"):
        fit_classifier(build_classifier("knn"), x, y, groups=["a"] * 3)
    with pytest.raises(ParameterError, match="one class only"):
        fit_classifier(build_classifier("knn"), x, np.zeros_like(y))
    with pytest.raises(ParameterError, match=r"SVC cannot be fitted: .*'C'"):
        fit_classifier(build_classifier("svm", C=-1.0), x, y)
    for wrong in (y[1:], y.astype(float), y - 1):
        with pytest.raises(ParameterError, match=r"^(x has|y:)"):
            check_vectors(x, wrong)
