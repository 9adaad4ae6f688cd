import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.datasets import make_classification
from sklearn.inspection import permutation_importance as sklearn_importance
from sklearn.metrics import classification_report, log_loss
from sklearn.model_selection import (
    LeaveOneGroupOut,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from torchmetrics.functional.classification import multiclass_calibration_error

from audiotorch import load
from audiotorch.errors import ParameterError
from audiotorch.features import SummaryVector
from audiotorch.models.calibration import (
    abstain_threshold,
    calibration_error,
    coverage,
    reliability,
)
from audiotorch.models.classic import build_classifier, fit_classifier
from audiotorch.models.evaluation import Evaluation, Fold, evaluate, leakage, table
from audiotorch.models.importance import families, named_columns, permutation_importance

DIGITS = [str(digit) for digit in range(10)]
PER_SPEAKER = 8  # of each digit


@pytest.fixture(scope="session")
def digits(data_root: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Summary vectors of 400 spoken digits, their classes and speakers."""
    with (data_root / "fsdd" / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["index"]) < PER_SPEAKER]
    features, vectors = SummaryVector(), []
    for row in rows:
        waveform = load(data_root / "fsdd" / row["file"])[0]
        room = torch.zeros(1, max(waveform.shape[-1], 11025))
        room[:, : waveform.shape[-1]] = waveform
        vectors.append(features(room)[0])
    x = torch.stack(vectors).double().numpy()
    return x, np.array([int(row["digit"]) for row in rows]), [row["speaker"] for row in rows]


def blobs(n: int = 120, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return make_classification(
        n, 10, n_informative=5, n_classes=n_classes, class_sep=0.8, random_state=4
    )


# --- against scikit-learn -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logistic", "svm", "knn", "random_forest"])
def test_stratified_is_cross_val_score(name):
    x, y = blobs()
    groups = [f"g{i % 6}" for i in range(len(y))]
    classifier = build_classifier(name)
    folds = StratifiedKFold(5, shuffle=True, random_state=42)
    expected = cross_val_score(classifier, x, y, cv=folds)
    by_clip = evaluate(classifier, x, y, ["a", "b", "c"], groups=groups)[0]
    np.testing.assert_array_equal([fold.acc for fold in by_clip.folds], expected)
    assert (by_clip.acc, by_clip.acc_std) == (expected.mean(), expected.std())
    p = cross_val_predict(classifier, x, y, cv=folds, method="predict_proba")
    np.testing.assert_array_equal(by_clip.probabilities, p)


def test_left_out_groups_are_those_of_scikit_learn():
    x, y = blobs()
    groups = [f"g{i % 6}" for i in range(len(y))]
    classifier = build_classifier("logistic")
    expected = cross_val_score(classifier, x, y, groups=groups, cv=LeaveOneGroupOut())
    by_group = evaluate(classifier, x, y, ["a", "b", "c"], groups=groups)[1]
    assert by_group.protocol == "leave_one_group_out"
    assert [fold.names for fold in by_group.folds] == [(f"g{i}",) for i in range(6)]
    np.testing.assert_array_equal([fold.acc for fold in by_group.folds], expected)

    groups = [f"g{i % 24}" for i in range(len(y))]
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=42)
    expected = cross_val_score(classifier, x, y, groups=groups, cv=folds)
    by_group = evaluate(classifier, x, y, ["a", "b", "c"], groups=groups)[1]
    assert by_group.protocol == "grouped"
    assert sorted(expected) == sorted(fold.acc for fold in by_group.folds)
    assert sum(len(fold.names) for fold in by_group.folds) == 24


def test_figures_are_those_of_scikit_learn_and_torchmetrics():
    x, y = blobs()
    labels = ["a", "b", "c"]
    (found,) = evaluate(build_classifier("random_forest", n_estimators=20), x, y, labels)
    p, answers = found.probabilities, found.probabilities.argmax(axis=1)
    report = classification_report(y, answers, target_names=labels, output_dict=True)
    for label in labels:
        row = found.report[label]
        expected = report[label]
        assert (row["precision"], row["recall"]) == (expected["precision"], expected["recall"])
        assert (row["f1"], row["support"]) == (expected["f1-score"], expected["support"])
        assert found.recall[label] == expected["recall"]
    assert found.f1 == report["macro avg"]["f1-score"]
    assert found.loss == log_loss(y, p)
    # torchmetrics sums in float32.
    ece = multiclass_calibration_error(torch.tensor(p), torch.tensor(y), 3, n_bins=15, norm="l1")
    assert found.ece == pytest.approx(float(ece), abs=1e-6)
    np.testing.assert_array_equal(found.confusion_matrix.sum(axis=1), np.bincount(y))
    assert found.confusion_matrix.trace() == (answers == y).sum()
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["acc"] == found.acc


def test_intervals():
    p = np.eye(2)[np.repeat([0, 1], [80, 20])]
    folds = tuple(
        Fold((name,), acc, 25) for name, acc in zip("wxyz", (1, 0.8, 0.6, 0.8), strict=True)
    )
    y = np.zeros(100, dtype=int)
    # Wilson (1927) for 80 of 100; t interval: 0.8 +- 3.18245 * sqrt(0.08 / 3) / 2.
    by_clip = Evaluation("stratified", ("a", "b"), folds, p, y)
    assert by_clip.acc_interval == pytest.approx((0.711170, 0.866633), abs=1e-6)
    by_group = Evaluation("leave_one_group_out", ("a", "b"), folds, p, y)
    assert by_group.acc_interval == pytest.approx((0.540154, 1.0), abs=1e-6)
    right = Evaluation("stratified", ("a", "b"), (Fold(("1",), 1.0, 9),) * 5, p[:45], y[:45])
    assert right.acc_interval[1] == 1.0
    assert 0.9 < right.acc_interval[0] < 1.0
    assert by_clip.recall == {"a": 0.8, "b": None}


# --- real recordings ------------------------------------------------------------------------------


def test_new_speakers_are_told_apart_from_known_ones(digits):
    x, y, speakers = digits
    classifier = build_classifier("logistic")
    evaluations = evaluate(classifier, x, y, DIGITS, groups=speakers)
    by_clip, by_speaker = evaluations
    assert 0.93 < by_clip.acc < 1.0
    assert 0.4 < by_speaker.acc < 0.7
    assert [fold.names for fold in by_speaker.folds] == [
        ("george",),
        ("jackson",),
        ("lucas",),
        ("nicolas",),
        ("yweweler",),
    ]
    sentence = leakage(evaluations)
    assert f"{by_clip.acc:.2f}" in sentence
    assert f"{by_speaker.acc:.2f}" in sentence
    text = table(evaluations, DIGITS)
    assert min(by_speaker.folds, key=lambda fold: fold.acc).names[0] in text
    assert len(text.splitlines()) == 18
    shuffled = np.random.default_rng(0).permutation(speakers).tolist()
    assert leakage(evaluate(classifier, x, y, DIGITS, groups=shuffled)) is None
    assert leakage(evaluations[:1]) is None


def test_two_speakers_with_less_to_train_on_are_no_leak(digits):
    x, y, speakers = digits
    generator = np.random.default_rng(0)
    for _ in range(5):
        few = generator.permutation(len(y))[:60]
        halves = [f"half {i % 2}" for i in range(60)]
        assert (
            leakage(evaluate(build_classifier("logistic"), x[few], y[few], DIGITS, groups=halves))
            is None
        )
    two = np.isin(speakers, ["george", "lucas"])
    pair = [speaker for speaker in speakers if speaker in ("george", "lucas")]
    sentence = leakage(evaluate(build_classifier("logistic"), x[two], y[two], DIGITS, groups=pair))
    assert "With 2 groups, part of the gap" in sentence


def test_abstaining_on_new_speakers(digits):
    x, y, speakers = digits
    found = evaluate(build_classifier("logistic"), x, y, DIGITS, groups=speakers)[1]
    thresholds = [abstain_threshold(found.probabilities, y, wanted) for wanted in (0.1, 0.65, 0.7)]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] == 0.0
    left = coverage(found.probabilities, y, thresholds[-1])
    assert left.acc >= 0.7
    assert 0 < left.share < 1


def test_families_of_real_features(digits):
    x, y, _ = digits
    columns = named_columns(SummaryVector().names)
    assert columns == families(SummaryVector().names)
    train = np.arange(len(y)) % 2 == 0
    fitted = fit_classifier(build_classifier("logistic"), x[train], y[train])
    found = permutation_importance(fitted, x[~train], y[~train], columns, n_repeats=2)
    assert list(found) == list(columns)
    # Families tell much the same: none is worth much alone, all together are worth everything.
    together = {"all": range(x.shape[1])}
    lost = permutation_importance(fitted, x[~train], y[~train], together)["all"].mean
    assert lost > 0.8
    assert 0.01 < max(value.mean for value in found.values()) < lost


# --- odd data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logistic", "svm", "knn", "hist_gradient_boost"])
def test_three_clips(name):
    x = np.random.default_rng(0).normal(size=(3, 4))
    evaluations = evaluate(build_classifier(name), x, np.array([0, 1, 0]), ["x", "y"])
    assert len(evaluations) == 1
    assert len(evaluations[0].folds) == 2
    assert any("can never be answered right: ['y']" in note for note in evaluations[0].notes)
    json.dumps(evaluations[0].as_dict(), allow_nan=False)
    with pytest.raises(ParameterError, match="every class has a single clip"):
        evaluate(build_classifier(name), x, np.array([0, 1, 2]), ["x", "y", "z"])


def test_scarce_classes_take_fewer_folds():
    x, y = blobs()
    few = np.concatenate([np.flatnonzero(y < 2), np.flatnonzero(y == 2)[:3]])
    (found,) = evaluate(build_classifier("svm"), x[few], y[few], ["a", "b", "c\x1b[31m"])
    assert len(found.folds) == 3
    assert found.notes == ("3 stratified folds instead of 5: 'c\\x1b[31m' has 3 clips only",)
    assert "\x1b" not in table([found])


def test_groups_that_are_the_classes_give_no_figure():
    x, y = blobs()
    evaluations = evaluate(
        build_classifier("logistic"), x, y, ["a", "b", "c"], groups=[f"m{k}" for k in y]
    )
    assert [e.protocol for e in evaluations] == ["stratified"]
    assert "the class cannot be told from the group" in evaluations[0].notes[0]
    assert len(evaluate(build_classifier("logistic"), x, y, list("abc"), groups=["m"] * 120)) == 1


def test_a_class_of_one_group_is_named():
    x, y = blobs()
    groups = ["only" if k == 2 else f"g{i % 3}" for i, k in enumerate(y)]
    by_group = evaluate(build_classifier("svm"), x, y, ["a", "b", "c"], groups=groups)[1]
    assert "classes with clips of one group only: ['c']" in by_group.notes[0]
    assert by_group.recall["c"] == 0.0
    assert by_group.probabilities[y == 2, 2].max() == 0.0
    np.testing.assert_allclose(by_group.probabilities.sum(axis=1), 1.0)
    json.dumps(by_group.as_dict(), allow_nan=False)
    # Where one class alone is left to train on, it is the answer.
    pair = y < 2
    two = ["x" if k == 0 or i % 2 else "y" for i, k in enumerate(y[pair])]
    found = evaluate(build_classifier("svm"), x[pair], y[pair], ["a", "b"], groups=two)[1]
    assert found.folds[0].n + found.folds[1].n == pair.sum()


def test_clips_without_a_group_are_alone():
    x, y = blobs(60, 2)
    groups: list[str | None] = [f"g{i % 3}" for i in range(60)]
    groups[5] = groups[6] = None
    by_group = evaluate(build_classifier("knn"), x, y, ["a", "b"], groups=groups)[1]
    assert [(fold.names, fold.n) for fold in by_group.folds[3:]] == [((), 1), ((), 1)]
    groups = [None] * 50 + ["a", "b"] * 5
    assert (
        evaluate(build_classifier("knn"), x, y, ["a", "b"], groups=groups)[1].protocol == "grouped"
    )


def test_copies_train_and_are_never_scored():
    x, y = blobs()
    copies = [x + 0.01, x - 0.01]
    plain = evaluate(build_classifier("knn", n_neighbors=1), x, y, ["a", "b", "c"])[0]
    found = evaluate(build_classifier("knn", n_neighbors=1), x, y, ["a", "b", "c"], copies=copies)[
        0
    ]
    assert sum(fold.n for fold in found.folds) == len(y)
    # The nearest neighbour of a clip would be its own copy, were that trained on.
    assert found.acc < 0.9
    assert found.acc == pytest.approx(plain.acc, abs=0.03)


def test_wrong_use_is_refused():
    x, y = blobs()
    classifier = build_classifier("knn")
    with pytest.raises(ParameterError, match="labels: 2 names"):
        evaluate(classifier, x, y, ["a", "b"])
    with pytest.raises(ParameterError, match="2 distinct"):
        evaluate(classifier, x, y, ["a", "b", "a"])
    with pytest.raises(ParameterError, match="n_splits=1"):
        evaluate(classifier, x, y, ["a", "b", "c"], n_splits=1)
    with pytest.raises(ParameterError, match="all clips are of class 'a'"):
        evaluate(classifier, x, 0 * y, ["a", "b"])
    with pytest.raises(ParameterError, match="x: row 0 holds nan"):
        evaluate(classifier, np.nan * x, y, ["a", "b", "c"])


# --- calibration ----------------------------------------------------------------------------------


def test_reliability_is_calibration_curve():
    generator = np.random.default_rng(0)
    p = generator.dirichlet([0.3, 0.3, 0.3], 400)
    y = generator.integers(0, 3, 400)
    p[:5] = np.eye(3)[y[:5]]
    bins = reliability(p, y, 10)
    right = p.argmax(axis=1) == y
    accuracy, confidence = calibration_curve(right, p.max(axis=1), n_bins=10)
    full = bins.size > 0
    np.testing.assert_allclose(bins.accuracy[full], accuracy)
    np.testing.assert_allclose(bins.confidence[full], confidence)
    assert bins.size.sum() == 400
    expected = multiclass_calibration_error(torch.tensor(p), torch.tensor(y), 3, n_bins=10)
    assert calibration_error(p, y, 10) == pytest.approx(float(expected), abs=1e-6)
    with pytest.raises(ParameterError, match="n_bins=0"):
        reliability(p, y, 0)


def test_threshold_is_the_lowest_that_is_accurate_enough():
    generator = np.random.default_rng(1)
    p = np.round(generator.dirichlet([0.5, 0.5, 0.5], 300), 2)  # with ties
    y = np.where(generator.random(300) < p.max(axis=1), p.argmax(axis=1), 0)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    before = 0.0
    for wanted in np.linspace(0.5, 0.95, 10):
        threshold = abstain_threshold(p, y, wanted)
        levels = [t for t in np.unique(confidence) if right[confidence >= t].mean() >= wanted]
        np.testing.assert_array_equal(confidence >= threshold, confidence >= min(levels))
        assert coverage(p, y, threshold).acc >= wanted
        assert threshold >= before
        before = threshold
    assert coverage(p, y, 1.01) == (0.0, None)
    with pytest.raises(ParameterError, match=r"the most is 0\.500, when 100%"):
        abstain_threshold(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([1, 0]), 0.9)
    for wrong in (0.0, 1.1, float("nan")):
        with pytest.raises(ParameterError, match="must be above 0"):
            abstain_threshold(p, y, wrong)
    with pytest.raises(ParameterError, match="targets has shape"):
        coverage(p, y[1:], 0.5)


# --- importance -----------------------------------------------------------------------------------


def test_importance_of_single_columns_is_scikit_learns():
    x, y = blobs()
    fitted = fit_classifier(build_classifier("logistic"), x[:80], y[:80])
    names = [f"f_{i}" for i in range(10)]
    assert families(names) == {"f": list(range(10))}
    found = permutation_importance(fitted, x[80:], y[80:], named_columns(names), seed=3)
    expected = sklearn_importance(fitted, x[80:], y[80:], random_state=3)
    np.testing.assert_allclose([v.mean for v in found.values()], expected.importances_mean)
    np.testing.assert_allclose([v.std for v in found.values()], expected.importances_std)
    whole = permutation_importance(fitted, x[80:], y[80:], families(names))["f"]
    assert whole.mean > max(v.mean for v in found.values())
    with pytest.raises(ParameterError, match="'f' names"):
        permutation_importance(fitted, x, y, {"f": [10]})
    with pytest.raises(ParameterError, match="n_repeats=0"):
        permutation_importance(fitted, x, y, {"f": [0]}, n_repeats=0)
