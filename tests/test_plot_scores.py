"""Pictures of quality: what is drawn is read back and held against scikit-learn and the files."""

import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sklearn.decomposition
import sklearn.metrics
import torch
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import SummaryWriter

from audiotorch.answers import AnswerTable
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.models.calibration import calibration_error
from audiotorch.models.detection import evaluate_detection
from audiotorch.plot import (
    confusion_matrix,
    embedding,
    new_figure,
    pixels,
    reliability,
    roc,
    save_figure,
    score_histogram,
    training_curves,
)

# What a file or folder can be called.
NASTY = ["<script>$x$</script>", '"a\\$', "\N{GRINNING FACE} \u65e5", "line\nbreak", "\ud800", "_a"]


def cells(axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axes.texts}


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def table(n: int = 60, labels=("a", "b", "c"), part: str = "test", seed: int = 0) -> AnswerTable:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, len(labels), n)
    logits = generator.normal(size=(n, len(labels))) + 2 * np.eye(len(labels))[targets]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return AnswerTable.of_classes(part, labels, [f"{i}.wav" for i in range(n)], targets, shares)


def scored(part: str, n_normal: int, n_anomaly: int, seed: int = 0) -> AnswerTable:
    generator = np.random.default_rng(seed)
    scores = np.concatenate([generator.normal(size=n_normal), generator.normal(2, 1, n_anomaly)])
    truth = ["normal"] * n_normal + ["fault"] * n_anomaly
    return AnswerTable.of_scores(
        part,
        [f"{part}{i}.wav" for i in range(len(truth))],
        truth,
        np.array([label == "fault" for label in truth]),
        scores,
        thresholds={"warning": 1.0, "alarm": 1.5},
    )


# --- confusion matrix -----------------------------------------------------------------------------


def test_matrix_of_a_run_is_that_of_scikit_learn(tmp_path):
    answers = AnswerTable.joined([table(40, part="val", seed=1), table()])
    answers.write(tmp_path / "answers.csv")
    test = answers.part("test")
    expected = sklearn.metrics.confusion_matrix(test.truth, test.answers, labels=["a", "b", "c"])
    for source in (tmp_path, str(tmp_path / "answers.csv"), answers):
        axes = confusion_matrix(source)
        found = cells(axes)
        for row, column in np.ndindex(3, 3):
            n = expected[row, column]
            told = f"{n}\n{n / expected[row].sum():.0%}" if n else None
            assert found.get((column, row)) == told
        shares = expected / expected.sum(axis=1, keepdims=True)
        assert np.allclose(axes.images[0].get_array(), shares)
        right = np.trace(expected) / expected.sum()
        assert axes.get_title() == f"test: {right:.1%} of 60 clips right"
    val = confusion_matrix(tmp_path, part="val", title="$ mine")
    assert val.get_title() == r"\$ mine"
    n_cells = sum(int(text.split("\n")[0]) for text in cells(val).values())
    assert n_cells == 40
    with pytest.raises(ParameterError, match="part='cv': must be one of val, test"):
        confusion_matrix(tmp_path, part="cv")


def test_matrix_of_a_detector_is_what_its_last_threshold_says():
    answers = scored("test", 30, 20)
    above = answers.scores > 1.5
    counts = [int((above[:30] == kind).sum()) for kind in (False, True)]
    counts += [int((above[30:] == kind).sum()) for kind in (False, True)]
    axes = confusion_matrix(answers, normalize=False)
    assert np.asarray(axes.images[0].get_array()).ravel().tolist() == counts
    assert [name.get_text() for name in axes.get_yticklabels()] == ["normal", "anomaly"]
    rows = {"test": answers.scores}
    without = AnswerTable.of_scores("test", answers.files, answers.truth, above, rows["test"])
    with pytest.raises(ParameterError, match="no threshold"):
        confusion_matrix(without)


