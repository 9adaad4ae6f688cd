import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import one_line
from fake_whisper import FakeWhisper, write_clip
from test_transcribe_folder import read, texts, wait_for

from audiotorch.cli import main
from audiotorch.transcribe import folder, recording
from audiotorch.transcribe import workers as workers_module
from audiotorch.transcribe.recording import Transcriber


@pytest.fixture
def clips(tmp_path) -> Path:
    for seed in range(3):
        write_clip(tmp_path / "clips" / f"{seed}.wav", seed)
    return tmp_path / "clips"


@pytest.fixture
def loaded(monkeypatch) -> list[dict]:
    """Have a fake transcribe, in this process; the settings of each that is loaded."""
    asked = []

    def transcriber(**options):
        asked.append(options)
        fake = FakeWhisper(failing={7: "raise", 8: "interrupt"})
        return Transcriber(**{**options, "model": fake, "gate": "none"})

    monkeypatch.setattr(workers_module, "Transcriber", transcriber)
    monkeypatch.setattr(recording, "Transcriber", transcriber)
    monkeypatch.setattr(folder, "sensible_workers", lambda *_: 1)
    return asked


def test_texts_are_printed_under_their_files(loaded, clips, capsys):
    assert main(["transcribe", str(clips)]) == 0
    out, err = capsys.readouterr()
    parts = out.strip().split("\n\n")
    assert [part.split("\n")[0] for part in parts] == [f"{clips / str(i)}.wav:" for i in range(3)]
    assert all(re.fullmatch(r"né 犬 [0-9a-f]{8}", part.split("\n")[1]) for part in parts)
    assert err == ""
    assert main(["transcribe", str(clips / "0.wav")]) == 0
    assert capsys.readouterr().out == parts[0].split("\n")[1] + "\n"


def test_lines_are_printed_as_json(loaded, clips, capsys, tmp_path):
    (clips / "bad.wav").write_bytes(b"")
    assert main(["transcribe", str(clips), "--json"]) == 1
    out, err = capsys.readouterr()
    printed = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [line["filename"] for line in printed] == ["0.wav", "1.wav", "2.wav", "bad.wav"]
    assert "error" in printed[3]
    assert main(["transcribe", str(clips), "--out", str(tmp_path / "x.jsonl"), "--json"]) == 1
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == read(tmp_path / "x.jsonl")


def test_output_is_written_and_gone_on_with(loaded, clips, capsys, tmp_path):
    out = tmp_path / "x.jsonl"
    command = ["transcribe", str(clips), "--out", str(out), "--format", "txt, srt,vtt,tsv,json"]
    (clips / "bad.wav").write_bytes(b"")
    assert main(command) == 1
    told, complaint = capsys.readouterr()
    assert one_line(told).startswith(f"{out}: 3 files transcribed, 0 skipped, 1 failed; 0.000 h")
    assert "bad.wav" in one_line(complaint)
    assert len(list((tmp_path / "x").rglob("*.*"))) == 3 * 5
    (clips / "bad.wav").unlink()
    assert len(loaded) == 1
    assert main(command) == 0
    assert "0 files transcribed, 3 skipped, 0 failed\n" in capsys.readouterr().out
    assert len(loaded) == 1
    assert len(texts(out)) == 4
    assert main([*command, "--no-resume"]) == 0
    assert "3 files transcribed, 0 skipped" in capsys.readouterr().out
    assert len(texts(out)) == 3


def test_settings_reach_the_model(loaded, clips, tmp_path):
    words = "--model tiny --language ja --task translate --word-timestamps --gate energy "
    words += "--channels each --beam-size 3 --device cpu"
    command = ["transcribe", str(clips), *words.split(), "--initial-prompt", "two words"]
    assert main([*command, "--out", str(tmp_path / "x.jsonl"), "--workers", "1"]) == 0
    assert loaded == [
        {
            "model": "tiny",
            "language": "ja",
            "task": "translate",
            "word_timestamps": True,
            "device": "cpu",
            "backend": "whisper",
            "gate": "energy",
            "channels": "each",
            "initial_prompt": "two words",
            "beam_size": 3,
        }
    ]
    (line, *_) = read(tmp_path / "x.jsonl")
    assert line["task"] == "translate"
    assert line["segments"][0]["words"]


