"""The default backend: the openai-whisper package."""

import os
import pickle
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from audiotorch.errors import DecodeError, MissingDependencyError, ParameterError
from audiotorch.transcribe.backends import Options
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
    """A model of openai-whisper, whose `transcribe` does the work.

    Encoding a window is half of the work or more. What was encoded last is remembered, so that
    hearing the language, trying another temperature and timing words do not encode it again, as
    they do in the package.

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
        self._net.encoder = _Remembering(self._net.encoder, whisper.audio.N_FRAMES)
        self._dtype = torch.float32 if self._net.device.type == "cpu" else torch.float16
        self.languages: tuple[str, ...] = ("en",)
        if self._net.is_multilingual:
            # In the order of their tokens; the first models know one less than the later ones.
            self.languages = tuple(whisper.tokenizer.LANGUAGES)[: self._net.num_languages]

    def detect_language(self, samples: Tensor, quick: bool = False) -> dict[str, float]:
        """Return the probability of each language, the most probable first.

        Args:
            samples: `(n,)` float32 at 16 kHz; what lies beyond 30 seconds is not heard.
            quick: encode them alone, without what fills the 30 seconds up: a short piece then
                takes little time, and is told less surely.
        """
        if len(self.languages) == 1:
            return {self.languages[0]: 1.0}
        audio = self._whisper.audio
        mel = self._whisper.log_mel_spectrogram(
            samples, self._net.dims.n_mels, padding=audio.N_SAMPLES
        )
        n_frames = min(mel.shape[-1] - audio.N_FRAMES, audio.N_FRAMES)
        window = mel[:, :n_frames]
        if not quick:
            # As `transcribe` makes the first window, which is then encoded but once.
            window = self._whisper.pad_or_trim(window, audio.N_FRAMES)
        _, probabilities = self._net.detect_language(window.to(self._net.device, self._dtype))
        return dict(sorted(probabilities.items(), key=lambda item: -item[1]))

    def transcribe(self, samples: Tensor, options: Options) -> list[Segment]:
        """Return what is said, with times from the first sample.

        Args:
            samples: `(n,)` float32 at 16 kHz, of any length.
            options: how.
        """
        with warnings.catch_warnings():
            # The CPU beside a CUDA device was asked for, and translated words were, too.
            warnings.filterwarnings("ignore", "Performing inference on CPU when CUDA is available")
            warnings.filterwarnings("ignore", "Word-level timestamps on translations")
            answer = self._whisper.transcribe(
                self._net,
                samples,
                language=options.language,
                task=options.task,
                word_timestamps=options.word_timestamps,
                initial_prompt=options.initial_prompt,
                temperature=options.temperature,
                beam_size=options.beam_size,
                compression_ratio_threshold=options.compression_ratio_threshold,
                fp16=self._dtype == torch.float16,
            )
        found = [_segment(segment, options.language) for segment in answer["segments"]]
        return [segment for segment in found if segment.text.strip()]


class _Remembered(NamedTuple):
    mel: Tensor
    features: Tensor


class _Remembering(nn.Module):
    """An encoder that gives what it gave for the same input just before, and takes shorter ones."""

    def __init__(self, encoder: nn.Module, n_frames: int) -> None:
        super().__init__()
        self._encoder: Any = encoder
        self._n_frames = n_frames
        self._last: _Remembered | None = None

    def forward(self, mel: Tensor) -> Tensor:
        if mel.shape[-1] < self._n_frames:
            return self._short(mel)
        last = self._last
        if last is None or last.mel.shape != mel.shape or not torch.equal(last.mel, mel):
            last = _Remembered(mel.clone(), self._encoder(mel))
            self._last = last
        return last.features

    def _short(self, mel: Tensor) -> Tensor:
        """The encoder's own steps, on fewer frames than it asks for."""
        encoder = self._encoder
        x = gelu(encoder.conv2(gelu(encoder.conv1(mel)))).permute(0, 2, 1)
        x = (x + encoder.positional_embedding[: x.shape[1]]).to(x.dtype)
        for block in encoder.blocks:
            x = block(x)
        features: Tensor = encoder.ln_post(x)
        return features


def _device(device: str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ParameterError(
            f"device={device!r}: torch does not know it; use 'cpu' or 'cuda'"
        ) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ParameterError(
            f"device={device!r}: this machine has no CUDA device; use device='cpu'"
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
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
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