@pytest.mark.parametrize("n_classes", [1, 2, 10, 50, 500])
def test_any_number_of_classes_is_readable(n_classes):
    generator = np.random.default_rng(0)
    matrix = np.diag(generator.integers(10, 60, n_classes))
    if n_classes > 3:
        matrix[2] = 0
        matrix[1, 3] = 77
    names = [f"a long name of class {i}" for i in range(n_classes)]
    axes = confusion_matrix(torch.tensor(matrix), names, title="all of them")
    figure = axes.figure
    assert max(figure.get_size_inches()) < 19
    assert min(figure.get_size_inches()) > 1.5
    pixels(figure)
    size = axes.get_yticklabels()[0].get_fontsize()
    boxes = [name.get_window_extent() for name in axes.get_yticklabels()]
    tops = sorted(box.y0 for box in boxes)
    assert all(high - low > 0.9 * size for low, high in pairwise(tops))
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
    assert all(name.get_window_extent().y0 >= 0 for name in axes.get_xticklabels())
    assert axes.get_window_extent().width > 0.4 * min(figure.bbox.width, figure.bbox.height)
    if n_classes <= 50:
        counts = [text for text in cells(axes).values() if text != "no clips"]
        assert sum(int(text.split("\n")[0]) for text in counts) == matrix.sum()
        assert ("no clips" in cells(axes).values()) == (n_classes > 3)
    else:
        assert not axes.texts
        (listed,) = figure.axes[1].texts
        told = f"{names[1]} \u2192 {names[3]}:  77 of {matrix[1].sum()}"
        assert listed.get_text() == told


def test_a_matrix_on_small_given_axes_leaves_numbers_out():
    figure = new_figure(8, 3)
    left, right = figure.subplots(1, 2)
    matrix = np.eye(60, dtype=int)
    matrix[4, 5] = 3
    assert confusion_matrix(matrix, ax=left) is left
    assert not left.texts
    assert "4 \u2192 5:  3 of 4" in left.get_xlabel()
    assert len(left.get_yticks()) < 30
    confusion_matrix(np.eye(3), ax=right)
    assert len(right.texts) == 3
    assert pixels(figure).std() > 10


@pytest.mark.parametrize(
    ("matrix", "labels", "text"),
    [
        (np.ones((2, 3)), None, r"matrix: has shape \(2, 3\)"),
        (np.ones(3), None, "need 2 dimensions"),
        (np.zeros((0, 0)), None, "matrix: has shape"),
        (np.array([[1, np.nan], [0, 1]]), None, "1 of 4 are NaN"),
        (np.array([[1, -1], [0, 1]]), None, "at least 0"),
        ([[1, 2], [3]], None, "rows of one length"),
        (np.eye(2), ["a"], "labels: 1 for 2 classes"),
        ("nowhere", None, "nowhere"),
    ],
)
def test_matrices_that_are_none_are_refused(matrix, labels, text):
    with pytest.raises(ParameterError, match=text) as caught:
        confusion_matrix(matrix, labels)
    assert "\n" not in str(caught.value)


# --- reliability ----------------------------------------------------------------------------------


def test_reliability_tells_the_calibration_error_and_the_confidences(tmp_path):
    answers = AnswerTable.joined([table(50, part="cv", seed=1), table(part="test")])
    answers.write(tmp_path / "answers.csv")
    axes = reliability(tmp_path)
    errors = [
        calibration_error(rows.probabilities, rows.targets)
        for rows in (answers.part("cv"), answers.part("test"))
    ]
    assert legend(axes)[1:] == [
        f"cross-validation by clip: ECE {errors[0]:.3f}",
        f"test: ECE {errors[1]:.3f}",
    ]
    below = axes.figure.axes[1]
    for part, steps in zip(("cv", "test"), below.patches, strict=True):
        values, edges, _ = steps.get_data()
        confidence = answers.part(part).confidence
        assert np.allclose(values, np.histogram(confidence, edges)[0] / len(confidence))
        assert values.sum() == pytest.approx(1.0)
    given = new_figure(4, 4).add_subplot()
    test = answers.part("test")
    reliability(torch.tensor(test.probabilities), torch.tensor(test.targets), ax=given)
    assert len(given.figure.axes) == 1
    assert legend(given)[1] == f"answers: ECE {errors[1]:.3f}"
    assert np.allclose(given.lines[1].get_ydata(), axes.lines[2].get_ydata())


