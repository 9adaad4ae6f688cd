"""A real browser that watches a page: what it complains of, asks for, and shows."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WIDE, PHONE = 1280, 390
_PATIENCE = 400  # times 30 ms; only a failing test waits so long


@contextmanager
def chromium(*more: str) -> Iterator[Any]:
    """Start Chromium, with more of its options, or skip with the reason."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on the path: pages are not looked at in a browser")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--mute-audio"]
        browser = started.chromium.launch(executable_path=program, args=[*options, *more])
        yield browser
        browser.close()


@dataclass
class Watched:
    """An open page.

    complaints: errors and warnings of the console, uncaught exceptions, dialogs.
    requests: what was asked for that is neither the page itself nor in it.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Nothing was complained of, nothing asked for, and the page is no wider than it may be."""
        assert self.complaints == []
        assert self.requests == []
        width, window = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= window

    def value(self, script: str) -> Any:
        """What a script finds."""
        return self.page.evaluate(script)

    def wait(self, script: str) -> None:
        """Wait until a script finds something true.

        Asked from here: what waits inside the page needs `eval`, which its policy forbids.
        """
        for _ in range(_PATIENCE):
            if self.page.evaluate(script):
                return
            self.page.wait_for_timeout(30)
        raise AssertionError(f"never came true: {script}")

    def texts(self, selector: str) -> list[str]:
        """The texts of what is visible."""
        found = self.page.locator(selector)
        return [one.inner_text() for one in found.all() if one.is_visible()]

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)


@contextmanager
def opened(
    browser: Any, path: Path, width: int = WIDE, scheme: str = "light", scripts: bool = True
) -> Iterator[Watched]:
    """Open a file and watch it; what it did wrong by the end fails."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        java_script_enabled=scripts,
        offline=True,
    )
    page = context.new_page()
    page.set_default_timeout(10_000)
    watched = Watched(page)
    own = path.resolve().as_uri()

    def note_console(message: Any) -> None:
        if message.type in ("error", "warning"):
            watched.complaints.append(message.text)

    def note_dialog(dialog: Any) -> None:
        watched.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def note_request(request: Any) -> None:
        if request.url.split("#")[0] != own and not request.url.startswith(("data:", "blob:")):
            watched.requests.append(request.url)

    page.on("console", note_console)
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("dialog", note_dialog)
    page.on("request", note_request)
    try:
        page.goto(own)
        yield watched
        if scripts:
            watched.check()
    finally:
        context.close()
