"""What a model answered to each clip that it was judged on: `answers.csv` of a run."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiotorch.audio.whole import written_whole
from audiotorch.errors import ParameterError

__all__ = ["ANSWERS_FILE", "AnswerTable"]

ANSWERS_FILE = "answers.csv"

_TEXTS = ("part", "file", "group", "machine", "truth", "answer")
_CLASS, _THRESHOLD = "probability of ", "threshold "
# Names of files are not always text: what UTF-8 cannot hold comes back as it was.
_TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}

Texts = NDArray[Any]


@dataclass(frozen=True, eq=False)
class AnswerTable:
    """Answers of a classifier, or scores of a detector, one row a clip and part.

    Args:
        labels: the classes; empty for a detector.
        parts: what the clip was judged as: `cv` and `cv_grouped` (out of fold), `val`, `test` of a
            classifier; `train`, `held_back`, `test` of a detector. Strings `(n,)`, as are the next.
        files: path of the recording.
        groups: what is left out together, `""` where unknown.
        machines: `""` where unknown.
        truth: the label that the clip has.
        targets: place of the true class in `labels`; of a detector 1 for anomalies, 0 for normal
            clips. `(n,)`, int64.
        answers: most probable class, of a detector `anomaly` or `normal`; strings `(n,)`.
        probabilities: `(n, n_classes)`; no columns for a detector.
        scores: of a detector, `(n,)`, higher = more anomalous; empty for a classifier, as is all
            below.
        p_values: `(n,)`, NaN where there are none.
        thresholds: by name, the lowest first.
    """

    labels: tuple[str, ...]
    parts: Texts
    files: Texts
    groups: Texts
    machines: Texts
    truth: Texts
    targets: NDArray[np.int64]
    answers: Texts
    probabilities: NDArray[np.float64]
    scores: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    p_values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_classes(
        cls,
        part: str,
        labels: Sequence[str],
        files: Sequence[Any],
        targets: ArrayLike,
        probabilities: ArrayLike,
        groups: Sequence[str | None] | None = None,
    ) -> "AnswerTable":
        """Return the table of a classifier's answers to one part.

        Args:
            part: its name.
            labels: the classes.
            files: paths, one a row.
            targets: places in `labels`, `(n,)`.
            probabilities: `(n, n_classes)`.
            groups: of the clips; None = unknown.
        """
        right = np.asarray(targets, dtype=np.int64)
        shares = np.asarray(probabilities, dtype=np.float64).reshape(len(right), len(labels))
        names = np.array([*labels, ""], dtype=object)[:-1]
        answers = names[shares.argmax(axis=1)] if len(right) else _texts([])
        texts = (_texts([part] * len(right)), _texts(files), _texts(groups or [None] * len(right)))
        nothing = _texts([""] * len(right))
        return cls(tuple(labels), *texts, nothing, names[right], right, answers, shares)

    @classmethod
    def of_scores(
        cls,
        part: str,
        files: Sequence[Any],
        truth: Sequence[str],
        anomalous: ArrayLike,
        scores: ArrayLike,
        *,
        p_values: ArrayLike | None = None,
        thresholds: Mapping[str, float] | None = None,
        groups: Sequence[str | None] | None = None,
        machines: Sequence[str | None] | None = None,
    ) -> "AnswerTable":
        """Return the table of a detector's scores of one part.

        Args:
            part: its name.
            files: paths, one a row.
            truth: labels, one a row.
            anomalous: whether a clip is an anomaly, `(n,)`.
            scores: `(n,)`.
            p_values: `(n,)`; None = none.
            thresholds: by name, the lowest first; the last one makes an anomaly.
            groups: of the clips; None = unknown.
            machines: of the clips; None = unknown.
        """
        values = np.asarray(scores, dtype=np.float64)
        limits = dict(thresholds or {})
        above = values > (list(limits.values())[-1] if limits else math.nan)
        unknown = [None] * len(values)
        return cls(
            (),
            _texts([part] * len(values)),
            _texts(files),
            _texts(groups or unknown),
            _texts(machines or unknown),
            _texts(truth),
            np.asarray(anomalous, dtype=np.int64),
            _texts(["anomaly" if high else "normal" for high in above] if limits else unknown),
            np.zeros((len(values), 0)),
            values,
            np.full(len(values), np.nan) if p_values is None else np.asarray(p_values, float),
            limits,
        )

    @classmethod
    def joined(cls, tables: Sequence["AnswerTable"]) -> "AnswerTable":
        """Return several parts of one run as one table.

        Args:
            tables: one at least, of the same classes and thresholds.
        """
        rows: dict[str, Any] = {
            name: np.concatenate([getattr(table, name) for table in tables])
            for name in (*_ROWS, "probabilities", "scores", "p_values")
        }
        return replace(tables[0], **rows)

    @classmethod
    def read(cls, source: str | Path) -> "AnswerTable":
        """Read the table that a run left.

        Args:
            source: the run's directory, or the file.

        Raises:
            ParameterError: there is none, or it is none.
        """
        path = Path(source)
        path = path / ANSWERS_FILE if path.is_dir() else path
        try:
            with path.open(**_TEXT) as file:  # type: ignore[call-overload]
                return _parsed(csv.reader(_whole_lines(file)))
        except FileNotFoundError:
            raise ParameterError(
                f"{path}: is missing; runs of this version write it, so train again"
            ) from None
        except (ValueError, IndexError, StopIteration, csv.Error) as error:
            raise ParameterError(f"{path}: is no table of answers; {error}") from error

    def write(self, path: str | Path) -> None:
        """Write the table as CSV, whole or not at all.

        Numbers keep six digits of probabilities, and all of scores.

        Args:
            path: the file; its folder must exist.
        """
        with written_whole(Path(path)) as partial, partial.open("w", **_TEXT) as file:  # type: ignore[call-overload]
            rows = csv.writer(file)
            rows.writerow(self._header())
            rows.writerows(self._lines())

    def part(self, name: str) -> "AnswerTable":
        """Return the rows of one part, none where it is not there."""
        return self.select(self.parts == name)

    def select(self, rows: ArrayLike) -> "AnswerTable":
        """Return some of the rows.

        Args:
            rows: a mask `(n,)`, or places.
        """
        chosen = np.asarray(rows)
        names = (*_ROWS, "probabilities", *(("scores", "p_values") if self.is_detector else ()))
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def is_detector(self) -> bool:
        """Whether rows hold scores in place of classes."""
        return not self.labels

    @property
    def parts_present(self) -> list[str]:
        """The parts, in the order of their first rows."""
        return list(dict.fromkeys(self.parts))

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the most probable class, `(n,)`."""
        return self.probabilities.max(axis=1, initial=0.0)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the answer is right, `(n,)`: the class, or anomaly or normal."""
        if self.is_detector:
            return np.asarray((self.answers == "anomaly") == (self.targets == 1))
        return np.asarray(self.answers == self.truth)

    @property
    def losses(self) -> NDArray[np.float64]:
        """Negative logarithm of the right class's probability, `(n,)`; of classes."""
        right = self.probabilities[np.arange(len(self)), self.targets]
        return np.asarray(-np.log(np.maximum(right, 1e-12)))

    def _header(self) -> list[str]:
        if self.is_detector:
            limits = [_THRESHOLD + name for name in self.thresholds]
            return [*_TEXTS, "anomalous", "score", "p_value", *limits]
        return [*_TEXTS, "confidence", *(_CLASS + label for label in self.labels)]

    def _lines(self) -> Iterator[list[str]]:
        texts = (self.parts, self.files, self.groups, self.machines, self.truth, self.answers)
        limits = [repr(value) for value in self.thresholds.values()]
        for i, cells in enumerate(zip(*texts, strict=True)):
            if self.is_detector:
                numbers = [repr(float(self.scores[i])), _number(self.p_values[i]), *limits]
                yield [*cells, str(self.targets[i]), *numbers]
            else:
                row = self.probabilities[i].tolist()
                yield [*cells, f"{max(row):.6g}", *(f"{share:.6g}" for share in row)]


