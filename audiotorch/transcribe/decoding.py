"""openai-whisper's own way through a window: decode, cut at the timestamps, go on from there."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audiotorch.transcribe.backends import (
    MAX_COMPRESSION,
    MIN_LOGPROB,
    NO_SPEECH,
    SAMPLE_RATE,
    Options,
)

__all__ = ["WindowDecoder"]

_FRAMES = SAMPLE_RATE // 160  # of a spectrogram, a second
_RESET = 0.5  # temperature above which a text is no prompt for what follows
# What is joined to the word after it, and to the word before it.
_FIRST_PUNCTUATION = "\"'“¿([{-"
_LAST_PUNCTUATION = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001


class _Cut(NamedTuple):
    """The stretches of a decoded text, and how many frames of the window it is about."""

    stretches: list[tuple[float, float, Tensor]]  # seconds from and to, and tokens
    n_frames: int
    ends_in_silence: bool


class WindowDecoder:
    """Decodes a window with the same steps as `whisper.transcribe`, so with the same words.

    One thing is left out: where nobody speaks any more, what follows the last timestamp is not
    decoded. That costs as much as the speech did, and is where Whisper makes words up.

    Args:
        whisper: the package.
        net: its model.
        dtype: that it computes in, float32 or float16.
        options: how to decode.
    """

    def __init__(self, whisper: Any, net: Any, dtype: torch.dtype, options: Options) -> None:
        self._whisper = whisper
        self._net = net
        self._options = options
        self._dtype = dtype
        self._tokenizer = whisper.tokenizer.get_tokenizer(
            net.is_multilingual,
            num_languages=net.num_languages,
            language=options.language,
            task=options.task,
        )
        prompt = options.initial_prompt
        self._tokens: list[int] = (
            [] if prompt is None else self._tokenizer.encode(" " + prompt.strip())
        )
        self._prompt_start = 0
        self._last_word_end = 0.0

    def segments(self, mel: Tensor) -> list[dict[str, Any]]:
        """Return segments with the keys of `whisper.transcribe`.

        Args:
            mel: `(n_mels, frames)`, the window's log mel spectrogram.
        """
        audio = self._whisper.audio
        found: list[dict[str, Any]] = []
        end = self._options.speech_end
        seek, n_frames = 0, mel.shape[-1]
        while seek < n_frames and (seek == 0 or end is None or seek / _FRAMES < end):
            size = min(audio.N_FRAMES, n_frames - seek)
            part = self._whisper.pad_or_trim(mel[:, seek : seek + size], audio.N_FRAMES)
            part = part.to(self._net.device, self._dtype)
            result = self._decode(part)
            if result.no_speech_prob > NO_SPEECH and result.avg_logprob <= MIN_LOGPROB:
                seek += size
                continue
            cut = self._cut(torch.tensor(result.tokens), size)
            made = [self._segment(seek, result, *stretch) for stretch in cut.stretches]
            following = seek + cut.n_frames
            if self._options.word_timestamps:
                last = self._time_words(made, part, size)
                if not cut.ends_in_silence and last is not None and last > seek / _FRAMES:
                    following = round(last * _FRAMES)
            found.extend(self._keep(made, result.temperature))
            seek = following
        return found

    def _decode(self, mel: Tensor) -> Any:
        """Decode at one temperature after another, until the text is none of a failure."""
        result: Any = None
        for temperature in self._options.temperature:
            options = self._whisper.DecodingOptions(
                task=self._options.task,
                language=self._options.language,
                temperature=temperature,
                beam_size=self._options.beam_size if temperature == 0 else None,
                prompt=self._tokens[self._prompt_start :],
                fp16=self._dtype == torch.float16,
            )
            result = self._net.decode(mel, options)
            repeats = result.compression_ratio > MAX_COMPRESSION
            improbable = result.avg_logprob < MIN_LOGPROB
            if improbable and result.no_speech_prob > NO_SPEECH:
                break  # silence
            if not (repeats or improbable):
                break
        return result

    def _cut(self, tokens: Tensor, size: int) -> _Cut:
        """Cut tokens at pairs of timestamps; what follows the last pair is decoded next."""
        first = self._tokenizer.timestamp_begin
        per_token = self._whisper.audio.N_FRAMES // self._net.dims.n_audio_ctx
        is_time = tokens.ge(first)
        ends_in_silence = is_time[-2:].tolist() == [False, True]
        pairs = (torch.where(is_time[:-1] & is_time[1:])[0] + 1).tolist()
        if not pairs:
            times = tokens[is_time]
            seconds = size / _FRAMES
            if len(times) and times[-1] != first:
                seconds = int(times[-1] - first) * per_token / _FRAMES
            return _Cut([(0.0, seconds, tokens)], size, ends_in_silence)
        if ends_in_silence:
            pairs.append(len(tokens))
        stretches = []
        for start, stop in zip([0, *pairs[:-1]], pairs, strict=True):
            times = (tokens[[start, stop - 1]] - first) * per_token
            stretches.append(
                (float(times[0]) / _FRAMES, float(times[1]) / _FRAMES, tokens[start:stop])
            )
        heard = size if ends_in_silence else int(tokens[pairs[-1] - 1] - first) * per_token
        return _Cut(stretches, heard, ends_in_silence)

    def _segment(
        self, seek: int, result: Any, start: float, end: float, tokens: Tensor
    ) -> dict[str, Any]:
        text = [token for token in tokens.tolist() if token < self._tokenizer.eot]
        numbers = ("temperature", "avg_logprob", "compression_ratio", "no_speech_prob")
        return {
            "seek": seek,
            "start": seek / _FRAMES + start,
            "end": seek / _FRAMES + end,
            "text": self._tokenizer.decode(text),
            "tokens": tokens.tolist(),
            **{name: getattr(result, name) for name in numbers},
        }

    def _time_words(self, segments: list[dict[str, Any]], mel: Tensor, size: int) -> float | None:
        """Give segments their words, and return when the last one ends."""
        n_threads = torch.get_num_threads()
        self._whisper.timing.add_word_timestamps(
            segments=segments,
            model=self._net,
            tokenizer=self._tokenizer,
            mel=mel,
            num_frames=size,
            prepend_punctuations=_FIRST_PUNCTUATION,
            append_punctuations=_LAST_PUNCTUATION,
            last_speech_timestamp=self._last_word_end,
        )
        # numba, which aligns words, gives torch as many threads as there are cores when it starts.
        torch.set_num_threads(n_threads)
        ends = [word["end"] for segment in segments for word in segment["words"]]
        ends = ends or [segment["end"] for segment in segments]
        if not ends:
            return None
        self._last_word_end = ends[-1]
        return float(ends[-1])

    def _keep(self, segments: Sequence[dict[str, Any]], temperature: float) -> list[dict[str, Any]]:
        """Segments with text and a length; they are the prompt for what follows."""
        kept = [each for each in segments if each["start"] != each["end"] and each["text"].strip()]
        self._tokens.extend(token for each in kept for token in each["tokens"])
        if temperature > _RESET:
            self._prompt_start = len(self._tokens)
        return kept
