"""Reports in a real browser: what is seen, heard, sorted and found, and that nothing leaves."""

import csv
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import PHONE, WIDE, chromium, opened

from audiotorch import save
from audiotorch.report import write_report
from audiotorch.report.audio import excerpt, mp3, thumbnail
from audiotorch.report.page import Clip, Clips, Facts, Section, Table, Text, render

RATE = 16000
# Would run, or ask for something, or be taken for something else, if they were not text.
NASTY = [
    '<script>alert(1)</script>"',
    "</script><script>alert(2)</script>",
    "<img src=x onerror=alert(3)>",
    "\"'><svg onload=alert(4)>",
    "quotes \" and ' and `",
    "\U0001f415 \U0001f468\u200d\U0001f469\u200d\U0001f467 emoji",
    "$x^2$ {{ 7*7 }} {% raw %} &amp; &lt;",
    "<!-- <script>",
    "https://example.com/x.png",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def tone(path: Path, frequency: float, seconds: float = 1.0) -> Path:
    time = torch.arange(int(seconds * RATE)) / RATE
    save(path, 0.5 * torch.sin(2 * math.pi * frequency * time), RATE)
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Every kind of block, with names that try to be something else."""
    folder = tmp_path_factory.mktemp("page")
    piece = excerpt(tone(folder / "a.wav", 440.0, 2.0))
    clips = [
        Clip(name, [f"line {number}", name], mp3(piece), [thumbnail(piece, None, name)], "good")
        for number, name in enumerate(NASTY)
    ]
    values = zip(NASTY, [10, 9.5, None, -3, 100, 2, 0, 1e-6, 12345678], strict=True)
    rows = [[name, value, f"clip{i}"] for i, (name, value) in enumerate(values)]
    many = [[f"file {i:05d}.wav", (i * 7919) % 20000] for i in range(20000)]
    sections = [
        Section(NASTY[0], [Text("\n".join(NASTY)), Facts(dict.fromkeys(NASTY, NASTY[1]))]),
        Section("Table", [Table([NASTY[1], "Value", "Name"], rows, NASTY[2])], NASTY[3]),
        Section("Clips", [Clips([*clips, Clip("mute", ["x"], None)], NASTY[4])]),
        Section("Many", [Table(["File", "Rank"], many, "Many")]),
    ]
    out = folder / "page.html"
    out.write_text(render(NASTY[0], NASTY[1], sections), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A table of recordings with the labels above, one of them broken."""
    folder = tmp_path_factory.mktemp("data")
    names = ["<img src=x onerror=alert(5)>.wav", 'it\'s "quoted".wav', "\U0001f415 $a$.wav"]
    rows = []
    for number, label in enumerate(NASTY):
        name = f"{number} {names[number % 3]}"
        tone(folder / name, 300.0 + 100 * number, 1.0 + number)
        rows.append((name, label))
    (folder / "broken.wav").write_bytes(b"RIFF no sound")
    rows.append(("broken.wav", NASTY[0]))
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    return write_report(folder / "table.csv", folder / "report.html")


@pytest.fixture(scope="module")
def transcripts(tmp_path_factory) -> Path:
    """Three recordings with words, one with lines alone, one that is gone."""
    folder = tmp_path_factory.mktemp("speech")
    said = {
        "one.wav": ["Hello", "there,", "General", "Smith."],
        NASTY[2] + ".wav": ["<script>alert(6)</script>", "hello", "again,", "said", "he."],
        "plain.wav": [],
        "gone.wav": ["the", "last", "hello"],
    }
    lines = []
    for name, words in said.items():
        size = 0
        if name != "gone.wav":
            size = tone(folder / name, 500.0, 6.0).stat().st_size
        timed = [
            {"word": f" {w}", "start": 0.5 + i, "end": 1.4 + i, "probability": 0.2 + 0.2 * i}
            for i, w in enumerate(words)
        ]
        text = " ".join(words) or "Hello to lines without words."
        segment = {"start": 0.5, "end": 5.4, "text": f" {text}", "avg_logprob": -2.0}
        lines.append(
            {
                "filepath": str(folder / name),
                "text": text,
                "language": "en",
                "duration_s": 6.0,
                "real_time_factor": 0.1,
                "segments": [segment | ({"words": timed} if words else {})],
                "size": size,
            }
        )
    source = folder / "out.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return write_report(source, folder / "report.html")


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["page", "dataset", "transcripts"])
def test_pages_stay_in_their_window_and_on_their_own(browser, request, name, width, scheme):
    path = request.getfixturevalue(name)
    assert path.stat().st_size < 15_000_000
    with opened(browser, path, width, scheme) as seen:
        seen.page.mouse.wheel(0, 100_000)
        seen.wait("[...document.images].every((image) => image.complete && image.naturalWidth)")
        dark = seen.value("matchMedia('(prefers-color-scheme: dark)').matches")
        ink, ground = seen.value(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body)"
            ".backgroundColor].map((c) => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => +a + +b))"
        )
        assert (ink > ground) == dark == (scheme == "dark")
        assert abs(ink - ground) > 3 * 128


