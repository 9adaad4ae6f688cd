"""How fast the introductory article's recipe is, from class folders to a model that was judged."""

import csv
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import librosa
import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold, cross_val_score

from audiotorch.bench.references import summary_of
from audiotorch.bench.speed import Deviation, Timing
from audiotorch.bench.threads import threads
from audiotorch.bench.works import SAMPLE_RATE
from audiotorch.errors import ParameterError
from audiotorch.models.classic import build_classifier
from audiotorch.recipes import load_audio_dataset, train_audio_classifier

__all__ = ["CLASSIFIERS", "SETS", "RecipeRow", "run_recipe"]

Array = npt.NDArray[Any]
_Answer = tuple[list[float], list[float], Array]

SETS = {"fsdd": "digit", "esc10": "class_name", "arabic_commands": "keyword"}
"""Corpus -> column of its `labels.csv` that names the class."""

CLASSIFIERS = ("logistic", "random_forest")
_ROUNDS = 3


class RecipeRow(NamedTuple):
    """A part of the recipe that was timed, or all of it.

    Attributes:
        corpus: the recordings.
        n_clips: how many of them.
        title: what was done.
        timing: how long it took.
        told: what both sides found.
    """

    corpus: str
    n_clips: int
    title: str
    timing: Timing
    told: str


def run_recipe(
    root: Path,
    n_clips: int,
    n_threads: int = 1,
    advance: Callable[[int], None] | None = None,
) -> list[RecipeRow]:
    """Time recipes against the same with librosa, paired, by turns the one and the other first.

    Both read, sum up, train and cross-validate on `n_threads`: librosa's side in Python threads,
    and scikit-learn's folds and forests on joblib's.

    Args:
        root: the folder that holds the corpora.
        n_clips: so many of each, evenly spread, or as many as there are.
        n_threads: threads on each side.
        advance: is told when another corpus is done.

    Raises:
        ParameterError: there is none of the corpora.
    """
    found = [corpus for corpus in SETS if (root / corpus / "labels.csv").is_file()]
    if not found:
        raise ParameterError(f"{str(root)!r}: holds none of {' '.join(SETS)} with a labels.csv")
    rows = []
    for corpus in found:
        with tempfile.TemporaryDirectory() as folder, threads(n_threads):
            _link(root / corpus, SETS[corpus], n_clips, Path(folder))
            rows += _rows(corpus, Path(folder), n_threads)
        if advance is not None:
            advance(1)
    return rows


def _link(corpus: Path, column: str, n_clips: int, folder: Path) -> None:
    """Make class folders of a corpus."""
    with (corpus / "labels.csv").open(newline="", encoding="utf-8") as file:
        listed = sorted(csv.DictReader(file), key=lambda row: (row[column], row["file"]))
    places = np.linspace(0, len(listed) - 1, min(n_clips, len(listed))).round().astype(int)
    for row in (listed[place] for place in places):
        path = corpus / row["file"]
        (folder / row[column]).mkdir(exist_ok=True)
        (folder / row[column] / path.name).symlink_to(path.resolve())


def _rows(corpus: str, folder: Path, n_threads: int) -> list[RecipeRow]:
    sides: tuple[Callable[..., _Answer], ...] = (_by_recipe, _by_librosa)
    with warnings.catch_warnings():
        # librosa's notices, and scikit-learn's where 500 iterations are not enough.
        warnings.simplefilter("ignore")
        for side in sides:
            side(folder, n_threads, 1)
        answers: dict[Any, list[_Answer]] = {side: [] for side in sides}
        for turn in range(_ROUNDS):
            for side in sides if turn % 2 else reversed(sides):
                answers[side].append(side(folder, n_threads))
        ours, theirs = answers[_by_recipe], answers[_by_librosa]
        told = _deviation(folder, ours[0][2], theirs[0][2])
    n_clips = len(ours[0][2])
    rows = [RecipeRow(corpus, n_clips, "vectors", _timing(ours, theirs, n_clips, [0]), told)]
    for place, name in enumerate(CLASSIFIERS):
        pair = [f"{100 * side[0][1][place]:.1f} %" for side in (ours, theirs)]
        told = f"accuracy {pair[0]}, on librosa's vectors {pair[1]}"
        for title, parts in (("training", [place + 1]), ("all", [0, place + 1])):
            timing = _timing(ours, theirs, n_clips, parts)
            rows.append(RecipeRow(corpus, n_clips, f"`{name}`, {title}", timing, told))
    return rows


def _timing(
    ours: list[_Answer], theirs: list[_Answer], n_clips: int, parts: Sequence[int]
) -> Timing:
    both = [
        [1000 * sum(answer[0][part] for part in parts) / n_clips for answer in side]
        for side in (ours, theirs)
    ]
    return Timing(*both)


def _by_recipe(folder: Path, n_threads: int, max_files: int | None = None) -> _Answer:
    """Seconds of vectors and of each training, accuracies, and vectors."""
    start = time.perf_counter()
    features, labels, names = load_audio_dataset(folder, max_files_per_class=max_files)
    times, accuracies = [time.perf_counter() - start], []
    for name in CLASSIFIERS if max_files is None else ():
        start = time.perf_counter()
        info = train_audio_classifier(features, labels, names, name)
        times.append(time.perf_counter() - start)
        accuracies.append(info["cv_mean"])
    return times, accuracies, features


def _by_librosa(folder: Path, n_threads: int, max_files: int | None = None) -> _Answer:
    """The same as one writes it with librosa."""
    start = time.perf_counter()
    with ThreadPoolExecutor(n_threads) as pool:
        classes = [sorted(each.iterdir())[:max_files] for each in sorted(folder.iterdir())]
        labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes])
        files = [file for each in classes for file in each]
        features = np.array(
            list(pool.map(lambda file: summary_of(_read(file), SAMPLE_RATE), files))
        )
    times, accuracies = [time.perf_counter() - start], []
    folds = StratifiedKFold(5, shuffle=True, random_state=42)
    for name in CLASSIFIERS if max_files is None else ():
        start = time.perf_counter()
        with joblib.parallel_config("threading", n_jobs=n_threads):
            model = build_classifier(name)
            accuracies.append(float(cross_val_score(model, features, labels, cv=folds).mean()))
            model.fit(features, labels)
        times.append(time.perf_counter() - start)
    return times, accuracies, features


def _read(file: Path) -> Array:
    y: Array = librosa.load(file, sr=SAMPLE_RATE)[0]
    return np.pad(y, (0, max(0, SAMPLE_RATE // 2 - len(y))))


def _deviation(folder: Path, ours: Array, theirs: Array) -> str:
    deviation = Deviation()
    files = [file for each in sorted(folder.iterdir()) for file in sorted(each.iterdir())]
    for file, vector, expected in zip(files, ours, theirs, strict=True):
        pair = {"summary_vector": vector}, {"summary_vector": expected}
        deviation.add(*pair, _read(file))
    return deviation.told()
