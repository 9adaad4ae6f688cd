"""Whisper on real speech: what audiotorch adds to its time, and how right the words are."""

import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audiotorch.audio import load, save
from audiotorch.bench.memory import peak_memory
from audiotorch.errors import AudioTorchError, MissingDependencyError, ParameterError
from audiotorch.transcribe.backends import SAMPLE_RATE
from audiotorch.transcribe.recording import transcribe
from audiotorch.transcribe.scoring import Reference, Scores, read_references, score

__all__ = [
    "JOINED",
    "MOST_MEMORY",
    "MOST_OVERHEAD",
    "LongRow",
    "ModelReport",
    "Run",
    "SpeechRow",
    "measure_long",
    "run_long",
    "run_speech",
]

MOST_OVERHEAD = 0.05
"""Share of bare Whisper's time that may come on top."""

MOST_MEMORY = 2e9
"""Bytes that the process may take at its peak, everything in it, for a long recording."""

JOINED = "joined"
"""Name of the long recording that is made of the English ones."""

_JOINED_SECONDS, _PAUSE_SECONDS = 180.0, 0.7


class Run(NamedTuple):
    """One transcript, and how long it took.

    Attributes:
        text: what was heard.
        language: in which language; empty where nobody was taken to speak.
        cpu: seconds of the process' time on all its threads.
        wall: seconds by the clock.
    """

    text: str
    language: str
    cpu: float
    wall: float


@dataclass
class SpeechRow:
    """A recording that both have heard, by turns the one and the other first.

    Attributes:
        name: the file, as the table of transcripts has it.
        language: the language spoken; `none` where nobody speaks.
        samples: `(n,)` at 16 kHz.
        ours: audiotorch's transcripts, one a round.
        bare: those of `whisper.transcribe` for the same samples.
    """

    name: str
    language: str
    samples: Tensor
    ours: list[Run] = field(default_factory=list)
    bare: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / SAMPLE_RATE

    def ratio(self, clock: str) -> float:
        """Return our time over bare Whisper's, the median of the rounds.

        Args:
            clock: `cpu` or `wall`.
        """
        pairs = zip(self.ours, self.bare, strict=True)
        return statistics.median(getattr(a, clock) / getattr(b, clock) for a, b in pairs)


@dataclass
class ModelReport:
    """A model against bare Whisper.

    Attributes:
        weights: name of the checkpoint, or folder of a CTranslate2 model.
        backend: what ran it on our side.
        rows: recordings.
        ours: our transcripts against what was said.
        bare: Whisper's own against the same.
        apart: our transcripts against Whisper's own.
    """

    weights: str
    backend: str
    rows: list[SpeechRow]
    ours: Scores
    bare: Scores
    apart: Scores

    def pooled(self, clock: str) -> float:
        """Return our time for all recordings with speech over bare Whisper's.

        Each round gives a ratio; this is their median.

        Args:
            clock: `cpu` or `wall`.
        """
        rows = self._spoken
        ratios = []
        for place in range(len(rows[0].ours)):
            sides = [
                sum(getattr(side[place], clock) for side in runs)
                for runs in ([row.ours for row in rows], [row.bare for row in rows])
            ]
            ratios.append(sides[0] / sides[1])
        return statistics.median(ratios)

    @property
    def holds(self) -> bool:
        """Whether openai-whisper takes no longer than it may; others are just compared."""
        return self.backend != "whisper" or self.pooled("cpu") <= 1 + MOST_OVERHEAD

    @property
    def languages(self) -> tuple[int, int]:
        """In how many recordings with speech the language is right, and of how many."""
        spoken = self._spoken
        return sum(row.ours[0].language == row.language for row in spoken), len(spoken)

    @property
    def n_equal(self) -> int:
        """In how many recordings with speech both have the same words, to the comma."""
        return sum(row.ours[0].text.split() == row.bare[0].text.split() for row in self._spoken)

    @property
    def _spoken(self) -> list[SpeechRow]:
        return [row for row in self.rows if row.language != "none"]


