"""`audiotorch detect`: tell anomalous recordings with an exported detector."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from audiotorch.cli.answering import Lines, add_answering, each_clip, each_window, open_model
from audiotorch.cli.arguments import Commands
from audiotorch.cli.pictures import Explainer, picture_paths
from audiotorch.cli.terminal import DONE, SOME_FAILED
from audiotorch.errors import printable

__all__ = ["add_detect"]

FIELDS = ("score", "threshold", "p_value", "is_anomaly")


def add_detect(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_answering(
        commands,
        "detect",
        help="tell anomalous recordings with an exported detector",
        description="Score recordings, at any sample rate and channel count; higher is more "
        "anomalous. A table and a summary, or with --json one object a line: file score threshold "
        "p_value is_anomaly (level, where the detector has several thresholds), or file error. "
        "With --window, a time line: file start_seconds end_seconds score threshold p_value "
        "is_anomaly; threshold and p-value were calibrated on whole clips, so that they promise "
        "nothing about windows, of which there are more, and shorter ones. Files that cannot be "
        "read are reported, the others still answered. Exit status: 0 all answered (an anomaly is "
        "no failure), 1 some files failed (listed), 2 wrong use.",
    )
    parser.add_argument(
        "--explain",
        metavar="PICTURE",
        help="say what deviates, and draw it: into this .png for one file, or into a folder, as "
        "FILE.png for each; what deviates is also printed, with --json as reason",
    )
    parser.set_defaults(run=_detect)


def _detect(options: argparse.Namespace) -> int:
    def check(module: Any) -> None:
        from audiotorch.answers import check_detector

        check_detector(module)

    module, files, metadata = open_model(options, check)
    from audiotorch.explain import check_explainable

    pictures = picture_paths(options.explain, files, lambda: check_explainable(module))
    ask = Explainer(options, module, pictures)
    if options.window is None:
        answers: Any = each_clip(options, files, ask)
    else:
        answers = each_window(options, files, module)
    lines = Lines(options, files, _row(module, _keys(module)))
    n_answers = n_anomalies = 0
    for file, answer in answers:
        if isinstance(answer, str):
            lines.error(file, answer)
            continue
        n_answers += 1
        n_anomalies += bool(answer.is_anomaly)
        fields = {key: getattr(answer, key) for key in _keys(module)}
        reason = ask.found[file].reason if file in ask.found else ""
        told = {**fields, **({"reason": reason} if reason else {})}
        lines.answer(file, answer, told, _row(module, list(fields.values())), printable(reason))
    if not options.json:
        print(_summary(options, module, metadata, n_anomalies, n_answers))
    return SOME_FAILED if lines.failed else DONE


def _keys(module: Any) -> Sequence[str]:
    return FIELDS if len(module.threshold_names) < 2 else (*FIELDS, "level")


def _row(module: Any, values: Sequence[Any]) -> str:
    """Cells of a line, or of the header: numbers to the right, the level's name to the left."""
    cells = [f"{_text(value):>11}" for value in values[: len(FIELDS)]]
    width = max([len("level"), *(len(printable(name)) for name in module.threshold_names)])
    cells += [f"{_text(level):{width}}" for level in values[len(FIELDS) :]]
    return "  ".join(cells).rstrip()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    return "-" if value is None else printable(value)


def _summary(
    options: argparse.Namespace,
    module: Any,
    metadata: Mapping[str, Any],
    n_anomalies: int,
    n_answers: int,
) -> str:
    """How many anomalies there are, and what the threshold promises."""
    what = "recordings" if options.window is None else "windows"
    smallest = _smallest_p_value(module, metadata)
    least = "" if smallest is None else f"; the smallest p-value possible is {smallest:.3g}"
    if not len(module.thresholds):
        return f"{n_answers} {what} scored; this detector has no threshold{least}"
    text = f"{n_anomalies} of {n_answers} {what} are anomalies"
    if options.window is not None:
        return f"{text} by a threshold that was calibrated on whole clips"
    rate = _promised_rate(metadata, module.threshold_names[-1])
    promised = "" if rate is None else f", at a promised false-alarm rate of {rate:.3g}"
    return f"{text}{promised}{least}"


def _promised_rate(metadata: Mapping[str, Any], name: str) -> float | None:
    """What training wrote down of a threshold; None of a file that says nothing of it."""
    thresholds = metadata["metrics"].get("thresholds") or {}
    rate: float | None = thresholds.get(name, {}).get("promised_rate")
    return rate


def _smallest_p_value(module: Any, metadata: Mapping[str, Any]) -> float | None:
    """That of a score above all of normal clips; a cross-conformal one is 1 at most."""
    import torch

    if not len(module.calibration):
        return None
    highest = 1.0 if metadata["metrics"].get("conformal") == "cross" else torch.inf
    return float(module.p_value(torch.full_like(module.temperature, highest)))
