"""What cards tell of the reasons for an answer."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reported import cards, read_page, text_of
from runs import RATE, class_answers, detector_answers, tone, write_run
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audiotorch import Pipeline, export
from audiotorch.answers.table import AnswerTable
from audiotorch.explain import DeviationMap, Explanation
from audiotorch.explain.classes import ClassExplanation, ClassMap
from audiotorch.features import MFCCStatistics
from audiotorch.models import ClassicModel
from audiotorch.report.audio import Budget, Excerpt
from audiotorch.report.cards import Asked, Cards
from audiotorch.report.reasons import reason_picture
from audiotorch.report.record import RunRecord
from audiotorch.report.run import run_page
from audiotorch.report.timelines import time_lines

EDGES = torch.linspace(0.0, 4000.0, 41)  # 40 bands of 100 Hz


def explained(map_: ClassMap | None, contributions: dict[str, float] | None = None):
    shares = {"a": 0.9, "b": 0.1}
    return ClassExplanation("a", 0.9, shares, "why", 10.0, map_, contributions or {})


def detected(map_: DeviationMap | None, scores=(1.0, 2.0, 0.5), **more) -> Explanation:
    starts = torch.arange(len(scores)).double()
    limits = {"alarm": 1.5}
    settings = {"second": 4.0, "map": map_, **more}
    return Explanation(
        "why", 2.0, 1.5, 0.1, True, 4.0, limits, starts, torch.tensor(scores), 2.0, **settings
    )


def hot(weights: torch.Tensor) -> torch.Tensor:
    """A patch of bands 20 to 23 and frames 50 to 59."""
    weights[20:24, 50:60] = 1.0
    return weights


def vermillion(png: bytes) -> np.ndarray:
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return image[..., 0] - image[..., 2] > 120


@pytest.mark.parametrize("kind", ["class", "detector"])
def test_the_map_lies_where_the_sound_is(kind):
    # 100 frames of 0.1 s from second 2 on: the patch is at 7.0 to 8.0 s, 2000 to 2400 Hz.
    level, heat = torch.zeros(40, 100), hot(torch.zeros(40, 100))
    if kind == "class":
        found = explained(ClassMap(2.0, 0.1, EDGES, level, heat))
    else:
        found = detected(DeviationMap(2.0, 0.1, EDGES, level, 7.0 * heat))
    piece = Excerpt(torch.zeros(8 * RATE), RATE, 4.0, 12.0, 0.0)
    picture = reason_picture(found, piece)
    marked = vermillion(picture.png)
    height, width = marked.shape
    rows, columns = np.nonzero(marked)
    seconds = 4.0 + (columns + 0.5) / width * 8.0
    hertz = 4000 * (1 - (rows + 0.5) / height)
    # A frame reaches half a step to both sides of where it stands.
    assert (seconds.min(), seconds.max()) == pytest.approx((6.95, 7.95), abs=0.03)
    assert (hertz.min(), hertz.max()) == pytest.approx((2000, 2400), abs=30)
    assert picture.spans
    ticks = dict((text, place) for place, text in picture.y_ticks)
    assert ticks["2 kHz"] == pytest.approx(0.5)


def test_what_the_map_does_not_know_is_grey():
    level = torch.zeros(40, 20)
    found = explained(ClassMap(0.0, 0.1, None, level, torch.ones(40, 20)))
    picture = reason_picture(found, Excerpt(torch.zeros(4 * RATE), RATE, 0.0, 4.0, 0.0))
    marked = vermillion(picture.png)
    assert marked.any(axis=0).mean() == pytest.approx(0.5, abs=0.02)
    assert marked.any(axis=0)[: marked.shape[1] // 2 - 10].all()
    assert picture.y_ticks == []


def test_features_are_bars_and_nothing_is_no_picture():
    piece = Excerpt(torch.zeros(RATE), RATE, 0.0, 1.0, 0.0)
    picture = reason_picture(explained(None, {"mfcc $1$": 0.3, "rms": -0.1}), piece)
    assert "for a to the right" in picture.caption
    assert not picture.spans
    assert reason_picture(detected(None, deviations={"level": 3.0}), piece) is not None
    assert reason_picture(explained(None), piece) is None


def test_time_lines_draw_scores_and_thresholds():
    figure = time_lines({"one.wav": detected(None), "two.wav": detected(None, (0.1, 0.2, 0.3))})
    top, bottom = figure.axes
    assert [top.get_title(loc="left"), bottom.get_title(loc="left")] == ["one.wav", "two.wav"]
    line, threshold = top.get_lines()
    assert line.get_xdata().tolist() == [1.0, 2.0, 3.0]
    assert line.get_ydata().tolist() == [1.0, 2.0, 0.5]
    assert list(threshold.get_ydata()) == [1.5, 1.5]
    assert top.get_ylim() == bottom.get_ylim()
    assert bottom.get_xlim() == (0.0, 4.0)
    assert bottom.get_xlabel() == "seconds"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run with a model that tells low tones from high ones, wrong on purpose in its answers."""
    root = tmp_path_factory.mktemp("told")
    files = [tone(root / f"{i}.wav", 300 if i % 2 else 2000, 1.0) for i in range(8)]
    generator = np.random.default_rng(0)
    features = MFCCStatistics(RATE, n_mfcc=5)
    x, y = generator.normal(size=(20, features.output_shape[0])), np.arange(20) % 2
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    labels = ["low", "high"]
    pipeline = Pipeline(
        features,
        ClassicModel(classifier),
        labels=labels,
        sample_rate=RATE,
        min_duration=1.0,
    )
    table = class_answers("test", labels, files, acc=0.5)
    folder = write_run(root / "run", table)
    export(pipeline, folder / "model.ts")
    return folder