class LongRow(NamedTuple):
    """A long recording in a process of its own.

    Attributes:
        weights: name of the model.
        seconds: length of the recording.
        took: seconds by the clock, loading the model included.
        peak: bytes that the process took at most.
        scores: its transcript against those of its parts, one after the other.
    """

    weights: str
    seconds: float
    took: float
    peak: int
    scores: Scores

    @property
    def holds(self) -> bool:
        """Whether memory is within its bound."""
        return self.peak <= MOST_MEMORY


# --- short recordings, and one of minutes ---------------------------------------------------------


def run_speech(
    root: Path,
    weights: Sequence[Path],
    n_rounds: int = 3,
    advance: Callable[[int], None] | None = None,
) -> list[ModelReport]:
    """Transcribe the recordings in `speech` with each model, and with bare Whisper.

    Args:
        root: the folder that holds `speech`, with `transcripts.csv` in it.
        weights: checkpoints of openai-whisper, each with folders of CTranslate2 models after it
            that are to be compared with it.
        n_rounds: how often each recording is heard by either side.
        advance: is told when another model is done.

    Raises:
        ParameterError: no recordings, or no checkpoint to compare with.
        MissingDependencyError: openai-whisper is not installed.
    """
    references = _references(root)
    if not weights or weights[0].is_dir():
        raise ParameterError("--weights: give a checkpoint of openai-whisper (.pt) first")
    reports = []
    net: Any = None
    for path in weights:
        backend = "faster-whisper" if path.is_dir() else "whisper"
        if backend == "whisper":
            net = _bare(path)
        rows = _rows(references, multilingual=net.is_multilingual)
        _fill(rows, net, path, backend, n_rounds)
        reports.append(_report(path, backend, rows, references))
        if advance is not None:
            advance(1)
    return reports


def _references(root: Path) -> dict[str, Reference]:
    table = root / "speech" / "transcripts.csv"
    if not table.is_file():
        raise ParameterError(f"{str(root)!r}: holds no speech/transcripts.csv")
    found = read_references(table).items()
    return {name: each for name, each in found if not name.endswith(".raw")}  # no header, no rate


def _bare(checkpoint: Path) -> Any:
    """A model of its own: our side's remembers what it encoded, by which this one would gain."""
    try:
        import whisper
    except ImportError as error:
        raise MissingDependencyError(
            "the benchmark compares with openai-whisper: pip install 'audiotorch[whisper]'"
        ) from error
    return whisper.load_model(str(checkpoint), device="cpu")


def _rows(references: dict[str, Reference], *, multilingual: bool) -> list[SpeechRow]:
    rows = []
    for name, reference in references.items():
        language = reference.language or "none"
        if multilingual or language in ("en", "none"):
            samples = load(reference.path, sample_rate=SAMPLE_RATE)[0][0]
            rows.append(SpeechRow(name, language, samples))
    english = [row.samples for row in rows if row.language == "en"]
    samples = torch.cat(list(_parts(english, _JOINED_SECONDS)))
    return [*rows, SpeechRow(JOINED, "en", samples)]


def _parts(recordings: Sequence[Tensor], seconds: float) -> Iterator[Tensor]:
    """Recordings with pauses between them, over and over, until they are so long."""
    if not recordings:
        raise ParameterError("speech/transcripts.csv: lists no English recordings")
    left, place = seconds * SAMPLE_RATE, 0
    while left > 0:
        for part in (recordings[place % len(recordings)], _pause()):
            yield part
            left -= len(part)
        place += 1


def _pause() -> Tensor:
    return torch.zeros(round(_PAUSE_SECONDS * SAMPLE_RATE))


