"""`audiotorch predict --explain`: pictures of what answers rest on."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import one_line
from contract import scripted
from detectors import HOP, RATE, noise
from sklearn.linear_model import LogisticRegression
from torch import nn

from audiotorch import export, predict
from audiotorch.cli import main
from audiotorch.cli.pictures import picture_paths
from audiotorch.errors import ParameterError
from audiotorch.explain import explain_class
from audiotorch.features import SpectrogramImage
from audiotorch.models import CNN, MLP, ClassicModel
from audiotorch.models.classic import build_classifier
from audiotorch.pipeline import Pipeline

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> str:
    """Run directory of a CNN."""
    image = SpectrogramImage(RATE, 512, HOP, n_mels=32)
    folder = tmp_path_factory.mktemp("cnn")
    export(classifier(CNN(2, image.output_shape, channels=(8, 16))), folder / "model.ts")
    return str(folder)


def classifier(model: nn.Module) -> Pipeline:
    image = SpectrogramImage(RATE, 512, HOP, n_mels=32)
    return Pipeline(image, model, labels=["a\x1b$", "b"], sample_rate=RATE, min_duration=0.6).eval()


@pytest.fixture
def runs(exported, monkeypatch) -> Callable[[str], str]:
    """Gives the run directory of a classifier; all but the CNN's are put in when it is loaded."""

    def run(name: str) -> str:
        if name == "cnn":
            return exported
        x, y = np.random.default_rng(0).standard_normal((20, 128)), np.arange(20) % 2
        if name == "logistic":
            pipeline = classifier(ClassicModel(LogisticRegression().fit(x, y)))
        elif name == "knn":
            pipeline = classifier(ClassicModel(build_classifier("knn").fit(x, y)))
        elif name == "mlp":
            pipeline = classifier(MLP(2, (1, 32), hidden=(8,)))
        else:
            pipeline = classifier(CNN(2, (1, 32), channels=(8, 16)))
            pipeline.abstain_below(1.0)
        module = scripted(pipeline)
        monkeypatch.setattr(sys.modules["audiotorch.export"], "load_pipeline", lambda _: module)
        return exported

    return run


@pytest.fixture
def clips(tmp_path) -> Path:
    folder = tmp_path / "clips"
    (folder / "deep").mkdir(parents=True)
    soundfile.write(folder / "b.wav", noise(2.2, 44100, 2), 44100)
    soundfile.write(folder / "deep" / "b.wav", noise(0.3), RATE)
    return folder


def rows(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("run", ["cnn", "mlp", "logistic"])
def test_one_picture_is_drawn_and_the_reason_told(runs, clips, capsys, run):
    file, picture = str(clips / "b.wav"), clips.parent / "new" / "out.PNG"
    folder = runs(run)
    module = sys.modules["audiotorch.export"].load_pipeline(f"{folder}/model.ts")
    assert main(["predict", folder, file, "--explain", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [path.name for path in picture.parent.iterdir()] == ["out.PNG"]
    assert picture.read_bytes().startswith(PNG)
    assert main(["predict", folder, file, "--explain", str(picture), "--json"]) == 0
    (row,) = rows(capsys)
    found = explain_class(module, file)
    assert row["reason"] == found.reason
    assert lines[2].strip() == f"because: {found.reason}".replace("\x1b", "\\x1b")
    assert row.get("contributions", {}) == pytest.approx(found.contributions)
    assert ("contributions" in row) is (run != "cnn")
    assert row["probabilities"] == pytest.approx(predict(module, file)[0].probabilities)


def test_each_file_is_drawn_into_a_folder_and_bad_ones_are_told(runs, clips, capsys):
    (clips / "broken.wav").write_bytes(b"RIFF no audio")
    soundfile.write(clips / "deep" / "B.wav", noise(1.0), RATE)
    strange = clips / os.fsdecode(b"\xff $x$ <b>\n\xf0\x9f\x90\xb6.wav")
    strange.write_bytes((clips / "b.wav").read_bytes())
    folder = clips.parent / "pictures"
    command = ["predict", runs("cnn"), str(clips), "--explain", str(folder), "--json"]
    assert main(command) == 1
    found = rows(capsys)
    assert len(found) == 5
    assert ["reason" in row for row in found] == ["error" not in row for row in found]
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["B.wav_2.png", "b.wav.png", "b.wav_3.png", f"{strange.name}.png"]
    assert all(path.read_bytes().startswith(PNG) for path in folder.iterdir())


def test_the_most_probable_class_is_explained_where_the_label_is_held_back(runs, clips, capsys):
    picture = str(clips.parent / "out.png")
    file = str(clips / "b.wav")
    assert main(["predict", runs("unsure"), file, "--explain", picture, "--json"]) == 0
    (row,) = rows(capsys)
    assert row["label"] is None
    best = max(row["probabilities"], key=row["probabilities"].__getitem__)
    assert f"speaks for {best!r}" in row["reason"]


def test_a_number_names_features_as_before(runs, clips, capsys):
    for run in ("mlp", "logistic"):
        assert main(["predict", runs(run), str(clips / "b.wav"), "--explain", "2", "--json"]) == 0
        (row,) = rows(capsys)
        assert len(row["contributions"]) == 2
        assert "reason" not in row
    assert not list(clips.parent.rglob("*.png"))


@pytest.mark.parametrize(
    ("run", "value", "message"),
    [
        ("cnn", "2", "does not say what each feature adds"),
        ("cnn", "0", "must be a whole number of at least 1"),
        ("cnn", "1.5", "must be a whole number of at least 1"),
        ("cnn", "", "must end in .png, or be a folder"),
        ("cnn", "TMP/x.jpg", "must end in .png, or be a folder"),
        ("cnn", "TMP/x.png", "is one picture for 2 files; give a folder"),
        ("cnn", "TMP/clips/b.wav", "must end in .png, or be a folder"),
        ("cnn", "TMP/clips/b.wav/x", "folder cannot be made"),
        ("knn", "TMP/x", "says neither where nor in which features it hears a class"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(runs, clips, capsys, run, value, message):
    value = value.replace("TMP", str(clips.parent))
    assert main(["predict", runs(run), str(clips), "--explain", value]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in one_line(err)
    assert not list(clips.parent.rglob("*.png"))


def test_windows_have_no_pictures(runs, clips, capsys):
    command = ["predict", runs("cnn"), str(clips), "--window", "1", "--explain", "x"]
    assert main(command) == 2
    assert "leave out --window" in one_line(capsys.readouterr().err)


def test_names_of_pictures_are_apart_and_short_enough(tmp_path):
    files = ["x/a.wav", "y/A.wav", "z/a.wav_2", "é" * 120 + ".wav", "y/A.wav"]
    found = picture_paths(str(tmp_path), files, lambda: None)
    assert len(found) == 4
    names = [path.name for path in found.values()]
    assert names[:3] == ["a.wav.png", "A.wav_2.png", "a.wav_2_2.png"]
    assert len(os.fsencode(names[3])) <= 240
    for path in found.values():
        path.with_name(f".{path.name}.tmp").write_bytes(b"")
    read_only = tmp_path / "read only"
    read_only.mkdir(mode=0o500)
    if not os.access(read_only, os.W_OK):
        with pytest.raises(ParameterError, match="is read-only"):
            picture_paths(str(read_only), files, lambda: None)
