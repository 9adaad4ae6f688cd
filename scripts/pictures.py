"""Draw the pictures of docs/images from real recordings: python scripts/pictures.py.

The recordings lie in $AUDIOTORCH_DATA. The same recordings and libraries give the same bytes, but
for TensorBoard's. `python scripts/pictures.py overview mfcc` draws these alone. Those of models
train some, which takes ten minutes; those of pages need Chromium, and transcripts the Whisper
checkpoint tiny.en.pt in $AUDIOTORCH_WHISPER.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from run_pictures import RUN_DRAWINGS, RUN_PAGES, photograph, remove_runs, run
from serve_picture import serve_picture
from tensorboard_pictures import take_pictures

from audiotorch import plot
from audiotorch.audio.whole import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
MAX_BYTES = 200_000
_JFK = "speech/en/jfk.flac"
_TRUMPET = "music_examples/audio/sorohanro_-_solo-trumpet-06.hq.ogg"
_VIBE = "music_examples/audio/Kevin_MacLeod_-_Vibe_Ace.hq.ogg"
_BIRD = "music_examples/audio/456440__inspectorj__bird-whistling-robin-single-13.hq.ogg"
_WALTZ = "music_examples/audio/147793__setuniman__sweet-waltz-0i-22mi.ogg"
_SLOW = "music_examples/audio/sir_duke_slow.ogg"
_DOG = "esc10/001 - Dog bark/1-30344-A.ogg"
_FAST = "music_examples/audio/sir_duke_fast.ogg"

Drawing = Callable[[Path], "Figure"]


def _figure(kind: str, file: str, title: str, **settings: object) -> Drawing:
    """A picture of one kind of one recording."""
    return lambda data: getattr(plot, kind)(data / file, title=title, **settings).figure


def _scale(scale: str, words: str) -> Drawing:
    title = f"Solo trumpet, {words}"
    return _figure("spectrogram", _TRUMPET, title, scale=scale, duration=3.4)


DRAWINGS: dict[str, Drawing] = {
    "overview": lambda data: plot.overview(data / _JFK),
    "overview_music": lambda data: plot.overview(data / _VIBE, title="Vibe Ace"),
    "compare": lambda data: plot.compare(data / _SLOW, data / _FAST),
    "waveform": _figure("waveform", _VIBE, "Vibe Ace: vibraphone trio"),
    "spectrogram_linear": _scale("linear", "linear frequency"),
    "spectrogram_log": _scale("log", "logarithmic frequency"),
    "spectrogram_mel": _scale("mel", "mel scale"),
    "spectrogram_note": _scale("note", "notes"),
    "mel_spectrogram": _figure("mel_spectrogram", _BIRD, "Robin: mel spectrogram"),
    "mfcc": _figure("mfcc", _JFK, "Speech: mel-frequency cepstral coefficients"),
    "chroma": _figure("chroma", _TRUMPET, "Solo trumpet: chroma", duration=3.4),
    "power_spectral_density": _figure(
        "power_spectral_density", _WALTZ, "Piano waltz: power spectral density", n_peaks=6
    ),
    "feature_over_time": _figure(
        "feature_over_time", _JFK, "Speech: spectral centroid", feature="spectral_centroid"
    ),
    **RUN_DRAWINGS,
}
"""Each picture's name, and what draws it, given the folder of recordings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Draw pictures; return 1 where one is too large.

    Args:
        argv: names; None takes those of the process.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="all by default")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder (docs/images)")
    options = parser.parse_args(argv)
    data = os.environ.get("AUDIOTORCH_DATA")
    if not data:
        parser.error("AUDIOTORCH_DATA is not set: it names the folder of real recordings")
    known = [*DRAWINGS, *RUN_PAGES, "serve", "tensorboard"]
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"{unknown[0]}: must be one of {', '.join(known)}")
    status = 0
    for name in options.names or known:
        for path in _draw(name, Path(data), options.out):
            size = path.stat().st_size
            print(f"{path.name}  {size / 1000:.0f} kB{'' if size <= MAX_BYTES else '  TOO LARGE'}")
            status |= size > MAX_BYTES
    remove_runs()
    return status


def _draw(name: str, data: Path, out: Path) -> list[Path]:
    """Write what a name stands for, and return the files."""
    path = out / f"{name}.png"
    if name == "tensorboard":
        return take_pictures(out)
    if name == "serve":
        serve_picture(path, str(run("network")), data / _DOG)
    elif name in RUN_PAGES:
        write(photograph(RUN_PAGES[name](data)), path)
    else:
        write(DRAWINGS[name](data), path)
    return [path]


def write(drawn: "Figure | bytes", path: Path) -> None:
    """Write a PNG of 256 colours, a third as large as one of all.

    Args:
        drawn: a figure, or a PNG of more colours.
        path: the file.
    """
    from PIL import Image

    if isinstance(drawn, bytes):
        image = Image.open(io.BytesIO(drawn)).convert("RGB")
    else:
        image = Image.fromarray(plot.pixels(drawn))
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        # Small coloured parts are kept, too, that a cut by numbers would take for others.
        image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            partial, "PNG", optimize=True
        )


if __name__ == "__main__":
    sys.exit(main())
