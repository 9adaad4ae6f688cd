"""The default backend: the models of the openai-whisper package."""

import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from audiotorch.errors import DecodeError, MissingDependencyError, ParameterError
from audiotorch.transcribe.backends import Options
from audiotorch.transcribe.decoding import WindowDecoder
from audiotorch.transcribe.result import Segment, Word

__all__ = ["OpenAIWhisper"]

# The names whose published alignment heads fit a checkpoint of the same shape:
# (layers and width of the decoder, mel bands, multilingual).
_SHAPES = {
    (4, 384, 80, False): "tiny.en",
    (4, 384, 80, True): "tiny",
    (6, 512, 80, False): "base.en",
    (6, 512, 80, True): "base",
    (12, 768, 80, False): "small.en",
    (12, 768, 80, True): "small",
    (24, 1024, 80, False): "medium.en",
    (24, 1024, 80, True): "medium",
    (32, 1280, 80, True): "large-v2",
    (32, 1280, 128, True): "large-v3",
    (4, 1280, 128, True): "turbo",
}


class OpenAIWhisper:
    """A model of openai-whisper.

    Encoding a window is half of the work or more. What was encoded last is remembered, so that
    hearing the language, trying another temperature and timing words do not encode it again, as
    they do in the package. Threads may share a model: their calls wait for each other.

    Args:
        model: a name of Whisper's, or the path of a checkpoint. For a checkpoint, words are timed
            with the attention heads published for models of its shape.
        device: as torch names it; `None` = CUDA where there is some, else the CPU.

    Raises:
        ParameterError: neither a name nor a file, no download, or a device that is not there.
        DecodeError: the file is no Whisper checkpoint.
        MissingDependencyError: openai-whisper is not installed.
    """

    def __init__(self, model: str = "base", device: str | None = None) -> None:
        try:
            import whisper
        except ImportError as error:
            raise MissingDependencyError(
                "transcribing needs openai-whisper: pip install 'audiotorch[whisper]'"
            ) from error
        self.model = model
        self._whisper = whisper
        self._net: Any = _load(whisper, model, _device(device))
        if os.path.isfile(model) and (heads := _alignment_heads(whisper, self._net, model)):
            self._net.set_alignment_heads(heads)
        self._net.encoder = _Remembering(self._net.encoder)
        # What is remembered, and the package's hooks for timing words, belong to one call.
        self._busy = threading.Lock()
        self._dtype = torch.float32 if self._net.device.type == "cpu" else torch.float16
        self.languages: tuple[str, ...] = ("en",)
        if self._net.is_multilingual:
            # In the order of their tokens; the first models know one less than the later ones.
            self.languages = tuple(whisper.tokenizer.LANGUAGES)[: self._net.num_languages]

    def detect_languages(
        self, samples: Tensor, parts: Sequence[tuple[int, int]]
    ) -> list[dict[str, float]]:
        """Return for each part the probability of each language, the most probable first.

        The window is encoded once, and each part told from its share of that.

        Args:
            samples: `(n,)` float32 at 16 kHz, a window of 30 seconds at most.
            parts: samples from and to.
        """
        if len(self.languages) == 1:
            return [{self.languages[0]: 1.0} for _ in parts]
        audio = self._whisper.audio
        tokenizer = self._whisper.tokenizer.get_tokenizer(
            True, num_languages=self._net.num_languages
        )
        mel = self._whisper.pad_or_trim(self._mel(samples), audio.N_FRAMES)
        begin = torch.tensor([[tokenizer.sot]], device=self._net.device)
        found = []
        with self._busy, torch.no_grad():
            features = self._net.encoder(mel[None].to(self._net.device, self._dtype))
            for start, stop in parts:
                whole = stop - start >= len(samples)
                first, last = (each // audio.N_SAMPLES_PER_TOKEN for each in (start, stop))
                share = features if whole else features[:, first : max(last, first + 1)]
                logits = self._net.logits(begin, share)[0, 0, list(tokenizer.all_language_tokens)]
                shares = logits.float().softmax(dim=0).tolist()
                found.append(dict(zip(tokenizer.all_language_codes, shares, strict=True)))
        return [dict(sorted(each.items(), key=lambda item: -item[1])) for each in found]

    def transcribe(self, samples: Tensor, options: Options) -> list[Segment]:
        """Return what is said, with times from the first sample.

        Args:
            samples: `(n,)` float32 at 16 kHz, of any length.
            options: how.
        """
        decoder = WindowDecoder(self._whisper, self._net, self._dtype, options)
        with self._busy:
            found = decoder.segments(self._mel(samples))
        return [_segment(each, options.language) for each in found]

    def _mel(self, samples: Tensor) -> Tensor:
        """The log mel spectrogram `(n_mels, frames)` of a window."""
        audio = self._whisper.audio
        # Three frames of silence after it, so that its last frame is not of its own mirror image.
        mel = audio.log_mel_spectrogram(
            samples, self._net.dims.n_mels, padding=3 * audio.HOP_LENGTH
        )
        found: Tensor = mel[:, :-3]
        return found


class _Remembered(NamedTuple):
    mel: Tensor
    features: Tensor


class _Remembering(nn.Module):
    """An encoder that gives what it gave for the same input just before."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self._encoder = encoder
        self._last: _Remembered | None = None

    def forward(self, mel: Tensor) -> Tensor:
        last = self._last
        if last is None or last.mel.shape != mel.shape or not torch.equal(last.mel, mel):
            last = _Remembered(mel.clone(), self._encoder(mel))
            self._last = last
        return last.features


def _device(device: str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ParameterError(
            f"device={device!r}: torch does not know it; use 'cpu' or 'cuda'"
        ) from error
    if found.type == "cpu":
        return torch.device("cpu")  # whatever its number
    if found.type != "cuda":
        raise ParameterError(f"device={device!r}: Whisper runs here on 'cpu' or 'cuda'")
    if not torch.cuda.is_available():
        raise ParameterError(
            f"device={device!r}: this machine has no CUDA device; use device='cpu'"
        )
    if (found.index or 0) >= torch.cuda.device_count():
        raise ParameterError(
            f"device={device!r}: this machine has {torch.cuda.device_count()} CUDA device(s), "
            "counted from 0"
        )
    return found


def _load(whisper: Any, model: str, device: torch.device) -> Any:
    names = whisper.available_models()
    if model not in names and not os.path.isfile(model):
        raise ParameterError(
            f"model={model!r}: neither a file nor a name of Whisper's; give the path of a "
            f"checkpoint, or one of {' '.join(names)}"
        )
    try:
        return whisper.load_model(model, device=device)
    except Exception as error:  # reading what is no checkpoint raises nearly everything there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if os.path.isfile(model):
            raise DecodeError(
                f"{model}: cannot be read as a Whisper checkpoint ({reason}); it must hold `dims` "
                "and `model_state_dict`, as the files that openai-whisper downloads do"
            ) from error
        raise ParameterError(
            f"model={model!r}: could not be downloaded ({reason}); connect to the internet once, "
            "or give the path of a checkpoint"
        ) from error


def _alignment_heads(whisper: Any, net: Any, path: str) -> bytes | None:
    """The heads that follow the words: those published for the file's name, or for its shape."""
    dims = net.dims
    shape = (dims.n_text_layer, dims.n_text_state, dims.n_mels, bool(net.is_multilingual))
    name = os.path.splitext(os.path.basename(path))[0]
    known = whisper.available_models()
    # Only the large models have one shape and different heads, by which their names tell them.
    if not (name in known and name.startswith("large") and shape[0] == 32):
        name = _SHAPES.get(shape, "")
    heads: bytes | None = whisper._ALIGNMENT_HEADS.get(name)
    return heads


def _segment(found: dict[str, Any], language: str) -> Segment:
    words = (
        Word(each["word"], float(each["start"]), float(each["end"]), float(each["probability"]))
        for each in found.get("words", [])
    )
    return Segment(
        float(found["start"]),
        float(found["end"]),
        found["text"],
        language,
        avg_logprob=float(found["avg_logprob"]),
        compression_ratio=float(found["compression_ratio"]),
        no_speech_prob=float(found["no_speech_prob"]),
        temperature=float(found["temperature"]),
        words=tuple(words),
    )
