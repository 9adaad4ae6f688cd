"""`audiotorch predict`: label recordings with an exported model."""

import argparse
import re
from typing import TYPE_CHECKING, Any

from audiotorch.cli.answering import Lines, add_answering, each_clip, each_window, open_model
from audiotorch.cli.arguments import Commands, positive
from audiotorch.cli.pictures import Explainer, picture_paths
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
        type=_number_or_picture,
        metavar="N_OR_PICTURE",
        help="N: name the N features that weigh most in each answer, of trees, linear models and "
        "networks on vectors. Or draw what each answer rests on, into this .png for one file, or "
        "into a folder, as FILE.png for each: where in the sound, of networks on spectrograms, "
        "else features by name; it is also printed, with --json as reason (and contributions)",
    )
    parser.set_defaults(run=_predict)


def _number_or_picture(text: str) -> int | str:
    """Read how many features, or where pictures go; a folder 3 is written as 3/ or ./3."""
    return positive(text) if re.fullmatch(r"[-+\d.]*\d[\d.]*", text) else text


def _predict(options: argparse.Namespace) -> int:
    n_features = options.explain if isinstance(options.explain, int) else 0
    target = options.explain if isinstance(options.explain, str) else None

    def check(module: Any) -> None:
        from audiotorch.answers import check_classes, check_explains

        check_classes(module)
        check_explains(module, n_features)

    def check_drawn() -> None:
        from audiotorch.explain import check_class_explainable

        check_class_explainable(module)

    module, files, _ = open_model(options, check)
    ask = Explainer(options, module, picture_paths(target, files, check_drawn), explain=n_features)
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
            _print(lines, file, answer, width, ask.found.get(file))
    return SOME_FAILED if lines.failed else DONE


def _print(
    lines: Lines,
    file: str,
    answer: "Prediction | WindowPrediction",
    label_width: int,
    explained: Any,
) -> None:
    fields = {key: getattr(answer, key) for key in ("label", "confidence", "probabilities")}
    contributions = getattr(explained or answer, "contributions", {})
    if contributions:
        fields["contributions"] = contributions
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:TOP]
    top = "  ".join(f"{printable(label)} {probability:.3f}" for label, probability in ranked)
    label = f"{printable(answer.label or UNSURE):{label_width}}"
    because = "  ".join(f"{printable(key)} {value:+.3f}" for key, value in contributions.items())
    if explained is not None:
        fields["reason"], because = explained.reason, printable(explained.reason)
    lines.answer(file, answer, fields, f"{label}  {answer.confidence:10.3f}  {top}", because)
