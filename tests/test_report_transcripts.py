"""The report on transcripts: texts, times, sounds, and what is left out to keep it small."""

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from page_reader import Page

from audiotorch import ParameterError, save
from audiotorch.cli import main
from audiotorch.report import transcripts, write_report
from audiotorch.report.audio import PAGE_BYTES, Budget

RATE = 16000
LIMIT = 15_000_000


def tone(path: Path, seconds: float = 2.0, frequency: float = 600.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = torch.arange(int(seconds * RATE)) / RATE
    save(path, 0.5 * torch.sin(2 * math.pi * frequency * time), RATE)
    return path


def line(file: Path | str, text: str = "one two", words: bool = True, **more: Any) -> dict:
    said = text.split()
    segment: dict[str, Any] = {"start": 0.0, "end": 2.0, "text": f" {text}", "avg_logprob": -0.1}
    if words:
        segment["words"] = [
            {"word": f" {word}", "start": i / 10, "end": i / 10 + 0.1, "probability": 0.4 + i / 5}
            for i, word in enumerate(said)
        ]
    found = {"filepath": str(file), "text": text, "language": "en", "duration_s": 2.0}
    return {**found, "real_time_factor": 0.5, "segments": [segment], **more}


def write(path: Path, lines: list[dict], end: str = "") -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines) + end, encoding="utf-8")
    return path


def read(source: Path, **settings: Any) -> Page:
    out = write_report(source, source.with_name("report.html"), **settings)
    return Page(out.read_text(encoding="utf-8"))


def spoken(page: Page) -> list:
    return next(data["recordings"] for data in page.data if "recordings" in data)


def test_words_lines_speakers_and_doubt(tmp_path):
    tone(tmp_path / "a.wav")
    plain = line(tmp_path / "b.wav", "no words here", words=False, language="de")
    plain["segments"][0] |= {"avg_logprob": math.log(0.3), "channel": 1}
    page = read(write(tmp_path / "t.jsonl", [line(tmp_path / "a.wav"), plain]))
    first, second = spoken(page)
    assert first == [[0, 2, [[" one", 0, 0.1, 0.4], [" two", 0.1, 0.2, 0.6]], 0.905]]
    assert second == [[0, 2, [], 0.3]]
    assert "channel 2" in page.text
    assert "2, 1 doubtful" in page.text
    assert "de, en" in page.text
    rows = page.data[-1]["rows"]
    assert rows[0] == ["a.wav", "en", 2.0, None, 2, 50.0, 0.5, "one two"]
    (sound,) = page.sounds()
    samples, rate = soundfile.read(io.BytesIO(sound))
    assert len(samples) / rate == pytest.approx(2.0, abs=0.1)
    assert np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples) == pytest.approx(600, abs=3)


def test_the_last_line_of_a_file_counts_and_a_half_one_is_passed_over(tmp_path):
    lines = [line("x.wav", "old"), line("y.wav", "other"), line("x.wav", "new")]
    page = read(write(tmp_path / "t.jsonl", lines, '{"filepath": "z.wav", "te'))
    assert sorted("".join(word[0] for word in one[0][2]).strip() for one in spoken(page)) == [
        "new",
        "other",
    ]
    with pytest.raises(ParameterError, match="line 2 is none"):
        read(write(tmp_path / "t.jsonl", lines[:1], "{}\n"))
    (tmp_path / "t.jsonl").write_text(json.dumps(lines[0]) + "\n[1]\n")
    with pytest.raises(ParameterError, match="line 2 is none"):
        read(tmp_path / "t.jsonl")


def test_failures_are_told_and_null_numbers_are_no_trouble(tmp_path):
    lines = [
        {"filepath": "/data/bad.wav", "error": "/data/bad.wav: cannot be read: <b>"},
        line("/data/x.wav", duration_s=None, real_time_factor=None, language=None),
    ]
    page = read(write(tmp_path / "t.jsonl", lines))
    assert page.data[-1]["rows"] == [["bad.wav", "cannot be read: <b>"]]
    only = read(write(tmp_path / "t.jsonl", lines[:1]))
    assert "Not transcribed" in only.text
    silent = read(write(tmp_path / "t.jsonl", [line("x.wav", "", segments=[])]))
    assert "nobody speaks" in silent.text


@pytest.mark.parametrize(
    "more",
    [
        {"duration_s": math.nan},
        {"duration_s": -3.0},
        {"language_probability": "high"},
        {"language_probability": math.nan, "speech_s": "some", "real_time_factor": "x"},
        {"language": 3},
    ],
)
def test_figures_that_are_none_are_left_out(tmp_path, more):
    lines = [line(tone(tmp_path / "a.wav"), **more), line(tmp_path / "b.wav")]
    page = read(write(tmp_path / "t.jsonl", lines))
    assert "one two" in json.dumps(page.data)
    assert "nan" not in page.text.lower()


def test_languages_may_lack(tmp_path):
    lines = [line(tmp_path / "a.wav"), line(tmp_path / "b.wav")]
    del lines[0]["language"]
    assert "language en" in read(write(tmp_path / "t.jsonl", lines)).text