def test_language_alone_is_printed(loaded, clips, capsys):
    (clips / "bad.wav").write_bytes(b"")
    assert main(["transcribe", str(clips), "--detect-language"]) == 1
    out, err = capsys.readouterr()
    header, *rows = [line.split() for line in out.splitlines()]
    assert header == ["file", "language", "probability"]
    assert rows == [[f"{clips / str(i)}.wav", "ja", "0.750"] for i in range(3)]
    assert "bad.wav" in one_line(err)
    assert main(["transcribe", str(clips), "--detect-language", "--json"]) == 1
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed[0] == {
        "filepath": str(clips / "0.wav"), "language": "ja", "probability": pytest.approx(0.75),
    }  # fmt: skip
    assert set(printed[3]) == {"filepath", "error"}


def test_job_without_a_stdout_is_done(loaded, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["transcribe", str(clips), "--out", str(tmp_path / "x.jsonl")]) == 0
    assert len(read(tmp_path / "x.jsonl")) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--format", "srt"], "give --out too"),
        (["--out", "x.jsonl", "--format", "doc"], "'doc' unknown"),
        (["--out", "no/x.jsonl"], "its folder does not exist"),
        (["--out", "clips"], "is a folder"),
        (["--out", "-"], "give --json"),
        (["--out", "/dev/stdout"], "give --json"),
        (["--out", "clips/0.wav"], "none of a transcription"),
        (["--out", "clips/0.wav", "--no-resume"], "none of a transcription"),
        (["--out", "x.jsonl", "--detect-language"], "leave out --out"),
        (["--workers", "0"], "whole number of at least 1"),
        (["--gate", "wall"], "invalid choice"),
        (["--reference", "no.csv"], "must be an existing file"),
        (["--model", "no-such-model", "--out", "x.jsonl"], "no-such-model"),
        (["--model", "no-such-model", "--out", "x.jsonl", "--workers", "2"], "no-such-model"),
    ],
)
def test_wrong_use_is_told_in_a_line_and_writes_nothing(
    clips, tmp_path, capsys, monkeypatch, words, told
):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert main(["transcribe", "clips", *words]) == 2
    out, err = capsys.readouterr()
    assert told in one_line(err)
    assert out == ""
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_interrupt_keeps_what_is_done(loaded, clips, capsys, tmp_path):
    write_clip(clips / "1.wav", 1, first=8)
    out = tmp_path / "x.jsonl"
    assert main(["transcribe", str(clips), "--out", str(out)]) == 130
    assert one_line(capsys.readouterr().err) == "audiotorch: interrupted\n"
    assert [line["filename"] for line in read(out)] == ["0.wav"]
    write_clip(clips / "1.wav", 1)
    assert main(["transcribe", str(clips), "--out", str(out)]) == 0
    assert "2 files transcribed, 1 skipped" in capsys.readouterr().out


def test_bar_tells_files_hours_and_pace(loaded, clips, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["transcribe", str(clips), "--out", str(tmp_path / "x.jsonl")]) == 0
    out, err = capsys.readouterr()
    assert "0/3 files" in err
    assert re.search(r"3/3 files, 0\.000 h of audio, real-time factor \d+\.\d{3}", err)
    assert "\r" not in out
    assert err.endswith("\r\x1b[K")


def test_error_rates_are_printed(loaded, clips, capsys, tmp_path):
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper")
    out = tmp_path / "x.jsonl"
    assert main(["transcribe", str(clips), "--out", str(out)]) == 0
    said = {line["filename"]: line["text"] for line in read(out)}
    rows = [f"{name},{text}{' more' * (name == '2.wav')}" for name, text in said.items()]
    table = clips / "transcripts.csv"
    table.write_text("\n".join(["file,transcript", *rows]) + "\n", encoding="utf-8")
    capsys.readouterr()
    for words in ([], ["--out", str(out)]):
        command = ["transcribe", str(clips), "--reference", str(table), *words]
        assert main(command) == 0
        told = capsys.readouterr().out
        assert "2.wav" in told
        assert "né" not in told
        assert main([*command, "--json"]) == 0
        *found, total = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [Path(row["file"]).name for row in found] == ["0.wav", "1.wav", "2.wav"]
        assert [row["n_errors"] > 0 for row in found] == [False, False, True]
        assert total["cer"] > 0


def test_control_c_ends_workers_and_is_told_in_a_line(data_root, whisper_weights, tmp_path):
    speech = data_root / "speech" / "en"
    out = tmp_path / "x.jsonl"
    command = [sys.executable, "-m", "audiotorch.cli", "transcribe", str(speech), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--model", str(whisper_weights / "tiny.en.pt"), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores the signal, and its children would.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: out.exists() and out.stat().st_size, 120)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert time.monotonic() - started < 10
    assert process.returncode == 130
    assert one_line(complaint) == "audiotorch: interrupted\n"
    assert all("text" in line for line in read(out))
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]
