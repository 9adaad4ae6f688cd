"""Pictures of TensorBoard for the README: python scripts/tensorboard_pictures.py docs/images."""

import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from audiotorch.audio.whole import written_whole
from audiotorch.data.demo import write_corpus
from audiotorch.training.train import main as train

__all__ = ["take_pictures"]

# The projector draws by WebGL, here without a graphics card.
_CHROMIUM = ("--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader")
_SIZE: Any = {"width": 1280, "height": 800}
# Milliseconds: until a page is there at the latest, and until nothing moves or loads.
_SLOW, _SETTLED = 120_000, 8000


def take_pictures(folder: Path) -> list[Path]:
    """Train a small sweep, look at it in TensorBoard, and write what is seen.

    Args:
        folder: receives `tensorboard_projector.png` and `tensorboard_settings.png`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_corpus(root / "clips", n_devices=12, n_takes=3)
        status = train(
            [
                "-m",
                f"data.root={root / 'clips'}",
                r'data.regex="(?P<label>[^/]+)/[^/]*_(?P<group>device\d+)_\d+\.flac$"',
                "data.test_group=[device00,device01,device02]",
                "features=word_image",
                "trainer.max_epochs=6",
                "task.optimizer.lr=0.003,0.001",
                "data.augment.mixup=0.0,0.4",
                "report=false",
                f"hydra.sweep.dir={root / 'sweep'}",
            ]
        )
        if status:
            raise SystemExit(status)
        with _board(root / "sweep") as address:
            return _look(address, folder)


def _look(address: str, folder: Path) -> list[Path]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=_CHROMIUM
        )
        page = browser.new_page(viewport=_SIZE)
        page.goto(f"{address}#projector")
        inner = page.frame_locator("iframe").frame_locator("iframe")
        inner.get_by_text("Points:").wait_for(timeout=_SLOW)
        page.wait_for_timeout(_SETTLED)
        projector = _save(page, folder / "tensorboard_projector.png")
        page.goto(f"{address}#hparams")
        page.reload()
        page.get_by_text("Trial ID").locator("visible=true").first.wait_for(timeout=_SLOW)
        page.wait_for_timeout(_SETTLED)
        # What the runs have in common would push the figures out of sight.
        for name in ("circular", "end_shift", "formant"):
            page.get_by_text(f"data.augment.{name}", exact=True).first.click()
        page.wait_for_timeout(1000)
        settings = _save(page, folder / "tensorboard_settings.png", height=480)
        browser.close()
    return [projector, settings]


def _save(page: Any, path: Path, height: int = _SIZE["height"]) -> Path:
    """Write what is seen above a height, in 256 colours: a page has few."""
    seen = {"x": 0, "y": 0, "width": _SIZE["width"], "height": height}
    picture = Image.open(io.BytesIO(page.screenshot(clip=seen))).convert("RGB")
    with written_whole(path) as partial:
        picture.quantize(256, dither=Image.Dither.NONE).save(partial, "png", optimize=True)
    return path


@contextmanager
def _board(folder: Path) -> Iterator[str]:
    """TensorBoard's address while it runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1"]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--logdir", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(f"http://127.0.0.1:{port}/data/runs")
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


def _wait(address: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while True:
        with suppress(urllib.error.URLError, TimeoutError, ConnectionError):
            # It answers before it has read anything.
            if len(urllib.request.urlopen(address, timeout=5).read()) > 2:
                return
        if time.monotonic() > end:
            raise SystemExit(f"tensorboard shows no run within {seconds:.0f} s")
        time.sleep(0.5)


if __name__ == "__main__":
    for written in take_pictures(Path(sys.argv[1])):
        print(written)
