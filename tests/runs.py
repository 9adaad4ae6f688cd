"""Runs as `train` leaves them, of any size, in no time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audiotorch.answers.table import AnswerTable
from audiotorch.models.detection import evaluate_detection
from audiotorch.models.evaluation import Evaluation, Fold

HOSTILE = "<script>alert(\"x\")</script> & 'q' 😀 $x$"
RATE = 8000


def tone(path: Path, hertz: float, seconds: float = 0.5) -> Path:
    """Write a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * RATE)) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * time), RATE)
    return path


def class_answers(
    part: str,
    labels: Sequence[str],
    files: Sequence[Any],
    *,
    acc: float = 0.8,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> AnswerTable:
    """Answers to clips whose classes take turns, of which a share is right."""
    generator = np.random.default_rng(seed)
    n, n_classes = len(files), len(labels)
    targets = np.arange(n) % n_classes
    right = generator.random(n) < acc
    answers = np.where(
        right, targets, (targets + 1 + generator.integers(0, max(n_classes - 1, 1), n)) % n_classes
    )
    shares = generator.dirichlet(np.ones(n_classes), n)
    shares[np.arange(n), answers] += generator.uniform(1.0, 3.0, n)
    shares /= shares.sum(axis=1, keepdims=True)
    return AnswerTable.of_classes(part, labels, files, targets, shares, groups)


def class_metrics(table: AnswerTable) -> dict[str, Any]:
    """What metrics.json says of answers."""
    found: dict[str, Any] = {}
    for name in table.parts_present:
        part = table.part(name)
        protocol = {"cv": "stratified", "cv_grouped": "leave_one_group_out"}.get(name, name)
        n_folds = min(4, len(part)) if name.startswith("cv") else 1
        blocks = np.array_split(np.arange(len(part)), n_folds)
        folds = [
            Fold((f"g{i}",), float(part.right[rows].mean()), len(rows))
            for i, rows in enumerate(blocks)
        ]
        if len(table.labels) == 1:  # which no run trains, but a report must not mind
            found[f"{name}/confusion_matrix"] = [[len(part)]]
            continue
        # answers.csv keeps six digits.
        shares = part.probabilities / part.probabilities.sum(axis=1, keepdims=True)
        figures = Evaluation(protocol, table.labels, tuple(folds), shares, part.targets).as_dict()
        found |= {f"{name}/{key}": value for key, value in figures.items()}
    return found


def write_run(
    folder: Path,
    table: AnswerTable | None,
    metrics: Mapping[str, Any] | None = None,
    config: str = "seed: 42\nmodel:\n  name: svm\nfeatures:\n  _target_: a.b.MFCC\n",
) -> Path:
    """Write a run's directory; figures of a table's answers unless they are given."""
    folder.mkdir(parents=True, exist_ok=True)
    if table is not None:
        table.write(folder / "answers.csv")
    if metrics is None:
        assert table is not None
        metrics = detector_metrics(table) if table.is_detector else class_metrics(table)
    told = {**metrics, "train_clips": 12, "seconds": 3.5, "versions": {"audiotorch": "0.1.0"}}
    (folder / "metrics.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    return folder


def detector_answers(
    part: str,
    files: Sequence[Any],
    anomalous: Sequence[bool],
    *,
    seed: int = 0,
    thresholds: Mapping[str, float] | None = None,
    machines: Sequence[str] | None = None,
    shift: float = 1.5,
) -> AnswerTable:
    """Scores of which anomalies' lie higher."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=len(files)) + shift * np.asarray(anomalous, dtype=float)
    return AnswerTable.of_scores(
        part,
        files,
        ["anomaly" if each else "normal" for each in anomalous],
        anomalous,
        scores,
        p_values=generator.random(len(files)),
        thresholds={"warning": 1.0, "alarm": 1.6} if thresholds is None else thresholds,
        machines=machines,
    )


def detector_metrics(table: AnswerTable) -> dict[str, Any]:
    """What metrics.json says of scores."""
    found: dict[str, Any] = {
        "conformal": "split",
        "held_back": len(table.part("held_back")),
        "thresholds": {
            name: {"score": value, "false_alarm_rate": 0.1, "promised_rate": 0.125, "note": None}
            for name, value in table.thresholds.items()
        },
    }
    test = table.part("test")
    if len(test):
        machines = list(test.machines) if any(test.machines) else None
        judged = evaluate_detection(
            test.scores,
            test.targets,
            machines=machines,
            thresholds=table.thresholds,
            n_bootstrap=200,
        )
        found |= {f"test/{key}": value for key, value in judged.as_dict().items()}
    return found
