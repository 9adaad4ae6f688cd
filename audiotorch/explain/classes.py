"""Why a classifier answers as it does: where in the sound, or in which features."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from audiotorch.answers import check_classes, timeline
from audiotorch.answers.asking import PAD, answering, least_seconds, placed
from audiotorch.answers.prediction import best_class
from audiotorch.audio import Source, load
from audiotorch.audio.clips import check_seconds
from audiotorch.errors import ParameterError
from audiotorch.explain.places import around, band_edges, frame_seconds, hertz
from audiotorch.explain.weights import class_weights, shows_layers
from audiotorch.features.pooling import column_names

__all__ = ["ClassExplanation", "ClassMap", "check_class_explainable", "explain_class"]

_LONGEST = 60.0  # seconds that a map shows
_NAMED, _TOLD = 10, 3  # features that are kept, and those in the sentence
_SHORT = 2.0  # seconds of a map whose places need hundredths
_LOST = 0.01  # share of a clip's length beyond which its seconds are no longer the recording's
_MUTE = (
    "explain: this model says neither where nor in which features it hears a class; networks on "
    "spectrogram images, networks on vectors, trees, forests, boosters, logistic regression and "
    "linear SVMs do, the last five behind a StandardScaler at most"
)


@dataclass(frozen=True)
class ClassMap:
    """What speaks for a class, over the spectrogram that the model was given.

    Args:
        start_seconds: where the map starts in the recording.
        frame_seconds: from frame to frame; the first one lies at `start_seconds`.
        band_edges: Hz, `(n_bands + 1,)`: between the centres of neighbouring bands; `None` where
            the front end has no mel bands.
        spectrogram: dB, of front ends that tell it, else the first channel of the model's input,
            `(n_bands, frames)`.
        weights: 0 where nothing speaks for the class, 1 where most does, `(n_bands, frames)`.
        unit: of the spectrogram: `"dB"`, or `""` for the model's own numbers.
    """

    start_seconds: float
    frame_seconds: float
    band_edges: Tensor | None
    spectrogram: Tensor
    weights: Tensor
    unit: str = ""


@dataclass(frozen=True)
class ClassExplanation:
    """A classifier's answer to one recording, and the reasons for one of the classes.

    Args:
        label: the class that is explained: the most probable one, unless another was asked for.
        confidence: its probability.
        probabilities: of each class by name.
        reason: one sentence: seconds and band, or features, that speak most for the class.
        seconds: how long the recording lasts.
        map: of networks on images: what speaks for the class over the spectrogram.
        contributions: of models that tell it: what features add to the class by name, the largest
            first; see `ClassicModel.contributions` and `MLP.contributions`.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    reason: str
    seconds: float
    map: ClassMap | None = None
    contributions: dict[str, float] = field(default_factory=dict)


def check_class_explainable(module: Any) -> None:
    """Refuse a module that does not say what its answers rest on.

    Args:
        module: a Pipeline, eager or exported.

    Raises:
        ParameterError: a detector, no labels, or a model on vectors without contributions, such as
            nearest neighbours and SVMs with curved kernels.
    """
    check_classes(module)
    if not _names_features(module) and (hasattr(module.model, "explains") or not _has_map(module)):
        raise ParameterError(_MUTE)


def _names_features(module: Any) -> bool:
    return bool(getattr(module.model, "explains", False))


def _has_map(module: Any) -> bool:
    return len(getattr(module.features, "output_shape", ())) == 2


