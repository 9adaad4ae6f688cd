"""What turns samples into text: one small protocol, and the programs behind it."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from audiotorch.transcribe.result import Segment

__all__ = ["SAMPLE_RATE", "TEMPERATURES", "Backend", "Options"]

SAMPLE_RATE = 16000  # Hz, of all Whisper models
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Tried in turn while the text repeats itself or is improbable: Whisper's own."""


@dataclass(frozen=True)
class Options:
    """How a window is transcribed.

    Args:
        language: code of the language spoken, such as `"en"`.
        task: `"transcribe"`, or `"translate"` to English.
        word_timestamps: whether segments get words.
        initial_prompt: text that the model takes for what was said before.
        temperature: of sampling, or several to try in turn; 0 takes the most probable token.
        beam_size: hypotheses kept at temperature 0; `None` takes the best alone.
        compression_ratio_threshold: text that compresses better repeats itself, and the next
            temperature is tried; `None` takes it as it is.
    """

    language: str
    task: str = "transcribe"
    word_timestamps: bool = False
    initial_prompt: str | None = None
    temperature: float | tuple[float, ...] = TEMPERATURES
    beam_size: int | None = None
    compression_ratio_threshold: float | None = 2.4


class Backend(Protocol):
    """A loaded Whisper model.

    Args:
        model: its name or path.
        languages: codes that it knows; one alone if it is no multilingual model.
    """

    model: str
    languages: tuple[str, ...]

    def detect_language(self, samples: Tensor) -> dict[str, float]:
        """Return the probability of each language, the most probable first.

        Args:
            samples: `(n,)` float32 at 16 kHz, 30 seconds at most.
        """
        ...

    def transcribe(self, samples: Tensor, options: Options) -> list[Segment]:
        """Return what is said, with times from the first sample.

        Args:
            samples: `(n,)` float32 at 16 kHz, of any length.
            options: how.
        """
        ...
