"""What commands share of their arguments."""

import argparse
from pathlib import Path
from typing import Any

from audiotorch.errors import DecodeError, ParameterError

__all__ = [
    "Commands",
    "add_device",
    "add_sources",
    "check_device",
    "find_model",
    "positive",
    "seconds",
]

# argparse names the type of `add_subparsers` privately.
Commands = Any


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the recordings that a command works on."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="FILE_OR_FOLDER",
        help="recordings; folders are searched for audio files at any depth, hidden ones left out",
    )


def add_device(parser: argparse.ArgumentParser, default: str | None = "cpu") -> None:
    """Add where to compute; without a default, CUDA where there is some."""
    told = default or "cuda where there is some, else cpu"
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default=default, help=f"default: {told}"
    )


def check_device(device: str | None) -> None:
    """Refuse a device that this machine does not have."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ParameterError("--device cuda: this machine has no CUDA device; use --device cpu")


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    """Read a time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds above 0")
    return value


def find_model(name: str) -> Path:
    """The exported file that a MODEL argument means."""
    path = Path(name)
    if not path.is_dir():
        return path
    if not (path / "model.ts").is_file():
        raise DecodeError(f"{name!r} holds no model.ts: give a run directory or a .ts file")
    return path / "model.ts"
