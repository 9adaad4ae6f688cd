"""The page of `audiotorch serve` in a real browser, wide and on a phone, light and dark."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import PHONE, WIDE, Watched, chromium
from detectors import calibrated, image_detector, noise, vector_detector, wav
from serving import HOSTILE, LABELS, ask, classifier, load_script, running, waiting

import audiotorch as at

load = load_script("serve_load")

ANSWERED = "document.querySelector('#why').ariaBusy === 'false' && reason.textContent !== ''"
DONE = f"""document.querySelector('#status').hidden &&
    (!document.querySelector('#error').hidden || {ANSWERED})"""
FAKE_MICROPHONE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(*FAKE_MICROPHONE) as found:
        yield found


@pytest.fixture(scope="module")
def model() -> Any:
    return classifier()


@pytest.fixture(scope="module")
def address(model) -> Iterator[str]:
    with running(model, max_bytes=3_000_000, max_seconds=20.0) as found:
        yield found


@contextlib.contextmanager
def visited(
    browser: Any, address: str, width: int = WIDE, scheme: str = "light"
) -> Iterator[Watched]:
    """Open the server's page and watch it; another host's request or a complaint fails."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(30_000)
    watched = Watched(page)

    def note_request(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            watched.requests.append(request.url)

    page.on("console", lambda message: watched.complaints.append(message.text))
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("dialog", lambda dialog: watched.complaints.append(dialog.message))
    page.on("request", note_request)
    try:
        page.goto(address)
        page.wait_for_selector("#choose:enabled")
        yield watched
        watched.check()
    finally:
        context.close()


def give(watched: Watched, name: str, content: bytes) -> None:
    """Choose a file, and wait until all is answered."""
    file = {"name": name, "mimeType": "audio/wav", "buffer": content}
    before = watched.value("turn")
    watched.page.set_input_files("#file", file)
    watched.wait(f"turn > {before} && {DONE}")


def refused(watched: Watched, name: str, content: bytes, status: int) -> str:
    """Choose a file that is refused; the browser itself notes the status, and nothing else."""
    give(watched, name, content)
    assert [text for text in watched.complaints if f"status of {status}" not in text] == []
    watched.complaints.clear()
    assert not watched.page.is_visible("#result")
    return watched.page.inner_text("#error")


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (PHONE, "dark")])
def test_a_file_is_heard_seen_and_answered(browser, address, model, width, scheme):
    content = wav(noise(3.0))
    right = at.predict(model, content)[0]
    with visited(browser, address, width, scheme) as watched:
        page = watched.page
        assert HOSTILE in page.inner_text("#about")
        give(watched, "clip.wav", content)
        assert page.inner_text("#name") == "clip.wav (3.00 s)"
        percent = f"{100 * right.confidence:.1f} %"
        assert page.inner_text("#verdict") == f"{right.label}, {percent}"
        labels = watched.texts("#bars .label")
        ranked = sorted(right.probabilities.items(), key=lambda pair: -pair[1])
        assert labels == [label for label, _ in ranked]
        fills = page.eval_on_selector_all(
            "#bars .fill", "all => all.map(x => x.clientWidth / x.parentNode.clientWidth)"
        )
        assert fills == pytest.approx([value for _, value in ranked], abs=0.02)
        # Both pictures have come, sharper than the screen, and no wider than their card.
        for picture in ("spectrogram", "explanation"):
            natural, shown = watched.value(f"[{picture}.naturalWidth, {picture}.clientWidth]")
            assert natural >= 1.9 * shown > 0.7 * 1.9 * min(width, 900)
        assert page.inner_text("#reason")
        watched.value("player.play().then(() => 0)")
        watched.wait("player.currentTime > 0.1")
        assert watched.value("player.duration") == pytest.approx(3.0, abs=0.05)
        ground = page.eval_on_selector("body", "x => getComputedStyle(x).backgroundColor")
        assert (ground == "rgb(18, 22, 27)") == (scheme == "dark")


