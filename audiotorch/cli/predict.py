"""`audiotorch predict`: label recordings with an exported model."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from audiotorch.cli.arguments import (
    Commands,
    add_device,
    add_sources,
    check_device,
    find_audio,
    find_model,
    positive,
)
from audiotorch.cli.terminal import DONE, SOME_FAILED, Progress, complain, file_width
from audiotorch.errors import printable

if TYPE_CHECKING:
    from audiotorch.pipeline import Prediction

__all__ = ["add_predict"]

TOP = 3


def add_predict(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="label recordings with an exported model",
        description="Label recordings, at any sample rate and channel count. A table, or with "
        "--json one object a line: file label confidence probabilities, or file error. Files "
        "that cannot be read are reported, the others still answered.",
    )
    parser.add_argument("model", metavar="MODEL", help="exported .ts file, or a run directory")
    add_sources(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_device(parser)
    parser.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="clips at a time (16)"
    )
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    model = find_model(options.model)
    files = find_audio(options.sources)
    # Imported here: the mistakes above are told before torch is loaded.
    from audiotorch.export import load_pipeline
    from audiotorch.pipeline import predict

    check_device(options.device)
    module = load_pipeline(model).to(options.device)
    width = file_width(files)
    label_width = max([len("label"), *(len(printable(label)) for label in module.labels)])
    progress = Progress(len(files))
    failed = False
    if not options.json:
        print(f"{'file':{width}}  {'label':{label_width}}  confidence  top {TOP}")
    with progress:
        for start in range(0, len(files), options.batch_size):
            chunk = files[start : start + options.batch_size]
            answers = predict(module, chunk, device=options.device, batch_size=options.batch_size)
            progress.clear()
            for answer in answers:
                failed = failed or answer.error is not None
                if options.json:
                    print(json.dumps(_as_json(answer)))
                elif answer.error is not None:
                    complain(answer.error)
                else:
                    print(_as_row(answer, width, label_width))
            sys.stdout.flush()
            progress.advance(len(chunk))
    return SOME_FAILED if failed else DONE


def _as_json(answer: "Prediction") -> dict[str, Any]:
    if answer.error is not None:
        return {"file": answer.file, "error": answer.error}
    return {
        "file": answer.file,
        "label": answer.label,
        "confidence": answer.confidence,
        "probabilities": answer.probabilities,
    }


def _as_row(answer: "Prediction", width: int, label_width: int) -> str:
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:TOP]
    top = "  ".join(f"{printable(label)} {probability:.3f}" for label, probability in ranked)
    label = printable(answer.label or "")
    return (
        f"{printable(answer.file):{width}}  {label:{label_width}}  {answer.confidence:10.3f}  {top}"
    )