@pytest.mark.parametrize(
    ("data", "targets", "text"),
    [
        ({}, None, "no curves"),
        (np.full((3, 2), 0.5), None, "targets: needed"),
        (np.full((3, 2), 0.5), [0, 1], "targets has shape"),
        (np.full((3, 2), 1.5), [0, 1, 0], "between 0 and 1"),
        (np.full((3, 2), np.nan), [0, 1, 0], "6 of 6 are NaN"),
        ({"a": 3}, None, "a: must be bins"),
        (scored("test", 3, 3), None, "is of a detector"),
    ],
)
def test_confidences_that_are_none_are_refused(data, targets, text):
    with pytest.raises(ParameterError, match=text):
        reliability(data, targets)


# --- ROC ------------------------------------------------------------------------------------------


def test_roc_of_a_detector_is_that_of_scikit_learn():
    answers = scored("test", 40, 30)
    axes = roc(answers)
    x, y, _ = sklearn.metrics.roc_curve(answers.targets, answers.scores)
    assert np.array_equal(axes.lines[0].get_xydata(), np.stack([x, y], axis=1))
    assert axes.lines[-1].get_xydata().tolist() == [[0, 0], [1, 1]]
    area = sklearn.metrics.roc_auc_score(answers.targets, answers.scores)
    found = evaluate_detection(answers.scores, answers.targets)
    low, high = found.intervals["auc"]
    told = legend(axes)
    assert told[0] == f"AUC {area:.3f} (95 %: {low:.3f} to {high:.3f})"
    assert told[1].startswith(f"pAUC {found.overall.pauc:.3f} (95 %: ")
    for dot, limit, name in zip(
        axes.collections[1:], (1.0, 1.5), ("warning", "alarm"), strict=True
    ):
        false, hit = (float((answers.scores[answers.targets == k] > limit).mean()) for k in (0, 1))
        assert dot.get_offsets().tolist() == [[false, hit]]
        assert f"{name}: finds {hit:.0%},\nfalse alarms {false:.1%}" in told
    shaded = axes.collections[0].get_paths()[0].vertices
    assert shaded[:, 0].max() == pytest.approx(0.1)
    height = np.interp(0.1, x, y)
    assert shaded[:, 1].max() == pytest.approx(height)


def test_roc_takes_infinite_scores_and_says_where_there_is_no_curve():
    truth = torch.tensor([False, False, True, True])
    axes = roc(truth, torch.tensor([0.0, 1.0, 0.5, torch.inf]))
    assert legend(axes)[0].startswith("AUC 0.750")
    axes = roc(np.zeros(5), np.arange(5.0))
    assert axes.texts[0].get_text() == "all 5 clips are normal:\nthere is no curve"
    axes = roc([1], [2.0])
    assert "all 1 clips are anomalies" in axes.texts[0].get_text()
    assert pixels(axes.figure).std() > 5


def test_roc_of_a_classifier_compares_each_class_with_the_others():
    answers = table(200)
    axes = roc(answers, n_bootstrap=50)
    areas = {
        label: sklearn.metrics.roc_auc_score(answers.targets == k, answers.probabilities[:, k])
        for k, label in enumerate("abc")
    }
    told = legend(axes)
    lowest = sorted(areas, key=lambda label: areas[label])
    for line, text, label in zip(axes.lines, told, lowest, strict=False):
        assert text.startswith(f"{label}: {areas[label]:.3f} (95 %: ")
        k = "abc".index(label)
        x, y, _ = sklearn.metrics.roc_curve(answers.targets == k, answers.probabilities[:, k])
        assert np.array_equal(line.get_xydata(), np.stack([x, y], axis=1))
    mean = sklearn.metrics.roc_auc_score(answers.targets, answers.probabilities, multi_class="ovr")
    assert told[3] == f"mean of 3 classes: AUC {mean:.3f}"
    axes = roc(answers, n_classes=1, n_bootstrap=0)
    assert legend(axes)[0] == f"{lowest[0]}: {areas[lowest[0]]:.3f}"
    assert axes.get_legend().get_title().get_text() == "the 1 lowest AUC of 3 classes"


