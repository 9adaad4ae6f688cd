"""Reports without a browser: what is in the file, how large it is, and what is refused."""

import base64
import functools
import hashlib
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import one_line
from page_reader import Page
from PIL import Image

from audiotorch import DecodeError, ParameterError, load, save
from audiotorch.audio.findings import Finding
from audiotorch.cli import main
from audiotorch.data.doctor import DatasetFinding, DatasetReport
from audiotorch.data.examine import FileRecord
from audiotorch.data.facts import gather_facts
from audiotorch.report import dataset, write_report
from audiotorch.report.audio import Budget, encode_mp3, excerpt, mp3, thumbnail
from audiotorch.report.dataset import dataset_page
from audiotorch.report.page import (
    Clip,
    Clips,
    Facts,
    Recording,
    Section,
    Segment,
    Table,
    Text,
    Transcripts,
    render,
)

RATE = 16000
LIMIT = 15_000_000


def sine(frequency: float, seconds: float, rate: int = RATE, level: float = 0.5) -> torch.Tensor:
    time = torch.arange(int(seconds * rate)) / rate
    return level * torch.sin(2 * math.pi * frequency * time)


# --- sounds and pictures --------------------------------------------------------------------------


@pytest.mark.parametrize("kbps", [16, 24, 48])
def test_mp3_is_the_tone_at_its_time_and_rate(kbps):
    waveform = torch.zeros(3 * RATE)
    waveform[RATE : 2 * RATE] = sine(1000.0, 1.0)
    data = encode_mp3(waveform.split(7000), RATE, kbps)
    assert len(data) == pytest.approx(3 * kbps * 125, rel=0.1, abs=600)
    samples, rate = soundfile.read(io.BytesIO(data))
    assert rate == RATE
    # What is played at a word's time is the word: less than 0.1 s off, delay of the coder included.
    loud = np.flatnonzero(np.abs(samples) > 0.25) / rate
    assert loud[0] == pytest.approx(1.0, abs=0.1)
    assert loud[-1] == pytest.approx(2.0, abs=0.1)
    middle = samples[int(1.3 * rate) : int(1.7 * rate)]
    peak = np.abs(np.fft.rfft(middle)).argmax() * rate / len(middle)
    assert peak == pytest.approx(1000, abs=5)
    assert np.abs(middle).max() == pytest.approx(0.5, rel=0.1)


def test_an_excerpt_keeps_levels_unless_nothing_could_be_heard(tmp_path):
    for level, gain in ((0.5, 0.0), (0.1, 0.0), (0.01, 20.0), (1e-4, 40.0)):
        save(tmp_path / "a.wav", sine(500.0, 1.0, level=level), RATE, "FLOAT")
        piece = excerpt(tmp_path / "a.wav")
        assert piece.gain_db == pytest.approx(gain, abs=0.1)
        assert float(piece.waveform.abs().max()) == pytest.approx(
            level * 10 ** (gain / 20), rel=0.02
        )
        assert ("louder" in piece.told) == bool(gain)
    save(tmp_path / "a.wav", sine(500.0, 1.0, level=4.0), RATE, "FLOAT")
    assert excerpt(tmp_path / "a.wav").told == "played 12 dB softer"
    assert mp3(excerpt(tmp_path / "a.wav")) is not None


def test_an_excerpt_is_around_what_matters(tmp_path):
    waveform = torch.zeros(20 * RATE)
    waveform[15 * RATE] = 1.0
    save(tmp_path / "a.wav", waveform, RATE)
    for around, start in ((15.0, 13.0), (0.5, 0.0), (19.5, 16.0), (None, 0.0)):
        piece = excerpt(tmp_path / "a.wav", around_seconds=around, max_seconds=4.0)
        assert (piece.start_seconds, piece.seconds, piece.whole_seconds) == (start, 4.0, 20.0)
        assert (float(piece.waveform.max()) > 0.9) == (around == 15.0)
    assert piece.told == "0.0 to 4.0 s of 20.0 s"


def test_an_excerpt_has_a_rate_that_mp3_knows(tmp_path):
    for rate, expected in (
        (7000, 8000),
        (8000, 8000),
        (44100, 32000),
        (96000, 32000),
        (13000, 16000),
    ):
        save(tmp_path / "a.wav", sine(500.0, 0.5, rate), rate)
        piece = excerpt(tmp_path / "a.wav")
        assert piece.sample_rate == expected
        assert soundfile.info(io.BytesIO(mp3(piece))).samplerate == expected


