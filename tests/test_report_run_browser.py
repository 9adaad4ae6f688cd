"""Reports of runs in a real browser, with names that try to be something else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PHONE, WIDE, chromium, opened
from runs import HOSTILE, class_answers, detector_answers, tone, write_run

from audiotorch.answers.table import AnswerTable
from audiotorch.report import write_report

LABELS = (HOSTILE, "</script><script>alert(2)</script>", "<img src=x onerror=alert(3)>")
NAMES = ["<img src=x onerror=alert(5)>.wav", 'it\'s "quoted".wav', "\U0001f415 $a$.wav"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, Path]:
    """A classifier's report and a detector's, of the same recordings."""
    root = tmp_path_factory.mktemp("pages")
    files = [tone(root / "clips" / f"{i:02d} {NAMES[i % 3]}", 300 + 20 * i, 2.0) for i in range(30)]
    gone = [*files[:-1], root / "gone.wav"]
    tables = {
        "classes": AnswerTable.joined(
            [class_answers(part, LABELS, gone, acc=0.5) for part in ("cv", "test")]
        ),
        "scores": AnswerTable.joined(
            [
                detector_answers("held_back", files[:10], [False] * 10),
                detector_answers("test", gone[10:], [i % 2 == 0 for i in range(20)], seed=1),
            ]
        ),
    }
    return {
        kind: write_report(write_run(root / kind, table), root / f"{kind}.html")
        for kind, table in tables.items()
    }


@pytest.mark.parametrize("kind", ["classes", "scores"])
@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_quiet_and_fits(browser, reports, kind, width, scheme):
    with opened(browser, reports[kind], width, scheme) as seen:
        assert seen.value("document.querySelectorAll('section').length") > 6
        # Every picture could be decoded.
        assert seen.value("[...document.images].every((one) => one.complete && one.naturalWidth)")


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("kind", ["classes", "scores"])
def test_a_card_plays(browser, reports, kind, width):
    with opened(browser, reports[kind], width) as seen:
        seen.page.locator(".card .play").first.click()
        seen.wait("document.querySelector('.card audio').currentTime > 0.3")
        seen.press("Escape")
        seen.wait("document.querySelector('.card audio').paused")
        length = seen.value("document.querySelector('.card audio').duration")
        assert length == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_the_table_of_clips_sorts_and_filters(browser, reports, width):
    table = AnswerTable.read(reports["classes"].parent / "classes")
    with opened(browser, reports["classes"], width) as seen:
        box = seen.page.locator("section", has=seen.page.get_by_role("heading", name="All clips"))
        heads = [text.strip() for text in box.locator("th").all_inner_texts()]
        column = heads.index("confidence")

        def cells(place: int) -> list[str]:
            return box.locator(f"tbody tr td:nth-child({place + 1})").all_inner_texts()

        assert len(cells(0)) == len(table) == 60
        box.locator("th button").nth(column).click()
        shown = [float(text) for text in cells(column)]
        assert shown == sorted(shown)
        assert shown == pytest.approx(sorted(table.confidence), abs=2e-3)
        box.locator("th button").nth(column).click()
        assert [float(text) for text in cells(column)] == shown[::-1]
        box.locator("input").fill("quoted NO")
        wanted = sum("quoted" in f and not r for f, r in zip(table.files, table.right, strict=True))
        assert box.locator("output").inner_text() == f"{wanted} of 60 rows"
        assert set(cells(heads.index("right"))) == {"NO"}
        assert all('it\'s "quoted".wav' in text for text in cells(0))


def test_names_are_text_in_cards_and_cells(browser, reports):
    for kind, path in reports.items():
        with opened(browser, path) as seen:
            script = "[...document.querySelectorAll('.card h4')].map((one) => one.textContent)"
            titles = "\n".join(seen.value(script))
            assert all(name in titles for name in NAMES)
            assert seen.value("document.querySelectorAll('main script:not([type])').length") == 0
            if kind == "classes":
                text = "\n".join(seen.texts("td"))
                assert all(label in text for label in LABELS)


def test_cards_of_recordings_that_are_gone_say_so(browser, reports, tmp_path):
    table = class_answers("test", LABELS, [tmp_path / f"{i}.wav" for i in range(9)], acc=0.4)
    path = write_report(write_run(tmp_path / "gone", table), tmp_path / "gone.html")
    with opened(browser, path) as seen:
        # Not what is visible, which cards out of sight are not.
        script = "[...document.querySelectorAll('.card')].map((one) => one.textContent)"
        told = seen.value(script)
        assert len(told) > 3
        assert all("not where it was" in text and str(tmp_path) in text for text in told)