def test_roc_names_classes_that_have_no_curve():
    shares = np.full((4, 3), 1 / 3)
    told = legend(roc([0, 0, 1, 1], shares, labels=["a", "b", "none"]))
    assert told[-1] == "no curve, no clip of: none"
    told = legend(roc([0, 0, 0, 0], shares[:, :1], labels=["only"]))
    assert told == ["no curve, all clips are: only"]


@pytest.mark.parametrize(
    ("truth", "scores", "text"),
    [
        ([0, 1], [0.0, np.nan], "1 of 2 are NaN"),
        ([0, 1, 1], [0.0, 1.0], "is_anomaly: 3 for 2 scores"),
        ([0, 2], [0.0, 1.0], "true or false"),
        ([0, 3], np.eye(2), "classes from 0 to 1"),
        ([0, 1, 1], np.eye(2), "have shape"),
        ([0, 1], None, "scores"),
    ],
)
def test_scores_that_are_none_are_refused(truth, scores, text):
    with pytest.raises(ParameterError, match=text):
        roc(truth, scores)


# --- histogram ------------------------------------------------------------------------------------


def test_histogram_of_a_run_sums_to_one_and_has_its_thresholds(tmp_path):
    parts = [scored("train", 50, 0, 1), scored("held_back", 20, 0, 2), scored("test", 30, 15)]
    answers = AnswerTable.joined(parts)
    answers.write(tmp_path / "answers.csv")
    axes = score_histogram(tmp_path)
    assert legend(axes) == [
        *("training (50)", "held back (20)", "test, normal (30)", "test, anomalies (15)"),
        *("warning: 1", "alarm: 1.5"),
    ]
    anomalies = answers.part("test").scores[30:]
    for bars in axes.patches:
        values, edges, _ = bars.get_data()
        assert values.sum() == pytest.approx(1.0)
    assert np.allclose(values, np.histogram(anomalies, edges)[0] / 15)
    assert [line.get_xdata()[0] for line in axes.lines] == [1.0, 1.5]


def test_histogram_takes_equal_infinite_and_far_scores():
    axes = score_histogram({"one": [2.0], "same": torch.full((5,), 2.0)}, {"t": 2.0})
    for bars in axes.patches:
        values, edges, _ = bars.get_data()
        assert values.sum() == 1.0
        place = int(values.argmax())
        assert edges[place] <= 2.0 <= edges[place + 1]
    axes = score_histogram([1.0, 2.0, np.inf, -np.inf], {"never": np.inf, "always": -np.inf})
    values = axes.patches[0].get_data().values
    assert values.sum() == 1.0
    assert (values[0], values[-1]) == (0.5, 0.5)
    assert legend(axes) == [
        "scores (4, 2 infinite)",
        "never: infinite, no score is above",
        "always: infinite, all scores are above",
    ]
    assert pixels(axes.figure).std() > 5
    assert score_histogram([np.inf]).patches[0].get_data().values.sum() == 1.0
    assert score_histogram({"a": [0.01, 0.02], "b": [5.0]}).get_xscale() == "log"
    assert score_histogram({"a": [-0.01, 0.02], "b": [5.0]}).get_xscale() == "linear"