def explain_class(
    module: nn.Module,
    source: Source | Tensor,
    *,
    label: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
) -> ClassExplanation:
    """Say where in a recording, or in which of its features, a classifier hears a class.

    Networks on spectrogram images show where: see `class_weights`. Models on vectors, trees and
    the like, name features. A recording is decoded, and answered, as `predict` does it. Where an
    image network gets more than a minute, though, each minute is answered by itself, and the one
    that is surest of the class is explained, at bounded memory; confidence and probabilities are
    that minute's.

    Where the Pipeline cuts silence out first, seconds count without it, and the reason says so.

    Args:
        module: classifier, eager or exported.
        source: a path, bytes or open file; or a waveform `(time,)` at the module's rate.
        label: the class to explain; `None` = the most probable one.
        device: `"cpu"`, `"cuda"` ...: the module is moved there; `None` = where it is.
        batch_size: minutes answered together.

    Raises:
        ParameterError: a model that cannot say it, no such label, a waveform of another shape.
        DecodeError: the recording cannot be read, is empty or too short.
    """
    check_class_explainable(module)
    pipeline = placed(module, device, batch_size)
    if label is not None and label not in pipeline.labels:
        known = ", ".join(pipeline.labels[:20])
        raise ParameterError(f"label={label!r}: is no class of this model, which has {known}")
    if isinstance(source, Tensor) and source.dim() != 1:
        raise ParameterError(f"source: a waveform must be (time,), got {source.dim()} axes")
    if not isinstance(source, Tensor) and hasattr(source, "read"):
        source = source.read()  # it may be read twice
    part = _part(pipeline, source, label, batch_size)
    with answering(pipeline):
        waveform = part.waveform[None].to(pipeline.temperature.device)
        row = pipeline(waveform)[0].tolist()
        place = best_class(row) if label is None else pipeline.labels.index(label)
        found = {
            "label": pipeline.labels[place],
            "confidence": row[place],
            "probabilities": dict(zip(pipeline.labels, row, strict=True)),
            "seconds": part.seconds,
        }
        if _names_features(pipeline):
            return ClassExplanation(**found, **_in_what(pipeline, waveform, place))
        return ClassExplanation(**found, **_where(pipeline, waveform, place, part))


@dataclass(frozen=True)
class _Part:
    """What is explained of a recording: all of it, or the minute that is surest."""

    waveform: Tensor
    start: float
    seconds: float  # of the recording

    def told(self, rate: int) -> str:
        """Which part it is, at the beginning of a sentence."""
        end = self.start + len(self.waveform) / rate
        if end - self.start > self.seconds - 0.5 / rate:
            return ""
        return f"in the surest minute, {self.start:.0f}-{end:.0f} s, "


def _part(module: Any, source: Source | Tensor, label: str | None, batch_size: int) -> _Part:
    rate = module.sample_rate
    longest = None if _names_features(module) else _LONGEST
    waveform = _read(source, rate, 0.0, None if longest is None else longest + 1 / rate)
    name: Any = "<waveform>" if isinstance(source, Tensor) else source
    check_seconds(name, len(waveform) / rate, least_seconds(module), PAD)
    if longest is None or len(waveform) <= round(longest * rate):
        return _Part(waveform, 0.0, len(waveform) / rate)
    start, seconds = _surest(module, source, label, batch_size)
    return _Part(_read(source, rate, start, longest), start, seconds)


def _read(source: Any, rate: int, start: float, seconds: float | None) -> Tensor:
    if not isinstance(source, Tensor):
        return load(source, rate, offset=start, duration=seconds)[0][0]
    first = round(start * rate)
    return source[first:] if seconds is None else source[first : first + round(seconds * rate)]


def _surest(module: Any, source: Any, label: str | None, batch_size: int) -> tuple[float, float]:
    """Where the minute starts that is surest of a class, and how long the recording lasts."""
    best, start, end = -1.0, 0.0, 0.0
    for first, last, row in _minutes(module, source, batch_size):
        end = last
        confidence = max(row) if label is None else row[module.labels.index(label)]
        # Of a few seconds left over at the end little is known.
        if confidence > best and last - first > _LONGEST / 2:
            best, start = confidence, first
    return start, end


def _minutes(module: Any, source: Any, batch_size: int) -> Any:
    """Start, end and probabilities of each minute."""
    if not isinstance(source, Tensor):
        for found in timeline(module, source, _LONGEST, batch_size=batch_size):
            yield found.start_seconds, found.end_seconds, list(found.probabilities.values())
        return
    for start, samples in enumerate(source.split(round(_LONGEST * module.sample_rate))):
        first = start * _LONGEST
        # As in `timeline`, a short rest has room for the features.
        missing = max(0, module.features.min_samples - len(samples))
        padded = nn.functional.pad(samples, [0, missing]).to(module.temperature.device)
        with answering(module):
            row = module(padded[None], torch.tensor([len(samples)], device=padded.device))
        yield first, first + len(samples) / module.sample_rate, row[0].tolist()


