"""`audiotorch export`: a training checkpoint as model files."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from audiotorch.cli.arguments import Commands, positive
from audiotorch.cli.terminal import DONE
from audiotorch.errors import DecodeError, printable

__all__ = ["add_export"]


def add_export(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="write a training checkpoint as model files",
        description="Write a checkpoint as a TorchScript file, which runs without audiotorch in "
        "Python and C++, and as a torch.export program (.pt2) beside it.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=".ckpt file, or a run directory")
    parser.add_argument("--out", default="model.ts", help="file to write (model.ts)")
    parser.add_argument(
        "--input-sample-rate",
        type=positive,
        metavar="HZ",
        help="rate of the audio that the file will be given; default: the model's own",
    )
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from audiotorch.export import export
    from audiotorch.training.checkpoint import find_checkpoint, load_checkpoint_pipeline

    checkpoint = find_checkpoint(options.checkpoint)
    path = export(
        load_checkpoint_pipeline(checkpoint),
        options.out,
        input_sample_rate=options.input_sample_rate,
        metrics=_training_metrics(checkpoint),
    )
    print(
        f"{printable(os.fspath(path))}  (and {printable(path.with_suffix('.pt2').name)} beside it)"
    )
    return DONE


def _training_metrics(checkpoint: Path) -> dict[str, Any]:
    """The figures of the run that a checkpoint lies in, if it is the one they were taken on."""
    from audiotorch.training.checkpoint import find_checkpoint

    run = checkpoint.parent.parent
    file = run / "metrics.json"
    if not file.is_file() or find_checkpoint(run).resolve() != checkpoint.resolve():
        return {}
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DecodeError(
            f"{os.fspath(file)!r} is not JSON ({error}); restore or remove it"
        ) from error
    return metrics if isinstance(metrics, dict) else {}
