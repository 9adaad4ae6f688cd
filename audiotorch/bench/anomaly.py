"""How good detectors of anomalies are that were trained on normal recordings alone."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binom
from torch import nn

from audiotorch.audio.io import load
from audiotorch.bench.faults import FAULTS, LEVELS_DB
from audiotorch.errors import ParameterError
from audiotorch.features import (
    EnvelopeRhythm,
    MFCCStatistics,
    SoundProfile,
    SummaryVector,
    TextureStatistics,
)
from audiotorch.models.conformal import conformal_threshold, n_held_back
from audiotorch.models.detectors import anomaly_scores, build_detector, fit_detector

__all__ = ["FRONTS", "PROTOCOLS", "Figures", "Setting", "run_anomaly"]

Array = npt.NDArray[Any]

_DRAWS, _RATE, _MACHINE_RATE = 5, 0.1, 16000
# Nine clips make a threshold that varies much: ten draws do not show its mean.
_ALARM_DRAWS = 100
_MACHINE_DRAWS, _N_TRAIN, _FOLDS, _BOOTSTRAP = 10, 45, 5, 500


class Setting(NamedTuple):
    """Features and detector of a row.

    Attributes:
        features: key of `FRONTS`.
        detector: as `build_detector`.
        window: seconds of the windows over which scores are averaged; None = the clip is one.
    """

    features: str
    detector: str
    window: float | None = None


class Figures(NamedTuple):
    """A table that a protocol gives.

    Attributes:
        title: what was done.
        header: of the columns after features, detector and window.
        rows: cells by setting.
    """

    title: str
    header: Sequence[str]
    rows: Mapping[Setting, Sequence[str]]


FRONTS: Mapping[str, Callable[[], nn.Module]] = {
    "reference": SummaryVector,
    "texture_stats": TextureStatistics,
    "sound_profile": SoundProfile,
    "reference, 16 kHz": lambda: SummaryVector(16000),
    "sound_profile, 16 kHz": lambda: SoundProfile(16000),
    "sound_profile, 8 kHz": lambda: SoundProfile(8000, 512, 64, n_mels=32),
    "sound_profile, 4 kHz": lambda: SoundProfile(4000, 256, 32, n_mels=32),
    "mfcc_stats, 8 kHz": lambda: MFCCStatistics(8000, 512, 128, n_mels=64),
    "mfcc_stats, 4 kHz": lambda: MFCCStatistics(4000, 256, 64, n_mels=32),
    "heart_rhythm": EnvelopeRhythm,
}
"""Name in tables -> front end: a file in `configs/features`, and the rate where that is another."""

_DETECTORS = ("isolation_forest", "gaussian", "gmm", "knn")


def run_anomaly(
    root: Path, names: Sequence[str] | None = None, advance: Callable[[int], None] | None = None
) -> list[Figures]:
    """Run protocols on the recordings that are there.

    Args:
        root: the folder that holds the corpora.
        names: keys of `PROTOCOLS`; None = those whose corpus is there.
        advance: is told when another protocol is done.

    Raises:
        ParameterError: an unknown name, or no corpus.
    """
    found = [name for name in PROTOCOLS if (root / _corpus(name) / "labels.csv").is_file()]
    for name in names or ():
        if name not in found:
            raise ParameterError(f"protocol={name!r}: must be one of {', '.join(found)}")
    if not found:
        wanted = " ".join(sorted({_corpus(name) for name in PROTOCOLS}))
        raise ParameterError(f"{str(root)!r}: holds none of {wanted} with a labels.csv")
    figures = []
    for name in names or found:
        figures.append(PROTOCOLS[name](root / _corpus(name)))
        if advance is not None:
            advance(1)
    return figures


def _corpus(name: str) -> str:
    return "machine_sounds" if name == "machine" else name


@dataclass(frozen=True)
class _Table:
    """The rows of a corpus' `labels.csv`, sorted by file."""

    folder: Path
    rows: list[dict[str, str]]

    @classmethod
    def of(cls, folder: Path, **wanted: str) -> "_Table":
        with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
        kept = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
        return cls(folder, kept)

    def column(self, name: str) -> Array:
        return np.array([row[name] for row in self.rows])

    def clips(self, sample_rate: int) -> list[Array]:
        return [
            load(self.folder / row["file"], sample_rate=sample_rate)[0][0].numpy()
            for row in self.rows
        ]