def test_times_that_are_none_are_no_transcription(tmp_path):
    broken = line(tmp_path / "a.wav")
    broken["segments"][0]["words"][0]["start"] = math.nan
    with pytest.raises(ParameterError, match="line 1 is none of a transcription"):
        read(write(tmp_path / "t.jsonl", [broken]))


def test_recordings_are_found_where_they_are_now(tmp_path):
    for name in ("here/a.wav", "moved/sub/b.wav", "moved/c.wav"):
        tone(tmp_path / name)
    lines = [line(name) for name in ("here/a.wav", "/old/sub/b.wav", "/old/c.wav", "/old/d.wav")]
    source = write(tmp_path / "t.jsonl", lines)
    assert len(read(source).sounds()) == 1
    page = read(source, root=tmp_path / "moved")
    assert len(page.sounds()) == 3
    assert page.text.count("the file is not there any more") == 1


def test_files_that_changed_are_told_and_never_break_the_limit(tmp_path):
    size = tone(tmp_path / "a.wav").stat().st_size
    source = write(tmp_path / "t.jsonl", [line(tmp_path / "a.wav", size=size)])
    assert "changed since" not in read(source).text
    tone(tmp_path / "a.wav", 2.1)
    page = read(source)
    assert "changed since" in page.text
    assert len(page.sounds()) == 1
    tone(tmp_path / "a.wav", 30.0)
    assert read(source).sounds() == []
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    assert "Cannot be played" in read(source).text


@pytest.mark.parametrize("quality", range(len(transcripts._QUALITIES)))
def test_sounds_are_no_larger_than_they_are_reckoned_to_be(tmp_path, quality):
    bits, rate = transcripts._QUALITIES[quality]
    for seconds in (0.2, 61.0):
        noise = (0.3 * torch.randn(int(seconds * 44100))).clamp(-1, 1)
        save(tmp_path / "n.wav", noise, 44100)
        data, why = transcripts._encoded(str(tmp_path / "n.wav"), seconds, bits, rate)
        assert why == ""
        assert data is not None


@pytest.mark.parametrize(
    ("n_files", "seconds", "n_words", "has_words", "n_sounds"),
    [
        (1, 360.0, 900, True, 1),
        (12, 60.0, 150, True, 12),
        (30, 180.0, 450, True, None),  # too much to hear: some sounds are left out
        (60, 360.0, 900, False, None),  # too much to read: words lose their times
    ],
)
def test_hours_of_speech_stay_below_the_limit(
    tmp_path, monkeypatch, n_files, seconds, n_words, has_words, n_sounds
):
    def encoded(path, seconds, bits, rate):
        return bytes(int(seconds * bits / 8)), ""

    # A tenth of a page with a tenth of the speech, so that the test is fast.
    monkeypatch.setattr(transcripts, "_encoded", encoded)
    monkeypatch.setattr(transcripts, "Budget", lambda: Budget(PAGE_BYTES // 10))
    limit = LIMIT // 10
    said = " ".join(f"word{i % 97}" for i in range(20))
    segment = line("", said)["segments"][0]
    lines = []
    for number in range(n_files):
        file = tmp_path / f"{number}.wav"
        file.touch()
        own = seconds + number
        segments = [{**segment, "start": 2.0 * i, "end": 2.0 * i + 2} for i in range(n_words // 20)]
        lines.append(line(file, said, duration_s=own, segments=segments))
    source = write(tmp_path / "t.jsonl", lines)
    out = write_report(source, tmp_path / "report.html")
    assert out.stat().st_size < limit
    page = Page(out.read_text(encoding="utf-8"))
    assert any(recording[0][2] for recording in spoken(page)) == has_words
    sounds = len(page.sounds())
    if n_sounds is None:
        assert 0 < sounds < n_files or not has_words
        assert "to keep the page small" in page.text
        # What is left is too little for one more.
        assert out.stat().st_size > 0.6 * limit
    else:
        assert sounds == n_sounds


def test_what_audiotorch_transcribes_is_what_the_page_holds(data_root, whisper_weights, tmp_path):
    for name in ("jfk.mp3", "cards_001.wav"):
        shutil.copy(data_root / "speech" / "en" / name, tmp_path / name)
    out = tmp_path / "t.jsonl"
    options = ["--model", str(whisper_weights / "tiny.en.pt"), "--word-timestamps"]
    options += ["--workers", "1", "--device", "cpu"]
    assert main(["transcribe", str(tmp_path), "--out", str(out), *options]) == 0
    assert main(["report", str(out), "--out", str(tmp_path / "r.html")]) == 0
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    lines = [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()]
    for one, shown in zip(lines, spoken(page), strict=True):
        words = [word for segment in one["segments"] for word in segment["words"]]
        assert [w["word"] for w in words] == [w[0] for segment in shown for w in segment[2]]
        assert [w["start"] for w in words] == pytest.approx(
            [w[1] for segment in shown for w in segment[2]], abs=0.006
        )
    assert "country" in page.text
    assert len(page.sounds()) == 2
