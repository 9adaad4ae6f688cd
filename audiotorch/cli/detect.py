"""`audiotorch detect`: tell anomalous recordings with an exported detector."""

import argparse
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiotorch.cli.answering import Lines, add_answering, each_clip, each_window, open_model
from audiotorch.cli.arguments import Commands
from audiotorch.cli.terminal import DONE, SOME_FAILED
from audiotorch.errors import ParameterError, TruncationWarning, printable

if TYPE_CHECKING:
    from audiotorch.answers import Prediction

__all__ = ["add_detect"]

# Of pictures that are not drawn: no names for a folder.
_OTHER_KINDS = (".jpg", ".jpeg", ".svg", ".pdf", ".gif", ".webp", ".tif", ".tiff", ".bmp")

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
    ask = _Asker(options, module, _pictures(options.explain, files, module))
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
        reason = ask.reasons.get(file, "")
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


class _Asker:
    """Answers files and, where pictures are wanted, draws why."""

    def __init__(
        self, options: argparse.Namespace, module: Any, pictures: Mapping[str, Path]
    ) -> None:
        self.reasons: dict[str, str] = {}
        self._module = module
        self._settings = {"device": options.device, "batch_size": options.batch_size}
        self._pictures = pictures

    def __call__(self, files: list[str]) -> "list[Prediction]":
        """Answer a batch of files."""
        from audiotorch.answers import predict

        answers = predict(self._module, files, **self._settings)
        if self._pictures:
            for answer in answers:
                if answer.error is None:
                    self._explain(answer.file)
        return answers

    def _explain(self, file: str) -> None:
        from audiotorch.explain import explain_detection
        from audiotorch.plot import detection, save_figure

        with warnings.catch_warnings():
            # Told when the file was answered.
            warnings.simplefilter("ignore", TruncationWarning)
            found = explain_detection(self._module, file, **self._settings)
        save_figure(detection(found, Path(file).name), self._pictures[file])
        self.reasons[file] = found.reason


def _pictures(target: str | None, files: Sequence[str], module: Any) -> dict[str, Path]:
    """Where each file's picture goes; what is wrong with that is told before any work."""
    if target is None:
        return {}
    from audiotorch.explain import check_explainable
    from audiotorch.plot import new_figure

    check_explainable(module)
    new_figure(1.0, 1.0)
    path = Path(target)
    if not target or (path.suffix.lower() in _OTHER_KINDS and not path.is_dir()):
        raise ParameterError(f"--explain {target!r}: must end in .png, or be a folder")
    one = path.suffix.lower() == ".png" and not path.is_dir()
    if one:
        if len(set(files)) > 1:
            raise ParameterError(
                f"--explain {target}: is one picture for {len(set(files))} files; give a folder"
            )
    elif path.exists() and not path.is_dir():
        raise ParameterError(f"--explain {target!r}: must end in .png, or be a folder")
    _make_folder(target, path.parent if one else path)
    if one:
        return {files[0]: path}
    found: dict[str, Path] = {}
    taken: set[str] = set()
    for file in dict.fromkeys(files):
        name, number = f"{Path(file).name}.png", 2
        # On some systems names that differ in case alone are the same.
        while name.casefold() in taken:
            name, number = f"{Path(file).name}_{number}.png", number + 1
        taken.add(name.casefold())
        found[file] = path / name
    return found


def _make_folder(target: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise ParameterError(
            f"--explain {target}: its folder cannot be made ({error.strerror}); name another place"
        ) from error
    if not writable:
        raise ParameterError(f"--explain {target}: the folder is read-only; name another place")


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
