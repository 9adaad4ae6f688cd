"""How good a classifier is on each part of the data, from its answers or from `metrics.json`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiotorch.answers.table import AnswerTable
from audiotorch.models.calibration import Reliability, calibration_error, reliability
from audiotorch.models.evaluation import wilson
from audiotorch.report.record import RunRecord, number, numbers

__all__ = ["PARTS", "JudgedPart", "judged_parts"]

PARTS = {
    "test": "Test",
    "val": "Validation",
    "cv_grouped": "Groups left out",
    "cv": "Cross-validation by clip",
}
"""What a reader calls the parts; the one to believe most comes first."""

_DRAWS, _BLOCK = 1000, 4_000_000  # of a bootstrap; counts that it holds at once

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class JudgedPart:
    """Figures of one part.

    Args:
        name: as `answers.csv` and `metrics.json` have it.
        labels: the classes.
        matrix: clips by true class (row) and answer (column), `(n_classes, n_classes)`.
        told: what `metrics.json` says of the part, under names such as `acc`.
        answers: its clips; None where there is no `answers.csv`.
    """

    name: str
    labels: tuple[str, ...]
    matrix: NDArray[np.int64]
    told: Mapping[str, Any] = field(default_factory=dict)
    answers: AnswerTable | None = None

    @property
    def title(self) -> str:
        """What a reader calls the part."""
        return PARTS.get(self.name, self.name)

    @property
    def n(self) -> int:
        """How many clips were judged."""
        return int(self.matrix.sum())

    @property
    def acc(self) -> float:
        """Share of right answers; of cross-validations the mean of the folds', where it is told."""
        told = number(self.told, "acc") if self.name.startswith("cv") else None
        return float(np.trace(self.matrix)) / self.n if told is None else told

    @property
    def acc_interval(self) -> Interval:
        """95 % interval of `acc`: what `evaluate` found, else Wilson's."""
        told = self.told.get("acc_interval")
        if isinstance(told, list) and len(told) == 2 and number(self.told, "acc") is not None:
            low, high = (number(dict(enumerate(told)), i) for i in (0, 1))  # type: ignore[arg-type]
            if low is not None and high is not None:
                return low, high
        return wilson(self.acc, self.n)

    @property
    def f1(self) -> float:
        """Macro F1, mean over the classes with clips."""
        rows, columns = self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        return float(_macro_f1(np.diag(self.matrix), rows, columns))

    @cached_property
    def f1_interval(self) -> Interval | None:
        """95 % interval of `f1`: a bootstrap of clips; None of left-out groups.

        There, groups had to be drawn, and of few groups a bootstrap is too narrow.
        """
        if self.name == "cv_grouped":
            return None
        low, high = np.percentile(np.concatenate(list(_f1_draws(self.matrix))), [2.5, 97.5])
        return float(low), float(high)

    @cached_property
    def ece(self) -> float | None:
        """Expected calibration error in 15 bins."""
        if self.answers is None:
            return number(self.told, "ece")
        return calibration_error(self.answers.probabilities, self.answers.targets)

    @cached_property
    def loss(self) -> float | None:
        """Log loss."""
        if self.answers is None or number(self.told, "loss") is not None:
            return number(self.told, "loss")
        return float(self.answers.losses.mean())

    @property
    def reliability(self) -> Reliability | None:
        """The points of a reliability diagram; None without answers."""
        if self.answers is None:
            return None
        return reliability(self.answers.probabilities, self.answers.targets)

    def classes(self) -> list[list[str | int | float | None]]:
        """One row a class: name, clips, precision, its interval, recall, its interval, F1.

        Precision is None where nothing was answered so, recall of a class without clips.
        """
        hits, rows = np.diag(self.matrix), self.matrix.sum(axis=1)
        columns = self.matrix.sum(axis=0)
        found: list[list[str | int | float | None]] = []
        for label, hit, row, column in zip(
            self.labels, hits.tolist(), rows.tolist(), columns.tolist(), strict=True
        ):
            precision, recall = _share(hit, column), _share(hit, row)
            f1 = 2 * hit / (row + column) if row + column else None
            found.append([label, row, *precision, *recall, None if f1 is None else round(f1, 3)])
        return found

    def confusions(self, n_shown: int = 50) -> list[tuple[str, str, int, float]]:
        """Return the most frequent mistakes: class, answer, clips, share of the class's clips.

        Args:
            n_shown: how many.
        """
        wrong = self.matrix - np.diag(np.diag(self.matrix))
        rows = self.matrix.sum(axis=1)
        places = np.argsort(-wrong, axis=None, kind="stable")[:n_shown]
        pairs = [divmod(int(place), len(self.labels)) for place in places]
        return [
            (
                self.labels[i],
                self.labels[k],
                int(wrong[i, k]),
                round(float(wrong[i, k] / rows[i]), 3),
            )
            for i, k in pairs
            if wrong[i, k]
        ]


