"""Pictures of docs/images that need a trained model, all of real recordings."""

import csv
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from audiotorch import load_pipeline, plot
from audiotorch.cli import main as audiotorch
from audiotorch.explain import explain
from audiotorch.report import write_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RUN_DRAWINGS", "RUN_PAGES", "photograph", "remove_runs", "run"]

Drawing = Callable[[Path], "Figure"]

_RUNS = {
    "sounds": ("experiment=esc10_classic", "data.test_group=1"),
    "words": ("experiment=commands", "trainer.max_epochs=12"),
    "network": (
        *("data=esc10", "data.test_group=1", "features=mel_image", "model=cnn"),
        "trainer.max_epochs=25",
    ),
    "forest": ("experiment=esc10_classic", "data.test_group=1", "model=random_forest"),
    "hearts": ("experiment=heart",),
}


@functools.cache
def _root() -> Path:
    """Where runs lie, of this process alone."""
    return Path(tempfile.mkdtemp(prefix="audiotorch-pictures-"))


@functools.cache
def run(name: str) -> Path:
    """Train one of the runs that pictures are made of, once; return its directory."""
    folder = _root() / name
    if audiotorch(["train", *_RUNS[name], f"hydra.run.dir={folder}"]):
        raise SystemExit(f"the run of {name} failed")
    return folder


def remove_runs() -> None:
    """Delete what was trained."""
    run.cache_clear()
    if _root.cache_info().currsize:
        shutil.rmtree(_root())
        _root.cache_clear()


def _scores(kind: str, name: str, title: str, **settings: object) -> Drawing:
    return lambda data: getattr(plot, kind)(run(name), title=title, **settings).figure


def _explained(name: str, pick: Callable[[list[dict[str, str]]], dict[str, str]]) -> Drawing:
    """The explanation of the clip that is picked of those that the run was tested on."""

    def draw(data: Path) -> "Figure":
        with (run(name) / "answers.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["part"] in ("test", "val")]
        row = pick(rows)
        found = explain(load_pipeline(run(name) / "model.ts"), row["file"])
        return plot.explanation(found, f"{row['truth']}: {Path(row['file']).name}")

    return draw


def _surest(rows: list[dict[str, str]]) -> dict[str, str]:
    return max((row for row in rows if row["truth"] == row["answer"]), key=_confidence)


def _confidence(row: dict[str, str]) -> float:
    return float(row["confidence"])


def _most_anomalous(rows: list[dict[str, str]]) -> dict[str, str]:
    return max((row for row in rows if row["anomalous"] == "1"), key=lambda r: float(r["score"]))


RUN_DRAWINGS: dict[str, Drawing] = {
    "confusion_matrix": _scores("confusion_matrix", "sounds", "Environmental sounds, unheard fold"),
    "reliability": _scores("reliability", "sounds", "Environmental sounds, unheard fold"),
    "roc": _scores("roc", "hearts", "Murmurs, by a detector of normal hearts"),
    "score_histogram": _scores("score_histogram", "hearts", "Scores of hearts"),
    "embedding": _scores("embedding", "sounds", "Environmental sounds: 10 classes"),
    "training_curves": _scores("training_curves", "words", "Spoken words"),
    "explanation_network": _explained("words", _surest),
    "explanation_classic": _explained("forest", _surest),
    "explanation_detector": _explained("hearts", _most_anomalous),
}
"""Each picture's name, and what draws it, given the folder of recordings."""


def _run_page(data: Path) -> Path:
    return run("words") / "report.html"


def _detector_page(data: Path) -> Path:
    return run("hearts") / "report.html"


def _data_page(data: Path) -> Path:
    return write_report(data / "esc10", _root() / "data.html", title="Environmental sounds")


def _transcript_page(data: Path) -> Path:
    """Transcripts by the checkpoint in $AUDIOTORCH_WHISPER."""
    lines = _root() / "talks.jsonl"
    model = Path(os.environ["AUDIOTORCH_WHISPER"]) / "tiny.en.pt"
    talks = [str(data / "speech" / "en" / "jfk.flac")]
    if audiotorch(
        ["transcribe", *talks, "--model", str(model), "--word-timestamps", "--out", str(lines)]
    ):
        raise SystemExit("the transcription failed")
    return write_report(lines, _root() / "talks.html", title="Transcripts")


RUN_PAGES: dict[str, Callable[[Path], Path]] = {
    "report_run": _run_page,
    "report_detector": _detector_page,
    "report_data": _data_page,
    "report_transcripts": _transcript_page,
}
"""Each picture of a report's name, and what writes the report, given the folder of recordings."""


def photograph(page: Path, width: int = 1280, height: int = 1000) -> bytes:
    """Return what Chromium shows of a page, as PNG.

    Args:
        page: an HTML file.
        width: of the window, in pixels.
        height: of the window, in pixels.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": width, "height": height})
        opened.goto(page.resolve().as_uri())
        opened.wait_for_timeout(1000)
        seen = opened.screenshot()
        browser.close()
    return seen
