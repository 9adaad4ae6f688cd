"""Recordings in class folders: their vectors, a classifier, and its answers."""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audiotorch.audio import Source
from audiotorch.data.manifest import audio_files
from audiotorch.errors import ParameterError, printable
from audiotorch.recipes.clips import summary_vector
from audiotorch.recipes.vectors import skipped, vectors_in_threads, vectors_of

__all__ = ["load_audio_dataset", "predict_audio_file", "train_audio_classifier"]

Array = npt.NDArray[Any]

_FOLDS = 5
# Where scikit-learn stops by default, a last digit of the features still moves the accuracy by a
# point: on 320 clips of 10 classes, 0.894 to 0.906, whose limit is 0.897.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {"logistic": {"tol": 1e-5}}
_SEED = 42


def load_audio_dataset(
    audio_dir: str | os.PathLike[str],
    sr: int = 22050,
    duration: float | None = None,
    max_files_per_class: int | None = None,
) -> tuple[Array, Array, list[str]]:
    """Read a folder per class, and sum each recording up in 270 numbers.

    Classes are the folders in `audio_dir` sorted by name, clips the audio files anywhere in them
    sorted by path; whatever starts with a dot is left out. A clip shorter than 0.5 s (at low rates,
    than the 4096 samples that the deltas need) is padded with zeros to it. A file that cannot be
    read is skipped with a warning that names it. A folder without clips stays a class, with a
    warning. Files are read and computed on as many threads as `torch.get_num_threads()` says, a
    few at a time.

    Args:
        audio_dir: the folder that holds the class folders.
        sr: Hz that recordings are brought to.
        duration: seconds read of each, from its start; `None` reads it whole.
        max_files_per_class: take so many of each class, the first ones; `None` takes all.

    Returns:
        Features `(clips, 270)`, float64; labels `(clips,)`, int64, each a position in the third,
        the names of the classes.

    Raises:
        ParameterError: an argument is out of range, there is no class folder, or no file that can
            be read.
    """
    front_end = summary_vector(sr)
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ParameterError(f"duration={duration!r}: must be above 0 seconds, or None for all")
    if max_files_per_class is not None and max_files_per_class < 1:
        raise ParameterError(
            f"max_files_per_class={max_files_per_class!r}: must be at least 1, or None for all"
        )
    folders = _class_folders(audio_dir)
    listed = [audio_files(folder, "**/*")[:max_files_per_class] for folder in folders]
    found = vectors_in_threads(front_end, [file for files in listed for file in files], duration)
    vectors: list[Array] = []
    labels: list[int] = []
    for label, (folder, files) in enumerate(zip(folders, listed, strict=True)):
        n_before = len(vectors)
        for file in files:
            vector = next(found)
            if isinstance(vector, Exception):
                warnings.warn(skipped(file, vector), stacklevel=2)
            else:
                vectors.append(vector)
        labels += [label] * (len(vectors) - n_before)
        if len(vectors) == n_before:
            told = printable(str(folder))
            warnings.warn(f"{told}: holds no clip; the class has none", stacklevel=2)
    if not vectors:
        raise ParameterError(
            f"audio_dir={os.fspath(audio_dir)!r}: none of its {sum(map(len, listed))} audio files "
            "in class folders can be read; put recordings there, a folder for each class"
        )
    return np.stack(vectors), np.array(labels), [folder.name for folder in folders]


def train_audio_classifier(
    features: Array, labels: Array, class_names: Sequence[str], classifier: str = "random_forest"
) -> dict[str, Any]:
    """Train a scaler and a classifier, and say how well they do on clips not seen.

    The accuracy is that of stratified 5-fold cross-validation, shuffled with seed 42; the model is
    fitted on all clips. Folds go by clips: where one speaker or recording gave several, the
    accuracy on others will be lower.

    Args:
        features: finite numbers, a row for each clip.
        labels: whole numbers, positions in `class_names`.
        class_names: what the classes are called.
        classifier: `logistic` (C=1, at most 500 iterations, to a tolerance of 1e-5),
            `random_forest` (100 trees), `gradient_boost` (100 stages), or another name that
            `audiotorch.models.classic.CLASSIFIERS` knows.

    Shape:
        - Input: `(clips, columns)` and `(clips,)`

    Returns:
        `model`, a fitted scikit-learn Pipeline with a StandardScaler first; `cv_mean` and `cv_std`,
        of the accuracies of the folds; `class_names`.

    Raises:
        ParameterError: shapes or values do not fit, an unknown classifier, fewer than two classes
            with clips, a class with a single clip, or too few clips for the classifier.
    """
    # scikit-learn loads where it is needed only.
    from sklearn.model_selection import StratifiedKFold
    from sklearn.utils.parallel import Parallel, delayed
    from threadpoolctl import threadpool_limits

    from audiotorch.models.classic import build_classifier

    x, target, names = _training_data(features, labels, class_names)
    model = build_classifier(classifier, **_SETTINGS.get(classifier, {}))
    folds = StratifiedKFold(_n_folds(target, names), shuffle=True, random_state=_SEED)
    everything, nothing = np.arange(len(x)), np.arange(0)
    parts = [(everything, nothing), *folds.split(x, target)]
    try:
        # Trees and BLAS go on without the interpreter lock. BLAS has a thread in each of ours:
        # on matrices as small as these, more only wait for each other.
        jobs = Parallel(torch.get_num_threads(), prefer="threads")
        with threadpool_limits(1, user_api="blas"):
            fitted = jobs(delayed(_fit)(model, x, target, *part) for part in parts)
    except ValueError as error:
        raise ParameterError(
            f"classifier={classifier!r}: cannot be trained on {len(x)} clips: {error}; record "
            "more, or choose another"
        ) from error
    accuracies = [accuracy for _, accuracy in fitted[1:]]
    return {
        "model": fitted[0][0],
        "cv_mean": float(np.mean(accuracies)),
        "cv_std": float(np.std(accuracies)),
        "class_names": names,
    }


