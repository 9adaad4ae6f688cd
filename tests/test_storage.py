import io
import json
import logging
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.datasets import make_classification
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from audiotorch.errors import DecodeError, ParameterError
from audiotorch.models.classic import CLASSIFIERS, build_classifier, fit_classifier
from audiotorch.models.storage import TRUSTED, load_fitted, read_notes, save_fitted

SMALL = {"n_estimators": 5}
QUICK = {"random_forest": SMALL, "extra_trees": SMALL, "gradient_boost": SMALL}
QUICK |= {"hist_gradient_boost": {"max_iter": 5}}


def fitted(name: str, n_classes: int = 3, **settings) -> tuple[object, np.ndarray]:
    x, y = make_classification(80, 8, n_informative=5, n_classes=n_classes, random_state=0)
    return fit_classifier(build_classifier(name, **QUICK.get(name, {}), **settings), x, y), x


def rewrite(path: Path, change: dict[str, bytes]) -> Path:
    """The same archive with other members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**members, **change}.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("calibration", [None, "isotonic", "temperature"])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_comes_back_as_it_was(name, n_classes, calibration, tmp_path):
    classifier, x = fitted(name, n_classes, calibration=calibration)
    path = tmp_path / "classifier.skops"
    notes = {"labels": ["a", "naïve\x1b"], "names": ["mfcc_mean_0"]}
    save_fitted(classifier, path, notes)
    loaded = load_fitted(path)
    np.testing.assert_array_equal(loaded.predict_proba(x), classifier.predict_proba(x))
    found = read_notes(path)
    assert {key: found[key] for key in notes} == notes
    assert set(found["versions"]) == {"scikit-learn", "skops", "numpy"}
    assert os.listdir(tmp_path) == ["classifier.skops"]
    plain = skops.io.load(path, trusted=list(TRUSTED))
    np.testing.assert_array_equal(plain.predict_proba(x), classifier.predict_proba(x))


def test_a_plain_skops_file_loads_without_notes(tmp_path):
    classifier, x = fitted("logistic")
    skops.io.dump(classifier, tmp_path / "plain.skops")
    np.testing.assert_array_equal(
        load_fitted(tmp_path / "plain.skops").predict(x), classifier.predict(x)
    )
    assert read_notes(tmp_path / "plain.skops") == {}


def test_what_would_not_load_is_not_written(tmp_path):
    path = tmp_path / "a.skops"
    path.write_bytes(b"old")
    x, y = make_classification(40, 4, random_state=0)
    for wrong in (
        build_classifier("logistic"),
        LinearRegression().fit(x, y),
        GaussianNB().fit(x, y),
        make_pipeline(FunctionTransformer(np.tanh), build_classifier("knn")).fit(x, y),
    ):
        with pytest.raises(ParameterError, match=r"a\.skops: cannot be stored"):
            save_fitted(wrong, path)
    tree = build_classifier("knn", algorithm="kd_tree").fit(x, y)
    with pytest.raises(ParameterError, match="algorithm='brute'"):
        save_fitted(tree, path)
    with pytest.raises(ParameterError, match=r"not JSON compliant|Out of range"):
        save_fitted(build_classifier("knn").fit(x, y), path, {"acc": float("nan")})
    with pytest.raises(FileNotFoundError):
        save_fitted(build_classifier("knn").fit(x, y), tmp_path / "missing" / "a.skops")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.skops"]


class Bomb:
    """Unpickling or building it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self):
        return Path.touch, (Path(self.mark),)


