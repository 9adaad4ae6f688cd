"""`audiotorch info`: what audio and model files are."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audiotorch.cli.arguments import Commands, find_model
from audiotorch.cli.terminal import DONE, SOME_FAILED, complain, file_width
from audiotorch.errors import AudioTorchError, printable

__all__ = ["add_info"]

MODEL_SUFFIXES = (".ts", ".pt2")
LONGEST = 300  # characters of a value


def add_info(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "info",
        help="say what audio and model files are",
        description="Say what audio files (rate, channels, length, format) and exported models "
        "(labels, sample rate, features, training figures) are.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio or model file, or run")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    failed = False
    for file in options.files:
        try:
            rows.append(_describe(file))
        except AudioTorchError as error:
            failed = True
            rows.append({"file": file, "error": str(error)})
    if options.json:
        for row in rows:
            print(json.dumps(row))
    else:
        if audio := [row for row in rows if "codec" in row]:
            _print_audio_table(audio)
        for row in rows:
            if "labels" in row:
                _print_model(row)
            elif "error" in row:
                complain(row["error"])
    return SOME_FAILED if failed else DONE


def _describe(file: str) -> dict[str, Any]:
    path = Path(file)
    if path.is_dir() or path.suffix.lower() in MODEL_SUFFIXES:
        from audiotorch.export import read_metadata

        model = find_model(file)
        return {"file": os.fspath(model), **read_metadata(model)}
    from audiotorch.audio.io import info

    return {**asdict(info(file)), "file": file}


def _print_audio_table(rows: Sequence[dict[str, Any]]) -> None:
    width = file_width(row["file"] for row in rows)
    kind_width = max([len("container"), *(len(row["container"]) for row in rows)])
    codec_width = max([len("codec"), *(len(row["codec"]) for row in rows)])
    print(
        f"{'file':{width}}  {'Hz':>6}  channels  {'seconds':>9}  "
        f"{'container':{kind_width}}  {'codec':{codec_width}}  bits"
    )
    for row in rows:
        print(
            f"{printable(row['file']):{width}}  {row['sample_rate']:6d}  {row['n_channels']:8d}  "
            f"{row['duration_seconds']:9.3f}  {row['container']:{kind_width}}  "
            f"{row['codec']:{codec_width}}  {row['bit_depth'] or '':>4}"
        )


def _print_model(row: dict[str, Any]) -> None:
    print(printable(row["file"]))
    for key, value in row.items():
        if key == "labels":
            value = f"{len(value)}: {', '.join(value)}"
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(text) > LONGEST:
            text = f"{text[:LONGEST]}... (--json shows all {len(text)} characters)"
        if key not in ("file", "format") and not (key == "labels" and not row[key]):
            print(f"  {key:14}  {printable(text)}")
