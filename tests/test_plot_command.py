"""`audiotorch plot`: which pictures lie where, and what is told in one line."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import one_line
from matplotlib.image import imread

from audiotorch import plot
from audiotorch.cli import main

KINDS = ("overview", "waveform", "spectrogram", "mel_spectrogram", "mfcc", "chroma")
KINDS += ("power_spectral_density", "feature_over_time")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def clip(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sounds" / "a clip.wav"
    path.parent.mkdir()
    time = np.arange(8000) / 8000
    samples = 0.5 * np.sin(2 * np.pi * 440 * time) + 1e-3 * np.cos(1e4 * time**2)
    soundfile.write(path, samples, 8000)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_written_into_the_current_folder(kind, clip, capsys):
    assert main(["plot", str(clip), "--kind", kind]) == 0
    out, err = capsys.readouterr()
    assert out == f"a clip_{kind}.png\n"
    assert err == ""
    assert imread(f"a clip_{kind}.png").std() > 0.02


def test_an_overview_is_the_default_and_formats_go_by_suffix(clip, capsys):
    assert main(["plot", str(clip)]) == 0
    assert capsys.readouterr().out == "a clip_overview.png\n"
    for suffix, start in ((".svg", b"<?xml"), (".PDF", b"%PDF"), (".png", b"\x89PNG")):
        target = Path("new") / f"x{suffix}"
        assert main(["plot", str(clip), "--kind", "waveform", "--out", str(target)]) == 0
        assert target.read_bytes().startswith(start)
    assert sorted(p.name for p in Path("new").iterdir()) == ["x.PDF", "x.png", "x.svg"]


def test_options_reach_the_picture(clip, monkeypatch):
    drawn = []
    for name in ("overview", "compare", "spectrogram", "feature_over_time"):
        inner = getattr(plot, name)

        def spy(*arguments, _inner=inner, _name=name, **options):
            drawn.append((_name, arguments, options))
            return _inner(*arguments, **options)

        monkeypatch.setattr(plot, name, spy)
    part = ["--offset", "0.25", "--duration", "0.5"]
    both = {"offset": 0.25, "duration": 0.5}
    assert main(["plot", str(clip), *part]) == 0
    assert drawn.pop() == ("overview", (str(clip),), both)
    assert main(["plot", str(clip), *part, "--kind", "spectrogram", "--scale", "note"]) == 0
    assert drawn.pop()[2] == {**both, "scale": "note", "title": "a clip.wav"}
    assert main(["plot", str(clip), *part, "--feature", "spectral_centroid"]) == 0
    title = "a clip.wav: spectral centroid"
    assert drawn.pop()[2] == {**both, "feature": "spectral_centroid", "title": title}
    assert Path("a clip_feature_over_time.png").exists()
    assert main(["plot", str(clip), "--compare", str(clip)]) == 0
    assert drawn.pop()[1] == (str(clip), str(clip))
    assert Path("a clip_comparison.png").exists()


def test_several_files_have_a_picture_each_and_bad_ones_are_told(clip, capsys):
    Path("bad.wav").write_bytes(b"no audio")
    shutil.copy(clip, "A CLIP.flac")
    command = ["plot", str(clip), "bad.wav", "A CLIP.flac", "--kind", "waveform", "--out", "p"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["p/a clip_waveform.png", "p/A CLIP_waveform_2.png"]
    assert "bad.wav" in one_line(err)
    assert main([*command, "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [sorted(row) for row in rows] == [["file", "out"], ["error", "file"], ["file", "out"]]
    assert sorted(p.name for p in Path("p").iterdir()) == [
        "A CLIP_waveform_2.png",
        "a clip_waveform.png",
    ]


def test_no_recording_is_replaced(clip, capsys):
    content = clip.read_bytes()
    disguised = Path("sound.png")
    disguised.write_bytes(content)
    Path("link.png").symlink_to(clip)
    for arguments in (
        [str(disguised), "--out", "sound.png"],
        [str(clip), "--out", "link.png"],
        [str(clip), "--compare", str(disguised), "--out", str(disguised.absolute())],
    ):
        assert main(["plot", *arguments]) == 2
        assert "is the recording" in one_line(capsys.readouterr().err)
    assert clip.read_bytes() == disguised.read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--kind", "bark"], "bark"),
        (["--feature", "bark"], "spectral_centroid"),
        (["--feature", "rms", "--kind", "mfcc"], "feature_over_time"),
        (["--scale", "note", "--kind", "mfcc"], "spectrogram"),
        (["--scale", "bark", "--kind", "spectrogram"], "bark"),
        (["--compare", "x.wav", "--kind", "mfcc"], "--compare"),
        (["other.wav", "--compare", "x.wav"], "--compare"),
        (["--out", "x.jpeg"], ".svg"),
        (["--out", ""], "--out"),
        (["other.wav", "--out", "x.png"], "folder"),
        (["--offset", "-1"], "-1"),
        (["--duration", "0"], "'0'"),
    ],
)
def test_wrong_use_is_told_in_one_line(arguments, match, clip, capsys):
    assert main(["plot", str(clip), *arguments]) == 2
    assert match in one_line(capsys.readouterr().err)
    assert [p.name for p in Path().iterdir()] == ["sounds"]


@pytest.mark.parametrize("arguments", [["--offset", "9"], ["--compare", "missing.wav"]])
def test_what_cannot_be_drawn_leaves_nothing(arguments, clip, capsys):
    assert main(["plot", str(clip), *arguments]) == 1
    one_line(capsys.readouterr().err)
    assert [p.name for p in Path().iterdir()] == ["sounds"]


def test_a_missing_file_fails(clip, capsys):
    assert main(["plot", "missing.wav"]) == 1
    assert "no such file" in one_line(capsys.readouterr().err)


def test_pictures_of_the_documentation_are_small_and_all_there(data_root, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")  # it imports its neighbours
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "scripts" / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    for name in pictures.DRAWINGS:
        size = (ROOT / "docs" / "images" / f"{name}.png").stat().st_size
        assert size <= pictures.MAX_BYTES, name
    monkeypatch.setenv("AUDIOTORCH_DATA", str(data_root))
    contents = []
    for folder in ("a", "b"):
        assert pictures.main(["chroma", "--out", str(tmp_path / folder)]) == 0
        contents.append((tmp_path / folder / "chroma.png").read_bytes())
    assert contents[0] == contents[1]
    with pytest.raises(SystemExit):
        pictures.main(["nothing"])
