import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import table
from contract import run_on_fake_cuda, scripted
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline as SklearnPipeline
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from torch import Tensor

import audiotorch as at
from audiotorch.errors import ParameterError
from audiotorch.features import (
    MFCCStatistics,
    SpectrogramImage,
    StatisticsPooling,
    SummaryVector,
)
from audiotorch.models import ClassicModel, steady, tensorize
from audiotorch.models.classic import CLASSIFIERS, build_classifier

# Both sides compute in float64; an SVM's sums of a hundred kernels differ in the order.
TOLERANCE = 1e-9
# The Pipeline takes the softmax in float32.
SINGLE = 1e-6
N_FEATURES = 12


def scaled(*steps: Any) -> SklearnPipeline:
    return make_pipeline(StandardScaler(), *steps)


def forest(**settings: Any) -> RandomForestClassifier:
    return RandomForestClassifier(**{"n_estimators": 15, "random_state": 0, **settings})


def boosted(**settings: Any) -> GradientBoostingClassifier:
    return GradientBoostingClassifier(**{"n_estimators": 6, "random_state": 0, **settings})


def hist(**settings: Any) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(**{"max_iter": 6, "min_samples_leaf": 5, **settings})


def calibrated(inner: Any, method: str = "sigmoid", **settings: Any) -> CalibratedClassifierCV:
    settings = {"ensemble": False, "cv": 3, **settings}
    return CalibratedClassifierCV(inner, method=method, **settings)


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: scaled(LogisticRegression(max_iter=500)),
    "no intercept": lambda: scaled(LogisticRegression(fit_intercept=False)),
    "logistic alone": lambda: LogisticRegression(max_iter=50),
    "PCA": lambda: scaled(PCA(5), LogisticRegression(max_iter=500)),
    "PCA in a step": lambda: make_pipeline(scaled(PCA(5)), scaled(forest())),
    "whitened PCA": lambda: make_pipeline(PCA(5, whiten=True), LogisticRegression(max_iter=500)),
    "half a scaler": lambda: make_pipeline(StandardScaler(with_std=False), forest()),
    "other half": lambda: make_pipeline(StandardScaler(with_mean=False), forest()),
    "idle steps": lambda: make_pipeline("passthrough", None, scaled("passthrough", forest())),
    "SVM": lambda: scaled(calibrated(SVC(C=10))),
    "SVM, pairs": lambda: scaled(calibrated(SVC(C=10, decision_function_shape="ovo"))),
    "linear SVM": lambda: scaled(calibrated(SVC(kernel="linear"))),
    "polynomial SVM": lambda: scaled(calibrated(SVC(kernel="poly", degree=2, coef0=1.0))),
    "sigmoid SVM": lambda: scaled(calibrated(SVC(kernel="sigmoid", gamma=0.02))),
    "weighted SVM": lambda: scaled(calibrated(SVC(class_weight="balanced", gamma=0.1))),
    "SVM, isotonic": lambda: scaled(calibrated(SVC(), "isotonic")),
    "SVM, temperature": lambda: scaled(calibrated(SVC(), "temperature")),
    "SVM, several": lambda: scaled(calibrated(SVC(), ensemble=True)),
    "forest, sigmoid": lambda: calibrated(forest()),
    "forest, isotonic": lambda: calibrated(forest(), "isotonic", ensemble=True),
    "forest, temperature": lambda: calibrated(forest(), "temperature"),
    "booster, isotonic": lambda: calibrated(boosted(), "isotonic"),
    "inner scaler, temperature": lambda: calibrated(scaled(LogisticRegression()), "temperature"),
    "neighbours": lambda: scaled(KNeighborsClassifier(5)),
    "near neighbours": lambda: scaled(KNeighborsClassifier(5, weights="distance")),
    "in a tree": lambda: scaled(KNeighborsClassifier(4, weights=None, algorithm="kd_tree")),
    "in blocks": lambda: scaled(KNeighborsClassifier(3, p=1, metric="manhattan")),
    "by the widest side": lambda: scaled(KNeighborsClassifier(5, metric="chebyshev")),
    "by angle": lambda: scaled(KNeighborsClassifier(5, metric="cosine", weights="distance")),
    "decision tree": lambda: DecisionTreeClassifier(random_state=0),
    "shallow tree": lambda: DecisionTreeClassifier(max_depth=2, random_state=0),
    "no tree": lambda: DecisionTreeClassifier(max_depth=1, min_samples_leaf=99),
    "random tree": lambda: ExtraTreeClassifier(random_state=0),
    "forest": lambda: scaled(forest()),
    "weighted forest": lambda: scaled(forest(class_weight="balanced", min_samples_leaf=5)),
    "extra trees": lambda: scaled(ExtraTreesClassifier(15, random_state=0)),
    "booster": lambda: scaled(boosted()),
    "booster from zero": lambda: scaled(boosted(init="zero", subsample=0.5)),
    "hist booster": lambda: scaled(hist()),
    "vote": lambda: VotingClassifier(
        [("a", forest()), ("b", scaled(LogisticRegression())), ("c", "drop")],
        voting="soft",
        weights=[2, 1, 5],
    ),
}
# What scikit-learn computes in float32, since its boosters hand vectors on so.
STARTS = {"booster, another start": lambda: scaled(boosted(init=LogisticRegression(max_iter=500)))}
# Two classes are another matter where one column stands for both.
CASES = [(name, 3) for name in (*ESTIMATORS, *STARTS)] + [
    (name, 2)
    for name in (
        "logistic",
        "SVM",
        "linear SVM",
        "SVM, isotonic",
        "SVM, temperature",
        "forest, temperature",
        "booster, isotonic",
        "booster",
        "hist booster",
        "booster, another start",
    )
]


