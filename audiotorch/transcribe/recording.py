"""One recording to text: `transcribe`, and `Transcriber`, which is loaded once for many."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiotorch.audio import Resample, Source, stream
from audiotorch.audio.source import source_name
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.transcribe.backends import (
    SAMPLE_RATE,
    TEMPERATURES,
    Backend,
    Options,
    open_backend,
)
from audiotorch.transcribe.channels import apart
from audiotorch.transcribe.hearing import Heard, Listener
from audiotorch.transcribe.result import LanguageGuess, Transcript
from audiotorch.transcribe.voice import open_gate
from audiotorch.transcribe.windows import Window, WindowCutter

__all__ = ["CHANNELS", "TASKS", "Speech", "Transcriber", "detect_language", "transcribe"]

Waveform = Tensor | npt.NDArray[Any]
Speech = Source | Waveform | tuple[Waveform, int]
"""What can be transcribed: a file, its content, a waveform, or a waveform and its sample rate."""

TASKS = ("transcribe", "translate")
CHANNELS = ("auto", "mix", "each")
_BLOCK_SAMPLES = 30 * SAMPLE_RATE
_MAX_PEAK = 32.0  # of a waveform; whole numbers turned to floating point are far above
_AS_LOADED = (
    "must be floating point of shape (time,) or (channel, time), in about [-1, 1] as load gives it"
)


class Transcriber:
    """A Whisper model and how to use it: loaded once, for any number of recordings.

    Args:
        model: a name of Whisper's, such as `"tiny.en"`, `"base"` or `"turbo"`, which is downloaded
            when it is first used; the path of a checkpoint, for faster-whisper of a folder; or a
            loaded `Backend`.
        language: code of the language spoken, such as `"en"`; `None` hears it from the recording,
            and again where it changes.
        task: `"transcribe"`, or `"translate"` to English.
        word_timestamps: whether segments get words with their times.
        device: as torch names it; `None` = CUDA where there is some, else the CPU.
        backend: `"whisper"`, or `"faster-whisper"`.
        gate: what leaves out windows without speech: `"auto"`, `"silero"`, `"energy"` or
            `"none"`, see `open_gate`.
        channels: `"mix"` averages them, an inverted one turned over; `"each"` transcribes each
            for itself, and segments tell theirs; `"auto"` does that with two channels that have
            nothing in common, as where the two sides of a call have one each, and averages others.
        initial_prompt: text that the model takes for what was said before each window, such as
            names spelt right.
        condition_on_previous_text: whether a window is told the text of the one before instead:
            spelling stays alike, errors spread.
        temperature: of sampling; of several each is tried while the text repeats itself or is
            improbable. 0 takes the most probable token.
        beam_size: hypotheses kept at temperature 0; `None` takes the best alone.

    Raises:
        ParameterError: an argument is out of range, or there is no such model or device.
        DecodeError: the checkpoint cannot be read as one.
        MissingDependencyError: the backend or the gate is not installed.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Backend = "base",
        language: str | None = None,
        task: str = "transcribe",
        word_timestamps: bool = False,
        device: str | None = None,
        *,
        backend: str = "whisper",
        gate: str = "auto",
        channels: str = "auto",
        initial_prompt: str | None = None,
        condition_on_previous_text: bool = False,
        temperature: float | Sequence[float] = TEMPERATURES,
        beam_size: int | None = None,
    ) -> None:
        _check_choice("task", task, TASKS)
        _check_choice("channels", channels, CHANNELS)
        temperatures = _temperatures(temperature)
        if beam_size is not None and (type(beam_size) is not int or beam_size < 1):
            raise ParameterError(f"beam_size={beam_size!r}: must be a whole number from 1, or None")
        if not isinstance(initial_prompt, str | None):
            raise ParameterError(f"initial_prompt={initial_prompt!r}: must be text, or None")
        if not isinstance(language, str | None):
            raise ParameterError(f"language={language!r}: must be a code such as 'en', or None")
        open_gate(gate)  # refused before a large model is loaded
        if isinstance(model, str | os.PathLike):
            model = open_backend(model, backend, device)
        elif not hasattr(model, "languages"):
            raise ParameterError(f"model={model!r}: must be a name, a path or a loaded Backend")
        self.backend = model
        self.language = _language(language, task, model)
        self._gate = gate
        self._channels = channels
        self._conditions = bool(condition_on_previous_text)
        self._options = Options(
            self.language or model.languages[0],
            task=task,
            word_timestamps=bool(word_timestamps),
            initial_prompt=initial_prompt,
            temperature=temperatures,
            beam_size=beam_size,
        )

    def __call__(
        self,
        source: Speech,
        *,
        sample_rate: int | None = None,
        advance: Callable[[float], object] = lambda seconds: None,
    ) -> Transcript:
        """Transcribe a recording of any length.

        Args:
            source: a path, a file's content as bytes, a binary file object, a waveform `(time,)`
                or `(channel, time)`, or a waveform and its rate, as `load` gives them.
            sample_rate: Hz of a waveform.
            advance: is told how many more seconds of the recording are done.

        Raises:
            ParameterError: a waveform without a rate, of another shape, or not finite.
            DecodeError: as `load`; or there are no samples.
        """
        started = time.perf_counter()
        name, blocks = _open(source, sample_rate)
        two_voices, blocks = apart(blocks)
        each = self._channels == "each" or (self._channels == "auto" and two_voices)
        voices: list[_Voice] = []
        n_samples = 0
        for block in blocks if each else map(_mixed, blocks):
            voices = voices or [self._voice() for _ in block]
            for voice, samples in zip(voices, block, strict=True):
                voice.feed(samples)
            n_samples += block.shape[1]
            advance(block.shape[1] / SAMPLE_RATE)
        if n_samples == 0:
            raise DecodeError(f"{name}: holds no samples, so nothing to transcribe")
        for voice in voices:
            voice.finish()
        return self._transcript(name, voices, n_samples, started, each)

    def detect_language(self, source: Speech, *, sample_rate: int | None = None) -> LanguageGuess:
        """Return the language of a recording, as its first 30 seconds with speech tell.

        Args:
            source: as for a transcript.
            sample_rate: Hz of a waveform.

        Raises:
            ParameterError: as for a transcript; nobody speaks, or the model knows one language
                alone.
            DecodeError: as `load`.
        """
        if len(self.backend.languages) == 1:
            raise ParameterError(
                f"{self.backend.model}: knows one language alone; take a multilingual model"
            )
        name, blocks = _open(source, sample_rate)
        _, blocks = apart(blocks)
        cutter = WindowCutter(open_gate(self._gate))
        windows = (window for block in blocks for window in cutter.feed(_mixed(block)[0]))
        window = next(windows, None) or next(iter(cutter.finish()), None)
        if window is None:
            raise ParameterError(f"{name}: holds no speech whose language could be told")
        (probabilities,) = self.backend.detect_languages(window.samples, [(0, len(window.samples))])
        language, probability = next(iter(probabilities.items()))
        return LanguageGuess(language, probability, probabilities)

    def _voice(self) -> "_Voice":
        listener = Listener(self.backend, self._options, self.language, self._conditions)
        return _Voice(WindowCutter(open_gate(self._gate)), listener)

    def _transcript(
        self, name: str, voices: Sequence["_Voice"], n_samples: int, started: float, each: bool
    ) -> Transcript:
        segments = [
            dataclasses.replace(segment, channel=channel if each else None)
            for channel, voice in enumerate(voices)
            for found in voice.heard
            for segment in found.segments
        ]
        segments.sort(key=lambda segment: segment.start)
        heard = [found for voice in voices for found in voice.heard]
        language, probability = _main_language(heard)
        seconds = n_samples / SAMPLE_RATE
        gated = self._gate != "none"
        return Transcript(
            name,
            "".join(segment.text for segment in segments).strip(),
            language or self.language,
            probability,
            duration_seconds=seconds,
            speech_seconds=sum((found.speech_seconds for found in heard), 0.0) if gated else None,
            real_time_factor=(time.perf_counter() - started) / seconds,
            task=self._options.task,
            model=self.backend.model,
            segments=tuple(segments),
        )