class Trap:
    """Its state, once set, leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __getstate__(self):
        return {"mark": self.mark}

    def __setstate__(self, state):
        Path(state["mark"]).touch()


def test_no_code_of_a_file_runs(tmp_path):
    mark = tmp_path / "mark"
    for name, data in (
        ("pickle.skops", pickle.dumps(Bomb(mark))),
        ("trap.skops", skops.io.dumps(Trap(mark))),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DecodeError, match=r"never loaded|holds types that no estimator"):
            load_fitted(tmp_path / name)
    # Inside an otherwise good classifier, and as an array of objects.
    classifier, _ = fitted("logistic")
    classifier[-1].trap_ = Trap(mark)
    skops.io.dump(classifier, tmp_path / "inside.skops")
    with pytest.raises(DecodeError, match=r"test_storage\.Trap"):
        load_fitted(tmp_path / "inside.skops")
    classifier[-1].trap_ = np.zeros(3)
    path = tmp_path / "array.skops"
    skops.io.dump(classifier, path)
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path) as archive:
        arrays = [name for name in archive.namelist() if name.endswith(".npy")]
    with pytest.raises(DecodeError, match="allow_pickle=False"):
        load_fitted(rewrite(path, dict.fromkeys(arrays, buffer.getvalue())))
    assert not mark.exists()
    skops.io.loads(skops.io.dumps(Trap(mark)), trusted=["test_storage.Trap"])
    assert mark.exists(), "the trap works where it is trusted"


def test_other_files_are_named(tmp_path):
    with pytest.raises(DecodeError, match=r"gone\.skops' does not exist"):
        load_fitted(tmp_path / "gone.skops")
    with pytest.raises(DecodeError, match="is damaged, or not a skops file"):
        load_fitted(tmp_path)
    (tmp_path / "empty.skops").touch()
    with zipfile.ZipFile(tmp_path / "zip.skops", "w") as archive:
        archive.writestr("a.txt", "a")
    for name in ("empty.skops", "zip.skops"):
        with pytest.raises(DecodeError, match="is damaged, or not a skops file"):
            load_fitted(tmp_path / name)
    skops.io.dump([1, 2], tmp_path / "list.skops")
    with pytest.raises(DecodeError, match="a int is no fitted classifier or detector"):
        load_fitted(tmp_path / "list.skops")


def test_every_damage_is_a_decode_error(tmp_path):
    classifier, x = fitted("svm")
    path = tmp_path / "a.skops"
    save_fitted(classifier, path)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        if generator.random() < 0.3:
            data = data[: generator.integers(len(data))]
        else:
            data[generator.integers(len(data))] ^= 1 << generator.integers(8)
        path.write_bytes(data)
        try:
            np.testing.assert_array_equal(
                load_fitted(path).predict_proba(x), classifier.predict_proba(x)
            )
        except DecodeError:
            refused += 1
    assert refused > 40  # the rest hit a date or another field that nothing depends on


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.skops"
    save_fitted(fitted("logistic")[0], path)
    rewrite(path, {"zeros.npy": bytes(64 << 20)})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DecodeError, match="would unpack to 64 MiB"):
        load_fitted(path)
    deep = b'{"protocol": 2, "content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(DecodeError, match="does not load"):
        load_fitted(rewrite(path, {"schema.json": deep, "zeros.npy": b""}))


def test_another_scikit_learn(tmp_path, caplog):
    path = tmp_path / "a.skops"
    classifier, x = fitted("logistic")
    save_fitted(classifier, path)
    with zipfile.ZipFile(path) as archive:
        schema = archive.read("schema.json").decode()
    present = read_notes(path)["versions"]["scikit-learn"]
    notes = json.dumps({"versions": {"scikit-learn": "0.99.0"}}).encode()
    older = schema.replace(present, "0.99.0").encode()
    rewrite(path, {"schema.json": older, "audiotorch.json": notes})
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(load_fitted(path).predict(x), classifier.predict(x))
    assert len(caplog.records) == 1
    assert "written with scikit-learn 0.99.0, here is" in caplog.text
    strange = older.replace(b'"coef_"', b'"weights_"')
    with pytest.raises(DecodeError, match=r"does not load \(.*written with scikit-learn 0\.99\.0"):
        load_fitted(rewrite(path, {"schema.json": strange}))


@pytest.mark.parametrize("name", ["random_forest", "gradient_boost", "hist_gradient_boost"])
@pytest.mark.parametrize("field", ["child", "circle", "feature"])
def test_trees_that_lead_astray_are_refused(name, field, tmp_path):
    """scikit-learn's compiled code would read beyond the arrays, or never end."""
    classifier, _ = fitted(name)
    path = tmp_path / "a.skops"
    if name == "hist_gradient_boost":
        nodes = classifier[-1]._predictors[0][0].nodes
        key = {"child": "left", "circle": "left", "feature": "feature_idx"}[field]
        nodes[key][0] = 0 if field == "circle" else 10**6
        skops.io.dump(classifier, path)
    else:
        tree = classifier[-1].estimators_.ravel()[0] if name == "gradient_boost" else None
        tree = (tree if tree is not None else classifier[-1].estimators_[0]).tree_
        state = tree.__getstate__()
        key = {"child": "left_child", "circle": "right_child", "feature": "feature"}[field]
        state["nodes"][key][0] = 0 if field == "circle" else 10**6
        tree.__setstate__(state)
        skops.io.dump(classifier, path)
    with pytest.raises(DecodeError, match=r"a tree (whose nodes lead out|that asks for features)"):
        load_fitted(path)


def test_support_vectors_that_do_not_fit_are_refused(tmp_path):
    classifier, _ = fitted("svm")
    svm = classifier[-1].calibrated_classifiers_[0].estimator
    svm._n_support = svm._n_support + 1000
    skops.io.dump(classifier, tmp_path / "a.skops")
    with pytest.raises(DecodeError, match="support vectors whose sizes do not fit"):
        load_fitted(tmp_path / "a.skops")