_ROWS = ("parts", "files", "groups", "machines", "truth", "targets", "answers")


def _texts(values: Sequence[Any]) -> Texts:
    found = np.empty(len(values), dtype=object)
    found[:] = ["" if value is None else str(value) for value in values]
    return found


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _whole_lines(file: Iterable[str]) -> Iterator[str]:
    """Lines, of which the last one must end, too: half a number is a number as well."""
    for i, line in enumerate(file):
        # A first line of something else is told by its columns.
        foreign = i == 0 and not line.startswith(",".join(_TEXTS))
        if not line.endswith(("\n", "\r")) and not foreign:
            raise ValueError("it is cut off before its end")
        yield line


def _parsed(lines: Iterator[list[str]]) -> AnswerTable:
    header = next(lines)
    n_texts = len(_TEXTS)
    if tuple(header[:n_texts]) != _TEXTS:
        raise ValueError(f"its columns must start with {', '.join(_TEXTS)}")
    texts: list[list[str]] = []
    numbers: list[NDArray[np.float64]] = []
    for cells in lines:
        if len(cells) != len(header):
            raise ValueError(f"row {len(texts) + 1} has {len(cells)} cells, not {len(header)}")
        texts.append(cells[:n_texts])
        numbers.append(np.array([float(cell or "nan") for cell in cells[n_texts:]]))
    columns = [_texts(column) for column in zip(*texts, strict=True)] or [_texts([])] * n_texts
    values = np.array(numbers).reshape(len(texts), len(header) - n_texts)
    parts, files, groups, machines, truth, answers = columns
    if header[n_texts] == "anomalous":
        names = [name.removeprefix(_THRESHOLD) for name in header[n_texts + 3 :]]
        limits = dict(zip(names, values[0, 3:].tolist(), strict=True)) if len(values) else {}
        targets, rest = values[:, 0].astype(np.int64), (values[:, 1], values[:, 2], limits)
        nothing = np.zeros((len(texts), 0))
        return AnswerTable(
            (), parts, files, groups, machines, truth, targets, answers, nothing, *rest
        )
    labels = tuple(name.removeprefix(_CLASS) for name in header[n_texts + 1 :])
    places = {label: i for i, label in enumerate(labels)}
    targets = np.array([places.get(label, -1) for label in truth], dtype=np.int64)
    if (targets < 0).any():
        raise ValueError(f"'{truth[targets < 0][0]}' is none of its classes")
    shares = values[:, 1:]
    return AnswerTable(labels, parts, files, groups, machines, truth, targets, answers, shares)
