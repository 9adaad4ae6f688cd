"""Detectors' answers to files, and `audiotorch detect`; the oracle is the Pipeline on waveforms."""

import io
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from contract import scripted
from detectors import RATE, calibrated, image_detector, noise, vector_detector, wav
from torch import nn

from audiotorch import answers, predict
from audiotorch.answers import timeline
from audiotorch.audio import load
from audiotorch.cli import main
from audiotorch.errors import ParameterError
from audiotorch.export import export, load_pipeline
from audiotorch.features import SpectrogramImage
from audiotorch.models import CNN
from audiotorch.pipeline import Pipeline

WINDOWS = [
    {"window": 1.0},
    {"window": 1.0, "hop": 0.4, "aggregate": "max"},
    {"window": 0.7, "hop": 0.11, "aggregate": "top_k", "top_k": 2},
]
SECONDS = [0.3, 0.7, 1.0, 1.0001, 1.4, 2.0, 2.39, 5.13]


def detector(kind: str = "image", names: tuple[str, ...] = ("alarm",), **options) -> Pipeline:
    build = {"image": image_detector, "vector": vector_detector}[kind]
    return calibrated(build(**options), *names)


def scores(found) -> list[float]:
    assert [one.error for one in found] == [None] * len(found)
    return [one.score for one in found]


@pytest.mark.parametrize("options", [{}, *WINDOWS])
@pytest.mark.parametrize("kind", ["image", "vector"])
@pytest.mark.parametrize("exported", [False, True])
def test_files_have_the_score_of_the_whole_waveform(options, kind, exported):
    pipeline = detector(kind, ("warning", "alarm"), **options)
    module = scripted(pipeline) if exported else pipeline
    files = [wav(noise(seconds, n_channels=2)) for seconds in SECONDS]
    for batch_size in (1, 3):
        found = predict(module, files, batch_size=batch_size)
        for file, answer in zip(files, found, strict=True):
            with torch.no_grad():
                score = pipeline(load(file, RATE)[0])
            assert answer.score == pytest.approx(float(score), rel=1e-5)
            own = torch.tensor(answer.score)
            assert answer.p_value == pytest.approx(float(pipeline.p_value(own)), rel=1e-6)
            assert answer.threshold == float(pipeline.thresholds[1])
            assert answer.is_anomaly is bool(own > pipeline.thresholds[1])
            over = int((own > pipeline.thresholds).sum())
            assert answer.level == [None, "warning", "alarm"][over]
            assert answer.label == ("anomaly" if answer.is_anomaly else "normal")
            assert (answer.confidence, answer.probabilities, answer.error) == (None, {}, None)
    assert len({answer.level for answer in found}) > 1  # or the above would say little
    assert [one.score for one in pipeline.predict(files)] == pytest.approx(scores(found), rel=1e-5)


@pytest.mark.parametrize("options", WINDOWS)
def test_windows_are_those_of_the_pipeline(options):
    pipeline = image_detector(**options)
    for seconds in SECONDS:
        file = wav(noise(seconds))
        with torch.no_grad():
            expected, starts, valid = pipeline.window_scores(load(file, RATE)[0])
        assert valid.all()
        found_starts, found = answers.score_windows(pipeline, file, batch_size=2)
        assert found_starts.tolist() == starts[0].tolist()
        torch.testing.assert_close(found, expected[0], rtol=1e-5, atol=0)
        assert found.dtype == torch.float32


def test_real_recordings_at_other_rates(data_root):
    pipeline = image_detector(rate=16000, window=2.0, hop=1.0)
    for path in sorted((data_root / "music_examples").rglob("*.*g*"))[:3]:
        file = wav(load(path, None, mono=False, duration=12.3)[0].T.numpy(), 44100)
        with torch.no_grad():
            score = pipeline(load(file, 16000)[0])
        assert scores(predict(pipeline, file)) == pytest.approx(score.tolist(), rel=1e-5)


