"""Pictures: what they show is checked on the figure's own parts and pixels."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.features import SpectrogramImage
from audiotorch.models import CNN
from audiotorch.models.calibration import reliability as binned
from audiotorch.pipeline import Pipeline
from audiotorch.plot import (
    confusion_matrix,
    draw_mel,
    importance_bars,
    new_figure,
    pixels,
    prediction_strip,
    reliability,
    save_figure,
)

LABELS = ["$a$", "b_{", "c"]


@pytest.fixture
def pipeline() -> Pipeline:
    features = SpectrogramImage(8000, 256, 80, n_mels=20)
    model = CNN(3, features.output_shape, channels=(4, 8))
    return Pipeline(features, model, labels=LABELS, sample_rate=8000).eval().requires_grad_(False)


def test_confusion_matrix_writes_each_count_in_its_cell():
    axes = confusion_matrix(np.array([[3, 1, 0], [0, 5, 0], [0, 0, 7]]), LABELS)
    figure = axes.figure
    assert {(t.get_position(), t.get_text()) for t in axes.texts} == {
        ((0, 0), "3\n75%"),
        ((1, 0), "1\n25%"),
        ((1, 1), "5\n100%"),
        ((2, 2), "7\n100%"),
    }
    assert pixels(figure).shape[2] == 3
    assert pixels(figure).std() > 10


def test_strip_shows_the_three_most_probable_and_the_truth(pipeline):
    clips = [torch.randn(8000), torch.randn(4000)]
    answers = [pipeline(clip[None])[0] for clip in clips]
    best = [LABELS[int(a.argmax())] for a in answers]
    wrong = next(label for label in LABELS if label != best[1])
    figure = prediction_strip(pipeline, clips, [best[0], wrong])
    pixels(figure)
    titles = [axes.get_title().replace("\\", "") for axes in figure.axes]
    assert titles[:2] == [best[0], f"{best[1]}, is {wrong}"]
    bars = [text.get_text() for text in figure.axes[2].texts]
    assert bars[0].endswith(f"{float(answers[0].max()):.0%}")
    assert len(bars) == 3
    with pytest.raises(ParameterError, match="at least one"):
        prediction_strip(pipeline, [])


def test_a_picture_is_written_whole(tmp_path):
    figure = confusion_matrix(np.eye(2, dtype=int), ["a", "b"]).figure
    save_figure(figure, tmp_path / "new" / "c.png")
    assert imread(tmp_path / "new" / "c.png").ndim == 3
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["c.png"]


def test_names_that_the_font_lacks_draw_no_warnings(tmp_path, recwarn):
    figure = confusion_matrix(np.eye(2, dtype=int), ["\u65e5\u672c", "b"]).figure
    save_figure(figure, tmp_path / "c.png")
    assert pixels(figure).std() > 10
    assert not [str(warning.message) for warning in recwarn]


def test_long_names_leave_room_for_the_picture(recwarn):
    figure = confusion_matrix(np.eye(3, dtype=int), ["a" * 60 + "b" * 60, "one\nline", "c"]).figure
    pixels(figure)
    assert not [str(warning.message) for warning in recwarn]
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["a" * 16 + "\u2026" + "b" * 16, "one line", "c"]
    box = figure.axes[0].get_window_extent()
    assert min(box.width, box.height) > 50


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"audiotorch\[plot\]"):
        new_figure(1, 1)


def test_small_picture_of_a_tone_is_brightest_at_its_frequency():
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)
    axes = new_figure(4, 3).add_subplot()
    draw_mel(axes, tone, 8000, "$ title")
    mesh = axes.collections[0]
    edges = mesh.get_coordinates()[:, 0, 1]
    ticks = dict(
        zip((t.get_text() for t in axes.get_yticklabels()), axes.get_yticks(), strict=True)
    )
    row = int(mesh.get_array().mean(axis=1).argmax())
    assert edges[row] < ticks["1"] == 1000 < edges[row + 1]
    assert axes.get_title() == r"\$ title"


@pytest.mark.parametrize("rate", [500, 1000, 4000, 192000])
def test_any_sample_rate_is_drawn(rate):
    axes = new_figure(4, 3).add_subplot()
    draw_mel(axes, torch.randn(rate), rate)
    image = axes.collections[0].get_array()
    assert image.shape[0] == 40
    assert np.isfinite(image).all()


def test_importance_bars_show_the_largest_losses_on_top():
    drops = {"mfcc_mean": (0.05, 0.01), "rms$": (-0.01, 0.0), "chroma": (0.2, 0.02)}
    axes = importance_bars(drops, n_shown=2).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["chroma", "mfcc_mean"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20.0, 5.0])
    assert [bar.get_y() for bar in axes.patches] == sorted(
        (bar.get_y() for bar in axes.patches), reverse=True
    )
    assert pixels(importance_bars({})).shape[2] == 3


def test_reliability_diagram_draws_bins_that_have_clips():
    probabilities = np.array([[0.95, 0.05], [0.93, 0.07], [0.35, 0.65], [0.45, 0.55]])
    curve = binned(probabilities, np.array([0, 1, 1, 1]), n_bins=10)
    axes = reliability({"cv": curve})
    diagonal, line = axes.lines
    assert diagonal.get_xdata().tolist() == diagonal.get_ydata().tolist() == [0, 1]
    assert line.get_ydata().tolist() == pytest.approx([1.0, 1.0, 0.5])
    assert line.get_xdata().tolist() == pytest.approx([0.55, 0.65, 0.94])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "calibrated",
        "cv: ECE 0.420",
    ]