def test_cards_have_the_reasons_of_the_class_that_was_answered(folder):
    steps = []
    page = run_page(folder, advance=lambda done, total: steps.append((done, total)))
    answers = AnswerTable.read(folder)
    shown = cards(page, "Worst errors")
    assert len(shown) == (~answers.right).sum() > 0
    by_name = {
        Path(file).name: answer for file, answer in zip(answers.files, answers.answers, strict=True)
    }
    for card in shown:
        assert card.n_pictures == 2
        assert f"speaks for {by_name[card.title]} to the right" in card.text
    assert "No reasons" not in text_of(page, "Worst errors")
    assert steps[-1][0] == len(shown) + len(cards(page, "Surest hits"))
    assert read_page(page).section("Test") is not None


def test_only_so_many_cards_are_explained_and_long_ones_not(folder, monkeypatch):
    record = RunRecord.read(folder)
    file = str(record.answers.files[0])
    made = Cards(record, Budget(), 1)
    assert len(made.card(Asked(file, ["x"])).pictures) == 2
    assert len(made.card(Asked(file, ["x"])).pictures) == 1
    assert list(made.found) == [file]
    monkeypatch.setattr("audiotorch.report.cards._LONGEST", 0.1)
    assert "No reasons: it lasts" in Cards(record, Budget()).card(Asked(file, [])).lines[0]
    full = Cards(record, Budget(10)).card(Asked(file, []))
    assert full.audio is None
    assert full.pictures == []


def test_a_model_of_the_other_kind_gives_no_reasons(folder, tmp_path):
    table = detector_answers("test", [tone(tmp_path / "a.wav", 400)], [True])
    run = write_run(tmp_path / "run", table)
    (run / "model.ts").write_bytes((folder / "model.ts").read_bytes())
    assert "No reasons are given: " in Cards(RunRecord.read(run), Budget()).mute
    (run / "model.ts").write_bytes(b"PK no model")
    assert "does not load" in Cards(RunRecord.read(run), Budget()).mute