def _in_what(module: Any, waveform: Tensor, place: int) -> dict[str, Any]:
    """The features that add most to the class, and to the others."""
    x, counts = module.front(waveform)
    values = module.model.contributions(x, counts)[0, :, place].nan_to_num()
    names = column_names(module.features)
    order = values.abs().argsort(descending=True, stable=True)[:_NAMED].tolist()
    found = {names[i]: float(values[i]) for i in order}
    told: list[str] = []
    for sign, what in ((1, "speak most for"), (-1, "against")):
        some = [f"{name} {value:+.3g}" for name, value in found.items() if value * sign > 0]
        if some:
            target = f" {module.labels[place]!r}" if not told else " it"
            told.append(f"{what}{target}: {', '.join(some[:_TOLD])}")
    return {"reason": "; ".join(told) or "no feature tells classes apart", "contributions": found}


def _where(module: Any, waveform: Tensor, place: int, part: _Part) -> dict[str, Any]:
    """Seconds and bands that speak for the class."""
    lengths = torch.tensor([waveform.shape[1]], device=waveform.device)
    prepared, inside = module.prepare(waveform, lengths)
    image = module.features(prepared, inside)
    counts = module.features.frame_counts(inside)
    n_frames = int(counts[0])
    raw = class_weights(
        module.model,
        image,
        counts,
        torch.full_like(lengths, place),
        multilabel=module.task == "multilabel",
    )[0, :, :n_frames]
    weights = raw.clamp(min=0.0).nan_to_num().cpu()
    weights = weights / weights.amax().clamp(min=torch.finfo(weights.dtype).tiny)
    spectrogram, unit = image[0, 0, :, :n_frames].cpu(), ""
    if hasattr(module.features, "log_mel"):
        spectrogram, unit = module.features.log_mel(prepared, inside)[0, :, :n_frames].cpu(), "dB"
    first, step = _times(module, prepared, inside, counts, lengths)
    found = ClassMap(
        part.start + first, step, _edges(module, len(weights)), spectrogram, weights, unit
    )
    notes = _notes(module, waveform.shape[1], int(inside[0]))
    reason = part.told(module.sample_rate) + _sentence(found, module.labels[place]) + notes
    return {"reason": reason, "map": found}


def _times(
    module: Any, waveform: Tensor, inside: Tensor, counts: Tensor, lengths: Tensor
) -> tuple[float, float]:
    """When the image's first frame is, and seconds from frame to frame."""
    if hasattr(module.features, "frame_seconds"):
        first, step = module.features.frame_seconds(waveform, inside)
        return float(first[0]), float(step[0])
    return 0.0, frame_seconds(module, counts, lengths)


def _edges(module: Any, n_rows: int) -> Tensor | None:
    if not hasattr(module.features, "mel"):
        return None
    edges = band_edges(module.features)
    return edges if len(edges) == n_rows + 1 else None


def _sentence(found: ClassMap, label: str) -> str:
    """Where the largest weight is, and how far around it they are half as large."""
    row, frame = divmod(int(found.weights.argmax()), found.weights.shape[1])
    if not found.weights[row, frame] > 0:
        return f"nothing speaks for {label!r} more than for the others"
    enough = found.weights >= found.weights[row, frame] / 2
    left, right = (
        found.start_seconds + place * found.frame_seconds
        for place in around(enough[row].tolist(), frame)
    )
    lowest, highest = around(enough[:, frame].tolist(), row)
    digits = 1 if len(enough[row]) * found.frame_seconds > _SHORT else 2
    where, end = f"{left:.{digits}f}", f"{right:.{digits}f}"
    where += " s" if where == end else f"-{end} s"
    if found.band_edges is not None:
        band = float(found.band_edges[lowest]), float(found.band_edges[highest + 1])
        where += f", {hertz(*band)}"
    return f"most speaks for {label!r} at {where}"


def _notes(module: Any, n_samples: int, n_prepared: int) -> str:
    """What a reader of the sentence has to know besides."""
    notes = "" if shows_layers(module.model) else " (by gradients of the model's input)"
    expected = n_samples / module.sample_rate * module.features.sample_rate
    if n_prepared < (1.0 - _LOST) * expected:
        notes += " (seconds count without the silence that was cut out)"
    return notes
