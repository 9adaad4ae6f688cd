"""`audiotorch plot`: pictures of recordings."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiotorch.cli.arguments import Commands, seconds
from audiotorch.cli.terminal import DONE, SOME_FAILED, complain
from audiotorch.errors import AudioTorchError, ParameterError, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["add_plot"]

_KINDS = (
    "overview",
    "waveform",
    "spectrogram",
    "mel_spectrogram",
    "mfcc",
    "chroma",
    "power_spectral_density",
    "feature_over_time",
)
_SCALED = ("spectrogram", "power_spectral_density")
_SUFFIXES = (".png", ".svg", ".pdf")


def add_plot(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "plot",
        help="draw pictures of recordings",
        description="Draw recordings of any length, each at its own rate, and print where the "
        "pictures are. An overview holds the waveform, the spectrogram in dB, the mel spectrogram "
        "in dB and the power spectral density, its strongest peaks named.",
        epilog="Examples: audiotorch plot talk.flac; audiotorch plot song.mp3 --kind spectrogram "
        "--scale note --out song.svg; audiotorch plot good.wav --compare bad.wav.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="recordings")
    parser.add_argument(
        "--kind",
        choices=_KINDS,
        help="what to draw (overview; with --feature, feature_over_time)",
    )
    parser.add_argument(
        "--feature",
        metavar="NAME",
        help="what feature_over_time draws, such as spectral_centroid (rms)",
    )
    parser.add_argument(
        "--scale",
        choices=("linear", "log", "mel", "note"),
        help="of the frequencies of a spectrogram (linear) or power_spectral_density (log); note "
        "is logarithmic and names the notes",
    )
    parser.add_argument(
        "--out",
        metavar="PICTURE",
        help="file to write, .png, .svg or .pdf, or a folder; default: FILE_KIND.png in the "
        "current folder",
    )
    parser.add_argument(
        "--compare",
        metavar="FILE2",
        help="draw FILE and this one side by side, to the same scales",
    )
    parser.add_argument(
        "--offset", type=_offset, default=0.0, metavar="SECONDS", help="where to start (0)"
    )
    parser.add_argument(
        "--duration", type=seconds, metavar="SECONDS", help="how much to draw; default: to the end"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=_plot)


def _plot(options: argparse.Namespace) -> int:
    kind = _kind(options)
    targets = _targets(options, "comparison" if options.compare is not None else kind)
    from audiotorch.plot import new_figure, save_figure

    new_figure(1.0, 1.0)  # where matplotlib is missing, that is told before any work
    failed = False
    for file, path in targets.items():
        try:
            save_figure(_draw(options, kind, file), path)
        except AudioTorchError as error:
            failed = True
            if options.json:
                print(json.dumps({"file": file, "error": str(error)}))
            else:
                complain(str(error))
            continue
        written = os.fspath(path)
        print(json.dumps({"file": file, "out": written}) if options.json else printable(written))
    return SOME_FAILED if failed else DONE


def _kind(options: argparse.Namespace) -> str:
    """What is to be drawn; options that do not go together are refused."""
    kind: str = options.kind or ("overview" if options.feature is None else "feature_over_time")
    if options.feature is not None:
        if kind != "feature_over_time":
            raise ParameterError(f"--feature: goes with --kind feature_over_time, not with {kind}")
        from audiotorch.features import FEATURES

        if options.feature not in FEATURES:
            raise ParameterError(
                f"--feature {options.feature!r}: must be one of {', '.join(FEATURES)}"
            )
    if options.scale is not None and kind not in _SCALED:
        raise ParameterError(f"--scale: goes with --kind {' or '.join(_SCALED)}, not with {kind}")
    if options.compare is not None and kind != "overview":
        raise ParameterError(f"--compare: draws overviews, not --kind {kind}")
    if options.compare is not None and len(options.files) > 1:
        raise ParameterError("--compare: takes one FILE beside it")
    return kind


def _targets(options: argparse.Namespace, kind: str) -> dict[str, Path]:
    """Where each file's picture goes; no picture may replace a recording."""
    files = list(dict.fromkeys(options.files))
    folder = Path()
    if options.out is not None:
        folder = Path(options.out)
        if not options.out:
            raise ParameterError("--out '': name a file or a folder")
        if folder.suffix.lower() in _SUFFIXES and not folder.is_dir():
            if len(files) > 1:
                raise ParameterError(
                    f"--out {options.out}: is one picture for {len(files)} files; give a folder"
                )
            return _checked(options, {files[0]: folder})
        if folder.suffix and not folder.is_dir():
            raise ParameterError(
                f"--out {options.out!r}: must end in .png, .svg or .pdf, or be a folder"
            )
    found: dict[str, Path] = {}
    taken: set[str] = set()
    for file in files:
        stem = f"{Path(file).stem}_{kind}"
        name, number = f"{stem}.png", 2
        # On some systems names that differ in case alone are the same.
        while name.casefold() in taken:
            name, number = f"{stem}_{number}.png", number + 1
        taken.add(name.casefold())
        found[file] = folder / name
    return _checked(options, found)


def _checked(options: argparse.Namespace, targets: Mapping[str, Path]) -> dict[str, Path]:
    recordings = [*options.files, *([] if options.compare is None else [options.compare])]
    for path in targets.values():
        for file in recordings:
            if path.exists() and os.path.exists(file) and os.path.samefile(path, file):
                raise ParameterError(f"--out {os.fspath(path)!r}: is the recording; name another")
        if path.is_dir():
            raise ParameterError(f"--out {os.fspath(path)!r}: is a folder; name a file")
    return dict(targets)


def _draw(options: argparse.Namespace, kind: str, file: str) -> "Figure":
    from audiotorch import plot

    part: dict[str, Any] = {"offset": options.offset, "duration": options.duration}
    if options.compare is not None:
        return plot.compare(file, options.compare, **part)
    if kind == "overview":
        return plot.overview(file, **part)
    if options.scale is not None:
        part["scale"] = options.scale
    if kind == "feature_over_time":
        part["feature"] = options.feature or "rms"
    title = Path(file).name
    if kind == "feature_over_time":
        title = f"{title}: {part['feature'].replace('_', ' ')}"
    figure: Figure = getattr(plot, kind)(file, title=title, **part).figure
    return figure


def _offset(text: str) -> float:
    """Read a time of at least 0."""
    try:
        start = float(text)
    except ValueError:
        start = -1.0
    return 0.0 if start == 0 else seconds(text)
