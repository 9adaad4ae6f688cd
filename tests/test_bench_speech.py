import csv
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
import torch

from audiotorch.bench import speech
from audiotorch.bench.results import speech_tables
from audiotorch.bench.speech import JOINED, LongRow, run_long, run_speech
from audiotorch.cli import main
from audiotorch.errors import AudioTorchError, ParameterError

# What the stand-ins hear by a recording's length, and the table says.
SAID = {8000: "ask not what", 16000: "you can", 24000: "", 4000: "sechs"}


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "speech"
    folder.mkdir()
    rows = [("a.wav", "en", 8000), ("b.wav", "en", 16000), ("c.wav", "none", 24000)]
    rows.append(("d.wav", "de", 4000))
    with (folder / "transcripts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "language", "transcript", "transcript_kind"])
        writer.writeheader()
        for name, language, size in rows:
            soundfile.write(folder / name, 0.1 * torch.randn(size).numpy(), 16000)
            writer.writerow(
                {"file": name, "language": language, "transcript": SAID[size]}
                | {"transcript_kind": "exact"}
            )
        writer.writerow({"file": "e.raw", "language": "en", "transcript": "seven"})
    return tmp_path


@pytest.fixture
def standing_in(monkeypatch) -> SimpleNamespace:
    """Both sides hear the table's text at once; ours takes twice as long, and bare hears noise."""
    pytest.importorskip("whisper")
    pytest.importorskip("jiwer")
    now = [0.0]
    calls = []

    def ours(samples, **settings):
        calls.append(settings)
        now[0] += 2 * len(samples)
        language = "de" if len(samples) == 4000 else "en"
        return SimpleNamespace(text=SAID.get(len(samples), "all of it"), language=language)

    def bare(samples, **settings):
        now[0] += len(samples)
        text = SAID.get(len(samples), "all of it, ") or "Woo!"
        return {"text": f" {text}", "language": "en"}

    net = SimpleNamespace(is_multilingual=True, transcribe=bare)
    monkeypatch.setattr(speech, "transcribe", ours)
    monkeypatch.setattr(speech, "_bare", lambda path: net)
    clock = SimpleNamespace(process_time=lambda: now[0], perf_counter=lambda: now[0])
    monkeypatch.setattr(speech, "time", clock)
    return SimpleNamespace(net=net, calls=calls)


def test_both_hear_the_same_and_are_compared(root, standing_in):
    done = []
    (report,) = run_speech(root, [Path("x.pt")], 3, done.append)
    assert done == [1]
    assert [row.name for row in report.rows] == ["a.wav", "b.wav", "c.wav", "d.wav", JOINED]
    assert {len(row.ours) for row in report.rows} == {len(row.bare) for row in report.rows} == {3}
    assert {row.ratio("cpu") for row in report.rows} == {2.0}
    assert report.pooled("cpu") == report.pooled("wall") == 2.0
    assert not report.holds
    assert report.languages == (4, 4)
    assert report.n_equal == 3  # all but the comma of the last
    assert report.ours.n_errors == 0
    assert report.bare.n_errors == 1
    assert {row.file: row.n_errors for row in report.apart.rows}["c.wav"] == 1
    joined = report.rows[-1]
    assert 180 <= joined.seconds < 183
    assert standing_in.calls[0]["backend"] == "whisper"


def test_a_model_of_one_language_hears_that_alone(root, standing_in):
    standing_in.net.is_multilingual = False
    (report,) = run_speech(root, [Path("x.pt")], 1)
    assert [row.name for row in report.rows] == ["a.wav", "b.wav", "c.wav", JOINED]


def test_folders_are_compared_with_the_checkpoint_before_them(root, standing_in):
    reports = run_speech(root, [Path("x.pt"), root], 1)
    assert [report.backend for report in reports] == ["whisper", "faster-whisper"]
    assert [report.holds for report in reports] == [False, True]  # that rule is openai-whisper's
    text, holds = speech_tables(reports, [])
    assert not holds
    assert "take 2.000 of bare Whisper's CPU time (at most 1.05: DOES NOT HOLD)" in text
    assert "| c.wav | none | 1.5 | 2.000 | 2.000 | 1 of 1 | 0 of 0 | 1 of 0 |" in text
    assert "language right in 4 of 4; the same words as bare in 3" in text
    with pytest.raises(ParameterError, match="--weights: give a checkpoint of openai-whisper"):
        run_speech(root, [root], 1)


def test_a_long_recording_is_held_against_its_parts(root, standing_in, monkeypatch):
    heard = []

    def elsewhere(file, weights, backend):
        heard.append(soundfile.info(file))
        return "ask not what you can ask knot what", 2_500_000_000

    monkeypatch.setattr(speech, "_in_a_process", elsewhere)
    # Half a second and a whole one, with pauses of 0.7 s: 2.9 s hold each once, 4 s a third part.
    row = run_long(root, Path("x.pt"), 4 / 60)
    assert heard[0].duration == pytest.approx(row.seconds) == pytest.approx(4.1)
    assert (row.scores.n_words, row.scores.n_errors) == (8, 1)
    assert not row.holds
    text, holds = speech_tables([], [row])
    assert "| `x.pt` | 0.1 | 0 | 2500 | 8 | 1 | no: at most 2000 MB |" in text
    assert not holds


def test_a_process_that_fails_is_told(tmp_path):
    with pytest.raises(AudioTorchError, match=r"long recording: (?s:.*)x\.pt.*neither a file"):
        speech._in_a_process(tmp_path / "nowhere.wav", tmp_path / "x.pt", "whisper")


def test_the_command_needs_weights_and_recordings(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AUDIOTORCH_DATA", str(root))
    assert main(["bench", "--transcribe", "--weights", str(tmp_path / "x.pt")]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
    assert main(["bench", "--transcribe"]) == 2
    assert "give a checkpoint of openai-whisper (.pt) first" in capsys.readouterr().err
    with pytest.raises(ParameterError, match=r"holds no speech/transcripts\.csv"):
        run_speech(root / "speech", [Path("x.pt")])


def test_real_speech_takes_no_longer_than_bare_whisper(data_root, tmp_path, monkeypatch):
    weights = os.environ.get("AUDIOTORCH_WHISPER")
    if not weights:
        pytest.skip("AUDIOTORCH_WHISPER is not set: no weights of Whisper")
    pytest.importorskip("whisper")
    (tmp_path / "speech").mkdir()
    lines = (data_root / "speech/transcripts.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.startswith(("file,", "en/jfk.mp3", "en/cards_001"))]
    (tmp_path / "speech/transcripts.csv").write_text("\n".join(kept), encoding="utf-8")
    (tmp_path / "speech/en").symlink_to(data_root / "speech/en")
    monkeypatch.setattr(speech, "_JOINED_SECONDS", 12.0)
    (report,) = run_speech(tmp_path, [Path(weights) / "tiny.en.pt"], 1)
    assert report.ours.n_errors == 0
    assert report.n_equal == len(report.rows) == 3
    assert report.pooled("cpu") < 1.5  # one round on a busy machine; the benchmark takes more


def test_memory_holds_up_to_two_gigabytes():
    assert LongRow("x", 1.0, 1.0, 2_000_000_000, None).holds
    assert not LongRow("x", 1.0, 1.0, 2_000_000_001, None).holds