def test_names_are_text_wherever_they_stand(browser, page):
    with opened(browser, page) as seen:
        assert seen.page.title() == NASTY[0]
        assert seen.texts("h1") == [NASTY[0]]
        assert seen.texts(".title p") == [NASTY[1]]
        assert seen.texts("h2")[0] == NASTY[0]
        assert seen.texts("p.text") == ["\n".join(NASTY)]
        assert seen.texts("dt")[: len(NASTY)] == NASTY
        assert seen.texts("#block-3 tbody td:first-child") == NASTY
        titles = [title.removeprefix("\u2713 ") for title in seen.texts(".card h4")]
        assert titles[: len(NASTY)] == NASTY
        assert seen.value("document.scripts.length") == 3  # two tables' data, and its own
        assert seen.value("document.querySelectorAll('main img:not(.card img)').length") == 0
        assert all(
            name in seen.page.locator(".card img").nth(i).get_attribute("alt")
            for i, name in enumerate(NASTY)
        )


SEEKS = """
() => {
  window.seeks = [];
  const note = (event) => window.seeks.push(event.target.currentTime);
  document.addEventListener("seeked", note, true);
}
"""


def column(seen, place: int, table: str = "#block-3") -> list[str]:
    return [
        cell.inner_text()
        for cell in seen.page.locator(f"{table} tbody td:nth-child({place})").all()
    ]


def test_tables_sort_by_value_with_the_empty_last(browser, page):
    with opened(browser, page) as seen:
        head = seen.page.locator("#block-3 th button")
        before = column(seen, 2)
        head.nth(1).click()
        assert column(seen, 2) == ["-3", "0", "0.000001", "2", "9.5", "10", "100", "12345678", ""]
        assert seen.page.locator("#block-3 th").nth(1).get_attribute("aria-sort") == "ascending"
        seen.press("Enter")  # the header has the focus
        assert column(seen, 2) == ["12345678", "100", "10", "9.5", "2", "0.000001", "0", "-3", ""]
        assert seen.page.locator("#block-3 th").nth(1).get_attribute("aria-sort") == "descending"
        head.nth(1).click()
        assert column(seen, 2) == before
        assert seen.page.locator("#block-3 th").nth(1).get_attribute("aria-sort") == "none"
        head.nth(2).click()
        assert column(seen, 3) == [f"clip{i}" for i in range(9)]