def test_long_recordings_are_scored_in_batches_of_bounded_size(monkeypatch):
    pipeline = image_detector(window=1.0, hop=0.5)
    shapes = []
    real = pipeline.features.forward
    monkeypatch.setattr(
        pipeline.features, "forward", lambda x, n: (shapes.append(tuple(x.shape)), real(x, n))[1]
    )
    predict(pipeline, wav(noise(5.2)), batch_size=4)
    assert shapes == [(4, RATE), (4, RATE), (2, RATE)]
    shapes.clear()
    monkeypatch.setattr(answers.windows, "_MAX_SAMPLES", 3 * RATE)
    predict(pipeline, wav(noise(5.2)))
    assert shapes == [(3, RATE)] * 3 + [(1, RATE)]
    shapes.clear()
    predict(pipeline, wav(noise(0.6)))
    assert shapes == [(1, round(0.6 * RATE))]


def test_scores_are_compared_strictly_in_the_models_own_numbers():
    pipeline = image_detector()
    file = wav(noise(1.0))
    (score,) = scores(predict(pipeline, file))
    pipeline.calibrate(torch.tensor([score]), {"alarm": score})
    (answer,) = predict(pipeline, file)
    assert (answer.is_anomaly, answer.level, answer.p_value) == (False, None, 1.0)
    below = float(np.nextafter(np.float32(score), np.float32(0)))
    pipeline.calibrate(torch.tensor([below]), {"alarm": below})
    (answer,) = predict(pipeline, file)
    assert (answer.is_anomaly, answer.level, answer.p_value) == (True, "alarm", 0.5)


def test_without_thresholds_there_is_a_score_alone():
    file = wav(noise(2.0))
    for pipeline in (image_detector(), image_detector(window=1.0)):
        (answer,) = predict(pipeline, file)
        assert answer.score > 0
        verdict = (answer.threshold, answer.p_value, answer.is_anomaly, answer.level, answer.label)
        assert verdict == (None,) * 5
        for window in timeline(pipeline, file, 1.0):
            assert (window.threshold, window.is_anomaly, window.label) == (None, None, None)


def test_time_line_tells_what_each_window_would_be_as_a_clip():
    pipeline = image_detector()
    waveform = torch.from_numpy(noise(3.3).T).float()
    with torch.no_grad():
        scores = pipeline.timeline(waveform, None, 1.0, 0.5)[0][0].sort()[0]
    pipeline.calibrate(scores, {"warning": float(scores[1]), "alarm": float(scores[3])})
    found = list(timeline(pipeline, wav(noise(3.3)), 1.0, 0.5))
    for window in found:
        first, last = (round(t * RATE) for t in (window.start_seconds, window.end_seconds))
        (alone,) = predict(pipeline, wav(waveform[0, first:last].numpy()))
        assert window.score == pytest.approx(alone.score, rel=1e-5)
        for key in ("threshold", "p_value", "is_anomaly", "level", "label"):
            assert getattr(window, key) == getattr(alone, key)
    assert {window.is_anomaly for window in found} == {True, False}


BAD = {
    "empty": (wav(np.zeros((0, 1))), "holds no samples"),
    "broken": (b"RIFF no audio", "not a readable audio file"),
    "nan": (wav(np.full((RATE, 1), np.nan)), "not finite|NaN"),
    "missing": ("missing.wav", "no such file"),
}


@pytest.mark.parametrize("options", [{}, {"window": 1.0}])
def test_bad_files_are_told_and_the_others_answered(options):
    pipeline = detector(**options)
    good = wav(noise(1.5))
    found = predict(pipeline, [good, *(file for file, _ in BAD.values()), good])
    for answer, (_, message) in zip(found[1:-1], BAD.values(), strict=True):
        assert re.search(message, answer.error), answer.error
        assert (answer.score, answer.label, answer.is_anomaly) == (None, None, None)
    assert found[0].score == found[-1].score


