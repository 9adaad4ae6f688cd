"""The table of answers that a run leaves: what is written is what is read."""

import csv
import os

import numpy as np
import pytest

from audiotorch.answers.table import AnswerTable
from audiotorch.errors import ParameterError

HOSTILE = ['a,"b"', "<script>alert(1)</script>", "line\nbreak", "\N{DOG} $x$"]


def _classes(part: str = "test", n: int = 8) -> AnswerTable:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(4), size=n)
    targets = generator.integers(0, 4, size=n)
    files = [f"/clips/{HOSTILE[i % 4]}.wav" for i in range(n)]
    return AnswerTable.of_classes(part, HOSTILE, files, targets, probabilities, ["g", None] * 4)


def _scores() -> AnswerTable:
    return AnswerTable.of_scores(
        "test",
        ["/a.wav", os.fsdecode(b"/\xff.wav"), "/c.wav"],
        ["normal", "rubbing", "normal"],
        [0, 1, 0],
        np.array([0.1, 2.5, 1.0], dtype=np.float32),
        p_values=[0.5, 0.1, np.nan],
        thresholds={"warning": 0.5, "alarm": 1.0},
    )


def _same(a: AnswerTable, b: AnswerTable) -> None:
    assert a.labels == b.labels
    for name in ("parts", "files", "groups", "machines", "truth", "answers", "targets"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()
    np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=1e-5)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.p_values, b.p_values)
    assert dict(a.thresholds) == dict(b.thresholds)


def test_classes_come_back(tmp_path):
    table = AnswerTable.joined([_classes("cv"), _classes("test")])
    table.write(tmp_path / "answers.csv")
    found = AnswerTable.read(tmp_path)
    _same(found, table)
    assert found.parts_present == ["cv", "test"]
    assert len(found.part("test")) == 8
    assert not len(found.part("val"))
    assert [p.name for p in tmp_path.iterdir()] == ["answers.csv"]


def test_rows_say_what_was_right():
    table = _classes()
    best = table.probabilities.argmax(axis=1)
    assert table.right.tolist() == (best == table.targets).tolist()
    assert 0 < table.right.sum() < len(table)
    expected = -np.log(table.probabilities[np.arange(8), table.targets])
    np.testing.assert_allclose(table.losses, expected)
    np.testing.assert_allclose(table.confidence, table.probabilities.max(axis=1))
    assert table.select(table.right).right.all()


def test_scores_come_back_in_full(tmp_path):
    table = _scores()
    table.write(tmp_path / "answers.csv")
    found = AnswerTable.read(tmp_path / "answers.csv")
    _same(found, table)
    assert found.is_detector
    # A score that equals the threshold is none above it.
    assert found.answers.tolist() == ["normal", "anomaly", "normal"]
    assert found.right.all()
    assert found.files[1] == os.fsdecode(b"/\xff.wav")


def test_a_detector_without_thresholds_and_an_empty_part(tmp_path):
    table = AnswerTable.of_scores("train", ["/a.wav"], ["normal"], [0], [0.5])
    table.write(tmp_path / "answers.csv")
    assert AnswerTable.read(tmp_path).answers.tolist() == [""]
    empty = _classes().select(np.zeros(8, dtype=bool))
    empty.write(tmp_path / "answers.csv")
    found = AnswerTable.read(tmp_path)
    assert len(found) == 0
    assert found.labels == tuple(HOSTILE)
    assert found.confidence.shape == (0,)


def test_spreadsheets_read_it(tmp_path):
    _classes().write(tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["confidence"]) == pytest.approx(_classes().confidence[0], rel=1e-5)
    assert rows[1]["probability of line\nbreak"]


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "part,file,group,machine,truth,answer,confidence\ncv,x\n"]
)
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "answers.csv").write_text(text)
    with pytest.raises(ParameterError, match="no table of answers"):
        AnswerTable.read(tmp_path)


@pytest.mark.parametrize("n_bytes", [1, 2, 5, 40])
def test_one_that_is_cut_off_is_refused(tmp_path, n_bytes):
    _scores().write(tmp_path / "answers.csv")
    data = (tmp_path / "answers.csv").read_bytes().removesuffix(b"\r\n")
    (tmp_path / "answers.csv").write_bytes(data[: len(data) + 1 - n_bytes])
    with pytest.raises(ParameterError, match=r"cut off|cells"):
        AnswerTable.read(tmp_path)


def test_a_missing_one_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"answers\.csv: is missing"):
        AnswerTable.read(tmp_path)