def test_twenty_thousand_rows_are_sorted_filtered_and_drawn_as_one_scrolls(browser, page):
    with opened(browser, page) as seen:
        rows = seen.page.locator("#block-5 tbody tr")
        assert rows.count() < 1000
        seen.page.locator("#block-5 th button").nth(1).click()
        assert column(seen, 2, "#block-5")[:3] == ["0", "1", "2"]
        seen.page.locator("#block-5 .box").evaluate("box => { box.scrollTop = box.scrollHeight }")
        seen.wait("document.querySelectorAll('#block-5 tbody tr').length > 300")
        assert column(seen, 2, "#block-5") == [str(i) for i in range(rows.count())]
        seen.page.locator("#block-5 input").fill("WAV 0123")
        rows = {f"file {i:05d}.wav": (i * 7919) % 20000 for i in range(20000)}
        expected = [name for name, rank in rows.items() if "0123" in f"{name} {rank}"]
        assert seen.texts("#block-5 output") == [f"{len(expected)} of 20000 rows"]
        assert sorted(column(seen, 1, "#block-5")) == expected
        ranks = [int(value) for value in column(seen, 2, "#block-5")]
        assert ranks == sorted(ranks)
        seen.page.locator("#block-5 input").fill("no such file")
        assert seen.texts("#block-5 output") == ["0 of 20000 rows"]


def test_a_clip_plays_seeks_and_stops_by_mouse(browser, page):
    with opened(browser, page) as seen:
        card = seen.page.locator(".card").first
        card.locator(".play").click()
        seen.wait("document.querySelector('.card audio').currentTime > 0.2")
        assert seen.value("document.querySelector('.card audio').duration") == pytest.approx(
            2, abs=0.1
        )
        assert "playing" in card.get_attribute("class")
        second = seen.page.locator(".card").nth(1)
        second.locator(".play").click()
        seen.wait("document.querySelectorAll('.card audio')[1].currentTime > 0.1")
        assert seen.value("document.querySelector('.card audio').paused")
        second.locator(".play").click()
        seen.wait("document.querySelectorAll('.card audio')[1].paused")
        seen.value(SEEKS)
        box = card.locator(".frame").bounding_box()
        card.locator(".frame").click(position={"x": box["width"] / 2, "y": 20})
        seen.wait("seeks.length > 0")
        assert seen.value("seeks[0]") == pytest.approx(1.0, abs=0.1)
        place = card.locator(".cursor").bounding_box()["x"] - box["x"]
        assert 0.45 < place / box["width"] <= 1


def test_a_clip_plays_by_keys(browser, page):
    times = "[...document.querySelectorAll('.card audio')].map((audio) => audio.currentTime)"
    playing = "[...document.querySelectorAll('.card audio')].findIndex((audio) => !audio.paused)"
    current = "[...document.querySelectorAll('.card')].indexOf(document.activeElement)"
    with opened(browser, page) as seen:
        seen.page.locator(".card").first.focus()
        seen.press("Space")
        seen.wait(f"{times}[0] > 0.1")
        seen.press("j")  # what plays goes on at the next
        seen.wait(f"{times}[1] > 0.1")
        assert (seen.value(playing), seen.value(current)) == (1, 1)
        seen.press("Enter")
        seen.wait(f"{playing} === -1")
        seen.press("ArrowDown", "ArrowRight", "ArrowUp", "k")
        assert (seen.value(playing), seen.value(current)) == (-1, 1)
        seen.press("Space")
        seen.wait(f"{playing} === 1")
        seen.press("Escape")
        seen.wait(f"{playing} === -1")
        seen.press("/")
        assert seen.value("document.activeElement.type") == "search"
        seen.press("j", "?")  # letters like others there
        assert seen.value("document.activeElement.value") == "j?"
        seen.press("Escape", "?")
        assert seen.value("document.activeElement.value || ''") == ""
        assert seen.page.locator("dialog").is_visible()
        seen.press("Escape")
        assert not seen.page.locator("dialog").is_visible()


def test_clips_are_filtered_by_title_lines_and_class(browser, page, dataset):
    with opened(browser, page) as seen:
        seen.page.locator(".clips input[type=search]").fill("EMOJI line")
        assert seen.texts(".clips output") == ["1 of 10 clips"]
        assert seen.texts(".card h4") == [f"\u2713 {NASTY[5]}"]
        seen.press("Escape")
        assert len(seen.texts(".card h4")) == 10
    with opened(browser, dataset) as seen:
        listen = seen.page.locator("#section-5")
        assert sorted(listen.locator(".group").all_inner_texts()) == sorted(NASTY)
        listen.locator("input[type=search]").fill("emoji")
        visible = [card for card in listen.locator(".card").all() if card.is_visible()]
        assert len(visible) == 1
        assert [one.inner_text() for one in listen.locator(".group").all() if one.is_visible()] == [
            NASTY[5]
        ]


