import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import one_line

from audiotorch.audio import windows
from audiotorch.cli import main
from audiotorch.errors import DecodeError, printable
from audiotorch.export import export, read_metadata
from audiotorch.features import SpectrogramImage
from audiotorch.models import CNN
from audiotorch.pipeline import Pipeline
from audiotorch.training.build import build_pipeline

RATE = 8000
LABELS = ["dog", "rain", "clock", "sea"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run directory as training leaves it, with an untrained model."""
    torch.manual_seed(0)
    features = SpectrogramImage(RATE, n_fft=512, hop_length=128, n_mels=32)
    model = CNN(len(LABELS), features.output_shape, channels=(8, 16))
    pipeline = Pipeline(features, model, labels=LABELS, sample_rate=RATE)
    folder = tmp_path_factory.mktemp("run")
    export(pipeline, folder / "model.ts", metrics={"test/acc": 0.75})
    return folder


@pytest.fixture
def clips(tmp_path) -> Path:
    """A folder of recordings at several rates, depths and formats, some not readable."""
    folder = tmp_path / "clips"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    generator = np.random.default_rng(0)
    for name, rate, channels in (
        ("b.wav", 44100, 2),
        ("a.flac", 16000, 1),
        ("deep/er/c.OGG", 22050, 1),
        ("deep/._d.wav", 8000, 1),
        (".hidden/e.wav", 8000, 1),
    ):
        samples = 0.1 * generator.standard_normal((rate, channels))
        container = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}[Path(name).suffix.lower()]
        soundfile.write(folder / name, samples, rate, format=container)
    (folder / "deep" / "notes.txt").write_text("not audio")
    return folder


def test_predict_prints_a_table(run_folder, clips, capsys):
    assert main(["predict", str(run_folder), str(clips)]) == 0
    out, err = capsys.readouterr()
    header, *rows = out.splitlines()
    assert header.split() == ["file", "label", "confidence", "top", "3"]
    names = [row.split()[0] for row in rows]
    assert names == [str(clips / name) for name in ("a.flac", "b.wav", "deep/er/c.OGG")]
    for row in rows:
        _, label, confidence, first, *_ = row.split()
        assert label == first
        assert label in LABELS
        assert 0.25 <= float(confidence) <= 1.0
    assert err == ""


def test_predict_prints_json_lines_with_errors_among_them(run_folder, clips, capsys):
    (clips / "broken.wav").write_bytes(b"RIFF no audio")
    missing = clips / "missing.wav"
    command = ["predict", str(run_folder / "model.ts"), str(clips), str(missing), "--json"]
    assert main([*command, "--batch-size", "2"]) == 1
    out, _ = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [Path(row["file"]).name for row in rows] == [
        "a.flac", "b.wav", "broken.wav", "c.OGG", "missing.wav",
    ]  # fmt: skip
    for row in rows:
        if Path(row["file"]).stem in ("broken", "missing"):
            assert set(row) == {"file", "error"}
            assert row["error"]
        else:
            assert set(row) == {"file", "label", "confidence", "probabilities"}
            assert list(row["probabilities"]) == LABELS
            assert sum(row["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
            assert row["confidence"] == max(row["probabilities"].values())
            assert row["probabilities"][row["label"]] == row["confidence"]


def test_predict_reports_bad_files_on_stderr_and_answers_the_others(run_folder, clips, capsys):
    (clips / "broken.wav").write_bytes(b"RIFF no audio")
    soundfile.write(clips / "empty.wav", np.zeros((0, 1)), RATE)
    soundfile.write(clips / "nan.wav", np.full((RATE, 1), np.nan), RATE, "FLOAT")
    assert main(["predict", str(run_folder), str(clips)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 + 3
    assert len(err.splitlines()) == 3
    for line, name in zip(err.splitlines(), ("broken", "empty", "nan"), strict=True):
        assert line.startswith("audiotorch: ")
        assert f"{name}.wav" in line


def test_predict_gives_a_time_line(run_folder, clips, capsys):
    soundfile.write(clips / "long.wav", 0.1 * np.random.default_rng(1).random(5 * RATE + 40), RATE)
    names = [str(clips / "b.wav"), str(clips / "long.wav")]
    command = ["predict", str(run_folder), *names, "--window", "2", "--hop", "1.5"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    header, *lines = out.splitlines()
    assert header.split() == ["file", "start", "end", "label", "confidence", "top", "3"]
    assert [line.split()[:3] for line in lines] == [
        [names[0], "0.000", "1.000"],
        [names[1], "0.000", "2.000"],
        [names[1], "1.500", "3.500"],
        [names[1], "3.000", "5.000"],
        [names[1], "4.500", "5.005"],
    ]
    assert header.index("confidence") + len("confidence") == lines[0].index(lines[0].split()[4]) + 5
    assert all(line.split()[3] == line.split()[5] for line in lines)
    assert err == ""
    assert main([*command, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    keys = ["file", "start_seconds", "end_seconds", "label", "confidence", "probabilities"]
    assert [list(row) for row in rows] == [keys] * 5
    assert [row["start_seconds"] for row in rows] == [0.0, 0.0, 1.5, 3.0, 4.5]
    assert rows[-1]["end_seconds"] == 5.005
    for line, row in zip(lines, rows, strict=True):
        assert line.split()[3:5] == [row["label"], f"{row['confidence']:.3f}"]
        assert list(row["probabilities"]) == LABELS
    # A recording within its first window has the answer that it has without windows.
    assert main(["predict", str(run_folder), names[0], "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    for label in LABELS:
        assert rows[0]["probabilities"][label] == pytest.approx(whole["probabilities"][label])


def test_time_line_without_a_hop_is_gapless(run_folder, clips, capsys):
    soundfile.write(clips / "long.wav", np.full(3 * RATE, 0.1), RATE)
    command = ["predict", str(run_folder), str(clips / "long.wav"), "--window", "1", "--json"]
    assert main(command) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["start_seconds"], row["end_seconds"]) for row in rows] == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("as_json", [False, True])
def test_time_line_goes_on_after_files_that_break(run_folder, clips, capsys, monkeypatch, as_json):
    real = windows.stream

    def stream(source, *arguments, **options):
        if not source.endswith("breaks.flac"):
            yield from real(source, *arguments, **options)
            return
        yield torch.full((1, round(2.5 * RATE)), 0.1)
        raise DecodeError(f"{source}: corrupt after 2.500 s")

    monkeypatch.setattr(windows, "stream", stream)
    (clips / "broken.wav").write_bytes(b"RIFF no audio")
    files = [str(clips / name) for name in ("breaks.flac", "broken.wav", "a.flac")]
    command = ["predict", str(run_folder), *files, "--window", "1", *["--json"] * as_json]
    assert main(command) == 1
    out, err = capsys.readouterr()
    if as_json:
        rows = [json.loads(line) for line in out.splitlines()]
        assert [row["file"] for row in rows] == [files[0]] * 3 + files[1:]
        assert ["error" in row for row in rows] == [False, False, True, True, False]
        assert rows[2] == {"file": files[0], "error": f"{files[0]}: corrupt after 2.500 s"}
        assert set(rows[3]) == {"file", "error"}
        assert err == ""
    else:
        named = [line.split()[0] for line in out.splitlines()[1:]]
        assert named == [files[0], files[0], files[2]]
        assert ["breaks.flac" in line for line in err.splitlines()] == [True, False]
        assert all(line.startswith("audiotorch: ") for line in err.splitlines())


def test_time_line_comes_line_by_line(run_folder, tmp_path):
    file = tmp_path / "long.wav"
    soundfile.write(file, np.full(600 * RATE, 0.1), RATE)
    command = [sys.executable, "-m", "audiotorch.cli", "predict", str(run_folder), str(file)]
    process = subprocess.Popen(
        [*command, "--window", "0.5", "--hop", "0.01", "--batch-size", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # 60,000 windows, a minute's work: the first come before it is done.
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines[2].split()[1:3] == ["0.010", "0.510"]
    assert process.poll() is None
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert complaint == ""


def test_time_line_has_a_bar_in_seconds(run_folder, clips, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    (clips / "broken.wav").write_bytes(b"RIFF no audio")
    soundfile.write(clips / "long.wav", np.full(3 * RATE + 100, 0.1), RATE)
    files = [str(clips / name) for name in ("long.wav", "broken.wav", "a.flac")]
    assert main(["predict", str(run_folder), *files, "--window", "1", "--batch-size", "2"]) == 1
    out, err = capsys.readouterr()
    counts = re.findall(r"(\d+)/(\d+) s", err)
    assert [int(done) for done, _ in counts] == sorted(int(done) for done, _ in counts)
    assert counts[0] == ("0", "4")
    assert ("2", "4") in counts
    assert counts[-1] == ("4", "4")
    assert "\r" not in out
    assert err.endswith("\r\x1b[K")


@pytest.mark.filterwarnings("always::audiotorch.TruncationWarning")
def test_time_line_of_a_cut_off_file_is_complete_but_for_a_warning(
    run_folder, clips, capsys, monkeypatch
):
    file = clips / "cut.flac"
    noise = np.random.default_rng(0).standard_normal(20 * RATE)
    soundfile.write(file, 0.1 * noise, RATE)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    # With the bar, which asks for the length first.
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["predict", str(run_folder), str(file), "--window", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert 9.5 < json.loads(out.splitlines()[-1])["end_seconds"] <= 10.5
    assert err.count("truncated or damaged") == 1


def test_detectors_have_no_labels_to_predict(run_folder, clips, capsys, monkeypatch):
    detector = Pipeline(
        SpectrogramImage(RATE), torch.nn.Identity(), sample_rate=RATE, task="anomaly"
    )
    monkeypatch.setattr(sys.modules["audiotorch.export"], "load_pipeline", lambda path: detector)
    for window in ([], ["--window", "1"]):
        assert main(["predict", str(run_folder), str(clips), *window]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "this is a detector, which has no classes; use audiotorch detect" in one_line(err)


def test_predict_does_not_depend_on_the_batch_size(run_folder, clips, capsys):
    answers = []
    for size in ("1", "3"):
        assert main(["predict", str(run_folder), str(clips), "--json", "--batch-size", size]) == 0
        out, _ = capsys.readouterr()
        rows = [json.loads(line) for line in out.splitlines()]
        answers.append([list(row["probabilities"].values()) for row in rows])
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


def test_predict_reads_a_bounded_number_of_files_at_a_time(run_folder, clips, capsys, monkeypatch):
    from audiotorch import answers

    sizes = []
    predict = answers.predict

    def watched(module, sources, **settings):
        sizes.append(len(sources))
        return predict(module, sources, **settings)

    monkeypatch.setattr(answers, "predict", watched)
    files = [str(clips / "a.flac")] * 5
    assert main(["predict", str(run_folder), *files, "--batch-size", "2"]) == 0
    assert sizes == [2, 2, 1]
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "MODEL", "EMPTY"], r"no audio files under .*empty"),
        (["predict", "EMPTY", "CLIPS"], r"holds no model\.ts"),
        (["predict", "no.ts", "CLIPS"], r"no\.ts.*no such file"),
        (["predict", "CLIPS/b.wav", "CLIPS"], r"b\.wav.*is not a model file, or is truncated"),
        (["predict", "PROGRAM", "CLIPS"], r"torch\.export program.*\.ts file"),
        (["predict", "MODEL"], r"required: FILE_OR_FOLDER; see audiotorch predict --help"),
        (["predict", "MODEL", "CLIPS", "--batch-size", "0"], r"--batch-size.*'0': must be"),
        (["predict", "MODEL", "CLIPS", "--hop", "1"], r"--hop: .* give --window too"),
        (["predict", "MODEL", "CLIPS", "--window", "0"], r"--window: '0': must be a number of sec"),
        (["predict", "MODEL", "CLIPS", "--window", "1", "--hop", "nan"], r"--hop: 'nan': must be"),
        (["predict", "MODEL", "CLIPS", "--window", "1e-9"], r"window_seconds=1e-09: must be"),
        (["predict", "MODEL", "CLIPS", "--device", "tpu"], r"--device: invalid choice: 'tpu'"),
        (["sing"], r"invalid choice: 'sing'"),
        ([], r"required: COMMAND"),
        (["info"], r"required: FILE"),
        (["export", "no.ckpt"], r"no\.ckpt"),
        (["export", "EMPTY"], r"empty"),
        (["export", "CLIPS/b.wav"], r"b\.wav"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(run_folder, clips, capsys, arguments, message):
    empty = clips.parent / "empty"
    empty.mkdir()
    places = {
        "MODEL": str(run_folder / "model.ts"),
        "PROGRAM": str(run_folder / "model.pt2"),
        "CLIPS": str(clips),
        "EMPTY": str(empty),
    }
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert one_line(err).startswith("audiotorch: ")
    assert re.search(message, err), err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_absent_device_is_told(run_folder, clips, capsys):
    assert main(["predict", str(run_folder), str(clips), "--device", "cuda"]) == 2
    assert "no CUDA device; use --device cpu" in one_line(capsys.readouterr().err)


def test_info_shows_audio_and_models(run_folder, clips, capsys):
    assert main(["info", str(clips / "b.wav"), str(run_folder)]) == 0
    out, err = capsys.readouterr()
    row = next(line for line in out.splitlines() if "b.wav" in line)
    assert row.split()[1:] == ["44100", "2", "1.000", "WAV", "PCM_16", "16"]
    assert "4: dog, rain, clock, sea" in out
    assert "SpectrogramImage" in out
    assert '"test/acc": 0.75' in out
    assert err == ""


def test_info_as_json_goes_on_after_a_bad_file(run_folder, clips, capsys):
    bad = clips / "bad.ts"
    bad.write_text("no model")
    files = [str(clips / "a.flac"), str(bad), str(run_folder / "model.pt2")]
    assert main(["info", *files, "--json"]) == 1
    audio, error, model = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (audio["file"], audio["sample_rate"], audio["codec"]) == (files[0], 16000, "FLAC")
    assert set(error) == {"file", "error"}
    assert model["labels"] == LABELS
    assert model["metrics"] == {"test/acc": 0.75}


def test_info_reports_bad_files_on_stderr(clips, capsys):
    assert main(["info", str(clips / "missing.wav"), str(clips / "a.flac")]) == 1
    out, err = capsys.readouterr()
    assert "a.flac" in out
    assert "missing.wav" in one_line(err)


@pytest.fixture
def trained(tmp_path) -> Path:
    """A run directory whose checkpoint, written as training writes it, was not exported yet."""
    config = {
        "data": {"sample_rate": RATE},
        "features": {
            "_target_": "audiotorch.features.SpectrogramImage",
            "sample_rate": RATE,
            "n_fft": 512,
            "hop_length": 128,
            "n_mels": 32,
        },
        "model": {"_target_": "audiotorch.models.CNN", "channels": [4, 8], "init_from": None},
        "pipeline": {"_target_": "audiotorch.pipeline.Pipeline", "min_duration": 0.25},
    }
    pipeline = build_pipeline(config, LABELS)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    checkpoint = {
        "state_dict": {f"pipeline.{k}": v for k, v in pipeline.state_dict().items()},
        "audiotorch": {"labels": LABELS, "config": config},
    }
    torch.save(checkpoint, tmp_path / "run" / "checkpoints" / "best.ckpt")
    (tmp_path / "run" / "metrics.json").write_text('{"val/acc": 0.5}')
    return tmp_path / "run"


def test_export_writes_a_checkpoint_as_a_model(trained, tmp_path, capsys):
    out = tmp_path / "phone.ts"
    command = ["export", str(trained), "--out", str(out), "--input-sample-rate", "16000"]
    assert main(command) == 0
    assert capsys.readouterr().out.split()[0] == str(out)
    metadata = read_metadata(out)
    assert metadata["sample_rate"] == 16000
    assert metadata["labels"] == LABELS
    assert metadata["min_duration"] == 0.25
    assert metadata["metrics"] == {"val/acc": 0.5}
    assert out.with_suffix(".pt2").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "model.pth"], r"model\.pth.*must end in \.ts"),
        (["--out", "missing/model.ts"], r"its directory is missing"),
        (["--input-sample-rate", "0"], r"--input-sample-rate: '0': must be"),
        (["--input-sample-rate", "8001"], r"new_freq=8000: their ratio"),
    ],
)
def test_export_refuses_in_one_line(trained, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(trained), *arguments]) == 2
    assert re.search(message, one_line(capsys.readouterr().err))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("part", ["checkpoint", "metrics"])
def test_export_tells_a_damaged_run(trained, tmp_path, capsys, part):
    checkpoint = trained / "checkpoints" / "best.ckpt"
    if part == "checkpoint":
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    else:
        (trained / "metrics.json").write_text("{")
    assert main(["export", str(trained), "--out", str(tmp_path / "model.ts")]) == 2
    name = {"checkpoint": "best.ckpt", "metrics": "metrics.json"}[part]
    assert name in one_line(capsys.readouterr().err)
    assert not (tmp_path / "model.ts").exists()


def test_train_hands_its_arguments_on(monkeypatch):
    from audiotorch.report import write_report
    from audiotorch.training import train

    taken = []
    monkeypatch.setattr(train, "main", lambda *given: taken.append(given))
    assert main(["train", "model=cnn", "--multirun", "--help"]) == 0
    assert taken == [(["model=cnn", "--multirun", "--help"], write_report)]


def test_train_mistakes_are_one_line(monkeypatch, capsys):
    from audiotorch.errors import ParameterError
    from audiotorch.training import train

    def refuse(argv, finished):
        raise ParameterError("data.root='x': no such folder\n give one")

    monkeypatch.setattr(train, "main", refuse)
    assert main(["train"]) == 2
    assert one_line(capsys.readouterr().err) == (
        "audiotorch: data.root='x': no such folder give one\n"
    )


def test_control_characters_in_names_do_not_reach_the_terminal(run_folder, tmp_path, capsys):
    file = tmp_path / "red\x1b[31m\nname.wav"
    soundfile.write(file, np.full((RATE, 1), 0.1), RATE)
    broken = tmp_path / "bell\x07.wav"
    broken.write_bytes(b"")
    assert main(["predict", str(run_folder), str(file), str(broken)]) == 1
    out, err = capsys.readouterr()
    assert r"red\x1b[31m\nname.wav" in out
    assert r"bell\x07.wav" in err
    assert not set(out + err) & set("\x1b\x07")
    assert main(["info", str(file), str(broken)]) == 1
    out, err = capsys.readouterr()
    assert not set(out + err) & set("\x1b\x07")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Hund æøå 犬.wav", "Hund æøå 犬.wav"),
        ("a\tb\r\n", r"a\tb\r\n"),
        ("right-to-left \u202e", r"right-to-left \u202e"),
        ("undecodable \udcff", r"undecodable \udcff"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


def test_progress_bar_is_for_terminals_only(run_folder, clips, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["predict", str(run_folder), str(clips), "--batch-size", "2"]) == 0
    out, err = capsys.readouterr()
    assert "2/3" in err
    assert "3/3" in err
    assert "\r" not in out
    assert err.endswith("\r\x1b[K")


def test_folder_that_cannot_be_listed_is_told(run_folder, clips, capsys, monkeypatch):
    def scandir(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert main(["predict", str(run_folder), str(clips)]) == 2
    assert "Permission denied" in one_line(capsys.readouterr().err)


def test_interrupt_is_status_130(run_folder, clips, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("audiotorch.cli.answering.find_audio", interrupt)
    assert main(["predict", str(run_folder), str(clips)]) == 130
    assert one_line(capsys.readouterr().err) == "audiotorch: interrupted\n"


def run(*arguments: str, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "audiotorch.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **settings,
    )


@pytest.mark.parametrize("command", [[], ["info"], ["predict"], ["export"], ["features"]])
def test_each_command_has_help(capsys, command):
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert capsys.readouterr().out.startswith("usage: audiotorch")


def test_process_exits_with_the_status(run_folder, clips):
    (clips / "broken.wav").write_bytes(b"")
    ran = run(
        "predict", str(run_folder), str(clips), env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert ran.returncode == 1
    assert len(ran.stdout.splitlines()) == 4
    assert "broken.wav" in one_line(ran.stderr)


def test_closed_pipe_is_no_error(run_folder, clips):
    command = [sys.executable, "-m", "audiotorch.cli", "predict", str(run_folder)]
    files = [str(clips / "a.flac")] * 40
    process = subprocess.Popen(
        [*command, *files, "--json", "--batch-size", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert complaint == ""


def test_control_c_ends_without_a_traceback(run_folder, clips):
    command = [sys.executable, "-m", "audiotorch.cli", "predict", str(run_folder)]
    files = [str(clips / "a.flac")] * 4000
    process = subprocess.Popen(
        [*command, *files, "--json", "--batch-size", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores the signal, and its children would.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert one_line(complaint) == "audiotorch: interrupted\n"
