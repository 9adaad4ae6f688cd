"""From a run, a data set or transcripts to the page about it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from audiotorch.audio.whole import written_whole
from audiotorch.errors import ParameterError

__all__ = ["is_run", "write_report"]

_MARK = b'<meta name="generator" content="audiotorch">'  # near the start of every report
_OF_RUNS = ("checkpoints", "train.log", "model.ts", "answers.csv")

Advance = Callable[[int, int], object]


def write_report(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    root: str | os.PathLike[str] | None = None,
    advance: Advance = lambda done, total: None,
) -> Path:
    """Write one self-contained HTML file about what is given, below 15 MB.

    Args:
        source: the directory of a training run, the `.jsonl` file of `audiotorch transcribe`, or a
            data set: a folder, with a folder for each class or none, or a table.
        out: the file; `None` = `report.html` in the run's directory, or else in the current one.
        title: of the page; `""` = the name of what it is about.
        root: where recordings of transcripts and tables are that have relative names, or were
            moved.
        advance: is told how much is done, and of how much.

    Returns:
        Where it is.

    Raises:
        ParameterError: there is nothing to report on, or `out` is something else than a report.
        OSError: `out` cannot be written.
    """
    source = Path(source)
    if not source.exists():
        raise ParameterError(
            f"{str(source)!r}: is not there; give a run directory, a folder of recordings, a table "
            "or the .jsonl of `audiotorch transcribe`"
        )
    if not is_run(source) and (source / "config.yaml").is_file():
        if any((source / name).exists() for name in _OF_RUNS):
            raise ParameterError(
                f"{str(source)!r}: is a run without metrics.json, which is written at its end; "
                "wait for it, or train again"
            )
    if out is None:
        out = source / "report.html" if is_run(source) else "report.html"
    out = Path(out)
    _check_out(out)
    page = _page(source, title, None if root is None else Path(root), advance)
    with written_whole(out) as partial:
        partial.write_text(page, encoding="utf-8")
    return out


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether this is the directory of a training run.

    Args:
        path: to look at.
    """
    return (Path(path) / "metrics.json").is_file()


def _check_out(out: Path) -> None:
    """Refuse to replace what is no report."""
    if out.is_dir():
        raise ParameterError(f"out={str(out)!r}: is a folder; name a file in it")
    if not out.parent.is_dir():
        raise ParameterError(f"out={str(out)!r}: its folder does not exist; create it first")
    if out.exists():
        if not out.is_file():
            raise ParameterError(f"out={str(out)!r}: is no file that can be replaced")
        with out.open("rb") as file:
            start = file.read(400)
        if start and _MARK not in start:
            raise ParameterError(
                f"out={str(out)!r}: is there and is no report; name another file or delete it"
            )


def _page(source: Path, title: str, root: Path | None, advance: Advance) -> str:
    if is_run(source):
        return _run_page(source, title, advance)
    if source.suffix.lower() in (".jsonl", ".ndjson") and _holds_transcripts(source):
        from audiotorch.report.transcripts import transcripts_page

        return transcripts_page(source, title=title, root=root, advance=advance)
    from audiotorch.report.dataset import dataset_page

    return dataset_page(source, title=title, root=root, advance=advance)


def _run_page(run_dir: Path, title: str, advance: Advance) -> str:
    from audiotorch.report.record import RunRecord

    record = RunRecord.read(run_dir)
    if record.is_detector:
        from audiotorch.report.detector import detector_page

        return detector_page(record, title=title, advance=advance)
    from audiotorch.report.run import run_page

    return run_page(record, title=title, advance=advance)


def _holds_transcripts(path: Path) -> bool:
    """Whether the first line is one of `audiotorch transcribe`."""
    try:
        with path.open("rb") as file:
            line = json.loads(next((data for data in file if not data.isspace()), b"null"))
    except (OSError, ValueError):
        return False
    return isinstance(line, dict) and "filepath" in line and bool({*line} & {"text", "error"})