def test_the_theme_is_chosen_and_the_navigation_follows(browser, page):
    with opened(browser, page) as seen:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = seen.value(ground)
        seen.page.locator("#theme").click()
        assert seen.value(ground) != light
        seen.page.locator("#theme").click()
        assert seen.value(ground) == light
        seen.page.locator("nav a").nth(2).click()
        seen.wait("document.querySelector('nav a[aria-current]').textContent === 'Clips'")
        top = seen.page.locator("#section-3-title").bounding_box()["y"]
        assert 48 <= top < 300


def test_what_is_there_without_scripts(browser, page):
    with opened(browser, page, scripts=False) as seen:
        assert seen.page.locator("#block-3 tbody tr").count() == len(NASTY)
        assert seen.page.locator("#block-5 tbody tr").count() == 100
        assert "first 100 of 20000" in seen.page.locator("#block-5").inner_text()
        assert seen.page.locator(".card audio").first.is_visible()


def test_paper_gets_all_rows_and_no_players(browser, page):
    with opened(browser, page, 720, "dark") as seen:
        pdf = seen.page.pdf(format="A4")
        assert pdf.startswith(b"%PDF")
        assert seen.page.locator("#block-5 tbody tr").count() == 2000  # drawn before printing
        seen.page.emulate_media(media="print")
        assert not seen.page.locator(".play").first.is_visible()
        assert not seen.page.locator("nav").is_visible()
        assert seen.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert (
            seen.value("getComputedStyle(document.querySelector('.card')).breakInside") == "avoid"
        )
        assert seen.value("getComputedStyle(document.querySelector('tr')).breakInside") == "avoid"
        box = seen.page.locator("#block-3 .box").evaluate("b => [b.scrollHeight, b.clientHeight]")
        assert box[0] <= box[1]


def test_a_data_set_tells_what_is_wrong_and_plays(browser, dataset):
    with opened(browser, dataset) as seen:
        assert seen.texts("h2") == ["Overview", "Findings", "Classes", "Lengths", "Listen", "Files"]
        findings = seen.page.locator("#section-2 table").first.inner_text()
        assert "unreadable" in findings
        assert "problem" in findings
        detail = seen.page.locator("#section-2 table").nth(1).inner_text()
        assert "broken.wav" in detail
        labels = column(seen, 1, "#section-3")
        assert sorted(labels) == sorted(NASTY)
        files = column(seen, 1, "#section-6")
        assert len(files) == len(NASTY) + 1
        assert "2 \U0001f415 $a$.wav" in files
        seconds = seen.page.locator("#section-6 th button", has_text="Seconds")
        seconds.click()
        shown = column(seen, 3, "#section-6")
        assert [float(value) for value in shown[:-1]] == [1.0 + i for i in range(9)]
        assert shown[-1] == ""
        seen.page.locator("#section-5 .play").first.click()
        seen.wait(
            "[...document.querySelectorAll('#section-5 audio')].some(a => a.currentTime > 0.1)"
        )


