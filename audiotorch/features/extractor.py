"""Several features by name, on shared spectra; `FEATURES`, the one table of names."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Dict, Iterable, List, Optional

import torch
from torch import Tensor, nn

from audiotorch.audio.chunks import Walker, walks
from audiotorch.errors import ParameterError
from audiotorch.features.cepstrum import MFCC, MFCCDelta
from audiotorch.features.chroma import ChromaCENS, ChromaCQT, ChromaSTFT, HarmonicTonnetz
from audiotorch.features.constantq import CQT
from audiotorch.features.contrast import SpectralContrast
from audiotorch.features.feature import Feature, Waveform
from audiotorch.features.functional import check_waveform
from audiotorch.features.harmonic import HarmonicRatio
from audiotorch.features.level import RMS, ZeroCrossingRate
from audiotorch.features.mel import MelSpectrogram
from audiotorch.features.onset import OnsetStrength
from audiotorch.features.rhythm import Tempo, Tempogram
from audiotorch.features.spectral import (
    PolyFeatures,
    SpectralBandwidth,
    SpectralCentroid,
    SpectralFlatness,
    SpectralRolloff,
)
from audiotorch.features.spectrogram import STFT, Spectrogram

__all__ = ["FEATURES", "FeatureExtractor", "SharedStages", "told_of_rate"]

FEATURES: Mapping[str, Callable[..., Feature]] = {
    "zero_crossing_rate": ZeroCrossingRate,
    "rms": RMS,
    "spectral_centroid": SpectralCentroid,
    "spectral_bandwidth": SpectralBandwidth,
    "spectral_rolloff": SpectralRolloff,
    "spectral_contrast": SpectralContrast,
    "spectral_flatness": SpectralFlatness,
    "poly_features": PolyFeatures,
    "spectrogram": Spectrogram,
    "mel_spectrogram": MelSpectrogram,
    "mfcc": partial(MFCC, n_mfcc=13),
    "delta_mfcc": partial(MFCCDelta, n_mfcc=13, order=1),
    "delta2_mfcc": partial(MFCCDelta, n_mfcc=13, order=2),
    "chroma_stft": ChromaSTFT,
    "chroma_cqt": ChromaCQT,
    "chroma_cens": ChromaCENS,
    "cqt": CQT,
    "tonnetz": HarmonicTonnetz,
    "harmonic_ratio": HarmonicRatio,
    "onset_strength": OnsetStrength,
    "tempogram": Tempogram,
    "tempo": Tempo,
}
"""Each feature's name in tables, configs and on the command line, and what builds it."""

# What must be one for all features, or their frames would not line up.
_COMMON = ("sample_rate", "hop_length", "center")


