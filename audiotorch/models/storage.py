"""Fitted classifiers and detectors in files, without pickle."""

import io
import json
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from audiotorch.audio.whole import written_whole
from audiotorch.errors import DecodeError, ParameterError, printable
from audiotorch.models.classic import CLASSIFIERS
from audiotorch.models.detectors import DETECTOR_KINDS, anomaly_scores, is_detector
from audiotorch.models.nearest import NearestDistance

__all__ = [
    "TRUSTED",
    "load_fitted",
    "read_notes",
    "save_fitted",
]

log = logging.getLogger(__name__)

TRUSTED = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "audiotorch.models.nearest.NearestDistance",
)
"""Types that our estimators consist of and skops does not trust by itself. The node numbers in
trees, which scikit-learn follows unchecked, are checked after loading."""

_KINDS = (
    *(kind for kind, _ in CLASSIFIERS.values()),
    *DETECTOR_KINDS,
    StandardScaler,
    PCA,
    CalibratedClassifierCV,
)
_NOTES = "audiotorch.json"
# Trees shrink to a tenth. What grows a hundredfold was made to fill the memory.
_GROWTH, _SMALL = 100, 16 << 20


def save_fitted(
    fitted: Any, path: str | os.PathLike[str], notes: Mapping[str, Any] | None = None
) -> None:
    """Write a fitted classifier or detector, or several, as a skops file: complete, or not at all.

    `skops.io.load(path, trusted=audiotorch.models.storage.TRUSTED)` reads it as well.

    Args:
        fitted: from `fit_classifier` or `fit_detector`, or a list or a dict of such.
        path: the file, `.skops` by custom; its folder must exist.
        notes: what is to be known of it, such as labels and names of the columns: what JSON holds.
            The versions of scikit-learn and skops are added.

    Raises:
        ParameterError: an estimator of another kind than `build_classifier` and `build_detector`
            give, settings that cannot be stored, or notes that are not JSON.
        OSError: the folder is missing or read-only, or the disk is full.
    """
    import skops.io

    path = Path(path)
    versions = {name: version(name) for name in ("scikit-learn", "skops", "numpy")}
    try:
        _check(fitted)
        text = json.dumps({**(notes or {}), "versions": versions}, allow_nan=False)
        data = skops.io.dumps(fitted, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
        unknown = set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED)
    except (TypeError, ValueError, AttributeError) as error:
        raise ParameterError(f"{path.name}: cannot be stored: {error}") from error
    if unknown:
        raise ParameterError(
            f"{path.name}: holds {', '.join(sorted(unknown))}, which would not be loaded again; "
            "leave out that setting (for knn take algorithm='brute')"
        )
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_NOTES, text)
    with written_whole(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def load_fitted(path: str | os.PathLike[str]) -> Any:
    """Load what `save_fitted` wrote: a classifier or detector, or a list or dict of such.

    Nothing is unpickled, and only known types are built. Sizes, checksums and node numbers are
    checked first, and each has to answer a probe.

    Args:
        path: the file.

    Raises:
        DecodeError: the file is missing, damaged or something else, holds other types, or was
            written by a version of scikit-learn whose estimators this one does not load.
    """
    import skops.io
    from sklearn.exceptions import InconsistentVersionWarning

    name = printable(os.fspath(path))
    notes = read_notes(path)
    written = notes.get("versions", {}).get("scikit-learn", "of unknown version")
    remedy = (
        f"it was written with scikit-learn {printable(str(written))}, here is "
        f"{version('scikit-learn')}: install that one, or train and save it again"
    )
    try:
        data = Path(path).read_bytes()
        unknown = set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED)
        if unknown:
            raise DecodeError(
                f"{name!r} holds types that no estimator of audiotorch has, and is not loaded: "
                f"{printable(', '.join(sorted(unknown)))}"
            )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InconsistentVersionWarning)
            fitted = skops.io.loads(data, trusted=list(TRUSTED))
            _check(fitted)
            for one in _members(fitted):
                _probe(one)
    except DecodeError:
        raise
    except Exception as error:  # Whatever the content of a file leads skops or scikit-learn to.
        reason = printable(str(error))[:200] or type(error).__name__
        raise DecodeError(f"{name!r} does not load ({reason}): {remedy}") from error
    if any(issubclass(one.category, InconsistentVersionWarning) for one in caught):
        log.warning("%s: may answer otherwise than it did: %s", name, remedy)
    return fitted


