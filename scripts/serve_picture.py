"""Take a picture of the page of `audiotorch serve`: python scripts/serve_picture.py RUN RECORDING.

Needs Chromium and playwright.
"""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from serve_load import serving

from audiotorch.audio.whole import written_whole

_WIDTH, _HEIGHT = 900, 700
_COLOURS = 256


def serve_picture(path: Path, model: str, recording: Path) -> None:
    """Show a page that has answered a recording.

    Args:
        path: the PNG.
        model: exported file or run directory.
        recording: what is chosen on the page.
    """
    from playwright.sync_api import sync_playwright

    with serving(model) as (address, _), sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        page.goto(address)
        page.wait_for_selector("#choose:enabled")
        page.set_input_files("#file", recording)
        page.wait_for_selector("#result:not([hidden])")
        page.wait_for_selector("#why[aria-busy=false]")
        page.wait_for_timeout(500)  # the player has drawn its length
        drawn = page.screenshot(full_page=True)
        browser.close()
    # Small coloured parts are kept, too, that a cut by numbers would take for others.
    image = Image.open(io.BytesIO(drawn)).convert("RGB")
    image = image.quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        image.save(partial, format="PNG", optimize=True)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", metavar="MODEL", help="exported .ts file, or a run directory")
    parser.add_argument("recording", type=Path, metavar="RECORDING")
    parser.add_argument("--out", type=Path, default=Path("docs/images/serve.png"))
    options = parser.parse_args()
    serve_picture(options.out, options.model, options.recording)
    return 0


if __name__ == "__main__":
    sys.exit(main())