def test_words_lead_to_their_times_and_follow_the_sound(browser, transcripts):
    with opened(browser, transcripts) as seen:
        first = seen.page.locator(".recording").first
        words = first.locator(".word")
        assert words.all_inner_texts() == ["Hello", "there,", "General", "Smith."]
        assert first.locator(".speech span").inner_text() == "Hello there, General Smith."
        assert first.locator(".doubtful").all_inner_texts() == ["Hello", "there,"]  # 0.2, 0.4
        assert "dotted" in words.first.evaluate("w => getComputedStyle(w).textDecoration")
        seen.value(SEEKS)
        words.nth(2).click()
        seen.wait("seeks.length > 0")
        assert seen.value("seeks[0]") == pytest.approx(2.5, abs=0.05)
        seen.wait("document.querySelector('.word.now')?.textContent === 'General'")
        seen.wait("document.querySelector('.word.now')?.textContent === 'Smith.'")
        assert seen.value("document.querySelector('audio').currentTime") == pytest.approx(
            3.6, abs=0.4
        )
        words.first.focus()
        seen.press("Enter")
        seen.wait("document.querySelector('audio').currentTime < 1.4")
        plain = seen.page.locator(".recording").nth(2)
        seen.value("() => { window.seeks = [] }")
        plain.locator(".word").click()
        seen.wait("seeks.length > 0 && !document.querySelectorAll('audio')[2].paused")
        assert seen.value("seeks[0]") == pytest.approx(0.5, abs=0.05)
        assert seen.value("document.querySelector('audio').paused")


def test_recordings_that_are_gone_keep_their_text(browser, transcripts):
    with opened(browser, transcripts) as seen:
        gone = seen.page.locator(".recording").nth(3)
        assert gone.locator("audio").count() == 0
        assert "not there" in gone.locator(".silent").inner_text()
        assert gone.locator(".word").first.is_disabled()
        assert gone.locator(".speech span").inner_text() == "the last hello"


def test_search_counts_marks_and_hides(browser, transcripts):
    with opened(browser, transcripts) as seen:
        field = seen.page.locator(".transcripts input[type=search]")
        field.fill("HELLO")
        assert seen.texts(".transcripts > .tools output") == ["4 hits in 4 of 4 recordings"]
        assert [text.lower() for text in seen.texts("mark")] == ["hello"] * 4
        field.fill("hello again, sa")  # over several words
        assert seen.texts(".transcripts > .tools output") == ["1 hit in 1 of 4 recordings"]
        assert seen.texts("mark") == ["hello", "again,", "sa"]
        assert len(seen.texts(".recording h3")) == 1
        seen.press("Enter")
        assert seen.page.locator("p.at mark").count() == 3
        field.fill("<script>")
        assert seen.texts("mark") == ["<script>"]
        seen.press("Escape")
        assert seen.texts("mark") == []
        assert len(seen.texts(".recording h3")) == 4


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_real_recordings_play(browser, data_root, tmp_path, width):
    folders = sorted(path for path in (data_root / "esc10").iterdir() if path.is_dir())[:3]
    with (tmp_path / "table.csv").open("w", newline="") as file:
        rows = [(path, folder.name) for folder in folders for path in sorted(folder.iterdir())[:3]]
        csv.writer(file).writerows([("file", "label"), *rows])
    out = write_report(tmp_path / "table.csv", tmp_path / "report.html")
    with opened(browser, out, width) as seen:
        assert len(seen.texts(".card h4")) >= 9
        for number in (0, 8):
            seen.page.locator(".card .play").nth(number).click()
            seen.wait(f"document.querySelectorAll('audio')[{number}].currentTime > 0.2")


def test_real_speech_is_found_and_heard(browser, data_root, tmp_path):
    file = data_root / "speech" / "en" / "jfk.flac"
    words = "And so my fellow Americans ask not what your country can do for you".split()
    line = {
        "filepath": os.fspath(file),
        "text": " ".join(words),
        "language": "en",
        "duration_s": 11.0,
        "segments": [
            {
                "start": 0.0,
                "end": 7.5,
                "text": " ".join(words),
                "words": [
                    {"word": f" {w}", "start": i / 2, "end": i / 2 + 0.4, "probability": 0.9}
                    for i, w in enumerate(words)
                ],
            }
        ],
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(line) + "\n")
    with opened(browser, write_report(tmp_path / "t.jsonl", tmp_path / "r.html"), PHONE) as seen:
        seen.page.locator("input[type=search]").first.fill("what your country")
        assert seen.texts("mark") == ["what", "your", "country"]
        seen.value(SEEKS)
        seen.page.locator(".word", has_text="country").click()
        seen.wait("seeks.length > 0")
        assert seen.value("seeks[0]") == pytest.approx(words.index("country") / 2, abs=0.05)