@pytest.mark.parametrize(
    ("data", "thresholds", "text"),
    [
        ({}, None, "none"),
        ({"a": []}, None, "none"),
        ({"a": [1.0, np.nan]}, None, "scores of a: 1 of 2 are NaN"),
        (np.ones((2, 2)), None, "need 1 dimensions"),
        ([1.0], {"t": np.nan}, "thresholds"),
        (table(), None, "is of a classifier"),
    ],
)
def test_histograms_of_nothing_are_refused(data, thresholds, text):
    with pytest.raises(ParameterError, match=text):
        score_histogram(data, thresholds)


# --- embedding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(200, 6), (12, 40), (3, 2)])
def test_embedding_is_scikit_learns_principal_components(shape):
    x = np.random.default_rng(0).normal(size=shape) @ np.diag(np.linspace(3, 0.5, shape[1]))
    axes = embedding(torch.tensor(x))
    model = sklearn.decomposition.PCA(2, svd_solver="full").fit(x)
    found = np.asarray(axes.collections[0].get_offsets())
    # The largest weight of each direction is positive, whatever version of scikit-learn.
    largest = np.abs(model.components_).argmax(axis=1)
    signs = np.sign(model.components_[[0, 1], largest])
    assert np.allclose(found, model.transform(x) * signs, atol=1e-9)
    shares = model.explained_variance_ratio_
    assert axes.get_xlabel() == f"component 1: {shares[0]:.1%} of the variance"
    assert axes.get_ylabel() == f"component 2: {shares[1]:.1%} of the variance"


def test_embedding_tells_labels_apart_by_colour_and_marker():
    x = np.random.default_rng(0).normal(size=(300, 4))
    labels = [f"class {i % 12}" for i in range(300)]
    axes = embedding(x, labels)
    assert legend(axes) == [f"class {k} (25)" for k in range(12)]
    looks = set()
    for k, dots in enumerate(axes.collections):
        expected = embedding(x).collections[0].get_offsets()[k::12]
        assert np.allclose(dots.get_offsets(), expected)
        looks.add((tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes()))
    assert len(looks) == 12
    many = embedding(np.repeat(x, 3, axis=0), np.repeat(np.arange(300), 3))
    assert len(legend(many)) == 33
    assert legend(many)[-1] == "268 other labels (804)"
    assert sum(len(dots.get_offsets()) for dots in many.collections) == 900


def test_embedding_says_that_not_all_points_are_drawn():
    x = np.random.default_rng(0).normal(size=(100, 3))
    axes = embedding(x, max_points=40, title="$few$")
    assert len(axes.collections[0].get_offsets()) == 40
    assert axes.get_title() == "\\$few\\$\n40 of 100, drawn at random"
    again = embedding(x, max_points=40)
    assert np.array_equal(axes.collections[0].get_offsets(), again.collections[0].get_offsets())


def test_neighbours_stay_neighbours_by_tsne():
    generator = np.random.default_rng(0)
    centres = 20 * generator.normal(size=(3, 60))
    y = np.repeat(np.arange(3), 20)
    x = centres[y] + generator.normal(size=(60, 60))
    axes = embedding(x, y, method="tsne")
    points = np.concatenate([dots.get_offsets() for dots in axes.collections])
    away = sklearn.metrics.pairwise_distances(points) + 1e9 * np.eye(60)
    assert (y[away.argmin(axis=1)] == y).all()
    assert "no unit" in axes.get_xlabel()
    again = np.concatenate([d.get_offsets() for d in embedding(x, y, method="tsne").collections])
    assert np.array_equal(points, again)


@pytest.mark.parametrize("x", [np.ones((1, 5)), np.ones((4, 1)), np.zeros((3, 2))])
def test_vectors_without_differences_are_drawn(x):
    axes = embedding(x, ["same"] * len(x))
    assert np.array_equal(axes.collections[0].get_offsets(), np.zeros((len(x), 2)))
    assert axes.get_xlabel() == "component 1: 0.0% of the variance"
    assert pixels(axes.figure).std() > 1


