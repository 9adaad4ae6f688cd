"""What turns samples into text: one small protocol, and the programs behind it."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.transcribe.result import Segment

__all__ = [
    "BACKENDS",
    "MAX_COMPRESSION",
    "MIN_LOGPROB",
    "NO_SPEECH",
    "SAMPLE_RATE",
    "TEMPERATURES",
    "Backend",
    "Options",
    "open_backend",
]

BACKENDS = ("whisper", "faster-whisper")

SAMPLE_RATE = 16000  # Hz, of all Whisper models
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Tried in turn while the text repeats itself or is improbable: Whisper's own, as are the next."""
MAX_COMPRESSION = 2.4
"""Text that compresses better than this repeats itself."""
MIN_LOGPROB = -1.0
"""Text whose tokens have a lower mean log probability is improbable."""
NO_SPEECH = 0.6
"""Improbable text of a window that holds no speech with a higher probability is none."""


@dataclass(frozen=True)
class Options:
    """How a window is transcribed.

    Args:
        language: code of the language spoken, such as `"en"`.
        task: `"transcribe"`, or `"translate"` to English.
        word_timestamps: whether segments get words.
        initial_prompt: text that the model takes for what was said before.
        temperature: of sampling, tried in turn while the text repeats itself or is improbable; 0
            takes the most probable token.
        beam_size: hypotheses kept at temperature 0; `None` takes the best alone.
        speech_end: seconds from the first sample after which nobody speaks; `None` if that is not
            known.
    """

    language: str
    task: str = "transcribe"
    word_timestamps: bool = False
    initial_prompt: str | None = None
    temperature: tuple[float, ...] = TEMPERATURES
    beam_size: int | None = None
    speech_end: float | None = None


class Backend(Protocol):
    """A loaded Whisper model.

    Attributes:
        model: its name or path.
        languages: codes that it knows; one alone if it is no multilingual model.
    """

    model: str
    languages: tuple[str, ...]

    def detect_languages(
        self, samples: Tensor, parts: Sequence[tuple[int, int]]
    ) -> list[dict[str, float]]:
        """Return for each part the probability of each language, the most probable first.

        Args:
            samples: `(n,)` float32 at 16 kHz, a window of 30 seconds at most.
            parts: samples from and to.
        """
        ...

    def transcribe(self, samples: Tensor, options: Options) -> list[Segment]:
        """Return what is said, with times from the first sample.

        Args:
            samples: `(n,)` float32 at 16 kHz, of any length.
            options: how.
        """
        ...


def open_backend(
    model: str | os.PathLike[str] = "base", backend: str = "whisper", device: str | None = None
) -> Backend:
    """Load a Whisper model. The one used last stays in memory and is given again.

    Args:
        model: a name of Whisper's, such as `"tiny.en"`, `"base"` or `"turbo"`, which is downloaded
            when it is first used; or the path of a checkpoint, of a folder for faster-whisper.
        backend: `"whisper"`, or `"faster-whisper"`, which needs the extra `faster`.
        device: as torch names it; `None` = CUDA where there is some, else the CPU.

    Raises:
        ParameterError: unknown backend or model, a device that is not there, or a model that can
            not be downloaded.
        DecodeError: the checkpoint cannot be read as one.
        MissingDependencyError: the backend is not installed.
    """
    if backend not in BACKENDS:
        raise ParameterError(f"backend={backend!r}: must be one of {', '.join(BACKENDS)}")
    name = os.fspath(model)
    with _LOADING:
        return _loaded(name, backend, device, _version(name))


_LOADING = threading.Lock()


def _version(model: str) -> tuple[int, int] | None:
    """What tells a checkpoint from another that was written in its place."""
    try:
        state = os.stat(model)
    except (OSError, ValueError):
        return None  # a name
    return state.st_size, state.st_mtime_ns


@lru_cache(maxsize=1)
def _loaded(
    model: str, backend: str, device: str | None, version: tuple[int, int] | None
) -> Backend:
    if backend == "whisper":
        from audiotorch.transcribe.openai import OpenAIWhisper

        return OpenAIWhisper(model, device)
    from audiotorch.transcribe.faster import FasterWhisper

    return FasterWhisper(model, device)