def transcribe(
    source: Speech,
    model: str | os.PathLike[str] | Backend = "base",
    language: str | None = None,
    task: str = "transcribe",
    word_timestamps: bool = False,
    device: str | None = None,
    *,
    sample_rate: int | None = None,
    advance: Callable[[float], object] = lambda seconds: None,
    **settings: Any,
) -> Transcript:
    """Transcribe a recording of any length with Whisper.

    Files of every format that `load` reads, at bounded memory. Silence, noise and music without
    speech give no text. The model used last stays in memory: the next call does not load it again.

    Args:
        source: a path, a file's content as bytes, a binary file object, a waveform `(time,)` or
            `(channel, time)`, or a waveform and its rate, as `load` gives them.
        model: a name of Whisper's, which is downloaded when it is first used, or the path of a
            checkpoint.
        language: code of the language spoken, such as `"en"`; `None` hears it.
        task: `"transcribe"`, or `"translate"` to English.
        word_timestamps: whether segments get words with their times.
        device: as torch names it; `None` = CUDA where there is some, else the CPU.
        sample_rate: Hz of a waveform.
        advance: is told how many more seconds of the recording are done.
        **settings: what else a `Transcriber` takes: `backend`, `gate`, `channels`,
            `initial_prompt`, `condition_on_previous_text`, `temperature`, `beam_size`.

    Raises:
        ParameterError: an argument is out of range; there is no such model or device.
        DecodeError: as `load`; or the checkpoint cannot be read as one.
        MissingDependencyError: the backend or the gate is not installed.
    """
    transcriber = Transcriber(model, language, task, word_timestamps, device, **settings)
    return transcriber(source, sample_rate=sample_rate, advance=advance)