def _fill(rows: Sequence[SpeechRow], net: Any, path: Path, backend: str, n_rounds: int) -> None:
    """Hear all recordings, once a round: the same twice in a row would be remembered."""

    def ours(samples: Tensor) -> tuple[str, str | None]:
        found = transcribe(
            samples, model=str(path), backend=backend, device="cpu", sample_rate=SAMPLE_RATE
        )
        return found.text, found.language

    def bare(samples: Tensor) -> tuple[str, str | None]:
        found = net.transcribe(samples, fp16=False)
        return found["text"].strip(), found["language"]

    for side in (ours, bare):
        side(rows[0].samples)  # loads and warms up
    for turn in range(n_rounds):
        for place, row in enumerate(rows):
            sides = ((ours, row.ours), (bare, row.bare))
            for side, runs in sides if (turn + place) % 2 else reversed(sides):
                runs.append(_timed(side, row.samples))


def _timed(side: Callable[[Tensor], tuple[str, str | None]], samples: Tensor) -> Run:
    cpu, wall = time.process_time(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # whisper's file with its vocabulary
        text, language = side(samples)
    return Run(text, language or "", time.process_time() - cpu, time.perf_counter() - wall)


def _report(
    path: Path, backend: str, rows: list[SpeechRow], references: dict[str, Reference]
) -> ModelReport:
    heard = {row.name: row for row in rows}
    known = {name: each for name, each in references.items() if name in heard}
    theirs = {
        row.name: Reference(
            row.name,
            known[row.name].path if row.name in known else row.name,
            row.bare[0].text,
            row.language,
        )
        for row in rows
    }
    ours = [_result(row, theirs, row.ours[0].text) for row in rows]
    bare = [_result(row, theirs, row.bare[0].text) for row in rows]
    scores = score(ours, known), score(bare, known), score(ours, theirs)
    return ModelReport(path.name, backend, rows, *scores)


def _result(row: SpeechRow, references: dict[str, Reference], text: str) -> dict[str, str]:
    return {"filepath": references[row.name].path, "text": text, "language": row.language}


# --- a long recording -----------------------------------------------------------------------------


def run_long(root: Path, weights: Path, minutes: float) -> LongRow:
    """Transcribe a file of many minutes in a process of its own.

    It is made of the English recordings with pauses between them, over and over.

    Args:
        root: the folder that holds `speech`.
        weights: a checkpoint, or the folder of a CTranslate2 model.
        minutes: length.

    Raises:
        ParameterError: no recordings, or the system does not tell peaks of memory.
        AudioTorchError: the process failed.
    """
    rows = [row for row in _rows(_references(root), multilingual=False) if row.language == "en"]
    backend = "faster-whisper" if weights.is_dir() else "whisper"
    parts = list(_parts([row.samples for row in rows[:-1]], 60 * minutes))
    texts = {}
    for row in rows[:-1]:
        settings: dict[str, Any] = {"model": str(weights), "backend": backend, "language": "en"}
        texts[row.name] = transcribe(row.samples, sample_rate=SAMPLE_RATE, **settings).text
    names = [rows[place % (len(rows) - 1)].name for place in range(len(parts) // 2)]
    expected = " ".join(texts[name] for name in names)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "long.wav"
        save(file, torch.cat(parts)[None], SAMPLE_RATE)
        start = time.perf_counter()
        text, peak = _in_a_process(file, weights, backend)
        took = time.perf_counter() - start
    reference = Reference("long", "long", expected, "en")
    scores = score([{"filepath": "long", "text": text, "language": "en"}], {"long": reference})
    return LongRow(weights.name, sum(map(len, parts)) / SAMPLE_RATE, took, peak, scores)


def _in_a_process(file: Path, weights: Path, backend: str) -> tuple[str, int]:
    code = "import sys; from audiotorch.bench.speech import measure_long as m; m(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(file), str(weights), backend]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise AudioTorchError(f"long recording: {result.stderr.strip()[-500:]}")
    peak, _, text = result.stdout.partition("\n")
    return text, int(peak)


def measure_long(file: str, weights: str, backend: str) -> None:
    """Transcribe a file, and print how many bytes the process took at its peak, and the text.

    Args:
        file: the recording.
        weights: a checkpoint, or the folder of a CTranslate2 model.
        backend: what runs it.
    """
    found = transcribe(file, model=weights, backend=backend, language="en", device="cpu")
    print(peak_memory())
    print(found.text)