def test_the_chart_shows_the_windows(browser, address, model):
    content = wav(noise(6.0))
    right = list(at.timeline(model, content, 1.0, 0.5))
    with visited(browser, address) as watched:
        page = watched.page
        give(watched, "clip.wav", content)
        legend = watched.texts("#chart .legend span")
        answer = at.predict(model, content)[0]
        assert legend[0] == answer.label
        assert set(legend) == set(LABELS)
        height = watched.value(
            """[...document.querySelectorAll('#chart .series')].map(line =>
                [...line.points].map(point => [point.x, point.y]))"""
        )
        ticks = page.eval_on_selector_all(
            "#chart > svg text", "all => all.map(x => [x.textContent, +x.getAttribute('x')])"
        )
        zero, five = (dict(map(tuple, ticks))[text] for text in ("0", "5"))
        lines = watched.value(
            "[...document.querySelectorAll('#chart .grid')].map(x => +x.getAttribute('y1'))"
        )
        low, high = max(lines[:5]), min(lines[:5])  # of 0 and 100 %
        for label, points in zip(legend, height, strict=True):
            times = [(x - zero) / (five - zero) * 5 for x, _ in points]
            middles = [(one.start_seconds + one.end_seconds) / 2 for one in right]
            assert times == pytest.approx(middles, abs=0.01)
            values = [(low - y) / (low - high) for _, y in points]
            wanted = [one.probabilities[label] for one in right]
            assert values == pytest.approx(wanted, abs=0.005)
        # By keys alone: to the third window, and play from there.
        page.focus("#chart > svg")
        watched.press("Home", "ArrowRight", "ArrowRight", "Enter")
        assert page.inner_text("#chart .read").startswith("1.00 to 2.00 s: ")
        watched.wait("!player.paused && player.currentTime >= 1.0")
        watched.value("player.pause()")
        page.click("#line summary")
        cells = watched.texts("#windows tbody tr:nth-child(3) td")
        assert cells[:3] == ["1.00", "2.00", right[2].label]
        assert len(watched.texts("#windows tbody tr")) == len(right)


@pytest.mark.parametrize("kind", ["map", "vector"])
@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_detectors_show_score_threshold_and_reason(browser, kind, width):
    build = {"map": image_detector, "vector": vector_detector}[kind]
    pipeline = calibrated(build(), "alarm")
    content = wav(noise(3.0, level=0.9))
    right = at.predict(pipeline, content)[0]
    with running(pipeline) as address, visited(browser, address, width) as watched:
        give(watched, "fan.wav", content)
        page = watched.page
        assert page.inner_text("#verdict").startswith("Anomaly" if right.is_anomaly else "Normal")
        values = [float(text) for text in watched.texts(".facts dd")]
        assert values == pytest.approx([right.score, right.threshold, right.p_value], rel=1e-3)
        assert page.inner_text("#line-title") == "Score over time"
        assert watched.texts("#chart .legend span") == ["score", "alarm (of whole recordings)"]
        assert page.inner_text("#reason").startswith("Most deviates")
        assert page.is_visible("#explanation") == (kind == "map")
        assert len(watched.texts("#weights .bar")) == (10 if kind == "vector" else 0)


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_names_and_labels_are_text(browser, address, width):
    with visited(browser, address, width) as watched:
        give(watched, HOSTILE, wav(noise(2.0)))
        assert watched.page.inner_text("#name") == f"{HOSTILE} (2.00 s)"
        assert watched.page.locator("main img").count() == 2
        assert "<img" in refused(watched, HOSTILE, b"no audio", 400)
        give(watched, "x" * 240 + ".wav", wav(noise(2.0)))


def test_what_is_refused_is_told(browser, address):
    silence = load.encoded(np.zeros(22050 * 40), "FLAC")
    with visited(browser, address) as watched:
        text = refused(watched, "broken.wav", b"RIFF no audio", 400)
        assert text.startswith("broken.wav: not a readable audio file")
        assert "lasts longer than 20 s" in refused(watched, "long.flac", silence, 413)
        # Told without a request.
        assert "larger than 3 MB" in refused(watched, "large.wav", bytes(3_000_001), 0)
        assert "is empty" in refused(watched, "empty.wav", b"", 0)
        # The next good one is answered, and what was wrong is gone.
        give(watched, "clip.wav", wav(noise(1.0)))
        assert not watched.page.is_visible("#error")
        assert watched.page.is_visible("#result")
        # One window is no time line.
        assert not watched.page.is_visible("#line")


def test_a_server_that_ended_is_told(browser, model):
    with running(model) as address, visited(browser, address) as watched:
        watched.page.route("**/predict?*", lambda route: route.abort("connectionrefused"))
        give(watched, "clip.wav", wav(noise(1.0)))
        assert "cannot be reached" in watched.page.inner_text("#error")
        assert all("ERR_CONNECTION_REFUSED" in text for text in watched.complaints)
        watched.complaints.clear()