def _vectors(front: Any, clips: Sequence[Array], window: float | None) -> Array:
    """Vectors of all windows of all clips, `(n, windows, d)`; clips are at least half a second."""
    rows = []
    for clip in clips:
        size = len(clip) if window is None else round(window * front.sample_rate)
        least = max(front.sample_rate // 2, front.min_samples)
        whole = clip[: len(clip) // size * size].reshape(-1, size)
        padded = np.pad(whole, ((0, 0), (0, max(0, least - size))))
        with torch.no_grad():
            rows.append(front(torch.from_numpy(padded).float()).double().numpy())
    return np.array(rows)


def _scores(detector: str, normals: Array, *others: Array) -> list[Array]:
    """Fit on windows of normal clips, and score clips by the mean over theirs."""
    fitted = fit_detector(build_detector(detector), np.concatenate(normals), notes=[])
    return [
        anomaly_scores(fitted, np.concatenate(x)).reshape(x.shape[:2]).mean(axis=1) for x in others
    ]


def _auc(normals: Array, anomalies: Array) -> float:
    """The share of pairs in which the anomaly scores higher; ties count half."""
    ordered = np.sort(normals)
    below = sum(np.searchsorted(ordered, anomalies, side).mean() for side in ("left", "right"))
    return float(below / (2 * len(normals)))


def _each(table: _Table, features: Sequence[str]) -> Iterator[tuple[Setting, Array]]:
    """Settings with the vectors of all clips, each a window of its own."""
    for name in features:
        front: Any = FRONTS[name]()
        x = _vectors(front, table.clips(front.sample_rate), None)
        for detector in _DETECTORS:
            yield Setting(name, detector), x


# --- machines -------------------------------------------------------------------------------------


def _machine(folder: Path) -> Figures:
    normals = _Table.of(folder, machine_id="dcase2020_id_00", label="normal").clips(_MACHINE_RATE)
    others = _Table.of(folder, machine_id="mimii_fan_a").clips(_MACHINE_RATE)
    kinds = [(fault, level) for fault in FAULTS for level in LEVELS_DB]
    sets = [normals, others] + [
        [FAULTS[f](x.astype(np.float64), _MACHINE_RATE, level, i) for i, x in enumerate(normals)]
        for f, level in kinds
    ]
    rows: dict[Setting, Sequence[str]] = {}
    cases = [("reference, 16 kHz", None), ("sound_profile, 16 kHz", None)]
    for features, window in [*cases, ("sound_profile, 16 kHz", 1.0)]:
        vectors = [_vectors(FRONTS[features](), clips, window) for clips in sets]
        for detector in _DETECTORS:
            rows[Setting(features, detector, window)] = _machine_row(detector, vectors)
    low, high = binom.interval(0.95, 15, _RATE)
    header = [f"{fault} {level} dB" for fault, level in kinds]
    return Figures(
        f"machine_sounds, `dcase2020_id_00`: {_N_TRAIN} normal clips train, the other 15 against "
        f"themselves with planted faults; mean AUC of {_MACHINE_DRAWS} draws, also by level. Mean "
        f"number of false alarms of 15 clips over {_ALARM_DRAWS} draws at a rate of "
        f"{_RATE:g}, with 9 of the {_N_TRAIN} held back, and in how many draws it lies in "
        f"the binomial 95 % interval, {low:.0f} to {high:.0f}. `mimii_fan_a` is "
        "another machine, a sanity row.",
        [*[f"mean {level} dB" for level in LEVELS_DB], *header, "false alarms", "`mimii_fan_a`"],
        rows,
    )


def _machine_row(detector: str, vectors: list[Array]) -> list[str]:
    aucs, alarms = [], []
    for seed in range(_ALARM_DRAWS):
        order = np.random.default_rng(seed).permutation(len(vectors[0]))
        train, test = order[:_N_TRAIN], order[_N_TRAIN:]
        alarms.append(_false_alarms(detector, vectors[0], train, test))
        if seed >= _MACHINE_DRAWS:
            continue
        sets = [vectors[0][test], vectors[1], *[x[test] for x in vectors[2:]]]
        normal, *faulty = _scores(detector, vectors[0][train], *sets)
        aucs.append([_auc(normal, each) for each in faulty])
    other, *mean = np.mean(aucs, axis=0)
    levels = [np.mean(mean[k :: len(LEVELS_DB)]) for k in range(len(LEVELS_DB))]
    high = binom.interval(0.95, len(vectors[0]) - _N_TRAIN, _RATE)[1]
    told = f"{np.mean(alarms):.2f}, {np.sum(np.array(alarms) <= high)} of {len(alarms)} draws"
    return [*[f"{x:.3f}" for x in (*levels, *mean)], told, f"{other:.3f}"]


def _false_alarms(detector: str, x: Array, train: Array, test: Array) -> int:
    """Count test clips above the threshold of training clips that are held back for it."""
    n = n_held_back(len(train), _RATE)
    calibration, fresh = _scores(detector, x[train[n:]], x[train[:n]], x[test])
    return int((fresh > conformal_threshold(calibration, _RATE).value).sum())


# --- one class of sounds --------------------------------------------------------------------------


def _esc10(folder: Path) -> Figures:
    table = _Table.of(folder)
    label, fold = table.column("class_index"), table.column("fold")
    rows: dict[Setting, Sequence[str]] = {}
    for setting, x in _each(table, ("reference", "texture_stats", "sound_profile")):
        parts = [_one_class(setting.detector, x, label, fold == k) for k in "4123"]
        fewer = _one_class(setting.detector, x, label, fold == "4", hold_back=True)
        rows[setting] = [f"{parts[0]:.3f}", f"{np.mean(parts[1:]):.3f}", f"{fewer:.3f}"]
    return Figures(
        "esc10, one class: the clips of a class in three folds train, all clips of the fourth "
        "test; mean AUC of the 10 classes in turn. The last column: with so many of the training "
        f"clips held back as a threshold at a rate of {_RATE:g} needs.",
        ["fold 4", "mean of folds 1, 2 and 3", "fold 4, clips held back"],
        rows,
    )


def _one_class(
    detector: str, x: Array, label: Array, test: Array, hold_back: bool = False
) -> float:
    found: list[float] = []
    for c in np.unique(label):
        train = np.flatnonzero((label == c) & ~test)
        if hold_back:
            train = np.random.default_rng(0).permutation(train)[n_held_back(len(train), _RATE) :]
        (score,) = _scores(detector, x[train], x[test])
        own = label[test] == c
        found.append(_auc(score[own], score[~own]))
    return float(np.mean(found))


# --- hearts ---------------------------------------------------------------------------------------


def _yaseen(folder: Path) -> Figures:
    table = _Table.of(folder)
    anomaly = table.column("anomaly") == "1"
    normals = np.flatnonzero(~anomaly)
    train, rest = np.split(normals, [len(normals) * 2 // 3])
    rows: dict[Setting, Sequence[str]] = {}
    features = ("reference", "sound_profile, 8 kHz", "mfcc_stats, 8 kHz", "heart_rhythm")
    for setting, x in _each(table, features):
        rows[setting] = [f"{_auc(*_scores(setting.detector, x[train], x[rest], x[anomaly])):.3f}"]
    return Figures(
        "heart_yaseen: the first two thirds of the normals train, the others against the diseases.",
        ["AUC"],
        rows,
    )


def _pascal(folder: Path) -> Figures:
    table = _Table.of(folder)
    anomaly, subject = table.column("anomaly") == "1", table.column("subject")
    rows: dict[Setting, Sequence[str]] = {}
    features = ("reference", "sound_profile, 4 kHz", "mfcc_stats, 4 kHz", "heart_rhythm")
    for setting, x in _each(table, features):
        per_draw = []
        for seed in range(_DRAWS):
            fold = _fold_of(subject, seed)
            place = np.zeros(len(x))
            for k in range(_FOLDS):
                test = fold == k
                train = ~test & ~anomaly
                own, score = _scores(setting.detector, x[train], x[train], x[test])
                # Folds' detectors have no common scale: the median and what lies above it give one.
                middle, high = np.quantile(own, [0.5, 0.9])
                place[test] = (score - middle) / max(high - middle, 1e-12)
            per_draw.append(place)
        aucs = [_auc(place[~anomaly], place[anomaly]) for place in per_draw]
        low, high = _interval(per_draw, anomaly, subject)
        rows[setting] = [f"{np.mean(aucs):.3f}", f"{low:.3f} to {high:.3f}"]
    return Figures(
        f"heart_pascal_b: {_FOLDS} folds of subjects, the normals of the others train; AUC over "
        f"all recordings, mean of {_DRAWS} draws of the folds, and the 95 % interval of "
        f"{_BOOTSTRAP} bootstrap draws of subjects.",
        ["AUC", "interval"],
        rows,
    )


def _fold_of(subject: Array, seed: int) -> Array:
    names = np.random.default_rng(seed).permutation(np.unique(subject))
    place = {name: i % _FOLDS for i, name in enumerate(names)}
    return np.array([place[name] for name in subject])


def _interval(scores: Sequence[Array], anomaly: Array, subject: Array) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    rows = [np.flatnonzero(subject == name) for name in np.unique(subject)]
    found: list[float] = []
    while len(found) < _BOOTSTRAP:
        drawn = np.concatenate([rows[k] for k in generator.integers(len(rows), size=len(rows))])
        if 0 < anomaly[drawn].sum() < len(drawn):
            normals, anomalies = drawn[~anomaly[drawn]], drawn[anomaly[drawn]]
            found.append(float(np.mean([_auc(x[normals], x[anomalies]) for x in scores])))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


PROTOCOLS: Mapping[str, Callable[[Path], Figures]] = {
    "machine": _machine,
    "esc10": _esc10,
    "heart_yaseen": _yaseen,
    "heart_pascal_b": _pascal,
}
"""Name on the command line -> protocol; all but the first are named after their corpus."""
