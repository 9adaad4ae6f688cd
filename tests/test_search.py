import builtins
from functools import partial

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score

from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.models.classic import CLASSIFIERS, build_classifier
from audiotorch.models.evaluation import evaluate
from audiotorch.models.search import SPACES, search

pytest.importorskip("optuna", reason="the extra sweep is missing")


@pytest.fixture(scope="module")
def clips() -> tuple[np.ndarray, np.ndarray, list[str]]:
    x, y = make_classification(60, 8, n_informative=4, n_classes=2, class_sep=0.6, random_state=1)
    return x, y, [f"speaker {i % 5}" for i in range(60)]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_has_a_space(name, clips, capfd, caplog):
    x, y, groups = clips
    fixed = {"n_estimators": 5} if "n_estimators" in CLASSIFIERS[name][0]().get_params() else {}
    if name == "hist_gradient_boost":
        fixed = {"max_iter": 5}
    found = search(name, x, y, groups=groups, trials=3, **fixed)
    assert set(found) == set(SPACES[name]) - set(fixed)
    assert found == search(name, x, y, groups=groups, trials=3, **fixed)
    build_classifier(name, **found, **fixed)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


def test_what_is_found_is_the_best_on_grouped_folds(clips):
    x, y, groups = clips
    folds = list(StratifiedGroupKFold(3, shuffle=True, random_state=42).split(x, y, groups))

    def score(**settings) -> float:
        return cross_val_score(build_classifier("knn", **settings), x, y, cv=folds).mean()

    found = search("knn", x, y, groups=groups, trials=15, weights="uniform")
    assert score(**found) > score()
    assert search("knn", x, y, groups=groups, trials=1) == {"n_neighbors": 5, "weights": "uniform"}
    assert search("knn", x, y, trials=1, n_neighbors=3, weights="distance") == {}


def test_gamma_is_found_in_units_of_the_vectors(clips):
    x, y, _ = clips
    assert search("svm", 100 * x, y, trials=1)["gamma"] == pytest.approx(1 / 8)
    found = search("svm", 100 * x, y, trials=1, scale=False)["gamma"]
    assert found == pytest.approx(1 / (8 * (100 * x).var()))


def test_a_nested_search_never_sees_the_held_out_fold(clips):
    x, y, groups = clips
    seen = []

    def tune(x, y, *, groups, copies):
        seen.append((x, groups, copies))
        return search("knn", x, y, groups=groups, copies=copies, trials=2)

    evaluations = evaluate(
        build_classifier("knn"), x, y, ["no", "yes"], groups=groups, copies=[x + 0.01], tune=tune
    )
    for number, speaker in enumerate(sorted(set(groups)), 5):
        rows, known, copies = seen[number]
        assert speaker not in known
        assert len(rows) == len(known) == 48
        np.testing.assert_array_equal(copies[0], rows + 0.01)
    assert all(known is None for _, known, _ in seen[:5])
    for fold in evaluations[1].as_dict()["folds"]:
        assert set(fold["settings"]) == {"n_neighbors", "weights"}
    again = evaluate(
        build_classifier("knn"), x, y, ["no", "yes"], tune=partial(search, "knn", trials=2)
    )
    assert len(again) == 1


def test_wrong_use_and_a_missing_optuna(clips, monkeypatch):
    x, y, _ = clips
    with pytest.raises(ParameterError, match="trials=0"):
        search("knn", x, y, trials=0)
    with pytest.raises(ParameterError, match="classifier='tree': must be one of"):
        search("tree", x, y)
    with pytest.raises(ParameterError, match="KNeighborsClassifier cannot be fitted"):
        search("knn", x, y, trials=2, metric="taxi")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'audiotorch\[sweep\]'"):
        search("knn", x, y)