def test_a_truncated_file_is_answered_with_a_warning(browser, address):
    content = load.encoded(load.sound(3.0), "WAV")
    with visited(browser, address, PHONE) as watched:
        give(watched, "half.wav", content[: len(content) // 2])
        assert "truncated" in watched.page.inner_text("#warning")
        give(watched, "clip.wav", content)
        assert not watched.page.is_visible("#warning")


def test_the_microphone_records(browser, address):
    with visited(browser, address) as watched:
        page = watched.page
        page.focus("#choose")
        watched.press("Tab")
        assert watched.value("document.activeElement.id") == "record"
        watched.press("Enter")
        watched.wait("document.querySelector('#record').textContent.startsWith('Stop (2')")
        assert page.get_attribute("#record", "aria-pressed") == "true"
        watched.press("Enter")
        watched.wait(f"!document.querySelector('#result').hidden && {ANSWERED}")
        assert page.inner_text("#name").startswith("recording.webm (")
        assert float(page.inner_text("#name").split("(")[1].split()[0]) >= 1.5
        assert page.inner_text("#record") == "Record"
        # A recording of the browser's own states no length; it plays from its start all the same.
        watched.wait("Number.isFinite(player.duration) && player.currentTime === 0")
        watched.value("player.play().then(() => 0)")
        watched.wait("player.currentTime > 0.1")


def test_a_file_is_dropped_anywhere(browser, address):
    with visited(browser, address) as watched:
        watched.value(
            """(bytes => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], "dropped.wav"));
              for (const kind of ["dragover", "drop"]) {
                const options = {dataTransfer: data, bubbles: true, cancelable: true};
                document.body.dispatchEvent(new DragEvent(kind, options));
              }
            })("""
            + str(list(wav(noise(1.0))))
            + ")"
        )
        watched.wait(f"!document.querySelector('#result').hidden && {ANSWERED}")
        assert watched.page.inner_text("#name") == "dropped.wav (1.00 s)"


def test_the_example_for_programs_is_right(browser, address):
    with visited(browser, address) as watched:
        watched.page.click("#programs summary")
        command = f"curl -F file=@clip.wav {address}/predict"
        assert watched.page.inner_text("#curl") == command


def test_real_recordings(browser, address, data_root, model):
    files = [
        sorted((data_root / "esc10").glob("001*/*.ogg"))[0],
        sorted((data_root / "fsdd").rglob("*.wav"))[0],
    ]
    with visited(browser, address) as watched:
        for file in files:
            watched.page.set_input_files("#file", str(file))
            watched.wait(
                f"document.querySelector('#name').textContent.startsWith({file.name!r}) "
                f"&& {ANSWERED}"
            )
            right = at.predict(model, file)[0]
            assert watched.page.inner_text("#verdict").startswith(str(right.label))
            assert watched.value("player.error") is None
            length = soundfile.info(file).duration
            assert watched.value("player.duration") == pytest.approx(length, abs=0.1)


def test_another_sites_page_cannot_ask(browser, tmp_path):
    """Scripts and a form on a page from elsewhere: the model is never asked."""
    pipeline, model = waiting()
    content = wav(noise(1.0))
    with running(pipeline) as address:
        assert ask(address, body=content).status == 200
        asked = model.n_asked
        elsewhere = Path(tmp_path) / "elsewhere.html"
        form = f'<form method="post" enctype="multipart/form-data" action="{address}/predict">'
        field = '<input type="file" name="file"><button>Win a prize</button></form>'
        elsewhere.write_text(form + field, encoding="utf-8")
        context = browser.new_context()
        try:
            page = context.new_page()
            page.goto(elsewhere.as_uri())
            for mode in ("cors", "no-cors"):
                body = f"new Blob([new Uint8Array({list(content)})])"
                options = f"{{method: 'POST', mode: '{mode}', body: {body}}}"
                with pytest.raises(Exception, match="Failed to fetch"):
                    page.evaluate(f"fetch('{address}/predict', {options})")
            file = {"name": "clip.wav", "mimeType": "audio/wav", "buffer": content}
            page.set_input_files("input", file)
            with page.expect_navigation() as sent:
                page.click("button")
            assert sent.value.status == 403
        finally:
            context.close()
        assert model.n_asked == asked
        assert ask(address, body=content).status == 200
        assert model.n_asked == asked + 1