def vectors(n_classes: int, n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors that float32 holds, columns of very different spread, classes that overlap."""
    centres = np.random.default_rng(n_classes).normal(size=(n_classes, N_FEATURES))
    generator = np.random.default_rng(seed)
    target = np.arange(n) % n_classes
    x = centres[target] + generator.normal(size=(n, N_FEATURES))
    x = x * np.geomspace(0.01, 100.0, N_FEATURES) + np.linspace(-5.0, 50.0, N_FEATURES)
    return x.astype(np.float32).astype(np.float64), target


@functools.cache
def fit(name: str, n_classes: int) -> Any:
    with warnings.catch_warnings():
        # scikit-learn's note that pairs and methods change; the answers are compared all the same.
        warnings.simplefilter("ignore")
        return {**ESTIMATORS, **STARTS}[name]().fit(*vectors(n_classes))


def frames(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.int64)


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("name", [*ESTIMATORS, *STARTS])
def test_gives_what_sklearn_gives(name, n_classes):
    fitted = fit(name, n_classes)
    x = vectors(n_classes, 200, seed=1)[0]
    expected = fitted.predict_proba(x)
    module = tensorize(fitted)
    tolerance = 1e-6 if name in STARTS else TOLERANCE
    for dtype in (torch.float64, torch.float32):
        answer = module(torch.from_numpy(x).to(dtype))
        assert answer.dtype == torch.float64
        np.testing.assert_allclose(answer.numpy(), expected, atol=tolerance, rtol=0)
    model = ClassicModel(fitted)
    logs = model(torch.from_numpy(x).float(), frames(x))
    assert logs.dtype == torch.float32
    found = logs.softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=SINGLE, rtol=0)
    assert (found.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize(("name", "n_classes"), CASES)
def test_scripted_batched_and_broken(name, n_classes):
    model = ClassicModel(fit(name, n_classes), 5)
    x = torch.from_numpy(vectors(n_classes, 20, seed=1)[0])
    expected = model(x, frames(x))
    file = scripted(model)
    torch.testing.assert_close(file(x, frames(x)), expected, atol=1e-12, rtol=0)
    assert file.explains == model.explains
    for i in range(3):
        alone = model(x[i : i + 1], frames(x[:1]))
        torch.testing.assert_close(alone[0], expected[i], atol=1e-9, rtol=0)
    broken = x.clone()
    broken[4, 2] = torch.nan
    others = torch.arange(len(x)) != 4
    for either in (model, file):
        answer = either(broken, frames(x))
        assert answer[4].isnan().all()
        torch.testing.assert_close(answer[others], expected[others], atol=1e-12, rtol=0)


@pytest.mark.parametrize(("name", "n_classes"), CASES)
def test_runs_on_fake_cuda(name, n_classes):
    model = ClassicModel(fit(name, n_classes))
    x = torch.from_numpy(vectors(n_classes, 7)[0])
    assert run_on_fake_cuda(model, x, frames(x)).shape == (7, n_classes)


@pytest.mark.parametrize(
    "name",
    ["PCA", "SVM", "SVM, isotonic", "near neighbours", "by angle", "forest", "hist booster"],
)
def test_exported_program_takes_any_batch(name):
    model = ClassicModel(fit(name, 3), 4).eval()
    x = torch.from_numpy(vectors(3, 30, seed=1)[0]).float()
    batch = {0: torch.export.Dim.AUTO}
    example = (x[:3], frames(x[:3]))
    program = torch.export.export(model, example, dynamic_shapes=(batch, batch)).module()
    for n in (1, 2, 30):
        answer = program(x[:n], frames(x[:n]))
        torch.testing.assert_close(answer, model(x[:n], frames(x[:n])), atol=1e-6, rtol=0)


def test_constants_stay_in_float64_and_in_the_state():
    x = torch.from_numpy(vectors(3, 50, seed=1)[0]).float()
    for name in ("forest", "SVM", "booster"):
        model = ClassicModel(fit(name, 3))
        expected = model(x, frames(x))
        for cast in (model.float(), model.half(), model.to(torch.bfloat16)):
            assert torch.equal(cast(x, frames(x)), expected)
        state = model.state_dict()
        assert {tensor.dtype for tensor in state.values() if tensor.numel()} <= {
            torch.float64,
            torch.int64,
        }
        other = ClassicModel(fit(name, 3))
        for tensor in other.buffers():
            tensor.zero_()
        other.load_state_dict(state)
        assert torch.equal(other(x, frames(x)), expected)


def test_transformers_and_anomaly_scores():
    x, _ = vectors(3)
    z = vectors(3, 200, seed=1)[0]
    scaler = StandardScaler().fit(x)
    # To the last bit: a tree's threshold may lie between.
    assert np.array_equal(tensorize(scaler)(torch.from_numpy(z)).numpy(), scaler.transform(z))
    both = scaled(PCA(6, whiten=True)).fit(x)
    np.testing.assert_allclose(
        tensorize(both)(torch.from_numpy(z)).numpy(), both.transform(z), atol=1e-12
    )
    for settings in ({}, {"max_features": 0.5}, {"max_samples": 2}, {"max_samples": 1}):
        detector = scaled(IsolationForest(n_estimators=20, random_state=0, **settings))
        module = tensorize(detector.fit(x))
        score = scripted(module)(torch.from_numpy(z).float())
        assert score.shape == (200,)
        np.testing.assert_allclose(score.numpy(), -detector.score_samples(z), atol=1e-12)
        assert run_on_fake_cuda(module, torch.from_numpy(z)).shape == (200,)


# --- what is particular to one of them ------------------------------------------------------------


@pytest.mark.parametrize("loss", ["log_loss", "exponential"])
@pytest.mark.parametrize("init", ["zero", DummyClassifier(strategy="prior"), LogisticRegression()])
def test_boosters_of_two_classes(loss, init):
    x, target = vectors(2)
    target[:15] = 0
    fitted = scaled(boosted(loss=loss, init=init)).fit(x, target)
    z = vectors(2, 200, seed=1)[0]
    answer = tensorize(fitted)(torch.from_numpy(z))
    np.testing.assert_allclose(answer, fitted.predict_proba(z), atol=1e-6)
    assert ClassicModel(fitted).explains != isinstance(init, LogisticRegression)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("kind", [hist, forest, DecisionTreeClassifier, IsolationForest])
def test_missing_values_go_where_sklearn_sends_them(kind, seen):
    x, target = vectors(3, 300)
    generator = np.random.default_rng(0)
    z = vectors(3, 300, seed=1)[0]
    z[generator.random(z.shape) < 0.3] = np.nan
    if seen:
        # Missing in one class alone: a split between missing values and all others.
        x[np.ix_(target == 1, [0])] = np.nan
        x[generator.random(x.shape) < 0.1] = np.nan
    fitted = kind(random_state=0).fit(x, target)
    expected = fitted.predict_proba(z) if hasattr(fitted, "classes_") else -fitted.score_samples(z)
    answer = tensorize(fitted)(torch.from_numpy(z))
    np.testing.assert_allclose(answer, expected, atol=TOLERANCE)
    if kind is hist:
        z[:] = np.where(generator.random(z.shape) < 0.1, np.inf, z)
        z[:] = np.where(generator.random(z.shape) < 0.1, -np.inf, z)
        answer = tensorize(fitted)(torch.from_numpy(z))
        np.testing.assert_allclose(answer, fitted.predict_proba(z), atol=TOLERANCE)


def test_thresholds_are_met_to_the_last_bit():
    """On and beside every threshold, in float64 and where float32 rounds across it."""
    x, target = vectors(3)
    for fitted in (DecisionTreeClassifier(random_state=0), hist()):
        fitted.fit(x[:, :1], target)
        if isinstance(fitted, DecisionTreeClassifier):
            cuts = fitted.tree_.threshold[fitted.tree_.feature >= 0]
        else:
            nodes = [one.nodes for stage in fitted._predictors for one in stage]
            cuts = np.concatenate([n["num_threshold"][n["is_leaf"] == 0] for n in nodes])
        for z in (cuts, np.nextafter(cuts, 9.0), np.nextafter(cuts, -9.0), cuts + 1e-9):
            answer = tensorize(fitted)(torch.from_numpy(z[:, None]))
            assert np.abs(answer.numpy() - fitted.predict_proba(z[:, None])).max() < TOLERANCE


def test_neighbours_that_are_equally_far():
    # On a grid, distances are exact: with weights by distance one vector is met exactly.
    grid = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), axis=-1).reshape(-1, 2)
    target = np.arange(len(grid)) % 3
    fitted = KNeighborsClassifier(4, weights="distance", algorithm="brute").fit(grid, target)
    answer = tensorize(fitted)(torch.from_numpy(grid))
    np.testing.assert_array_equal(answer, np.eye(3)[target])
    # The four of five equally far that came first in the training: their order tells.
    ring = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0], [0.6, 0.8]])
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        fitted = KNeighborsClassifier(4).fit(ring[order], np.array([0, 0, 0, 1, 1]))
        answer = tensorize(fitted)(torch.zeros(1, 2))
        np.testing.assert_array_equal(answer, [[0.75, 0.25]])
    # Where it does not matter who of them votes, scikit-learn says the same.
    twice = KNeighborsClassifier(3).fit(np.repeat(grid, 3, axis=0), np.repeat(target, 3))
    np.testing.assert_array_equal(
        tensorize(twice)(torch.from_numpy(grid)), twice.predict_proba(grid)
    )


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "chebyshev", "cosine"])
def test_what_is_missing_has_no_neighbours(metric):
    x, target = vectors(3)
    module = tensorize(KNeighborsClassifier(metric=metric).fit(x, target))
    z = torch.from_numpy(x[:3])
    z[1, 0] = torch.nan
    answer = module(z)
    assert answer[1].isnan().all()
    assert answer[[0, 2]].isfinite().all()


def test_folds_without_a_class():
    x, target = vectors(4, 80)
    target[target == 3] = np.where(np.arange(20) < 4, 3, 2)
    z = vectors(4, 100, seed=1)[0]
    for method in ("sigmoid", "isotonic"):
        fitted = calibrated(scaled(SVC()), method, ensemble=True, cv=4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted.fit(x, target)
        answer = tensorize(fitted)(torch.from_numpy(z))
        np.testing.assert_allclose(answer, fitted.predict_proba(z), atol=TOLERANCE)


def test_frozen_estimators_are_calibrated_as_they_are():
    x, target = vectors(3)
    for method in ("sigmoid", "isotonic", "temperature"):
        frozen = FrozenEstimator(scaled(SVC()).fit(x[:60], target[:60]))
        fitted = CalibratedClassifierCV(frozen, method=method).fit(x[60:], target[60:])
        answer = tensorize(fitted)(torch.from_numpy(x))
        np.testing.assert_allclose(answer, fitted.predict_proba(x), atol=TOLERANCE)


# --- labels ---------------------------------------------------------------------------------------


def test_classes_that_training_did_not_have_get_nothing():
    x, target = vectors(3)
    fitted = scaled(forest()).fit(x, np.array([0, 2, 4])[target])
    z = torch.from_numpy(x).float()
    for n_classes, width in ((None, 5), (6, 6)):
        model = ClassicModel(fitted, n_classes)
        answer = model(z, frames(z)).softmax(dim=1)
        assert answer.shape == (len(x), width)
        np.testing.assert_allclose(answer[:, [0, 2, 4]], fitted.predict_proba(x), atol=SINGLE)
        # Also at a temperature that softens the answers.
        soft = (model(z, frames(z)) / 3.0).softmax(dim=1)
        missing = [k for k in range(width) if k not in (0, 2, 4)]
        assert soft[:, missing].max() < 1e-6
        assert (model.contributions(z, frames(z))[..., missing] == 0).all()
        assert (model.baseline()[missing] == 0).all()


def test_images_are_pooled_as_by_numpy():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(12, 2, 3, 9, generator=generator)
    counts = torch.tensor([9, 4, 7, 2, 9, 8, 3, 9, 5, 6, 1, 9])
    rows = []
    for clip, n in zip(image.double().numpy(), counts, strict=True):
        own = clip[..., :n]
        statistics = [own.mean(-1), own.std(-1), own.min(-1), own.max(-1)]
        rows.append(np.stack(statistics, axis=1).ravel())
    pooled = np.stack(rows)
    fitted = scaled(LogisticRegression()).fit(pooled, np.arange(12) % 3)
    model = ClassicModel(fitted)
    answer = model(image, counts).softmax(dim=1)
    np.testing.assert_allclose(answer, fitted.predict_proba(pooled), atol=1e-5)
    assert scripted(model).contributions(image, counts).shape == (12, 24, 3)
    noisy = image.clone()
    noisy[3, ..., 2:] = torch.nan
    torch.testing.assert_close(model(noisy, counts), model(image, counts))


# --- contributions --------------------------------------------------------------------------------


def walk(tree: Any, value: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
    """Credit one vector's path through scikit-learn's own arrays, a node at a time."""
    node = 0
    while tree.children_left[node] != -1:
        feature = tree.feature[node]
        goes_left = np.float32(x[feature]) <= tree.threshold[node]
        child = (tree.children_left if goes_left else tree.children_right)[node]
        out[feature] += value[child] - value[node]
        node = child


def means(tree: Any) -> np.ndarray:
    """Each node's mean over the leaves under it, by the vectors of the training in them."""
    value = tree.value[:, 0, 0].copy()

    def fill(node: int) -> tuple[float, float]:
        if tree.children_left[node] == -1:
            return value[node] * tree.n_node_samples[node], tree.n_node_samples[node]
        parts = [fill(child[node]) for child in (tree.children_left, tree.children_right)]
        total, count = parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
        value[node] = total / count
        return total, count

    fill(0)
    return value


@pytest.mark.parametrize("kind", [forest, ExtraTreesClassifier, DecisionTreeClassifier])
def test_contributions_of_forests_are_those_of_a_slow_walk(kind):
    x, target = vectors(4)
    fitted = scaled(kind(random_state=0, max_depth=6)).fit(x, target)
    z = vectors(4, 8, seed=1)[0]
    members = getattr(fitted[-1], "estimators_", [fitted[-1]])
    expected = np.zeros((8, N_FEATURES, 4))
    for row, out in zip(fitted[:-1].transform(z), expected, strict=True):
        for member in members:
            walk(member.tree_, member.tree_.value[:, 0], row, out)
    base = np.mean([member.tree_.value[0, 0] for member in members], axis=0)
    model = ClassicModel(fitted)
    found = model.contributions(torch.from_numpy(z), frames(z))
    np.testing.assert_allclose(found, expected / len(members), atol=1e-12)
    np.testing.assert_allclose(model.baseline(), base, atol=1e-12)
    total = found.sum(dim=1) + model.baseline()
    np.testing.assert_allclose(total, fitted.predict_proba(z), atol=TOLERANCE)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_contributions_of_boosters_are_those_of_a_slow_walk(n_classes):
    x, target = vectors(n_classes)
    fitted = scaled(boosted(learning_rate=0.3)).fit(x, target)
    z = vectors(n_classes, 8, seed=1)[0]
    n_scores = fitted[-1].estimators_.shape[1]
    expected = np.zeros((8, N_FEATURES, n_scores))
    for row, out in zip(fitted[:-1].transform(z), expected, strict=True):
        for stage in fitted[-1].estimators_:
            for k, member in enumerate(stage):
                value = 0.3 * means(member.tree_)
                walk(member.tree_, value, row, out[:, k])
    model = ClassicModel(fitted)
    found = model.contributions(torch.from_numpy(z), frames(z))
    np.testing.assert_allclose(found[..., -n_scores:], expected, atol=1e-12)
    check_total(model, fitted, z)


def check_total(model: ClassicModel, fitted: Any, z: np.ndarray) -> None:
    """Baseline and contributions add up to the decision function."""
    x = torch.from_numpy(z)
    decision = fitted.decision_function(z)
    if decision.ndim == 1:
        decision = np.stack([-decision, decision], axis=1)
    for either in (model, scripted(model)):
        total = either.contributions(x, frames(x)).sum(dim=1) + either.baseline()
        np.testing.assert_allclose(total, decision, atol=TOLERANCE)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_contributions_of_hist_boosters(n_classes):
    x, target = vectors(n_classes, 300)
    fitted = scaled(hist(max_iter=20)).fit(x, target)
    z = vectors(n_classes, 50, seed=1)[0]
    model = ClassicModel(fitted)
    check_total(model, fitted, z)
    # Means over leaves weighted by training vectors: on those, nothing is credited on average.
    found = model.contributions(torch.from_numpy(x), frames(x)).mean(dim=(0, 1))
    assert found.abs().max() < TOLERANCE


def test_contributions_of_linear_models():
    x, target = vectors(3)
    z = vectors(3, 20, seed=1)[0]
    fitted = scaled(LogisticRegression()).fit(x, target)
    model = ClassicModel(fitted)
    check_total(model, fitted, z)
    found = model.contributions(torch.from_numpy(z), frames(z))
    expected = fitted[0].transform(z)[:, :, None] * fitted[1].coef_.T
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # Without an intercept, liblinear has one 0 for all and no list of them.
    bare = LogisticRegression(solver="liblinear", fit_intercept=False)
    bare.fit(x, (target > 0).astype(int))
    check_total(ClassicModel(bare), bare, z)
    two = scaled(SVC(kernel="linear")).fit(x, target > 0)
    both = make_pipeline(two[0], calibrated(two[1])).fit(x, (target > 0).astype(int))
    model = ClassicModel(both)
    check_total(model, two, z)
    # Of more classes: the sum of a class's decisions against each other one.
    pairs = SVC(kernel="linear", decision_function_shape="ovo").fit(x, target)
    decision = pairs.decision_function(z)
    margin = np.stack(
        [
            decision[:, 0] + decision[:, 1],
            decision[:, 2] - decision[:, 0],
            -decision[:, 1] - decision[:, 2],
        ],
        axis=1,
    )
    model = ClassicModel(calibrated(SVC(kernel="linear")).fit(x, target))
    total = model.contributions(torch.from_numpy(z), frames(z)).sum(dim=1) + model.baseline()
    np.testing.assert_allclose(total, margin, atol=1e-9 * np.abs(margin).max())


@pytest.mark.parametrize("name", ["forest, sigmoid", "forest, temperature", "forest, isotonic"])
def test_contributions_behind_a_calibration_are_from_before_it(name):
    x, target = vectors(3)
    fitted = calibrated(forest(), name.partition(", ")[2], ensemble=name == "forest, isotonic")
    fitted.fit(x, target)
    inner = [one.estimator for one in fitted.calibrated_classifiers_]
    model = ClassicModel(fitted)
    total = model.contributions(torch.from_numpy(x), frames(x)).sum(dim=1) + model.baseline()
    expected = np.mean([one.predict_proba(x) for one in inner], axis=0)
    np.testing.assert_allclose(total, expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    "name", ["SVM", "neighbours", "PCA", "PCA in a step", "vote", "booster, another start"]
)
def test_others_do_not_explain(name):
    model = ClassicModel(fit(name, 3))
    x = torch.from_numpy(vectors(3, 4)[0])
    assert not model.explains
    with pytest.raises(ParameterError, match=r"contributions: .* has none; they are for trees"):
        model.contributions(x, frames(x))
    with pytest.raises(torch.jit.Error, match="has none; they are for trees"):
        scripted(model).baseline()


# --- refusals -------------------------------------------------------------------------------------


class Renamed(RandomForestClassifier):
    """A subclass might compute anything."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, y: SGDClassifier().fit(x, y), r"SGDClassifier: cannot.*one of.*Logistic"),
        (lambda x, y: Renamed(2).fit(x, y), r"Renamed: cannot be turned into tensors"),
        (lambda x, y: "forest", r"str: cannot be turned into tensors"),
        (lambda x, y: forest(), r"RandomForestClassifier: is not fitted; call fit"),
        (lambda x, y: scaled(forest()), r"StandardScaler: is not fitted"),
        (lambda x, y: make_pipeline("passthrough").fit(x), r"no step but passthrough"),
        (lambda x, y: SVC().fit(x, y), r"SVC: has no probabilities.*ensemble=False"),
        (lambda x, y: scaled(SVC()).fit(x, y), r"SVC: has no probabilities"),
        (
            lambda x, y: calibrated(SVC(kernel=lambda a, b: a @ b.T)).fit(x, y),
            r"SVC: kernel=<function.*must be one of linear, poly, rbf, sigmoid",
        ),
        (
            lambda x, y: calibrated(SVC(decision_function_shape="ovo"), "temperature").fit(x, y),
            r"pairs of classes.*use 'ovr'",
        ),
        (
            lambda x, y: forest().fit(x, np.stack([y, y], axis=1)),
            r"RandomForestClassifier: answers for several outputs",
        ),
        (
            lambda x, y: KNeighborsClassifier().fit(x, np.stack([y, y], axis=1)),
            r"KNeighborsClassifier: answers for several outputs",
        ),
        (
            lambda x, y: KNeighborsClassifier(metric="canberra").fit(x, y),
            r"metric='canberra'.*must be one of euclidean",
        ),
        (
            lambda x, y: KNeighborsClassifier(999).fit(x, y),
            r"n_neighbors=999 of 120 vectors; fit with fewer",
        ),
        (
            lambda x, y: KNeighborsClassifier(weights=lambda d: d).fit(x, y),
            r"weights=<function.*must be uniform or distance",
        ),
        (
            lambda x, y: hist(categorical_features=[1]).fit(np.abs(x).astype(int) % 9, y),
            r"features 1 are categories",
        ),
        (
            lambda x, y: VotingClassifier([("a", forest())]).fit(x, y),
            r"voting='hard'.*use 'soft'",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(make, message):
    fitted = make(*vectors(3))
    with pytest.raises(ParameterError, match=message):
        tensorize(fitted)


def test_sparse_vectors_are_refused():
    sparse = pytest.importorskip("scipy.sparse")
    x, target = vectors(3)
    for classifier in (KNeighborsClassifier(), calibrated(SVC())):
        with pytest.raises(ParameterError, match="was fitted on sparse vectors"):
            tensorize(classifier.fit(sparse.csr_matrix(x), target))


@pytest.mark.parametrize(
    ("classes", "n_classes", "message"),
    [
        (["a", "b", "c"], None, r"classes=\['a', 'b', 'c'\]: must be whole numbers from 0"),
        ([-1, 0, 1], None, r"classes=\[-1, 0, 1\]: must be whole numbers from 0"),
        ([0, 1, 5], 4, r"n_classes=4: the classifier has class 5; give at least 6"),
    ],
)
def test_labels_must_be_places(classes, n_classes, message):
    x, target = vectors(3)
    fitted = forest().fit(x, np.array(classes)[target])
    with pytest.raises(ParameterError, match=message):
        ClassicModel(fitted, n_classes)


def test_a_model_classifies_vectors_of_its_width():
    x, target = vectors(3)
    with pytest.raises(ParameterError, match=r"IsolationForest: is no classifier"):
        ClassicModel(IsolationForest(n_estimators=3).fit(x))
    model = ClassicModel(forest().fit(x, target))
    with pytest.raises(ParameterError, match=r"x: must be \(batch, 12\).*got \[2, 11\]"):
        model(torch.zeros(2, 11), torch.ones(2, dtype=torch.int64))
    with pytest.raises(ParameterError, match=r"x: must be \(batch, 12\), got \[2, 13\]"):
        tensorize(forest().fit(x, target))(torch.zeros(2, 13))


# --- real recordings ------------------------------------------------------------------------------

CORPORA = {"fsdd": "digit", "esc10": "class_name", "arabic_commands": "keyword"}


@pytest.fixture(scope="module")
def clips(data_root) -> dict[str, tuple[list[Tensor], np.ndarray]]:
    """A few dozen clips of each corpus, half a second at least, and one of four classes."""
    found = {}
    for corpus, column in CORPORA.items():
        rows = table(data_root / corpus / "labels.csv")
        rows = rows[:: len(rows) // 40][:40]
        names = sorted({row[column] for row in rows})
        waveforms = []
        for row in rows:
            path = os.fspath(data_root / corpus / row["file"])
            waveform = at.load(path, duration=2.0)[0][0]
            waveforms.append(torch.nn.functional.pad(waveform, (0, max(0, 11025 - len(waveform)))))
        found[corpus] = waveforms, np.array([names.index(row[column]) % 4 for row in rows])
    return found


@pytest.fixture(scope="module")
def summaries(clips) -> dict[str, tuple[Tensor, np.ndarray]]:
    front = SummaryVector()
    with torch.no_grad():
        return {
            corpus: (torch.cat([front(clip[None]) for clip in waveforms]), target)
            for corpus, (waveforms, target) in clips.items()
        }


SETTINGS = {
    "gradient_boost": {"n_estimators": 5, "max_features": 20},
    "hist_gradient_boost": {"max_iter": 10, "min_samples_leaf": 3},
}


@pytest.mark.parametrize("name", list(CLASSIFIERS))
@pytest.mark.parametrize("corpus", list(CORPORA))
def test_real_clips_are_answered_as_by_sklearn(summaries, corpus, name):
    x, target = summaries[corpus]
    vector = x.double().numpy()
    fitted = build_classifier(name, **SETTINGS.get(name, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.fit(vector[::2], target[::2])
    expected = fitted.predict_proba(vector)
    np.testing.assert_allclose(tensorize(fitted)(x), expected, atol=TOLERANCE)
    file = scripted(ClassicModel(fitted, int(target.max()) + 1))
    found = file(x, frames(x)).softmax(dim=1).numpy()[:, fitted.classes_]
    np.testing.assert_allclose(found, expected, atol=SINGLE)
    best = np.take_along_axis(expected, found.argmax(1)[:, None], axis=1)[:, 0]
    # Boosters that never told two classes apart leave them equal but for the last bit.
    assert (best >= expected.max(axis=1) - 1e-12).all()


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_steady_vectors_keep_boosters_off_rounding(clips):
    """Short digits end in silence, where an MFCC's maximum is 0 but for its rounding."""
    waveforms, target = clips["fsdd"]
    front = SummaryVector()
    lengths = torch.tensor([len(clip) for clip in waveforms])
    padded = torch.stack(
        [torch.nn.functional.pad(clip, (0, 50_000 - len(clip))) for clip in waveforms]
    )
    with torch.no_grad():
        alone = torch.cat([front(clip[None]) for clip in waveforms]).double().numpy()
        together = front(padded, lengths).double().numpy()
    spread = alone.std(axis=0)
    assert (np.abs(steady(alone) - alone) <= np.maximum(spread / 8192, 2.0**-35)).all()
    fitted = scaled(hist(max_iter=20)).fit(steady(alone), target)
    np.testing.assert_allclose(
        fitted.predict_proba(together), fitted.predict_proba(alone), atol=1e-5
    )


def test_steady_keeps_a_column_of_rounding_from_the_scaler():
    x, _ = vectors(3)
    x[:, 3] = 1e-15 * np.random.default_rng(0).normal(size=len(x))
    assert np.ptp(StandardScaler().fit_transform(x)[:, 3]) > 1
    fitted = StandardScaler().fit(steady(x))
    assert np.ptp(fitted.transform(x)[:, 3]) < 1e-13
    np.testing.assert_allclose(steady(np.full((4, 2), 0.3)), 0.3, atol=1e-10)


@pytest.mark.parametrize("name", ["random_forest", "svm", "logistic"])
def test_a_waveform_pipeline_exports(clips, name, tmp_path):
    waveforms, target = clips["arabic_commands"]
    # Light front ends, one of vectors and one of images: tracing 270 numbers takes half a minute.
    front = {"random_forest": MFCCStatistics(22050)}.get(name, SpectrogramImage(22050, n_mels=16))
    pooling = StatisticsPooling()
    rows = []
    with torch.no_grad():
        for clip in waveforms:
            found = front(clip[None])
            rows.append(found if found.dim() == 2 else pooling(found).flatten(1))
    x = torch.cat(rows).double().numpy()
    fitted = build_classifier(name).fit(x, target)
    model = ClassicModel(fitted)
    pipeline = at.Pipeline(front, model, labels=["a", "b", "c", "d"], sample_rate=22050)
    file = at.load_pipeline(at.export(pipeline, tmp_path / "model.ts"))
    expected = fitted.predict_proba(x)
    with torch.no_grad():
        answer = torch.cat([file(clip[None]) for clip in waveforms]).numpy()
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert (answer.argmax(1) == expected.argmax(1)).all()
    assert file.model.explains == (name != "svm")