def read_notes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a file says of its content, without loading that.

    Args:
        path: a file that `save_fitted` wrote.

    Returns:
        The `notes` given to `save_fitted`, and `versions`. Empty for a file by plain skops.

    Raises:
        DecodeError: the file is missing, damaged, or something else.
    """
    name = printable(os.fspath(path))
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > _GROWTH * os.path.getsize(path) + _SMALL:
                raise DecodeError(
                    f"{name!r} would unpack to {size >> 20} MiB, more than an estimator of "
                    "its size holds, and is not loaded"
                )
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            members = archive.namelist()
            if "schema.json" not in members:
                raise zipfile.BadZipFile("it has no schema.json")
            notes = json.loads(archive.read(_NOTES)) if _NOTES in members else {}
        if not isinstance(notes, dict) or not isinstance(notes.get("versions", {}), dict):
            raise ValueError(f"{_NOTES} is not a table")
        return notes
    except DecodeError:
        raise
    except FileNotFoundError as error:
        raise DecodeError(f"{name!r} does not exist") from error
    except Exception as error:  # zlib, zipfile and json raise many kinds on damaged files.
        raise DecodeError(
            f"{name!r} is damaged, or not a skops file ({printable(str(error))[:200]}): copy or "
            "save it again; pickles (.pkl, .joblib) are never loaded, since they can run any code"
        ) from error


def _members(fitted: Any) -> list[Any]:
    """The estimators of a list or dict; of anything else itself.

    Raises:
        ValueError: there are none, or the dict has other keys than strings.
    """
    if type(fitted) is dict:
        if not all(isinstance(key, str) for key in fitted):
            raise ValueError("a dict needs strings as keys")
        fitted = list(fitted.values())
    if type(fitted) is list and not fitted:
        raise ValueError("it holds nothing")
    return fitted if type(fitted) is list else [fitted]


def _is_classifier(fitted: Any) -> bool:
    return hasattr(fitted, "predict_proba") and hasattr(fitted, "classes_")


def _probe(fitted: Any) -> None:
    """Have an estimator answer.

    Raises:
        ValueError: it gives other than finite numbers, or too few or many.
    """
    zeros = np.zeros((2, fitted.n_features_in_))
    if _is_classifier(fitted):
        answer, rest = fitted.predict_proba(zeros), [len(fitted.classes_)]
    else:
        answer, rest = anomaly_scores(fitted, zeros), []
    if list(answer.shape) != [2, *rest] or not np.isfinite(answer).all():
        raise ValueError(f"a probe was answered by {answer!r}")


def _check(fitted: Any) -> None:
    """Refuse other estimators than ours, and numbers that compiled code would follow unchecked.

    Raises:
        ValueError: such a one.
    """
    for one in _members(fitted):
        if not _is_classifier(one) and not is_detector(one):
            raise ValueError(f"a {type(one).__name__} is no fitted classifier or detector")
        for estimator in _parts(one):
            if type(estimator) not in _KINDS:
                raise ValueError(f"{type(estimator).__name__}: not a part of what audiotorch fits")
            _check_estimator(estimator)


def _check_estimator(estimator: Any) -> None:
    n_features = int(estimator.n_features_in_)
    for tree, width in _trees(estimator):
        _check_tree(tree, width)
    for stage in getattr(estimator, "_predictors", ()):
        for predictor in stage:
            nodes = predictor.nodes
            if nodes["is_categorical"].any():
                raise ValueError("a tree with categories, which audiotorch does not train")
            splits = nodes["is_leaf"] == 0
            _check_nodes(nodes["left"], nodes["right"], nodes["feature_idx"], splits, n_features)
    if isinstance(estimator, SVC):
        _check_vectors_of(estimator)
    if hasattr(estimator, "mahalanobis"):
        sizes = (np.shape(estimator.location_), np.shape(estimator.get_precision()))
        if sizes != ((n_features,), (n_features, n_features)):
            raise ValueError("a covariance whose sizes do not fit")
    if isinstance(estimator, NearestDistance):
        _check_neighbours(estimator)


def _parts(fitted: Any) -> Iterator[Any]:
    """The steps of a Pipeline, and the classifiers inside calibrations."""
    for step in [step for _, step in fitted.steps] if isinstance(fitted, Pipeline) else [fitted]:
        yield step
        if isinstance(step, CalibratedClassifierCV):
            yield from (pair.estimator for pair in step.calibrated_classifiers_)


def _trees(estimator: Any) -> Iterator[tuple[Any, int]]:
    """Each tree, and the width of the vectors that it will get."""
    members = np.asarray(getattr(estimator, "estimators_", []), dtype=object).ravel()
    width = int(estimator.n_features_in_)
    if isinstance(estimator, IsolationForest):
        width = int(estimator._max_features)
        own = {np.shape(columns) for columns in estimator.estimators_features_}
        if own != {(width,)} or len(estimator.estimators_features_) != len(members):
            raise ValueError("trees of other features than they are given")
    for one in members:
        yield one.tree_, width


def _check_tree(tree: Any, n_features: int) -> None:
    if tree.node_count != tree.capacity or tree.node_count < 1 or tree.n_features != n_features:
        raise ValueError("a tree whose size is not that of its nodes")
    left, right = tree.children_left, tree.children_right
    _check_nodes(left, right, tree.feature, (left != -1) | (right != -1), n_features)


def _check_nodes(
    left: np.ndarray, right: np.ndarray, feature: np.ndarray, splits: np.ndarray, n_features: int
) -> None:
    """Children come after their parent, and within the tree: no way leads out or in a circle."""
    children = np.stack([left, right])[:, splits].astype(np.int64)
    feature = feature[splits].astype(np.int64)
    after = children > np.flatnonzero(splits)
    if not (len(left) and after.all() and (children < len(left)).all()):
        raise ValueError("a tree whose nodes lead out of it")
    if (feature < 0).any() or (feature >= n_features).any():
        raise ValueError("a tree that asks for features which there are not")


def _check_vectors_of(svm: SVC) -> None:
    n_classes, n_vectors = len(svm.classes_), len(svm.support_)
    shapes = {
        "support_vectors_": (n_vectors, svm.n_features_in_),
        "_dual_coef_": (n_classes - 1, n_vectors),
        "_intercept_": (n_classes * (n_classes - 1) // 2,),
        "_n_support": (n_classes,),
    }
    wrong = [name for name, shape in shapes.items() if getattr(svm, name).shape != shape]
    counts = svm._n_support
    if wrong or (counts < 0).any() or counts.sum() != n_vectors or not isinstance(svm.kernel, str):
        raise ValueError(f"support vectors whose sizes do not fit ({', '.join(wrong)})")


def _check_neighbours(estimator: NearestDistance) -> None:
    vectors = estimator._fit_X
    shape = (estimator.n_samples_fit_, estimator.n_features_in_)
    plain = isinstance(vectors, np.ndarray) and vectors.dtype == np.float64
    metrics = {estimator.metric, estimator.effective_metric_}
    if not plain or vectors.shape != shape or estimator._fit_method != "brute":
        raise ValueError("neighbours whose vectors do not fit")
    if not metrics <= {"euclidean", "cosine"} or not 1 <= estimator.n_neighbors <= len(vectors):
        raise ValueError("neighbours with settings that audiotorch does not have")