def test_clips_shorter_than_the_features_need_are_told():
    for options in ({}, {"window": 1.0}):
        pipeline = detector("vector", min_duration=0.0, **options)
        short, good = predict(pipeline, [wav(noise(0.3)), wav(noise(1.0))])
        assert "lasts 0.300 s, the features need 0.512 s" in short.error
        assert good.error is None
    pipeline = vector_detector(min_duration=0.0, window=0.3)
    assert "window_seconds=0.3: the features need" in predict(pipeline, wav(noise(1)))[0].error


class Fixed(nn.Module):
    """Scores as it is told."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        return 0.0 * x.sum(dim=(1, 2, 3)) + self.score


@pytest.mark.parametrize("score", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{}, {"window": 0.5}])
def test_no_score_that_is_no_number_comes_out(score, options):
    pipeline = Pipeline(
        SpectrogramImage(RATE), Fixed(score), sample_rate=RATE, task="anomaly", **options
    )
    (answer,) = predict(pipeline, wav(noise(1.0)))
    assert answer.error == f"<bytes>: its score is {score}, no number to go by"
    assert (answer.score, answer.is_anomaly) == (None, None)
    with pytest.raises(RuntimeError, match=f"its score is {score}"):
        next(timeline(pipeline, wav(noise(1.0)), 0.5))


def test_contributions_to_classes_are_refused():
    with pytest.raises(ParameterError, match=r"explain=2: is for classes; .*explain_detection"):
        predict(detector(), wav(noise(1.0)), explain=2)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, str]:
    """Run directories as training leaves them."""
    classes = SpectrogramImage(RATE, 512, 128, n_mels=32)
    built = {
        "one": (detector(), {"thresholds": {"alarm": {"promised_rate": 0.2}}}),
        "two": (detector("vector", ("warning", "alarm"), window=1.0, hop=0.5), {}),
        "bare": (image_detector(), {}),
        "mute": (
            Pipeline(SpectrogramImage(RATE), Fixed(1.0), sample_rate=RATE, task="anomaly"),
            {},
        ),
        "classes": (
            Pipeline(classes, CNN(2, classes.output_shape), labels=["a", "b"], sample_rate=RATE),
            {},
        ),
    }
    found = {}
    for name, (pipeline, metrics) in built.items():
        folder = tmp_path_factory.mktemp(name)
        export(pipeline, folder / "model.ts", metrics=metrics)
        found[name] = str(folder)
    return found


@pytest.fixture
def clips(tmp_path) -> Path:
    folder = tmp_path / "clips"
    (folder / "deep").mkdir(parents=True)
    soundfile.write(folder / "b.wav", noise(2.2, 44100, 2), 44100)
    soundfile.write(folder / "a.flac", noise(1.5, 16000, level=0.01), 16000)
    soundfile.write(folder / "deep" / "c.wav", noise(0.3), RATE)
    (folder / "deep" / "notes.txt").write_text("not audio")
    return folder


def rows(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


NAMES = ("a.flac", "b.wav", "deep/c.wav")
KEYS = ["file", "score", "threshold", "p_value", "is_anomaly"]


@pytest.mark.parametrize(("run", "keys"), [("one", KEYS), ("two", [*KEYS, "level"])])
def test_detect_prints_json_lines(runs, clips, capsys, run, keys):
    assert main(["detect", runs[run], str(clips), "--json", "--batch-size", "2"]) == 0
    found = rows(capsys)
    assert [row["file"] for row in found] == [str(clips / name) for name in NAMES]
    module = load_pipeline(f"{runs[run]}/model.ts")
    for row in found:
        assert list(row) == keys
        with torch.no_grad():
            score = float(module(load(row["file"], RATE)[0]))
        assert row["score"] == pytest.approx(score, rel=1e-5)
        assert row["threshold"] == float(module.thresholds[-1])
        assert row["is_anomaly"] is (row["score"] > row["threshold"])
        p_value = float(module.p_value(torch.tensor(row["score"])))
        assert row["p_value"] == pytest.approx(p_value, rel=1e-6)
    assert {row["is_anomaly"] for row in found} == {True, False}


def test_detect_prints_a_table_and_a_summary(runs, clips, capsys):
    assert main(["detect", f"{runs['one']}/model.ts", str(clips)]) == 0
    out, err = capsys.readouterr()
    header, *lines, summary = out.splitlines()
    assert header.split() == KEYS
    assert [line.split()[0] for line in lines] == [str(clips / name) for name in NAMES]
    assert all(len(line) == len(header) for line in lines)
    n_anomalies = [line.split()[-1] for line in lines].count("yes")
    assert {line.split()[-1] for line in lines} == {"yes", "no"}
    assert summary == (
        f"{n_anomalies} of 3 recordings are anomalies, at a promised false-alarm rate of 0.2; "
        "the smallest p-value possible is 0.05"
    )
    assert err == ""
    assert main(["detect", runs["two"], str(clips)]) == 0
    header, *lines, summary = capsys.readouterr().out.splitlines()
    assert header.split() == [*KEYS, "level"]
    assert {line.split()[-1] for line in lines} <= {"alarm", "warning", "-"}
    assert "promised" not in summary


def test_a_detector_without_thresholds_gives_scores(runs, clips, capsys):
    assert main(["detect", runs["bare"], str(clips)]) == 0
    header, first, *_, summary = capsys.readouterr().out.splitlines()
    assert header.split() == KEYS
    assert first.split()[2:] == ["-", "-", "-"]
    assert summary == "3 recordings scored; this detector has no threshold"
    assert main(["detect", runs["bare"], str(clips), "--json"]) == 0
    for row in rows(capsys):
        assert [row[key] for key in KEYS[2:]] == [None, None, None]


def test_detect_gives_a_time_line(runs, clips, capsys):
    file = str(clips / "b.wav")
    command = ["detect", runs["one"], file, "--window", "1", "--hop", "0.5"]
    assert main([*command, "--json"]) == 0
    found = rows(capsys)
    assert list(found[0]) == ["file", "start_seconds", "end_seconds", *KEYS[1:]]
    assert [row["start_seconds"] for row in found] == [0.0, 0.5, 1.0, 1.5]
    assert [row["end_seconds"] for row in found] == pytest.approx([1.0, 1.5, 2.0, 2.2])
    module = load_pipeline(f"{runs['one']}/model.ts")
    with torch.no_grad():
        expected, _, _ = module.timeline(load(file, RATE)[0], None, 1.0, 0.5)
    assert [row["score"] for row in found] == pytest.approx(expected[0].tolist(), rel=1e-5)
    assert main(command) == 0
    header, *lines, summary = capsys.readouterr().out.splitlines()
    assert header.split() == ["file", "start", "end", *KEYS[1:]]
    assert len(lines) == 4
    assert re.fullmatch(
        r"\d of 4 windows are anomalies by a threshold that was calibrated on whole clips", summary
    )


@pytest.mark.parametrize("window", [[], ["--window", "1"]])
def test_bad_files_end_in_status_1(runs, clips, capsys, window):
    (clips / "broken.wav").write_bytes(b"RIFF no audio")
    soundfile.write(clips / "empty.wav", np.zeros((0, 1)), RATE)
    for run in ("one", "two"):
        assert main(["detect", runs[run], str(clips), "--json", *window]) == 1
        found = rows(capsys)
        bad = [row for row in found if "error" in row]
        assert [Path(row["file"]).name for row in bad] == ["broken.wav", "empty.wav"]
        assert all(set(row) == {"file", "error"} for row in bad)
        assert {Path(row["file"]).name for row in found} >= {"a.flac", "b.wav", "c.wav"}
        assert main(["detect", runs[run], str(clips), *window]) == 1
        out, err = capsys.readouterr()
        assert len(err.splitlines()) == 2
        assert " recordings are anomalies" in out or window


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect", "CLASSES", "CLIPS"], r"no detector, .*; use audiotorch predict$"),
        (["predict", "ONE", "CLIPS"], r"this is a detector, .*; use audiotorch detect$"),
        (["detect", "MUTE", "CLIPS", "--explain", "TMP/x.png"], r"says neither where nor in which"),
        (["detect", "ONE", "CLIPS", "--explain", "TMP/x.png"], r"one picture for 3 files; give a"),
        (["detect", "ONE", "CLIPS", "--explain", "CLIPS/b.wav"], r"must end in \.png, or be a fol"),
        (["detect", "ONE", "CLIPS/b.wav", "--explain", "TMP/x.jpg"], r"must end in \.png, or be a"),
        (["detect", "ONE", "CLIPS/b.wav", "--explain", ""], r"must end in \.png, or be a"),
        (["detect", "ONE", "CLIPS", "--explain", "CLIPS/b.wav/x"], r"cannot be made .*; name anot"),
        (["detect", "ONE", "CLIPS/c.wav", "--explain", "CLIPS/b.wav/x.png"], r"cannot be made"),
        (["detect", "ONE", "CLIPS", "--explain", "TMP/x", "--window", "1"], r"leave out --window"),
        (["detect", "ONE", "CLIPS", "--hop", "1"], r"--hop: .*give --window too"),
        (["detect", "ONE", "CLIPS", "--window", "1e-9"], r"window_seconds=1e-09: must be"),
        (["detect", "CLIPS/b.wav", "CLIPS"], r"not a model file"),
        (["detect", "ONE"], r"required: FILE_OR_FOLDER; see audiotorch detect --help"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(runs, clips, capsys, arguments, message):
    places = {"CLIPS": str(clips), "TMP": str(clips.parent)}
    places |= {name.upper(): folder for name, folder in runs.items()}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(message, err.rstrip()), err
    assert not list(clips.parent.rglob("*.png"))


def test_help_says_what_thresholds_of_windows_mean(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["detect", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "threshold and p-value were calibrated on whole clips" in text


def test_a_threshold_that_none_exceeds_is_none_in_json(runs, clips, capsys, monkeypatch):
    pipeline = detector()
    pipeline.thresholds = torch.full_like(pipeline.thresholds, math.inf)
    monkeypatch.setattr(sys.modules["audiotorch.export"], "load_pipeline", lambda path: pipeline)
    assert main(["detect", runs["one"], str(clips), "--json"]) == 0
    for row in rows(capsys):
        assert (row["threshold"], row["is_anomaly"]) == (None, False)


# --- explanations on the command line -------------------------------------------------------------


@pytest.mark.parametrize("run", ["one", "two"])
def test_explain_draws_one_picture_and_tells_why(runs, clips, capsys, run):
    file, picture = str(clips / "b.wav"), clips.parent / "new" / "out.png"
    assert main(["detect", runs[run], file, "--explain", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].strip().startswith("because: most deviates")
    assert [path.name for path in picture.parent.iterdir()] == ["out.png"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["detect", runs[run], file, "--explain", str(picture), "--json"]) == 0
    (row,) = rows(capsys)
    assert list(row)[-1] == "reason"
    assert f"because: {row['reason']}" == lines[2].strip()


def test_explain_draws_each_file_into_a_folder(runs, clips, capsys):
    (clips / "broken.wav").write_bytes(b"RIFF no audio")
    soundfile.write(clips / "deep" / "B.wav", noise(1.0), RATE)
    folder = clips.parent / "pictures"
    assert main(["detect", runs["one"], str(clips), "--explain", str(folder), "--json"]) == 1
    found = rows(capsys)
    assert ["reason" in row for row in found] == ["error" not in row for row in found]
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["B.wav_2.png", "a.flac.png", "b.wav.png", "c.wav.png"]


def test_open_files_are_answered_too():
    pipeline = detector(window=1.0)
    file = wav(noise(2.5))
    assert predict(pipeline, io.BytesIO(file))[0].score == predict(pipeline, file)[0].score