def detect_language(
    source: Speech,
    model: str | os.PathLike[str] | Backend = "base",
    device: str | None = None,
    *,
    sample_rate: int | None = None,
    **settings: Any,
) -> LanguageGuess:
    """Return the language of a recording, as its first 30 seconds with speech tell.

    Args:
        source: as for `transcribe`.
        model: as for `transcribe`; it must be a multilingual one.
        device: as for `transcribe`.
        sample_rate: Hz of a waveform.
        **settings: `backend` and `gate`, as for a `Transcriber`.

    Raises:
        ParameterError: as `transcribe`; nobody speaks, or the model knows one language alone.
        DecodeError: as `transcribe`.
        MissingDependencyError: as `transcribe`.
    """
    transcriber = Transcriber(model, device=device, **settings)
    return transcriber.detect_language(source, sample_rate=sample_rate)


class _Voice:
    """A channel of a recording, and what is heard of it."""

    def __init__(self, cutter: WindowCutter, listener: Listener) -> None:
        self._cutter = cutter
        self._listener = listener
        self.heard: list[Heard] = []

    def feed(self, samples: Tensor) -> None:
        self._hear(self._cutter.feed(samples))

    def finish(self) -> None:
        self._hear(self._cutter.finish())

    def _hear(self, windows: Iterable[Window]) -> None:
        for window in windows:
            self.heard.extend(self._listener.hear(window))


def _open(source: Speech, sample_rate: int | None) -> tuple[str, Iterator[Tensor]]:
    """A source's name and its blocks `(channel, time)` at 16 kHz."""
    if isinstance(source, tuple):
        if len(source) != 2 or not isinstance(source[0], Tensor | np.ndarray):
            kinds = ", ".join(type(each).__name__ for each in source)
            raise ParameterError(f"source: is a tuple ({kinds}); must be (waveform, sample rate)")
        source, sample_rate = source
    if isinstance(source, Tensor | np.ndarray):
        return "<waveform>", iter(_waveform(source, sample_rate).split(_BLOCK_SAMPLES, dim=1))
    if sample_rate is not None:
        raise ParameterError(f"sample_rate={sample_rate!r}: is for waveforms; a file tells its own")
    return source_name(source), stream(source, _BLOCK_SAMPLES / SAMPLE_RATE, SAMPLE_RATE)