def test_embedding_of_a_run_is_what_the_projector_shows(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 5)).round(3)
    with SummaryWriter(str(tmp_path / "tb")) as writer:
        writer.add_embedding(torch.zeros(3, 5), metadata=["old"] * 3, tag="embedding")
        rows = [["drops", "a.wav"], ["fall", "b.wav"]] * 10
        heads = ["label", "file"]
        writer.add_embedding(
            torch.tensor(x), rows, tag="embedding", metadata_header=heads, global_step=7
        )
    axes = embedding(tmp_path)
    assert legend(axes) == ["drops (10)", "fall (10)"]
    (tmp_path / "answers.csv").write_text("part,confidence\ntest,0.5\ntest,0.6\n")
    assert legend(embedding(tmp_path / "answers.csv")) == ["drops (10)", "fall (10)"]
    expected = np.asarray(embedding(x).collections[0].get_offsets())
    assert np.allclose(axes.collections[1].get_offsets(), expected[1::2], atol=1e-5)
    assert legend(embedding(tmp_path, "file"))[0] == "a.wav (10)"
    with pytest.raises(ParameterError, match="no column; there are: label, file"):
        embedding(tmp_path, "speaker")
    (tensors,) = (tmp_path / "tb").glob("00007/*/tensors.tsv")
    assert legend(embedding(tensors)) == ["drops (10)", "fall (10)"]
    (tensors.parent / "metadata.tsv").write_text("label\tfile\na\tb\n", encoding="utf-8")
    with pytest.raises(DecodeError, match="describes 1 of 20"):
        embedding(tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_embedding_of_a_table_of_features(tmp_path, suffix, data_root):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    from audiotorch.cli import main

    rows = sorted((data_root / "fsdd").rglob("0_*_[01].wav"))[:6]
    assert len(rows) == 6
    for i, path in enumerate(rows):
        target = tmp_path / "clips" / ("even" if i % 2 == 0 else "odd") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    out = tmp_path / f"features{suffix}"
    names = ["--features", "mfcc,spectral_centroid"]
    assert main(["features", str(tmp_path / "clips"), "--out", str(out), *names]) == 0
    axes = embedding(out)
    assert legend(axes) == ["even (3)", "odd (3)"]
    shares = [float(label().split()[2][:-1]) for label in (axes.get_xlabel, axes.get_ylabel)]
    # Each feature counts the same: Hz alone would be all of the variance.
    assert 100 > sum(shares) > 20
    assert shares[0] < 95


@pytest.mark.parametrize(
    ("data", "settings", "text"),
    [
        (np.ones(3), {}, "need 2 dimensions"),
        (np.zeros((0, 3)), {}, "need one at least"),
        (np.array([[1.0, np.nan]]), {}, "1 of 2 are NaN"),
        (np.array([[1.0, np.inf]]), {}, "infinite"),
        (np.ones((3, 2)), {"labels": ["a"]}, "labels: 1 for 3 vectors"),
        (np.ones((3, 2)), {"labels": "column"}, "names a column of a file"),
        (np.ones((3, 2)), {"method": "umap"}, "must be one of pca, tsne"),
        (np.ones((3, 2)), {"method": "tsne"}, "needs 4 vectors"),
        (np.ones((3, 2)), {"max_points": 0}, "max_points=0"),
        ("nowhere.csv", {}, "nowhere.csv: must be"),
        ("nowhere.wav", {}, "must be a run's directory or a file"),
    ],
)
def test_vectors_that_are_none_are_refused(data, settings, text):
    with pytest.raises(ParameterError, match=text):
        embedding(data, **settings)


def test_files_that_hold_no_vectors_are_told(tmp_path):
    for name, text in (
        ("a.csv", "file,x\na,1\nb\n"),
        ("b.csv", "file,x\n"),
        ("c.csv", ""),
        ("d.npz", "no archive"),
        ("e.csv", "file,x\na,1\nb,two\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(DecodeError, match=name) as caught:
            embedding(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ParameterError, match="holds no embeddings"):
        embedding(tmp_path)


# --- training curves ------------------------------------------------------------------------------


def events(path: Path) -> list[tuple[str, int, float]]:
    """Scalars of an event file, read record by record as TFRecord is laid out."""
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + size])
        at += size + 16
        found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    return found


def run(folder: Path, n_epochs: int = 6, first: int = 0, losses=None) -> Path:
    """Write what Lightning's logger writes of a training with three steps an epoch."""
    generator = np.random.default_rng(first)
    with SummaryWriter(str(folder / "tb"), filename_suffix=f".{first}") as writer:
        for epoch in range(first, n_epochs):
            for step in range(3 * epoch, 3 * epoch + 3):
                writer.add_scalar("train/loss_step", generator.random() + 1, step)
                writer.add_scalar("lr-AdamW", 0.1 / (step + 1), step)
                writer.add_scalar("epoch", epoch, step)
            last = 3 * epoch + 2
            given = losses[epoch] if losses else generator.random()
            for name, value in (("val/loss", given), ("val/acc", generator.random())):
                writer.add_scalar(name, value, last)
            writer.add_scalar("train/loss_epoch", generator.random(), last)
            writer.add_image("val/confusion_matrix", np.zeros((8, 8, 3)), last, dataformats="HWC")
    facts = {"epochs": n_epochs, "exported_epoch": 4}
    (folder / "metrics.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def test_curves_are_what_the_event_file_says(tmp_path):
    run(tmp_path)
    (file,) = (tmp_path / "tb").glob("events*")
    logged = events(file)
    axes = training_curves(tmp_path, title="a run")
    panels = axes.figure.axes
    assert [panel.get_ylabel() for panel in panels] == ["loss", "accuracy", "learning rate"]
    names = ("train/loss_step", "train/loss_epoch", "val/loss")
    for line, name in zip(axes.lines, names, strict=False):
        points = [(step, value) for tag, step, value in logged if tag == name]
        expected = [((step + 1) / 3, value) for step, value in points]
        assert np.allclose(line.get_xydata(), expected), name
    losses = [value for tag, _, value in logged if tag == "val/loss"]
    star = axes.collections[0].get_offsets()[0]
    assert star.tolist() == pytest.approx([1 + int(np.argmin(losses)), min(losses)])
    accuracies = [value for tag, _, value in logged if tag == "val/acc"]
    best = panels[1].collections[0].get_offsets()[0]
    assert best.tolist() == pytest.approx([1 + int(np.argmax(accuracies)), max(accuracies)])
    told = legend(axes)
    assert told[-1] == "exported: epoch 4"
    assert list(axes.lines[-1].get_xdata()) == [4, 4]
    assert f"best: {min(losses):.3g}, epoch {1 + int(np.argmin(losses))}" in told
    assert panels[-1].get_xlabel() == "epoch"
    given = new_figure(4, 3).add_subplot()
    assert training_curves(tmp_path, metric="acc", ax=given) is given
    assert np.allclose(given.lines[0].get_ydata(), accuracies)
    with pytest.raises(ParameterError, match="metric='bleu': must be one of loss"):
        training_curves(tmp_path, metric="bleu")


def test_a_resumed_run_is_one_curve(tmp_path):
    run(tmp_path, 4)
    run(tmp_path, 6, first=2)
    old, new = sorted((tmp_path / "tb").glob("events*"), key=lambda path: path.name[-1])
    logged = [(s, v) for tag, s, v in events(old) if tag == "val/loss" and s < 6]
    logged += [(s, v) for tag, s, v in events(new) if tag == "val/loss"]
    assert len(logged) == 6
    axes = training_curves(tmp_path, metric="loss")
    assert np.allclose(axes.lines[2].get_ydata(), [value for _, value in logged])


def test_curves_of_a_mapping_and_of_what_diverged():
    steps = torch.arange(4)
    data = {"train/loss": (steps, [1.0, 0.5, np.nan, np.inf]), "val/loss": (steps, [np.nan] * 4)}
    axes = training_curves(data)
    assert legend(axes) == ["training (2 not finite)", "validation (4 not finite)"]
    assert axes.lines[0].get_ydata()[:2].tolist() == [1.0, 0.5]
    assert axes.get_xlabel() == "step"
    assert pixels(axes.figure).std() > 5
    wide = training_curves({"train/loss": ([1, 2], [100.0, 1.0])})
    assert wide.get_yscale() == "log"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({}, "pairs of steps and values"),
        (3, "pairs of steps and values"),
        ({"loss": 3}, "loss: must be steps and values"),
        ({"loss": ([1, 2], [1.0])}, "loss: 2 steps"),
        ({"loss": ([1, np.nan], [1.0, 2.0])}, "NaN"),
    ],
)
def test_curves_of_nothing_are_refused(data, text):
    with pytest.raises(ParameterError, match=text):
        training_curves(data)


