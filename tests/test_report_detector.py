"""The report of a detector's run, against scikit-learn on the same scores."""

import json
from pathlib import Path

import numpy as np
import pytest
from reported import cards, facts, read_page, table_of, text_of
from runs import HOSTILE, detector_answers, detector_metrics, tone, write_run
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from audiotorch.answers.table import AnswerTable
from audiotorch.errors import ParameterError
from audiotorch.report import write_report
from audiotorch.report.detector import detector_page

LIMIT = 15_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A detector of two machines, whose recordings are there."""
    root = tmp_path_factory.mktemp("detector")
    files = [tone(root / "clips" / f"{i:02d}.wav", 300 + 20 * i) for i in range(60)]
    machines = ["fan", HOSTILE] * 30
    parts = []
    for seed, (part, rows) in enumerate({"train": 10, "held_back": 10, "test": 40}.items()):
        chosen = slice(20, 60) if part == "test" else slice(10 * seed, 10 * seed + rows)
        anomalous = [part == "test" and i % 5 < 2 for i in range(rows)]
        parts.append(
            detector_answers(part, files[chosen], anomalous, seed=seed, machines=machines[chosen])
        )
    return write_run(root / "fan", AnswerTable.joined(parts))


@pytest.fixture(scope="module")
def page(folder) -> str:
    return detector_page(folder)


def test_areas_are_scikit_learns(folder, page):
    test = AnswerTable.read(folder).part("test")
    told = facts(page, "At a glance")
    assert told["AUC"].split()[0] == f"{roc_auc_score(test.targets, test.scores):.3f}"
    assert told["AP"].split()[0] == f"{average_precision_score(test.targets, test.scores):.3f}"
    mcclish = roc_auc_score(test.targets, test.scores, max_fpr=0.1)
    assert told["McClish's AUC up to 0.1 false alarms"] == f"{mcclish:.3f}"
    metrics = json.loads((folder / "metrics.json").read_text())
    low, high = metrics["test/auc_interval"]
    assert f"{low:.3f} to {high:.3f} (95 %)" in told["AUC"]
    assert told["judged on"] == "24 normal clips, 16 anomalies"


def test_machines_are_scikit_learns(folder, page):
    test = AnswerTable.read(folder).part("test")
    rows = {row["machine"]: row for row in table_of(page, "Machines")}
    assert list(rows) == ["fan", HOSTILE]
    for name, row in rows.items():
        own = test.select(test.machines == name)
        assert row["AUC"] == pytest.approx(roc_auc_score(own.targets, own.scores), abs=1e-3)
        assert (row["normal"], row["anomalies"]) == (12, int(own.targets.sum()))


def test_thresholds_promise_and_do(folder, page):
    test = AnswerTable.read(folder).part("test")
    rows = table_of(page, "Thresholds")
    assert [row["threshold"] for row in rows] == ["warning", "alarm"]
    for row in rows:
        above = test.scores > test.thresholds[row["threshold"]]
        alarms = int((above & (test.targets == 0)).sum())
        interval = binomtest(alarms, 24).proportion_ci(method="wilson")
        assert row["seen"] == pytest.approx(alarms / 24, abs=1e-3)
        assert row["seen, 95 %"] == f"{interval.low:.3f} to {interval.high:.3f}"
        assert row["recall"] == pytest.approx(above[test.targets == 1].mean(), abs=1e-3)
        assert (row["asked for"], row["promised"]) == (0.1, 0.125)
    assert "Calibrated on 10 clips (held back)" in text_of(page, "Thresholds")


def test_cards_are_top_anomalies_false_alarms_and_misses(folder, page):
    test = AnswerTable.read(folder).part("test")
    order = np.argsort(-test.scores)
    limit = test.thresholds["alarm"]
    names = [Path(file).name for file in test.files]
    anomalies = [i for i in order if test.targets[i]]
    assert [c.title for c in cards(page, "Top anomalies")] == [names[i] for i in anomalies[:6]]
    alarms = [i for i in order if not test.targets[i] and test.scores[i] > limit][:4]
    assert [c.title for c in cards(page, "False alarms")] == [names[i] for i in alarms]
    missed = [i for i in anomalies[::-1] if test.scores[i] <= limit][:4]
    assert len(missed) == 4
    shown = cards(page, "Misses")
    assert [c.title for c in shown] == [names[i] for i in missed]
    assert all(card.audio and card.tone == "bad" for card in shown)
    assert f"score {test.scores[missed[0]]:.4g}, not above alarm 1.6" in shown[0].text


def test_all_clips_are_in_one_table(folder, page):
    answers = AnswerTable.read(folder)
    rows = table_of(page, "All clips")
    assert [row["score"] for row in rows] == pytest.approx(answers.scores, rel=1e-3)
    assert [row["p-value"] for row in rows] == pytest.approx(answers.p_values, rel=1e-3)
    assert [row["verdict"] for row in rows] == list(answers.answers)
    assert [row["machine"] for row in rows] == list(answers.machines)
    assert {row["part"] for row in rows} == {"Fitted on", "Held back", "Test"}


def test_pictures_and_markup(page):
    scores = read_page(page).section("Scores")
    assert [image.attributes["alt"] for image in scores.all("img")] == [
        "histogram of scores",
        "ROC curve",
    ]
    assert "<script>alert" not in page
    assert read_page(page).scripts == 1


def test_without_a_test_the_highest_scores_are_shown(folder, tmp_path):
    answers = AnswerTable.read(folder)
    table = answers.select(answers.parts != "test")
    page = detector_page(write_run(tmp_path / "normal", table))
    assert "no test clips" in text_of(page, "At a glance")
    assert "no ROC curve" in text_of(page, "Scores")
    held_back = table.part("held_back")
    top = np.argsort(-held_back.scores)[:6]
    wanted = [Path(held_back.files[i]).name for i in top]
    assert [card.title for card in cards(page, "Highest scores")] == wanted
    assert read_page(page).section("Misses") is None
    assert [row["precision"] for row in table_of(page, "Thresholds")] == [None, None]


@pytest.mark.parametrize("kind", [False, True])
def test_a_test_of_one_kind_has_no_curve(tmp_path, kind):
    table = detector_answers("test", [f"{i}.wav" for i in range(6)], [kind] * 6, shift=9)
    page = detector_page(write_run(tmp_path / "one", table))
    assert "so there is no ROC curve" in text_of(page, "Scores")
    assert "AUC" not in facts(page, "At a glance")
    text = text_of(page, "At a glance")
    assert "there is nothing to tell them from" in text
    if kind:
        assert text_of(page, "False alarms").endswith("None.")


def test_an_older_run_says_what_lacks(folder, tmp_path):
    metrics = detector_metrics(AnswerTable.read(folder))
    page = detector_page(write_run(tmp_path / "old", None, metrics))
    assert "answers.csv is missing" in text_of(page, "At a glance")
    assert facts(page, "At a glance")["AUC"]
    assert read_page(page).section("Top anomalies") is None


def test_figures_of_other_scores_are_not_mixed(folder, tmp_path):
    answers = AnswerTable.read(folder)
    metrics = {**detector_metrics(answers), "test/auc": 0.123}
    page = detector_page(write_run(tmp_path / "mixed", answers, metrics))
    test = answers.part("test")
    assert "not of the same scores" in text_of(page, "At a glance")
    auc = roc_auc_score(test.targets, test.scores)
    assert facts(page, "At a glance")["AUC"].startswith(f"{auc:.3f}")


def test_answers_without_the_test_that_was_judged_are_told_of(folder, tmp_path):
    answers = AnswerTable.read(folder)
    rest = answers.select(answers.parts != "test")
    page = detector_page(write_run(tmp_path / "lost", rest, detector_metrics(answers)))
    assert "answers.csv lacks the clips of the test" in text_of(page, "At a glance")
    only = {k: v for k, v in detector_metrics(answers).items() if not k.startswith("test/")}
    page = detector_page(write_run(tmp_path / "only", rest, only))
    assert "lacks" not in text_of(page, "At a glance")


def test_infinite_and_missing_scores(folder, tmp_path):
    answers = AnswerTable.read(folder)
    answers.scores[0], answers.scores[-1] = np.inf, np.inf
    page = detector_page(write_run(tmp_path / "infinite", answers))
    assert table_of(page, "All clips")[0]["score"] == "inf"
    metrics = detector_metrics(answers)
    answers.scores[-1] = np.nan
    page = detector_page(write_run(tmp_path / "missing", answers, metrics))
    assert "1 of 40 are NaN" in text_of(page, "At a glance")
    assert table_of(page, "All clips")[-1]["score"] is None


def test_no_threshold(tmp_path):
    table = detector_answers("test", ["a.wav", "b.wav"], [False, True], thresholds={})
    page = detector_page(write_run(tmp_path / "none", table))
    assert "set no threshold" in text_of(page, "Thresholds")
    assert "right" not in table_of(page, "All clips")[0]
    assert "above" not in cards(page, "Top anomalies")[0].text


def test_20000_clips_stay_small(tmp_path):
    files = [f"/data/folder/of/machines/{i % 31}/{i:06d}.wav" for i in range(20_000)]
    table = detector_answers("test", files, [i % 10 == 0 for i in range(20_000)])
    path = write_report(write_run(tmp_path / "large", table), tmp_path / "large.html")
    assert path.stat().st_size < LIMIT
    rows = table_of(path.read_text(encoding="utf-8"), "All clips")
    assert [row["right"] == "yes" for row in rows] == table.right.tolist()


def test_metrics_that_cannot_be_read_are_one_error(tmp_path):
    (tmp_path / "metrics.json").write_text('{"conformal": ')
    with pytest.raises(ParameterError, match=r"metrics\.json: is no JSON"):
        write_report(tmp_path, tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()
