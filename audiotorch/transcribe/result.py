"""What was said: words, segments and whole transcripts."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

__all__ = ["LanguageGuess", "Segment", "Transcript", "Word"]


class LanguageGuess(NamedTuple):
    """What language is spoken.

    Args:
        language: the most probable one, as a code of Whisper's such as `"en"`.
        probability: its probability.
        probabilities: that of every language the model knows, the most probable first.
    """

    language: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Word:
    """A word and when it is said.

    Args:
        word: with the blank before it and the punctuation around it, as Whisper writes it: a
            segment's words, joined, are its text.
        start: seconds from the recording's start.
        end: seconds from the recording's start.
        probability: how sure the model is of it.
    """

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech, a sentence or a part of one, with what Whisper says about it.

    Args:
        start: seconds from the recording's start.
        end: seconds from the recording's start.
        text: what is said, with the blank before it as Whisper writes it.
        language: code of the language, such as `"en"`.
        avg_logprob: mean log probability of the tokens of the window that it is from.
        compression_ratio: of that window's text; above 2.4 it repeats itself.
        no_speech_prob: the model's probability that the window holds no speech.
        temperature: at which the window was decoded; above 0 where earlier tries failed.
        words: where asked for.
        channel: the channel that it is from, counted from 0; `None` where channels were averaged.
    """

    start: float
    end: float
    text: str
    language: str
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    temperature: float = 0.0
    words: tuple[Word, ...] = ()
    channel: int | None = None


@dataclass(frozen=True)
class Transcript:
    """What is said in a recording.

    Args:
        file: path or name of the file, `"<bytes>"` for bytes, `"<waveform>"` for samples.
        text: all of it, without blanks around it; empty where nobody speaks.
        language: code of the language that most of it is in, such as `"en"`; `None` where nobody
            speaks and none was given.
        language_probability: of that language, as the model hears it; `None` where the language
            was given, the model knows but one, or nobody speaks.
        duration_seconds: length of the recording itself.
        speech_seconds: how much of it the gate took for speech; `None` without a gate.
        real_time_factor: time that it took, decoding the file included, over the duration.
        task: `"transcribe"`, or `"translate"` where the text is in English.
        model: name or path of the model.
        segments: in the order in which they are said.
    """

    file: str
    text: str
    language: str | None
    language_probability: float | None
    duration_seconds: float
    speech_seconds: float | None
    real_time_factor: float
    task: str
    model: str
    segments: tuple[Segment, ...] = field(default=())

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments; none unless they were asked for."""
        return tuple(word for segment in self.segments for word in segment.words)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, text and numbers, as JSON takes them."""
        return asdict(self)