def predict_audio_file(
    model_info: Mapping[str, Any], filepath: Source, sr: int = 22050
) -> dict[str, Any]:
    """Say what a recording is.

    Args:
        model_info: what `train_audio_classifier` gave for the features of `load_audio_dataset`.
        filepath: the recording; read whole, and padded as `load_audio_dataset` does.
        sr: Hz; must be what it was in training.

    Returns:
        `predicted_class`, the most probable one; `confidence`, its probability; `all_probs`, that
        of each class by name, 0 for classes that had no clips.

    Raises:
        ParameterError: the model takes other features.
        DecodeError: the file cannot be read, or holds no samples.
    """
    front_end = summary_vector(sr)
    model, names = model_info["model"], model_info["class_names"]
    if model.n_features_in_ != front_end.output_shape[0]:
        raise ParameterError(
            f"model_info: its model takes {model.n_features_in_} numbers a clip, not the "
            f"{front_end.output_shape[0]} of load_audio_dataset; train it on those"
        )
    (vector,) = vectors_of(front_end, [filepath], None)
    if isinstance(vector, Exception):
        raise vector
    chances = dict.fromkeys(names, 0.0)
    for label, chance in zip(model.classes_, model.predict_proba(vector[None])[0], strict=True):
        chances[names[label]] = float(chance)
    best = max(chances, key=chances.__getitem__)
    return {"predicted_class": best, "confidence": chances[best], "all_probs": chances}


def _class_folders(audio_dir: str | os.PathLike[str]) -> list[Path]:
    root = Path(audio_dir).expanduser()
    if not root.is_dir():
        raise ParameterError(f"audio_dir={os.fspath(audio_dir)!r}: must be an existing folder")
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."]
    if not folders:
        raise ParameterError(
            f"audio_dir={os.fspath(audio_dir)!r}: must hold a folder of recordings for each class"
        )
    return sorted(folders, key=lambda path: path.name)


def _training_data(
    features: Array, labels: Array, class_names: Sequence[str]
) -> tuple[Array, Array, list[str]]:
    x, target, names = np.asarray(features), np.asarray(labels), list(class_names)
    if x.ndim != 2 or x.dtype.kind not in "fiu" or 0 in x.shape:
        raise ParameterError(
            f"features of shape {x.shape} and {x.dtype}: must be numbers (clips, columns)"
        )
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ParameterError(
            f"features[{row}, {column}]={x[row, column]}: must be finite; leave the clip out"
        )
    if target.shape != x.shape[:1] or target.dtype.kind not in "iu":
        raise ParameterError(
            f"labels of shape {target.shape} and {target.dtype}: must be {len(x)} whole numbers, "
            "positions in class_names"
        )
    if len(set(names)) < len(names):
        raise ParameterError(f"class_names={names}: each must stand once")
    outside = (target < 0) | (target >= len(names))
    if outside.any():
        raise ParameterError(
            f"labels: {target[outside][0]} is no position in class_names, which has {len(names)}"
        )
    return x, target, names


def _n_folds(target: Array, names: Sequence[str]) -> int:
    """As many folds as the smallest class has clips, five at most."""
    counts = np.bincount(target, minlength=len(names))
    present = np.flatnonzero(counts)
    if len(present) < 2:
        raise ParameterError(
            f"labels: clips of {len(present)} class only; there must be two to tell apart"
        )
    smallest = present[np.argmin(counts[present])]
    n = int(counts[smallest])
    if n == 1:
        raise ParameterError(
            f"labels: class {names[smallest]!r} has a single clip; it takes two to train on one "
            "and check with the other: record more, or leave the class out"
        )
    if n < _FOLDS:
        warnings.warn(
            f"class {names[smallest]!r} has {n} clips: {n} folds instead of {_FOLDS}", stacklevel=3
        )
    return min(n, _FOLDS)


def _fit(model: Any, x: Array, target: Array, train: Array, test: Array) -> tuple[Any, float]:
    """Fit a copy of a model, and say how accurate it is on the clips to test with, if any."""
    from sklearn.base import clone

    fitted = clone(model).fit(x[train], target[train])
    return fitted, float(fitted.score(x[test], target[test])) if len(test) else math.nan
