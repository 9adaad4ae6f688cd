"""The article's transcription, against bare Whisper."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

import audiotorch as at
from audiotorch import recipes
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.transcribe.scoring import read_references, score

whisper = pytest.importorskip("whisper")

RECORD = ["filepath", "filename", "language", "text", "n_segments", "duration_s"]


@pytest.fixture(scope="module")
def tiny(whisper_weights: Path) -> str:
    return os.fspath(whisper_weights / "tiny.en.pt")


@pytest.fixture(scope="module")
def bare(tiny: str) -> Any:
    return whisper.load_model(tiny)


def bare_result(model: Any, file: Path) -> dict[str, Any]:
    waveform, _ = at.load(file, sample_rate=16000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Whisper leaves a file open
        return model.transcribe(waveform[0].numpy(), fp16=False)


@pytest.mark.parametrize("name", ["jfk.flac", "cards_001.wav", "LJ002-0020.wav"])
def test_a_recording_as_bare_whisper_has_it(name, data_root, tiny, bare):
    file = data_root / "speech/en" / name
    expected = bare_result(bare, file)
    found = recipes.transcribe_audio(file, tiny)
    assert found["text"] == expected["text"].strip()
    assert found["language"] == expected["language"] == "en"
    assert [segment["id"] for segment in found["segments"]] == [*range(len(found["segments"]))]
    for ours, theirs in zip(found["segments"], expected["segments"], strict=True):
        assert ours["text"] == theirs["text"]
        # Within Whisper's times, which hold the pauses around a sentence and may end in padding.
        assert theirs["start"] <= ours["start"] < theirs["start"] + 1.0
        assert ours["end"] <= min(theirs["end"], found["duration_seconds"]) + 1e-3
        assert {*theirs} - {*ours} == {"seek", "tokens"}
    assert json.loads(json.dumps(found)) == found


def test_a_language_and_a_task_are_heeded(data_root, tiny):
    file = data_root / "speech/en/cards_001.wav"
    assert recipes.transcribe_audio(file, tiny, "en")["text"]
    with pytest.raises(ParameterError, match="sing"):
        recipes.transcribe_audio(file, tiny, task="sing")
    with pytest.raises(ParameterError, match="de"):
        recipes.transcribe_audio(file, tiny, "de")  # of an English model


def test_what_cannot_be_transcribed_is_refused(data_root, tiny, tmp_path):
    with pytest.raises(DecodeError):
        recipes.transcribe_audio(tmp_path / "none.wav", tiny)
    with pytest.raises(ParameterError):
        recipes.transcribe_audio(data_root / "speech/en/cards_001.wav", "no_such_model")


def test_a_folder_with_what_may_lie_in_it(data_root, tiny, bare, tmp_path):
    speech = data_root / "speech"
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    kept = [folder / "B.WAV", folder / "a.flac", folder / "deeper/c.wav"]
    shutil.copy(speech / "en/cards_001.wav", kept[0])
    shutil.copy(speech / "en/jfk.flac", kept[1])
    shutil.copy(speech / "none/leopard_empty.wav", kept[2])
    shutil.copy(speech / "fr/sr_french.aiff", folder / "d.aiff")  # of no suffix that is asked for
    (folder / "broken.wav").write_bytes(b"RIFF and then nothing of a kind")
    (folder / "notes.txt").write_text("one")
    out = tmp_path / "out.jsonl"
    with pytest.warns(UserWarning, match=r"broken\.wav") as told:
        records = recipes.batch_transcribe_directory(folder, out, tiny)
    assert len(told) == 1
    assert [record["filepath"] for record in records] == [str(file) for file in kept]
    assert [list(record) for record in records] == [RECORD] * 3
    assert [record["filename"] for record in records] == ["B.WAV", "a.flac", "c.wav"]
    for record in records[:2]:
        expected = bare_result(bare, Path(record["filepath"]))
        assert record["text"] == expected["text"].strip()
        assert record["n_segments"] == len(expected["segments"])
        assert record["language"] == "en"
    assert records[2]["text"] == ""
    assert records[2]["n_segments"] == 0
    seconds = [at.info(file).duration_seconds for file in kept]
    assert [record["duration_s"] for record in records] == pytest.approx(seconds, abs=1e-3)

    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert sorted(line["filename"] for line in lines) == ["B.WAV", "a.flac", "broken.wav", "c.wav"]
    (failed,) = [line for line in lines if "error" in line]
    assert failed["filename"] == "broken.wav"

    # Finished files are not transcribed again: their lines are the same to the digit.
    written = out.read_bytes()
    (folder / "broken.wav").unlink()
    assert recipes.batch_transcribe_directory(str(folder), str(out), tiny) == records
    assert out.read_bytes() == written


def test_records_can_be_scored(data_root, tiny, tmp_path):
    references = read_references(data_root / "speech/transcripts.csv")
    shutil.copytree(
        data_root / "speech/en", tmp_path / "en", ignore=shutil.ignore_patterns("[!c]*")
    )
    records = recipes.batch_transcribe_directory(tmp_path, tmp_path / "out.jsonl", tiny, "WAV")
    scores = score(records, references)
    assert [row.file for row in scores.rows] == [f"en/cards_00{k}.wav" for k in (1, 2, 3)]
    assert not scores.without_reference


def test_folders_that_hold_nothing_are_refused(tiny, tmp_path):
    with pytest.raises(ParameterError, match="no"):
        recipes.batch_transcribe_directory(tmp_path / "none", tmp_path / "out.jsonl", tiny)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParameterError, match="empty"):
        recipes.batch_transcribe_directory(tmp_path / "empty", tmp_path / "out.jsonl", tiny)