class SharedStages(Walker):
    """Features whose common stages, such as the spectrum, are computed once.

    Args:
        features: named features.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples
        - Output: a dict of what each feature gives.
    """

    joined: List[str]

    def __init__(self, features: Mapping[str, Feature]) -> None:
        super().__init__()
        self.stages = nn.ModuleDict({"0": Waveform()})
        self.sources: Dict[str, str] = {}
        self.joined = []
        self.outputs: Dict[str, str] = {name: self._add(each) for name, each in features.items()}
        self._join_spectra()
        made = [stage for key, stage in self.stages.items() if key != "0"]
        self.chunk_scale = min(int(stage.chunk_scale) for stage in made)  # type: ignore[arg-type]

    def _add(self, stage: Any) -> str:
        """Return the key of a stage, which may stand there already; its sources come before it."""
        if isinstance(stage, Waveform):
            return "0"
        source = self._add(stage.source)
        for key, known in self.stages.items():
            if self.sources.get(key) == source and _alike(known, stage):
                return key
        # A twin, as no module may stand in two places: see `torch.func.functional_call`.
        stage.source = _twin(self.stages[source])
        key = str(len(self.stages))
        self.stages[key] = stage
        self.sources[key] = source
        return key

    def _join_spectra(self) -> None:
        """Leave out spectra that only the next stage uses, which is quicker by itself."""
        for kind, above in ((STFT, Spectrogram), (Spectrogram, MelSpectrogram)):
            for key, stage in list(self.stages.items()):
                users = [user for user, source in self.sources.items() if source == key]
                alone = len(users) == 1 and key not in self.outputs.values()
                from_waveform = self.sources.get(key) == "0"
                if not (alone and from_waveform and type(stage) is kind):
                    continue
                if isinstance(self.stages[users[0]], above):
                    self.sources[users[0]] = self.sources.pop(key)
                    del self.stages[key]
                    self.joined = [each for each in self.joined if each != key] + users

    def compute(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Return all features of `(batch, time)` at once, without chunks."""
        given: Dict[str, Tensor] = {}
        for key, stage in self.stages.items():
            x = given[self.sources[key]] if key in self.sources else waveform
            waveform = given.get("0", waveform)
            if key in self.joined:
                given[key] = stage.compute(x, lengths)  # type: ignore[operator]
            else:
                given[key] = stage.derive_beside(x, waveform, lengths)  # type: ignore[operator]
        answer: Dict[str, Tensor] = {}
        for name, key in self.outputs.items():
            answer[name] = given[key]
        return answer

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Return all features; walked in chunks as `Feature` says."""
        check_waveform(waveform, lengths)
        if waveform.dim() != 2:
            raise ParameterError(f"waveform: must be (batch, time), got {waveform.dim()} axes")
        if not torch.jit.is_scripting():
            if walks(waveform):
                answer: Dict[str, Tensor] = self._walk(waveform, lengths)
                return answer
        return self.compute(waveform, lengths)


class FeatureExtractor(nn.Module):
    """Any features by name; a spectrum that several need is computed once.

    A padded clip gives the numbers it gives alone, up to its last frame.

    Args:
        features: names, keys of `FEATURES`.
        sample_rate: Hz.
        hop_length: samples between frames, the same for all.
        settings: `name=value` for all features that take it, such as `n_fft`, `fmin`, `window`;
            `feature={...}` for one alone, such as `mfcc={"n_mfcc": 20}`, which comes first.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples
        - Output: a dict, in the order asked for; each `(batch, rows, frames)`, frames past a
          clip's own are 0, or `(batch, 1)` for the features of a whole clip, such as `tempo`.

    Raises:
        ParameterError: no, an unknown or a repeated feature; a setting that none of them takes;
            `sample_rate`, `hop_length` or `center` for one alone; and as the features themselves.

    Reference:
        Same values as the functions of `librosa.feature`; see each feature.

    Example:
        >>> extractor = FeatureExtractor(["mfcc", "rms"], n_fft=1024)
        >>> {name: list(x.shape) for name, x in extractor(torch.zeros(2, 22050)).items()}
        {'mfcc': [2, 13, 44], 'rms': [2, 1, 44]}
    """

    def __init__(
        self,
        features: Sequence[str],
        sample_rate: int = 22050,
        *,
        hop_length: int = 512,
        **settings: Any,
    ) -> None:
        super().__init__()
        names = [features] if isinstance(features, str) else list(features)
        _check_names(names)
        own = {name: settings.pop(name) for name in list(settings) if name in FEATURES}
        _check_settings(names, own, settings)
        shared = {"sample_rate": sample_rate, "hop_length": hop_length, **settings}
        built = {}
        for name in names:
            accepted = _accepted(FEATURES[name])
            chosen = {key: value for key, value in shared.items() if key in accepted}
            built[name] = FEATURES[name](**{**chosen, **own.get(name, {})})
        self.names: List[str] = names
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.min_samples = max(feature.min_samples for feature in built.values())
        self.stages = SharedStages(built)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        return 1 + lengths // self.hop_length

    @torch.jit.unused
    def compile(self, **options: Any) -> None:
        """Let `torch.compile` fuse the stages, as `Feature.compile` does; same arguments."""
        self.stages.compile(**options)

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Return the features; shapes and errors as in the class docstring."""
        answer: Dict[str, Tensor] = self.stages(waveform, lengths)
        return answer


@contextmanager
def told_of_rate(sample_rate: int) -> Iterator[None]:
    """Name, in errors, the one setting that can be at fault where features are built by name.

    Args:
        sample_rate: that they are built with.
    """
    try:
        yield
    except ParameterError as error:
        raise ParameterError(
            f"sample_rate={sample_rate}: not for these features ({error}); take another, such as "
            "22050"
        ) from error


def _check_names(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise ParameterError(f"features={unknown}: unknown; known are {', '.join(FEATURES)}")
    if not names or len(set(names)) < len(names):
        raise ParameterError(f"features={list(names)}: must be distinct names, at least one")


def _check_settings(
    names: Sequence[str], own: Mapping[str, Any], shared: Mapping[str, Any]
) -> None:
    if shared.get("center", True) is not True:
        raise ParameterError("center=False: the features' frames would not line up; leave it out")
    taken = {key: {name for name in names if key in _accepted(FEATURES[name])} for key in shared}
    for key, takers in taken.items():
        if not takers:
            raise ParameterError(f"{key}={shared[key]!r}: none of {list(names)} takes it")
    for name, settings in own.items():
        if name not in names:
            raise ParameterError(f"{name}={settings!r}: {name!r} is not among the features")
        accepted = _accepted(FEATURES[name])
        for key in settings:
            if key in _COMMON:
                raise ParameterError(f"{name}: {key} is one for all features; set it for all")
            if key not in accepted:
                known = ", ".join(sorted(accepted))
                raise ParameterError(f"{name}: takes no {key!r}; it takes {known}")


def _accepted(build: Any) -> set[str]:
    """Names of the settings that a feature takes, those passed on to its sources included."""
    accepted: set[str] = set()
    kind: Any = build.func if isinstance(build, partial) else build
    while kind is not None:
        parameters = inspect.signature(kind).parameters.values()
        accepted |= {each.name for each in parameters if each.kind != each.VAR_KEYWORD}
        kind = kind.passes_on_to
    return accepted - {"source"}


def _alike(a: nn.Module, b: nn.Module) -> bool:
    """Whether two stages on the same source compute the same."""
    return type(a) is type(b) and _settings(a) == _settings(b) and _same_tensors(a, b)


def _twin(module: nn.Module) -> nn.Module:
    """Copy a module and its parts, but not their tensors, which both hold."""
    twin = copy.copy(module)
    twin._buffers = dict(module._buffers)
    twin._modules = {
        name: None if part is None else _twin(part) for name, part in module._modules.items()
    }
    return twin


def _settings(stage: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in vars(stage).items() if not key.startswith("_")}


def _same_tensors(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = _own_buffers(a), _own_buffers(b)
    return len(ours) == len(theirs) and all(
        x.shape == y.shape and torch.equal(x, y) for x, y in zip(ours, theirs, strict=True)
    )


def _own_buffers(stage: nn.Module) -> list[Tensor]:
    """The buffers of a stage and its parts, but not of its source."""
    parts: Iterable[nn.Module] = (part for name, part in stage.named_children() if name != "source")
    return [*stage.buffers(recurse=False), *(x for part in parts for x in part.buffers())]