def _mixed(block: Tensor) -> Tensor:
    return block.mean(dim=0, keepdim=True)


def _waveform(waveform: Waveform, sample_rate: int | None) -> Tensor:
    """A caller's waveform as `(channel, time)` float32 at 16 kHz."""
    if sample_rate is None:
        raise ParameterError("sample_rate=None: give the waveform's rate in Hz")
    if isinstance(waveform, np.ndarray) and waveform.dtype.kind == "f":
        # torch takes neither other byte orders and precisions nor reversed or read-only arrays.
        waveform = waveform.astype(np.float32)
    elif isinstance(waveform, np.ndarray):
        raise ParameterError(f"waveform: is {waveform.dtype}; {_AS_LOADED}")
    samples = torch.as_tensor(waveform).detach()
    if not samples.is_floating_point() or samples.ndim not in (1, 2):
        raise ParameterError(
            f"waveform: is {samples.dtype} of shape {tuple(samples.shape)}; {_AS_LOADED}"
        )
    samples = torch.atleast_2d(samples.float().cpu())
    if samples.shape[0] > max(1, samples.shape[1]):
        raise ParameterError(
            f"waveform: has {samples.shape[0]} channels of {samples.shape[1]} samples; channels "
            "come first: give its transpose"
        )
    if samples.numel() == 0:
        return torch.zeros(1, 0)
    if not torch.isfinite(samples).all():
        raise ParameterError(
            "waveform: holds NaN or infinite samples; repair or leave out the clip"
        )
    if (peak := float(samples.abs().max())) > _MAX_PEAK:
        raise ParameterError(
            f"waveform: reaches {peak:.6g}; must be in about [-1, 1]; divide 16-bit samples by "
            "32768"
        )
    return samples if sample_rate == SAMPLE_RATE else Resample(sample_rate, SAMPLE_RATE)(samples)[0]


def _main_language(heard: Sequence[Heard]) -> tuple[str | None, float | None]:
    """The language of most of the speech, and how probable it is there."""
    seconds: dict[str, float] = {}
    for found in heard:
        seconds[found.language] = seconds.get(found.language, 0.0) + found.speech_seconds
    if not seconds:
        return None, None
    language = max(seconds, key=lambda each: seconds[each])
    asked = [found for found in heard if found.language == language and found.probability]
    total = sum(found.speech_seconds for found in asked)
    if not total:
        return language, None
    weighted = sum(found.speech_seconds * (found.probability or 0.0) for found in asked)
    return language, weighted / total


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ParameterError(f"{name}={value!r}: must be one of {', '.join(choices)}")


def _language(language: str | None, task: str, backend: Backend) -> str | None:
    """The language that was given, once the model is known to know it."""
    alone = len(backend.languages) == 1
    if task == "translate" and alone:
        raise ParameterError(
            f"task='translate': {backend.model} knows English alone; take a multilingual model"
        )
    code = None if language is None else language.lower()
    if code is not None and code not in backend.languages:
        raise ParameterError(
            f"language={language!r}: {backend.model} does not know it; give a code out of "
            f"{' '.join(backend.languages)}, or None to hear it"
        )
    return backend.languages[0] if alone else code


def _temperatures(temperature: float | Sequence[float]) -> tuple[float, ...]:
    tried = tuple(temperature) if isinstance(temperature, Sequence) else (temperature,)
    numbers = all(isinstance(each, int | float) and 0 <= each <= 2 for each in tried)
    if not tried or not numbers:
        raise ParameterError(f"temperature={temperature!r}: must be from 0 to 2, one or several")
    return tuple(float(each) for each in tried)
