"""The report of a classifier's run, against scikit-learn on the same answers."""

import json
from pathlib import Path

import numpy as np
import pytest
from reported import cards, facts, read_page, table_of, text_of
from runs import HOSTILE, class_answers, class_metrics, tone, write_run
from scipy.stats import binomtest
from sklearn.metrics import f1_score, log_loss, precision_recall_fscore_support

from audiotorch.answers.table import AnswerTable
from audiotorch.errors import ParameterError
from audiotorch.report import write_report
from audiotorch.report.audio import Budget
from audiotorch.report.clips import all_clips
from audiotorch.report.examples import confident_hits, worst_errors
from audiotorch.report.judged import JudgedPart, judged_parts
from audiotorch.report.record import RunRecord
from audiotorch.report.run import run_page

LABELS = ("cat", "dog", HOSTILE)
LIMIT = 15_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run of all four parts, whose recordings are there."""
    root = tmp_path_factory.mktemp("run")
    files = [tone(root / "clips" / f"{i:02d}.wav", 300 + 40 * i) for i in range(24)]
    groups = [f"g{i % 4}" for i in range(24)]
    parts = [
        class_answers(part, LABELS, files, seed=seed, groups=groups)
        for seed, part in enumerate(("cv", "cv_grouped", "val", "test"))
    ]
    return write_run(root / "forest", AnswerTable.joined(parts))


@pytest.fixture(scope="module")
def page(folder) -> str:
    return run_page(folder)


def part_of(folder: Path, name: str) -> JudgedPart:
    return next(part for part in judged_parts(RunRecord.read(folder))[0] if part.name == name)


@pytest.mark.parametrize("name", ["test", "val", "cv_grouped", "cv"])
def test_figures_are_scikit_learns(folder, page, name):
    answers = AnswerTable.read(folder).part(name)
    row = next(
        row
        for row in table_of(page, "At a glance")
        if row["judged on"] == part_of(folder, name).title
    )
    predicted = answers.probabilities.argmax(axis=1)
    assert row["clips"] == len(answers) == 24
    assert row["macro F1"] == pytest.approx(
        f1_score(answers.targets, predicted, average="macro"), abs=1e-3
    )
    shares = answers.probabilities / answers.probabilities.sum(axis=1, keepdims=True)
    assert row["log loss"] == pytest.approx(
        log_loss(answers.targets, shares, labels=range(3)), abs=1e-3
    )
    assert row["accuracy"] == pytest.approx((predicted == answers.targets).mean(), abs=1e-3)
    if name in ("test", "val", "cv"):
        interval = binomtest(int((predicted == answers.targets).sum()), 24).proportion_ci(
            method="wilson"
        )
        assert row["95 %"] == f"{interval.low:.3f} to {interval.high:.3f}"


@pytest.mark.parametrize("name", ["test", "cv_grouped"])
def test_classes_are_scikit_learns(folder, page, name):
    answers = AnswerTable.read(folder).part(name)
    predicted = answers.probabilities.argmax(axis=1)
    wanted = precision_recall_fscore_support(answers.targets, predicted, labels=range(3))
    rows = table_of(page, part_of(folder, name).title)
    assert [row["class"] for row in rows] == list(LABELS)
    for i, key in enumerate(("precision", "recall", "F1", "clips")):
        assert [row[key] for row in rows] == pytest.approx(list(wanted[i]), abs=1e-3)
    pairs = table_of(page, part_of(folder, name).title, 1)
    assert sum(pair["clips"] for pair in pairs) == (predicted != answers.targets).sum()
    assert [pair["clips"] for pair in pairs] == sorted((p["clips"] for p in pairs), reverse=True)


def test_f1_interval_is_that_of_a_plain_bootstrap(folder):
    part = part_of(folder, "test")
    generator = np.random.default_rng(1)
    answers = part.answers
    predicted = answers.probabilities.argmax(axis=1)
    draws = []
    for _ in range(1000):
        rows = generator.integers(0, 24, 24)
        present = np.unique(answers.targets[rows])
        draws.append(
            f1_score(answers.targets[rows], predicted[rows], labels=present, average="macro")
        )
    assert part.f1_interval == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.04)
    assert part_of(folder, "cv_grouped").f1_interval is None


def test_cards_are_the_worst_errors_and_the_surest_hits(folder, page):
    answers = AnswerTable.read(folder).part("test")
    predicted = answers.probabilities.argmax(axis=1)
    losses = -np.log(answers.probabilities[np.arange(24), answers.targets])
    wrong = [i for i in np.argsort(-losses) if predicted[i] != answers.targets[i]][:8]
    assert len(wrong) > 1
    shown = cards(page, "Worst errors")
    assert [card.title for card in shown] == [Path(answers.files[i]).name for i in wrong]
    assert all(card.tone == "bad" and card.audio[:3] in (b"ID3", b"\xff\xfb\x10") for card in shown)
    for card, i in zip(shown, wrong, strict=True):
        assert f"is {LABELS[answers.targets[i]]}, heard as {LABELS[predicted[i]]}" in card.text
        assert f"loss {losses[i]:.2f}, group {answers.groups[i]}" in card.text
    hits = cards(page, "Surest hits")
    right = np.flatnonzero(predicted == answers.targets)
    best = [
        max(right[answers.targets[right] == k], key=lambda i: answers.confidence[i])
        for k in np.unique(answers.targets[right])
    ]
    best.sort(key=lambda i: -answers.confidence[i])
    assert [card.title for card in hits] == [Path(answers.files[i]).name for i in best]
    assert all(card.tone == "good" for card in hits)


def test_without_a_model_the_reason_stands_in_place_of_reasons(page):
    assert "No reasons are given, for the model does not load" in text_of(page, "Worst errors")
    assert "No reasons" not in text_of(page, "Surest hits")
    assert "model.ts is not in the run's directory" in text_of(page, "Use the model")


def test_all_clips_are_in_one_table(folder, page):
    answers = AnswerTable.read(folder)
    rows = table_of(page, "All clips")
    assert [row["file"] for row in rows] == [Path(file).name for file in answers.files]
    assert [row["class"] for row in rows] == list(answers.truth)
    assert [row["answer"] for row in rows] == list(answers.answers)
    assert [row["confidence"] for row in rows] == pytest.approx(answers.confidence, abs=1e-3)
    assert [row["right"] == "yes" for row in rows] == answers.right.tolist()
    assert {row["part"] for row in rows} == {
        "Test",
        "Validation",
        "Groups left out",
        "Cross-validation by clip",
    }
    assert f"Files lie in {folder.parent}/clips/" in text_of(page, "All clips")


def test_settings_versions_and_leakage_are_told(folder, tmp_path):
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics |= {"leakage": "Leakage: expect 0.5.", "abstain": 0.4}
    metrics |= {"test/answered": 0.9, "test/answered_acc": 0.95}
    metrics["importance"] = {"mfcc_1": [0.2, 0.01], HOSTILE: [0.1, 0.02]}
    page = run_page(write_run(tmp_path / "r", AnswerTable.read(folder), metrics))
    assert "Leakage: expect 0.5." in text_of(page, "At a glance")
    row = table_of(page, "At a glance", 1)[0]
    assert list(row.values()) == ["Test", 0.9, 0.95]
    settings = {row["setting"]: row["value"] for row in table_of(page, "Configuration")}
    assert settings == {"seed": "42", "model.name": "svm", "features._target_": "a.b.MFCC"}
    assert facts(page, "Configuration") == {"audiotorch": "0.1.0"}
    assert facts(page, "At a glance")["clips trained on"] == "12"
    drops = table_of(page, "Features")
    assert [row["feature"] for row in drops] == ["mfcc_1", HOSTILE]


def test_labels_are_text_never_markup(page):
    assert "<script>alert" not in page
    assert read_page(page).scripts == 1


def test_an_older_run_says_what_lacks(folder, tmp_path):
    metrics = class_metrics(AnswerTable.read(folder))
    page = run_page(write_run(tmp_path / "old", None, metrics))
    assert "answers.csv is missing" in text_of(page, "At a glance")
    assert [row["class"] for row in table_of(page, "Test")] == list(LABELS)
    new = table_of(run_page(folder), "At a glance")
    assert table_of(page, "At a glance") == new
    assert not cards(page, "Worst errors")


def test_figures_of_other_answers_are_not_mixed(folder, tmp_path):
    metrics = class_metrics(AnswerTable.read(folder))
    metrics["test/acc"], metrics["test/confusion_matrix"] = 0.0, [[0, 8, 0], [0, 0, 8], [8, 0, 0]]
    page = run_page(write_run(tmp_path / "mixed", AnswerTable.read(folder), metrics))
    assert "Test: answers.csv and metrics.json are not of the same answers" in text_of(
        page, "At a glance"
    )
    assert table_of(page, "At a glance")[0]["accuracy"] > 0.5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is missing"),
        ("{", "is no JSON"),
        ("[1]", "holds no figures"),
        (b"\xff\xfe", "no JSON"),
    ],
)
def test_metrics_that_cannot_be_read_are_one_error(tmp_path, content, reason):
    path = tmp_path / "metrics.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(ParameterError, match=reason) as error:
        run_page(tmp_path)
    assert "\n" not in str(error.value)


def test_strange_values_in_metrics_are_left_out(folder, tmp_path):
    strange = {
        "test/acc": "high",
        "test/confusion_matrix": "none",
        "cv/folds": [1, {"acc": "x"}],
        "cv/acc": float("nan"),
        "cv/acc_interval": [None, "x"],
        "abstain": None,
        "leakage": 3,
        "importance": {"a": 1, "b": ["x", "y"]},
        "versions": [],
        "settings": 1,
        "epochs": "two",
        "cv/confusion_matrix": [[1, 0], [0]],
        "val/confusion_matrix": [[-1]],
    }
    page = run_page(write_run(tmp_path / "strange", AnswerTable.read(folder), strange))
    assert len(table_of(page, "At a glance")) == 4
    broken = write_run(tmp_path / "broken", None, strange, config="a: [")
    (broken / "answers.csv").write_text("part,file\n1,2\n")
    told = text_of(run_page(broken), "At a glance")
    assert "answers.csv cannot be read" in told
    assert "config.yaml cannot be read" in told
    assert "judged on no clips" in told


def test_recordings_that_are_gone_are_told_of(tmp_path):
    files = [*(f"/nowhere/{i}.wav" for i in range(5)), "a\0b.wav", str(tmp_path)]
    (tmp_path / "text.wav").write_text("no sound")
    files += [str(tmp_path / "text.wav")] * 2
    table = class_answers("test", LABELS, files, acc=0.0)
    shown = cards(run_page(write_run(tmp_path / "gone", table)), "Worst errors")
    assert len(shown) == 8
    for card in shown:
        assert card.audio is None
        assert "not where it was" in card.text or "cannot be read" in card.text


@pytest.mark.parametrize("part", ["test", "cv"])
def test_one_class(tmp_path, part):
    page = run_page(write_run(tmp_path / "one", class_answers(part, ["x"], ["a.wav"] * 3, acc=1)))
    assert "No errors: 3 clips, all answered right." in page
    assert text_of(page, "Worst errors").count("No clip was answered wrongly.") == 1
    assert len(cards(page, "Surest hits")) == 1


def test_no_right_answer(tmp_path):
    table = class_answers("val", ["x", "y"], ["a.wav"] * 4, acc=0.0)
    table = table.select(table.answers != table.truth)
    page = run_page(write_run(tmp_path / "bad", table))
    assert "No clip was answered right." in text_of(page, "Surest hits")


def test_errors_come_from_the_next_part_where_the_first_has_none(tmp_path):
    parts = [class_answers("test", LABELS, ["t.wav"] * 9, acc=1.0)]
    parts.append(class_answers("cv", LABELS, ["c.wav"] * 9, acc=0.0))
    page = run_page(write_run(tmp_path / "next", AnswerTable.joined(parts)))
    assert {card.title for card in cards(page, "Worst errors")} == {"c.wav"}
    assert "models that had not heard the clip" in text_of(page, "Worst errors")
    assert {card.title for card in cards(page, "Surest hits")} == {"t.wav"}


def test_20000_clips_stay_small(tmp_path):
    files = [f"/data/folder/of/recordings/speaker_{i % 97}/{i:06d}.flac" for i in range(20_000)]
    table = class_answers("val", LABELS, files, groups=[f"s{i % 97}" for i in range(20_000)])
    path = write_report(write_run(tmp_path / "large", table), tmp_path / "large.html")
    assert path.stat().st_size < LIMIT
    page = path.read_text(encoding="utf-8")
    rows = table_of(page, "All clips")
    assert len(rows) == 20_000
    assert [row["right"] == "yes" for row in rows] == table.right.tolist()
    assert f"{int((~table.right).sum()):,} of 20,000 clips wrong" in text_of(page, "Worst errors")


def test_500_classes_stay_readable(tmp_path):
    labels = [f"class {i:03d}" for i in range(500)]
    table = class_answers("cv", labels, [f"{i}.wav" for i in range(1000)])
    path = write_report(write_run(tmp_path / "many", table), tmp_path / "many.html")
    assert path.stat().st_size < LIMIT
    page = path.read_text(encoding="utf-8")
    title = "Cross-validation by clip"
    assert [row["class"] for row in table_of(page, title)] == labels
    assert len(table_of(page, title, 1)) == 50
    assert len(read_page(page).section(title).all("img")) == 2


def test_rows_beyond_what_a_page_bears_are_told_of():
    table = class_answers("cv", LABELS, [f"{i}.wav" for i in range(100)])
    section = all_clips(table, Budget(), n_rows=60)
    rows = section.blocks[0].rows
    assert len(rows) == 60
    assert sum(row[4] == "NO" for row in rows) == (~table.right).sum()
    kept = [row[3] for row in rows if row[4] == "yes"]
    assert max(kept) <= np.sort(table.confidence[table.right])[len(kept) - 1] + 1e-3
    assert "60 of 100 rows" in section.note


def test_a_page_that_is_full_leaves_rows_and_pictures_out(folder):
    answers = AnswerTable.read(folder)
    section = all_clips(answers, Budget(4000))
    rows = section.blocks[0].rows
    n_wrong = int((~answers.right).sum())
    assert 0 < len(rows) < len(answers)
    assert sum(row[4] == "NO" for row in rows) == min(n_wrong, len(rows))
    assert f"{len(rows):,} of {len(answers):,} rows" in section.note


def test_rows_of_errors_and_hits():
    table = AnswerTable.of_classes(
        "val",
        ["a", "b"],
        list("wxyz"),
        [0, 0, 1, 1],
        [[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]],
    )
    assert worst_errors(table, 5).tolist() == [2, 1]
    assert worst_errors(table, 1).tolist() == [2]
    assert confident_hits(table, 5).tolist() == [0, 3]