def test_nothing_is_made_of_nothing(tmp_path):
    save(tmp_path / "a.wav", torch.zeros(0), RATE)
    piece = excerpt(tmp_path / "a.wav")
    assert mp3(piece) is None
    assert thumbnail(piece) is None
    (tmp_path / "b.wav").write_bytes(b"no sound")
    with pytest.raises(DecodeError):
        excerpt(tmp_path / "b.wav")


@pytest.mark.parametrize("rate", [8000, 16000, 32000])
def test_a_thumbnail_shows_a_tone_where_its_ticks_say(tmp_path, rate):
    save(tmp_path / "a.wav", torch.cat([torch.zeros(rate), sine(1000.0, 1.0, rate)]), rate)
    picture = thumbnail(excerpt(tmp_path / "a.wav"))
    assert picture is not None
    assert len(picture.png) < 15_000
    image = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")).sum(axis=2)
    row = image[:, 3 * image.shape[1] // 4].argmax()
    where = dict((what, place) for place, what in picture.y_ticks)["1"]
    assert 1 - (row + 0.5) / len(image) == pytest.approx(where, abs=0.04)
    assert image[:, image.shape[1] // 4].max() < image[:, 3 * image.shape[1] // 4].max()
    assert [what for _, what in picture.x_ticks] == ["0.0 s", "2.0 s"]
    assert picture.y_ticks[0] == (1.0, f"{rate // 2000} kHz")


def test_a_budget_counts_base64_and_refusals():
    budget = Budget(1000)
    assert budget.take(300)
    assert budget.left == 600
    assert not budget.take(451)
    assert budget.refused == 1
    assert budget.take(600, base64=False)
    assert budget.left == 0
    budget = Budget(1000)
    share = budget.part(0.25)
    assert (budget.left, share.left) == (750, 250)
    assert share.take(90)
    budget.give_back(share)
    assert budget.left == 880


# --- the page -------------------------------------------------------------------------------------


NASTY = [
    "</script><script>alert(1)</script>",
    "<!--",
    "\"'&<>`",
    "a\x00\x1b[31m\ud800\u202e\u2028b",
    "\U0001f415",
]


def test_text_and_data_are_escaped():
    table = Table(NASTY, [NASTY, [None, 1.5, float("nan"), float("inf"), True]], NASTY[0])
    segment = Segment(0.0, 1.0, NASTY[0], [(NASTY[1], 0.0, 1.0, 0.5)], NASTY[2])
    blocks = [
        *map(Text, NASTY),
        Facts(dict.fromkeys(NASTY, NASTY[0])),
        table,
        Clips([Clip(NASTY[0], NASTY, None, silent=NASTY[1], group=NASTY[2])]),
        Transcripts([Recording(NASTY[0], NASTY, [segment], None, NASTY[1])]),
    ]
    html = render(NASTY[0], NASTY[3], [Section(NASTY[0], blocks, NASTY[1])])
    html.encode()  # no surrogates
    assert "alert(1)</script>" not in html
    page = Page(html)
    assert page.count("script") == 3
    assert page.text.count(NASTY[0]) >= 8
    assert "a\\x00\\x1b[31m\\ud800\\u202e\\u2028b" in page.text
    rows = page.data[0]["rows"]
    assert rows[0][:3] == NASTY[:3]
    assert rows[1] == [None, 1.5, None, "inf", "yes"]
    assert page.data[1]["recordings"][0][0][2][0] == ["<!--", 0.0, 1.0, 0.5]


def test_nothing_is_asked_for_and_only_its_own_code_runs():
    html = render("t", "", [Section("s", [Table(["a"], [["b"]])])])
    assert html.startswith("<!doctype html>")
    page = Page(html)
    for _, attrs in page.tags:
        assert not {name for name in attrs if name.startswith("on") or name == "style"}
        for name in ("src", "href"):
            assert (attrs.get(name) or "data:").startswith(("data:", "#"))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    script = re.search(r"<script>(.*)</script>", html, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_empty_blocks_are_no_trouble():
    blocks = [Text(""), Facts({}), Table(["a"], []), Table([], []), Clips([]), Transcripts([])]
    assert Page(render("", "", [Section("", blocks), Section("none", [])])).count("section") == 2


# --- data sets ------------------------------------------------------------------------------------


def tones(folder: Path, labels: dict[str, int]) -> Path:
    for label, count in labels.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            frequency = 200.0 + 37 * number + 300 * [*labels].index(label)
            save(folder / label / f"{number}.wav", sine(frequency, 1.0 + number / 7), RATE)
    return folder


def test_a_data_set_of_classes(tmp_path):
    folder = tones(tmp_path / "clips", {"dog": 8, "cat": 2, "only": 1})
    (folder / "dog" / "broken.wav").write_bytes(b"RIFF")
    shutil.copy(folder / "cat" / "0.wav", folder / "dog" / "copy.wav")
    told: list[tuple[int, int]] = []
    out = write_report(folder, tmp_path / "r.html", advance=lambda *step: told.append(step))
    page = Page(out.read_text(encoding="utf-8"))
    findings, detail, classes, files = (data["rows"] for data in page.data)
    by_name = {row[1]: row for row in findings}
    assert by_name["unreadable"][:3] == ["problem", "unreadable", 1]
    assert by_name["duplicate_across_labels"][:3] == ["problem", "duplicate_across_labels", 2]
    assert by_name["single_clip_label"][0] == "note"
    assert ["unreadable", "dog/broken.wav"] in [row[:2] for row in detail]
    assert "cat/0.wav\ndog/copy.wav" in [row[1] for row in detail]
    assert [row[:2] for row in classes] == [["dog", 10], ["cat", 2], ["only", 1]]
    dog = sum(1.0 + n / 7 for n in range(8)) + 1.0
    assert classes[0][2] == pytest.approx(dog / 60, rel=1e-3)
    assert [row[0] for row in files] == sorted(row[0] for row in files)
    assert len(files) == 13
    assert files[2][:3] == ["dog/0.wav", "dog", 1.0]
    # Six of a class at most, and of each finding.
    listen = out.read_text(encoding="utf-8").split('id="section-5"')[1].split('id="section-6"')[0]
    assert Page(listen).count("audio") == 6 + 2 + 1
    assert told[-1][0] == told[-1][1] == 13 + 9
    sound, rate = soundfile.read(io.BytesIO(Page(listen).sounds()[-1]))
    peak = np.abs(np.fft.rfft(sound)).argmax() * rate / len(sound)
    assert peak == pytest.approx(200 + 2 * 300, abs=3)


def test_the_same_data_set_gives_the_same_page(tmp_path):
    folder = tones(tmp_path / "clips", {"a": 7, "b": 1})
    pages = [write_report(folder, tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("labels", [{"one": 3}, {"": 1}])
def test_one_class_or_none(tmp_path, labels):
    folder = tones(tmp_path / "clips", labels)
    page = Page(write_report(folder, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.count("audio") >= sum(labels.values())
    assert "Classes" in page.text


def test_nothing_readable(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes(b"RIFF")
    page = Page(write_report(tmp_path / "clips", tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "There is nothing that can be played." in page.text
    assert page.count("audio") == 0


def test_clips_without_sound_say_why(tmp_path):
    folder = tones(tmp_path / "clips", {"a": 2, "b": 2})
    soundfile.write(folder / "a" / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    text = Page(write_report(folder, tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "1 cannot be played." in text
    assert "to keep the page small" not in text


def test_lengths_from_nothing_to_hours(tmp_path, monkeypatch):
    folder = tones(tmp_path / "clips", {"a": 3})
    soundfile.write(folder / "a" / "empty.wav", np.zeros(0), RATE)
    soundfile.write(folder / "a" / "long.flac", np.zeros(3 * 3600 * 1000, np.int16), 1000)
    figures: list[Any] = []
    make = dataset.new_figure
    monkeypatch.setattr(dataset, "new_figure", lambda *a: figures.append(make(*a)) or figures[-1])
    page = Page(write_report(folder, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "From 0 s to 3.0 hours, half of them below 1.14 s." in page.text
    axes = figures[0].axes[0]
    assert axes.get_xscale() == "log"
    bars = [(bar.get_x(), bar.get_height()) for bar in axes.patches if bar.get_height()]
    assert sum(height for _, height in bars) == 4  # not the one without samples
    assert bars[0][0] == pytest.approx(1.0)


def records(paths: list[Path], n_files: int, n_classes: int) -> DatasetReport:
    """A report on so many files, of which those given can be read again and again."""
    found = tuple(
        FileRecord(
            str(paths[number % len(paths)].with_name(f"{'long ' * 12}{number:05d}.wav")),
            f"class {number % n_classes:03d}",
            sample_rate=RATE,
            n_channels=1,
            n_frames=5 * RATE,
            duration_seconds=5.0,
            container="WAV",
            codec="PCM_16",
            bit_depth=16,
            findings=(Finding("noisy", "It is noisy: " + "very " * 20),) if number % 3 else (),
        )
        for number in range(n_files)
    )
    noisy = [record.file for record in found if record.findings]
    reasons = tuple(record.findings[0].message for record in found if record.findings)
    finding = DatasetFinding("noisy", "noisy", tuple(noisy), reasons)
    return DatasetReport(found, (finding,), gather_facts(found))


@pytest.mark.parametrize(("n_files", "n_classes"), [(20_000, 10), (20_000, 500), (5000, 2500)])
def test_many_files_and_classes_stay_below_the_limit(tmp_path, monkeypatch, n_files, n_classes):
    noise = 0.3 * torch.randn(5 * RATE)  # which no coder makes small
    save(tmp_path / "noise.wav", noise.clamp(-1, 1), RATE)
    report = records([tmp_path / "noise.wav"], n_files, n_classes)
    monkeypatch.setattr(dataset, "check_dataset", lambda *_, **__: report)
    heard: list[str] = []

    @functools.cache
    def piece(seconds, rate):
        return excerpt(tmp_path / "noise.wav", max_seconds=seconds, max_rate=rate)

    @functools.cache
    def coded(seconds, rate, kbps):
        return mp3(piece(seconds, rate), None, kbps)

    @functools.cache
    def drawn(seconds, rate):
        return thumbnail(piece(seconds, rate))

    def read(file, *, max_seconds, max_rate):
        heard.append(file)
        return piece(max_seconds, max_rate)

    def sound(part, budget, kbps):
        data = coded(part.seconds, part.sample_rate, kbps)
        return data if budget.take(len(data)) else None

    def picture(part, budget, name):
        found = drawn(part.seconds, part.sample_rate)
        return found if budget.take(len(found.png)) else None

    for name, instead in (("excerpt", read), ("mp3", sound), ("thumbnail", picture)):
        monkeypatch.setattr(f"audiotorch.report.samples.{name}", instead)
    html = dataset_page(tmp_path)
    assert len(html.encode()) < LIMIT
    page = Page(html)
    classes = {record.file: record.label for record in report.files}
    assert len({classes[file] for file in heard}) >= min(n_classes, 200)
    assert page.count("audio") + page.text.count("Sound left out") == len(heard)
    assert page.count("audio") > 0.98 * len(heard)
    files = page.data[-1]["rows"]
    assert len(files) == n_files or "`audiotorch check --json` lists all" in page.text
    assert len(files) >= 4000


# --- where it goes --------------------------------------------------------------------------------


def test_what_is_no_report_is_not_replaced(tmp_path):
    folder = tones(tmp_path / "clips", {"a": 1})
    sound = folder / "a" / "0.wav"
    before = sound.read_bytes()
    other = tmp_path / "page.html"
    other.write_text("<!doctype html><html><head></head>mine</html>")
    for out, why in (
        (sound, "no report"),
        (other, "no report"),
        (tmp_path, "folder"),
        (tmp_path / "none" / "r.html", "does not exist"),
    ):
        with pytest.raises(ParameterError, match=why):
            write_report(folder, out)
    assert sound.read_bytes() == before
    assert other.read_text().endswith("mine</html>")
    out = write_report(folder, tmp_path / "r.html", title="first")
    assert write_report(folder, out, title="second").read_text().count("<title>second</title>") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clips", "page.html", "r.html"]


@pytest.mark.parametrize("name", ["checkpoints", "train.log", "answers.csv"])
def test_a_run_that_has_not_ended_is_named(tmp_path, name):
    run = tones(tmp_path / "run", {"checkpoints": 1, "train.log": 1, "answers.csv": 1})
    for other in {"checkpoints", "train.log", "answers.csv"} - {name}:
        shutil.rmtree(run / other)
    write_report(run, tmp_path / "r.html")  # folders of sounds, whatever their names are
    (run / "config.yaml").write_text("seed: 42\n")
    with pytest.raises(ParameterError, match=r"run without metrics\.json"):
        write_report(run, tmp_path / "r.html")


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tones(tmp_path / "clips", {"a": 1, "b": 1})
    assert main(["report", "clips", "--title", "<T>"]) == 0
    out, complaints = capsys.readouterr()
    assert out.startswith("report.html: 0.")
    assert complaints == ""
    assert "<title>&lt;T&gt;</title>" in Path("report.html").read_text(encoding="utf-8")
    assert main(["report", "clips", "--out", "r.html", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"file": "r.html", "bytes": Path("r.html").stat().st_size}
    for arguments in (
        ["nowhere"],
        ["clips", "--out", "clips"],
        ["clips", "--out", "clips/a/0.wav"],
    ):
        assert main(["report", *arguments]) == 2
        one_line(capsys.readouterr().err)
    assert load("clips/a/0.wav", None)[0].shape[1] == RATE
