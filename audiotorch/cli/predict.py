"""`audiotorch predict`: label recordings with an exported model."""

import argparse
from typing import TYPE_CHECKING, Any

from audiotorch.cli.answering import Lines, add_answering, each_clip, each_window, open_model
from audiotorch.cli.arguments import Commands, positive
from audiotorch.cli.terminal import DONE, SOME_FAILED
from audiotorch.errors import printable

if TYPE_CHECKING:
    from audiotorch.answers import Prediction, WindowPrediction

__all__ = ["add_predict"]

TOP = 3
UNSURE = "(unsure)"  # below the confidence that the model asks for


def add_predict(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_answering(
        commands,
        "predict",
        help="label recordings with an exported model",
        description="Label recordings, at any sample rate and channel count. A table, or with "
        "--json one object a line: file label confidence probabilities, or file error. With "
        "--window, a time line of recordings of any length: file start_seconds end_seconds label "
        "confidence probabilities. Files that cannot be read are reported, the others still "
        "answered; of one that breaks in the middle, the windows before.",
    )
    parser.add_argument(
        "--explain",
        type=positive,
        default=0,
        metavar="N",
        help="name the N features that weigh most in each answer: of scikit-learn's models",
    )
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    def check(module: Any) -> None:
        from audiotorch.answers import check_classes, check_explains

        check_classes(module)
        check_explains(module, options.explain)

    def ask(chunk: list[str]) -> "list[Prediction]":
        from audiotorch.answers import predict

        settings = {"batch_size": options.batch_size, "explain": options.explain}
        return predict(module, chunk, device=options.device, **settings)

    module, files, _ = open_model(options, check)
    if options.window is None:
        answers: Any = each_clip(options, files, ask)
    else:
        answers = each_window(options, files, module)
    width = max(len(printable(label)) for label in ["label", UNSURE, *module.labels])
    lines = Lines(options, files, f"{'label':{width}}  confidence  top {TOP}")
    for file, answer in answers:
        if isinstance(answer, str):
            lines.error(file, answer)
        else:
            _print(lines, file, answer, width)
    return SOME_FAILED if lines.failed else DONE


def _print(
    lines: Lines, file: str, answer: "Prediction | WindowPrediction", label_width: int
) -> None:
    fields = {key: getattr(answer, key) for key in ("label", "confidence", "probabilities")}
    contributions = getattr(answer, "contributions", {})
    if contributions:
        fields["contributions"] = contributions
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:TOP]
    top = "  ".join(f"{printable(label)} {probability:.3f}" for label, probability in ranked)
    label = f"{printable(answer.label or UNSURE):{label_width}}"
    because = "  ".join(f"{printable(key)} {value:+.3f}" for key, value in contributions.items())
    lines.answer(file, answer, fields, f"{label}  {answer.confidence:10.3f}  {top}", because)