def judged_parts(record: RunRecord) -> tuple[list[JudgedPart], list[str]]:
    """Return the parts that a run was judged on, the one to believe most first, and remarks.

    Figures come from `answers.csv` where there is one: a remark tells of parts where
    `metrics.json` holds another confusion matrix.

    Args:
        record: of the run.
    """
    found, remarks = [], []
    for name in PARTS:
        told = {
            key.partition("/")[2]: value
            for key, value in record.metrics.items()
            if key.partition("/")[0] == name
        }
        matrix = _told_matrix(told)
        own = None if record.answers is None else record.answers.part(name)
        if own is not None and len(own):
            counted = _counted(own)
            if matrix is not None and not np.array_equal(matrix, counted):
                remarks.append(
                    f"{PARTS[name]}: answers.csv and metrics.json are not of the same answers; "
                    "figures are of answers.csv."
                )
                told = {}
            found.append(JudgedPart(name, own.labels, counted, told, own))
        elif matrix is not None:
            labels = tuple(str(label) for label in numbers(told, "recall"))
            if len(labels) != len(matrix):
                labels = tuple(f"class {i}" for i in range(len(matrix)))
            found.append(JudgedPart(name, labels, matrix, told))
    return found, remarks


def _counted(answers: AnswerTable) -> NDArray[np.int64]:
    places = {label: i for i, label in enumerate(answers.labels)}
    given = [places.get(answer, 0) for answer in answers.answers]
    n = len(answers.labels)
    cells = np.bincount(answers.targets * n + np.array(given, dtype=np.int64), minlength=n * n)
    return cells.reshape(n, n)


def _told_matrix(told: Mapping[str, Any]) -> NDArray[np.int64] | None:
    """The confusion matrix of `metrics.json`; None where there is none, or it counts nothing."""
    try:
        matrix = np.asarray(told.get("confusion_matrix"), dtype=np.float64)
    except (TypeError, ValueError):
        return None
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and matrix.size > 0
    if not square or not np.isfinite(matrix).all() or matrix.min() < 0 or not matrix.sum():
        return None
    return matrix.astype(np.int64)


def _share(part: int, whole: int) -> tuple[float | None, str]:
    """A share and its interval, as cells of a table."""
    if not whole:
        return None, ""
    low, high = wilson(part / whole, whole)
    return round(part / whole, 3), f"{low:.3f} to {high:.3f}"


def _macro_f1(hits: Any, rows: Any, columns: Any) -> Any:
    """Mean F1 of the classes with clips, along the last axis."""
    f1 = 2 * hits / np.maximum(rows + columns, 1)
    return (f1 * (rows > 0)).sum(axis=-1) / np.maximum((rows > 0).sum(axis=-1), 1)


def _f1_draws(matrix: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """Macro F1 of clips drawn anew, as many as there are: of the cells that hold some."""
    from scipy.sparse import csr_array

    generator = np.random.default_rng(0)
    places = np.flatnonzero(matrix)
    true, answer = np.divmod(places, len(matrix))
    n, shares = int(matrix.sum()), matrix.flat[places] / matrix.sum()
    ones, shape = np.ones(len(places)), (len(places), len(matrix))
    cells = np.arange(len(places))
    rows, columns = (csr_array((ones, (cells, to)), shape=shape) for to in (true, answer))
    hits = csr_array((ones * (true == answer), (cells, true)), shape=shape)
    size = max(_BLOCK // max(len(places), len(matrix)), 1)
    for start in range(0, _DRAWS, size):
        drawn = generator.multinomial(n, shares, min(size, _DRAWS - start)).astype(np.float64)
        yield _macro_f1(drawn @ hits, drawn @ rows, drawn @ columns)
