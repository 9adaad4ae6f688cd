"""faster-whisper: the same models, computed by CTranslate2 instead of torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.transcribe.backends import (
    MAX_COMPRESSION,
    MIN_LOGPROB,
    NO_SPEECH,
    SAMPLE_RATE,
    Options,
)
from audiotorch.transcribe.result import Segment, Word

__all__ = ["FasterWhisper"]

_CONVERTER = "ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json"


class FasterWhisper:
    """A Whisper model that faster-whisper runs.

    It decodes as openai-whisper does, whose defaults are others than faster-whisper's own, so that
    the two can be compared: one hypothesis alone, and one sample at temperatures above 0. That
    sample is another each time, as CTranslate2 takes no seed once a model is loaded.

    Args:
        model: a name such as `"base"`, which faster-whisper downloads unless it has done so
            before; or a folder that holds a CTranslate2 model.
        device: `"cpu"`, `"cuda"` or `"cuda:1"`; `None` takes CUDA where there is some.
        compute_type: of the weights and sums, as CTranslate2 calls it: `"float32"`, `"int8"`,
            `"float16"`, ...; `None` takes float32 on the CPU and float16 on CUDA.

    Raises:
        MissingDependencyError: faster-whisper is not installed.
        ParameterError: there is no such model or device.
    """

    def __init__(
        self,
        model: str = "base",
        device: str | torch.device | None = None,
        *,
        compute_type: str | None = None,
    ) -> None:
        self.model = str(model)
        _refuse_what_is_no_folder(self.model)
        self._loaded = _load(self.model, device, compute_type)
        known = self._loaded.hf_tokenizer
        # faster-whisper lists Cantonese for all models; only the large ones from v3 on have it.
        self.languages: tuple[str, ...] = tuple(
            code
            for code in self._loaded.supported_languages
            if code == "en" or known.token_to_id(f"<|{code}|>") is not None
        )

    def detect_languages(
        self, samples: Tensor, parts: Sequence[tuple[int, int]]
    ) -> list[dict[str, float]]:
        """Return for each part the probability of each language, the most probable first.

        Args:
            samples: `(n,)` float32 at 16 kHz, a window of 30 seconds at most.
            parts: samples from and to.
        """
        if len(self.languages) == 1:
            return [{self.languages[0]: 1.0} for _ in parts]
        audio = _as_array(samples)
        return [
            self._language(audio) if stop - start >= len(audio) else self._quick(audio[start:stop])
            for start, stop in parts
        ]

    def _language(self, audio: npt.NDArray[np.float32]) -> dict[str, float]:
        # The silence after a short clip is heard as silence, as openai-whisper hears it.
        # faster-whisper fills up with zeros in the spectrogram, which is some sound.
        fill = max(0, 30 * SAMPLE_RATE - len(audio))
        _, _, found = self._loaded.detect_language(np.pad(audio, (0, fill)))
        return {code: float(probability) for code, probability in found}

    def _quick(self, audio: npt.NDArray[np.float32]) -> dict[str, float]:
        """Encode a part alone, without what fills the 30 seconds up."""
        loaded = self._loaded
        n_frames = max(2, len(audio) // loaded.feature_extractor.hop_length)
        features = loaded.feature_extractor(audio)[:, :n_frames]
        (tokens,) = loaded.model.detect_language(loaded.encode(features))
        return {token.strip("<|>"): float(probability) for token, probability in tokens}

    def transcribe(self, samples: Tensor, options: Options) -> list[Segment]:
        """Return what is said, with times from the first sample.

        Args:
            samples: `(n,)` float32 at 16 kHz, of any length.
            options: how.
        """
        found, _ = self._loaded.transcribe(
            _as_array(samples),
            language=options.language,
            task=options.task,
            word_timestamps=options.word_timestamps,
            initial_prompt=options.initial_prompt,
            temperature=options.temperature,
            beam_size=options.beam_size or 1,
            best_of=1,
            compression_ratio_threshold=MAX_COMPRESSION,
            log_prob_threshold=MIN_LOGPROB,
            no_speech_threshold=NO_SPEECH,
            condition_on_previous_text=True,
            multilingual=False,
            vad_filter=False,
        )
        return [_segment(each, options.language) for each in found]


def _as_array(samples: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = samples.detach().to("cpu", torch.float32).numpy()
    return array


def _segment(found: Any, language: str) -> Segment:
    words = tuple(
        Word(word.word, float(word.start), float(word.end), float(word.probability))
        for word in found.words or ()
    )
    return Segment(
        start=float(found.start),
        end=float(found.end),
        text=found.text,
        language=language,
        avg_logprob=float(found.avg_logprob),
        compression_ratio=float(found.compression_ratio),
        no_speech_prob=float(found.no_speech_prob),
        temperature=float(found.temperature),
        words=words,
    )


# --- loading --------------------------------------------------------------------------------------


def _refuse_what_is_no_folder(model: str) -> None:
    path = Path(model)
    if path.is_absolute() and not path.exists():
        raise ParameterError(f"model={model!r}: there is no such folder")
    if path.is_file() or path.suffix == ".pt":
        raise ParameterError(
            f"model={model!r}: faster-whisper reads folders with a CTranslate2 model, no files; "
            "checkpoints (.pt) are openai-whisper's: take backend='whisper' for them, or convert "
            f"the model with {_CONVERTER}"
        )
    if path.is_dir() and not (path / "model.bin").is_file():
        raise ParameterError(
            f"model={model!r}: the folder holds no model.bin, so no CTranslate2 model; "
            f"{_CONVERTER} makes one"
        )


def _load(model: str, device: str | torch.device | None, compute_type: str | None) -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise MissingDependencyError(
            f"faster-whisper is needed: pip install 'audiotorch[faster]' ({error})"
        ) from error
    kind, index = _place(device)
    if compute_type is None:
        compute_type = "float16" if kind == "cuda" else "float32"
    try:
        return WhisperModel(
            model,
            device=kind,
            device_index=index,
            compute_type=compute_type,
            cpu_threads=torch.get_num_threads(),
        )
    except Exception as error:  # of huggingface_hub, httpx, tokenizers and CTranslate2
        remedy = "give another folder, device or compute_type"
        if not Path(model).is_dir():
            remedy = (
                "names are downloaded once and need a connection for that; the folder of a "
                "CTranslate2 model needs none"
            )
        raise ParameterError(
            f"model={model!r} on device={kind!r} with compute_type={compute_type!r}: "
            f"faster-whisper cannot load it: {' '.join(str(error).split())}; {remedy}"
        ) from error


def _place(device: str | torch.device | None) -> tuple[str, int]:
    """Return the device as CTranslate2 names it: what it is, and which of them."""
    import ctranslate2

    n_gpus = ctranslate2.get_cuda_device_count()
    try:
        place = torch.device(device or ("cuda" if n_gpus else "cpu"))
    except RuntimeError as error:
        raise ParameterError(f"device={device!r}: {error}") from error
    if place.type not in ("cpu", "cuda"):
        raise ParameterError(f"device={str(place)!r}: faster-whisper computes on cpu and cuda only")
    index = place.index or 0
    if place.type == "cuda" and index >= n_gpus:
        raise ParameterError(f"device={str(place)!r}: CTranslate2 finds {n_gpus} CUDA devices")
    return place.type, index
