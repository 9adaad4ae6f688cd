"""What a classifier will do on clips, and on speakers or machines, that it has not heard."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import scipy.stats
from sklearn.base import BaseEstimator
from sklearn.metrics import confusion_matrix, f1_score, log_loss, precision_recall_fscore_support

from audiotorch.errors import ParameterError, printable
from audiotorch.models.calibration import calibration_error
from audiotorch.models.classic import check_vectors, fit_classifier, with_settings
from audiotorch.models.folds import grouped_parts, stratified_parts

__all__ = ["Evaluation", "Fold", "columns", "evaluate", "leakage", "table", "wilson"]

_GAP = 0.03  # a smaller loss on new groups is no news, however many clips confirm it
_SHOWN = {
    "stratified": "stratified by clip",
    "leave_one_group_out": "each group left out",
    "grouped": "whole groups, five folds",
}


@dataclass(frozen=True)
class Fold:
    """One held-out part.

    Args:
        names: the groups held out, or the number of a stratified fold.
        acc: share of right answers.
        n: clips scored.
        settings: what a search inside the fold chose.
    """

    names: tuple[str, ...]
    acc: float
    n: int
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Answers that were all given by a classifier which had not been fitted on the clip.

    Args:
        protocol: `stratified`: clips were dealt to folds one by one, so that the other clips of a
            held-out clip's group were fitted on. `leave_one_group_out` and `grouped` (five folds):
            none of them was.
        labels: the classes.
        folds: the held-out parts.
        probabilities: `(n, n_classes)`; 0 for a class that a fold had no clip of to fit on.
        targets: right class of each clip, `(n,)`.
        notes: what a reader of the figures has to know.

    Attributes:
        acc: mean of the folds' accuracies, as of `cross_val_score`. Each left-out group counts the
            same, however many clips it has.
        acc_std: their standard deviation (`ddof=0`).
        acc_interval: 95 % interval of `acc`. Stratified, or one part: Wilson's, for clips drawn at
            random; it says nothing of new groups. Else Student's t over the folds, which hold
            other groups each: for groups drawn at random. With few groups it is as wide as that
            deserves.
        f1: macro F1, mean over the classes with clips.
        ece: expected calibration error in 15 bins.
        loss: log loss, probabilities clipped as scikit-learn does.
        recall: share found of each class; None for one without clips.
        confusion_matrix: clips by true class (row) and answer (column).
        report: `precision`, `recall`, `f1` and `support` of each class; 0 where nothing was
            answered so, None in the recall of a class without clips.
    """

    protocol: str
    labels: tuple[str, ...]
    folds: tuple[Fold, ...]
    probabilities: np.ndarray
    targets: np.ndarray
    notes: tuple[str, ...] = ()

    @cached_property
    def acc(self) -> float:  # noqa: D102
        return float(np.mean([fold.acc for fold in self.folds]))

    @cached_property
    def acc_std(self) -> float:  # noqa: D102
        return float(np.std([fold.acc for fold in self.folds]))

    @cached_property
    def acc_interval(self) -> tuple[float, float]:  # noqa: D102
        n, p = len(self.targets), self.acc
        if self.protocol == "stratified" or len(self.folds) < 2:
            return wilson(p, n)
        k = len(self.folds)
        half = float(scipy.stats.t.ppf(0.975, k - 1)) * self.acc_std / float(np.sqrt(k - 1))
        return max(p - half, 0.0), min(p + half, 1.0)

    @cached_property
    def f1(self) -> float:  # noqa: D102
        present = np.unique(self.targets)
        answers = self.probabilities.argmax(axis=1)
        scores = {"average": "macro", "labels": present, "zero_division": 0}
        return float(f1_score(self.targets, answers, **scores))

    @cached_property
    def ece(self) -> float:  # noqa: D102
        return calibration_error(self.probabilities, self.targets)

    @cached_property
    def loss(self) -> float:  # noqa: D102
        return float(log_loss(self.targets, self.probabilities, labels=range(len(self.labels))))

    @cached_property
    def confusion_matrix(self) -> np.ndarray:  # noqa: D102
        answers = self.probabilities.argmax(axis=1)
        return confusion_matrix(self.targets, answers, labels=range(len(self.labels)))

    @cached_property
    def recall(self) -> dict[str, float | None]:  # noqa: D102
        return {label: row["recall"] for label, row in self.report.items()}

    @cached_property
    def report(self) -> dict[str, dict[str, Any]]:  # noqa: D102
        figures = precision_recall_fscore_support(
            self.targets,
            self.probabilities.argmax(axis=1),
            labels=range(len(self.labels)),
            zero_division=0,
        )
        return {
            label: {
                "precision": float(precision),
                "recall": float(recall) if support else None,
                "f1": float(f1),
                "support": int(support),
            }
            for label, precision, recall, f1, support in zip(self.labels, *figures, strict=True)
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON: no arrays, and nothing that is not a number."""
        folds = []
        for fold in self.folds:
            folds.append({"names": list(fold.names), "acc": fold.acc, "n": fold.n})
            if fold.settings is not None:
                folds[-1]["settings"] = dict(fold.settings)
        return {
            "protocol": self.protocol,
            **{key: getattr(self, key) for key in ("acc", "acc_std", "f1", "ece", "loss")},
            "acc_interval": list(self.acc_interval),
            "recall": self.recall,
            "report": self.report,
            "confusion_matrix": self.confusion_matrix.tolist(),
            "folds": folds,
            "notes": list(self.notes),
        }


def evaluate(
    classifier: BaseEstimator,
    x: np.ndarray,
    y: np.ndarray,
    labels: Sequence[str],
    *,
    groups: Sequence[str | None] | None = None,
    copies: Sequence[np.ndarray] = (),
    n_splits: int = 5,
    seed: int = 42,
    tune: Callable[..., Mapping[str, Any]] | None = None,
) -> list[Evaluation]:
    """Cross-validate a classifier: by clip, and by group where groups are known.

    Everything is fitted anew in each fold: scaler, calibration and classifier. The stratified folds
    are `StratifiedKFold(n_splits, shuffle=True, random_state=seed)` and know nothing of groups: the
    same accuracies as `cross_val_score`, the protocol of most articles. With at least two groups a
    second evaluation leaves out each group, or, of more than ten, a fifth of them at a time.

    Args:
        classifier: unfitted, from `build_classifier`.
        x: vectors, `(n, d)`, float64.
        y: classes, `(n,)`, int.
        labels: the classes' names.
        groups: speaker, recording or machine of each clip; a clip with None is alone in its group.
        copies: augmented versions of the same clips, `(n, d)` each: fitted on where their clip is,
            never scored.
        n_splits: stratified folds; fewer where a class has fewer clips.
        seed: of the folds.
        tune: called as `tune(x, y, groups=..., copies=...)` with each fold's training part, returns
            the settings to fit it with: `functools.partial(search, "svm")`, for instance.

    Returns:
        The stratified evaluation, then the grouped one if there is one.

    Raises:
        ParameterError: as `fit_classifier`; repeated or missing labels, fewer than two folds, or
            classes that have one clip each.
    """
    check_vectors(x, y, groups, copies)
    if len(set(labels)) < len(labels) or y.max() >= len(labels):
        raise ParameterError(
            f"labels: {len(labels)} names, {len(set(labels))} distinct, for classes up to "
            f"{y.max()}; need one name a class"
        )
    if n_splits < 2:
        raise ParameterError(f"n_splits={n_splits}: must be at least 2")
    if len(np.unique(y)) < 2:
        raise ParameterError(f"y: all clips are of class {labels[y[0]]!r}; give at least two")
    plans = [stratified_parts(y, labels, n_splits, seed), grouped_parts(y, labels, groups, seed)]
    if not plans[1].parts:
        plans = [plans[0]._replace(notes=plans[0].notes + plans[1].notes)]
    fit = partial(_fit_fold, classifier, seed=seed, tune=tune)
    found = []
    for plan in plans:
        known = None if plan.protocol == "stratified" else groups
        answers = np.zeros((len(y), len(labels)))
        folds, notes = [], list(plan.notes)
        for names, train, test in plan.parts:
            group = None if known is None else [known[i] for i in train]
            rows = [copy[train] for copy in copies]
            classes, answer, chosen = fit(x[train], y[train], group, rows, notes=notes)
            answers[np.ix_(test, classes)] = answer(x[test])
            right = answers[test].argmax(axis=1) == y[test]
            folds.append(Fold(names, float(right.mean()), len(test), chosen))
        once = tuple(dict.fromkeys(notes))
        found.append(Evaluation(plan.protocol, tuple(labels), tuple(folds), answers, y, once))
    return found


def leakage(evaluations: Sequence[Evaluation]) -> str | None:
    """Say what to expect of new groups, where the stratified figure promises more.

    That is where the accuracy on new groups lies more than 0.03 below the stratified one, and below
    its interval: more than the draw of the clips explains. With two or three groups, where a fold
    has fewer clips to train on than a stratified one, the intervals for clips must be apart.

    Args:
        evaluations: from `evaluate`.

    Returns:
        A sentence with both figures, or None if there is no such gap or only one evaluation.
    """
    by_name = {evaluation.protocol: evaluation for evaluation in evaluations}
    known = by_name.pop("stratified", None)
    new = next(iter(by_name.values()), None)
    if known is None or new is None:
        return None
    few = len(new.folds) < 4
    reached = wilson(new.acc, len(new.targets))[1] if few else new.acc
    if new.acc >= known.acc - _GAP or reached >= known.acc_interval[0]:
        return None
    low, high = new.acc_interval
    sentence = (
        f"Leakage: expect an accuracy of about {new.acc:.2f} ({low:.2f} to {high:.2f}) on new "
        f"speakers, recordings or machines, not {known.acc:.2f}, which holds only for clips whose "
        "own group was trained on."
    )
    if few:
        sentence += (
            f" With {len(new.folds)} groups, part of the gap is that fewer clips are left to train."
        )
    return sentence


def table(evaluations: Sequence[Evaluation], labels: Sequence[str] = ()) -> str:
    """Lay out evaluations side by side, as text of fixed width.

    Args:
        evaluations: from `evaluate`.
        labels: the classes to report on; none means all.
    """
    rows = [["", *(_SHOWN[e.protocol] for e in evaluations)]]
    rows.append(["accuracy", *(_with_interval(e) for e in evaluations)])
    rows.append(["worst fold", *(_worst(e) for e in evaluations)])
    for name, key in (("macro F1", "f1"), ("calibration error", "ece"), ("log loss", "loss")):
        rows.append([name, *(f"{getattr(e, key):.3f}" for e in evaluations)])
    shown = list(labels) or list(evaluations[0].labels)
    figures = [["class", "clips"] + ["precision", "recall", "F1"] * len(evaluations)]
    for label in shown:
        row = [printable(label), str(evaluations[0].report[label]["support"])]
        for evaluation in evaluations:
            for key in ("precision", "recall", "f1"):
                value = evaluation.report[label][key]
                row.append("-" if value is None else f"{value:.3f}")
        figures.append(row)
    return "\n".join([*columns(rows, str.ljust), "", *columns(figures, str.rjust)])


def columns(rows: Sequence[Sequence[str]], justify: Callable[[str, int], str]) -> list[str]:
    """Lay out rows as lines whose columns are as wide as their widest cell.

    Args:
        rows: cells of each line, as many in all.
        justify: pads a cell to a width, `str.rjust` for instance; the first is on the left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [justify(cell, width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def wilson(p: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share, for clips drawn at random.

    Args:
        p: the share, from 0 to 1.
        n: the clips, at least 1.

    Example:
        >>> low, high = wilson(0.9, 50)
        >>> print(f"{low:.3f} to {high:.3f}")
        0.786 to 0.957
    """
    z = float(scipy.stats.norm.ppf(0.975))
    half = z * float(np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2))
    centre, size = p + z**2 / (2 * n), 1 + z**2 / n
    return max((centre - half) / size, 0.0), min((centre + half) / size, 1.0)


def _fit_fold(
    classifier: BaseEstimator,
    x: np.ndarray,
    y: np.ndarray,
    groups: Sequence[str | None] | None,
    copies: Sequence[np.ndarray],
    *,
    seed: int,
    tune: Callable[..., Mapping[str, Any]] | None,
    notes: list[str],
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray], Mapping[str, Any] | None]:
    """The classes of a training part, a function that gives their probabilities, the settings."""
    classes = np.unique(y)
    if len(classes) == 1:  # Nothing to tell apart: the answer is that class.
        return classes, lambda rows: np.ones((len(rows), 1)), None
    settings = None
    if tune is not None:
        settings = dict(tune(x, y, groups=groups, copies=copies))
        classifier = with_settings(classifier, settings)
    fitted = fit_classifier(classifier, x, y, groups=groups, copies=copies, seed=seed, notes=notes)
    return fitted.classes_, fitted.predict_proba, settings


def _with_interval(evaluation: Evaluation) -> str:
    low, high = evaluation.acc_interval
    return f"{evaluation.acc:.3f} (95 %: {low:.3f} to {high:.3f})"


def _worst(evaluation: Evaluation) -> str:
    """Accuracy of the worst fold, and the first three groups of it."""
    fold = min(evaluation.folds, key=lambda fold: fold.acc)
    if evaluation.protocol == "stratified":
        return f"{fold.acc:.3f} (fold {fold.names[0]} of {len(evaluation.folds)})"
    names = [printable(name) for name in fold.names[:3]] or ["a clip without a group"]
    more = f" and {len(fold.names) - 3} more" if len(fold.names) > 3 else ""
    return f"{fold.acc:.3f} ({', '.join(names)}{more})"