def test_a_run_without_epochs_says_so(tmp_path):
    with pytest.raises(ParameterError, match=r"holds no tb/events"):
        training_curves(tmp_path)
    with SummaryWriter(str(tmp_path / "tb")) as writer:
        writer.add_scalar("cv/acc", 0.5, 0)
    with pytest.raises(ParameterError, match="has no epochs to draw"):
        training_curves(tmp_path)


# --- all of them ----------------------------------------------------------------------------------


def test_names_of_any_kind_are_shown_as_text(tmp_path, recwarn):
    n = len(NASTY)
    targets = np.arange(4 * n) % n
    shares = np.full((4 * n, n), 0.5 / n) + 0.5 * np.eye(n)[targets]
    answers = AnswerTable.of_classes("test", NASTY, targets, targets, shares)
    title = "".join(NASTY)
    scores = {name: np.arange(3.0) for name in NASTY}
    drawn = [
        confusion_matrix(answers, title=title),
        reliability({name: (shares, targets) for name in NASTY}, title=title),
        roc(answers, n_bootstrap=10, title=title),
        roc([0, 1], [0.0, 1.0], thresholds=dict.fromkeys(NASTY, 0.5), title=title),
        score_histogram(scores, dict.fromkeys(NASTY, 0.5), title=title),
        embedding(shares, [NASTY[k] for k in targets], title=title),
        training_curves({name: ([1, 2], [1.0, 2.0]) for name in NASTY[1:]}, title=title),
    ]
    for i, axes in enumerate(drawn):
        save_figure(axes.figure, tmp_path / f"{i}.png")
        told = legend(axes) if axes.get_legend() else [t.get_text() for t in axes.get_yticklabels()]
        if i not in (3, 6):
            assert sum("<script>" in text for text in told) >= 1
            assert sum("_a" in text for text in told) >= 1
    assert not [str(warning.message) for warning in recwarn]


def test_pictures_are_drawn_on_given_axes():
    figure = new_figure(12, 8)
    panels = figure.subplots(2, 3).ravel()
    drawn = [
        confusion_matrix(table(), ax=panels[0]),
        reliability(table(), ax=panels[1]),
        roc(table(), ax=panels[2], n_bootstrap=10),
        score_histogram(scored("test", 9, 9), ax=panels[3]),
        embedding(np.eye(4), ax=panels[4]),
        training_curves({"train/loss": ([1, 2], [2.0, 1.0])}, ax=panels[5]),
    ]
    assert all(a is b for a, b in zip(drawn, panels, strict=True))
    assert len(figure.axes) == 6
    assert pixels(figure).std() > 10


def test_truth_without_scores_and_a_file_of_another_kind_are_named(tmp_path):
    with pytest.raises(ParameterError, match="scores: needed"):
        roc([0, 1, 1])
    other = tmp_path / "clip.csv"
    other.write_bytes(b"fLaC" + bytes(range(1, 10)) * 500)
    with pytest.raises(ParameterError, match="must start with part") as refused:
        confusion_matrix(other)
    assert len(str(refused.value)) < 300
