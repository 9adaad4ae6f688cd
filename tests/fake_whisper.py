"""A backend without a model, which tells of the samples what they are, or fails as it is told."""

import io
import os
import signal
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor

from audiotorch.transcribe.backends import Options
from audiotorch.transcribe.result import Segment, Word

RATE = 16000


@dataclass
class FakeWhisper:
    """Texts go by the samples alone; the first sample may ask for something to go wrong.

    Args:
        seconds: that a transcript takes.
        failing: by first sample in 1/1000, what happens: `"raise"`, `"kill"`, `"exit"`, `"kill
            once"`, `"interrupt"`.
        folder: where calls are counted, if anywhere.
    """

    model: str = "fake"
    languages: tuple[str, ...] = ("en", "ja")
    seconds: float = 0.0
    failing: dict[int, str] = field(default_factory=dict)
    folder: str | None = None

    def detect_languages(
        self, samples: Tensor, parts: Sequence[tuple[int, int]]
    ) -> list[dict[str, float]]:
        return [{"ja": 0.75, "en": 0.25} for _ in parts]

    def transcribe(self, samples: Tensor, options: Options) -> list[Segment]:
        if self.folder is not None:
            (Path(self.folder) / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(self.seconds)
        what = self.failing.get(round(1000 * float(samples[0])), "")
        if what == "raise":
            raise ZeroDivisionError("by a fake")
        if what == "interrupt":
            raise KeyboardInterrupt
        if what == "exit":
            os._exit(3)
        if what == "kill" or (what == "kill once" and _first(Path(self.folder or "") / "killed")):
            os.kill(os.getpid(), signal.SIGKILL)
        text = f" né 犬 {zlib.crc32(samples.numpy().tobytes()):08x}"
        words = (Word(text, 0.0, 0.1, 0.5),) if options.word_timestamps else ()
        return [Segment(0.0, len(samples) / RATE, text, options.language, np.nan, words=words)]


def _first(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def write_clip(path: Path, seed: int = 0, first: int = 500, n_samples: int = 1600) -> Path:
    """A short noise whose first sample is `first` thousandths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(n_samples)
    samples[0] = first / 1000
    content = io.BytesIO()
    soundfile.write(content, samples, RATE, "PCM_16", format="WAV")
    path.write_bytes(content.getvalue())  # under names that libsndfile does not take, too
    return path
