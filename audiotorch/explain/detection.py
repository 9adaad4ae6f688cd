"""Why a detector finds a recording anomalous: where it deviates from normal sound, and in what."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from audiotorch.answers import check_detector, score_windows
from audiotorch.answers.asking import PAD, answering, least_seconds, placed
from audiotorch.answers.prediction import named, named_thresholds
from audiotorch.audio import Source, load
from audiotorch.audio.clips import check_seconds
from audiotorch.errors import ParameterError
from audiotorch.explain.places import around, band_edges, frame_seconds, hertz
from audiotorch.features.pooling import column_names

__all__ = [
    "DeviationMap",
    "Explanation",
    "check_explainable",
    "explain_detection",
]

_MAP_SECONDS = 60.0  # drawn of a long recording, around the window that scores highest
_LINE_SECONDS = 1.0  # windows of the time line, where the detector has none of its own
_LINE_WINDOWS = 64  # at most, by making them longer
_BLUR_SECONDS, _BLUR_BANDS = 0.1, 3  # one frame's or band's error is chance
_MUTE = (
    "explain: this detector says neither where nor in which features a sound deviates; "
    "autoencoders on mel spectrograms and detectors on vectors do"
)
_NAMED, _TOLD = 10, 3  # features that are kept, and those in the sentence


@dataclass(frozen=True)
class DeviationMap:
    """What an autoencoder could not rebuild, over the spectrogram that it was given.

    Overlapping windows are averaged. Of a long recording, it is the minute around the window that
    scores highest.

    Args:
        start_seconds: where the map starts in the recording.
        frame_seconds: from frame to frame; the first one lies at `start_seconds`.
        band_edges: Hz, `(n_mels + 1,)`: between the centres of neighbouring bands.
        spectrogram: the model's input, in the numbers that it sees, `(n_mels, frames)`.
        errors: squared errors, `(n_mels, frames)`.
    """

    start_seconds: float
    frame_seconds: float
    band_edges: Tensor
    spectrogram: Tensor
    errors: Tensor


@dataclass(frozen=True)
class Explanation:
    """A detector's score of one recording, and the reasons for it.

    Args:
        reason: one sentence: second and band, or features, of the largest deviation.
        score: of the recording.
        threshold: the last and highest one; `None` without.
        p_value: as of a `Prediction`.
        is_anomaly: as of a `Prediction`.
        seconds: how long the recording lasts.
        thresholds: all of them by name, made for whole recordings.
        start_seconds: of the time line's windows, `(n,)`.
        window_scores: of the time line's windows, `(n,)`.
        window_seconds: how long these are: the detector's own, or about a second.
        second: of the largest deviation, the window's start for features; `None` for features of
            the whole recording.
        band: Hz, lowest and highest, of the largest deviation; of autoencoders.
        map: deviations over the spectrogram; of autoencoders.
        deviations: standard deviations from the mean of the normal clips by feature, the largest
            first, in the window that scores highest; of models on vectors.
    """

    reason: str
    score: float
    threshold: float | None
    p_value: float | None
    is_anomaly: bool | None
    seconds: float
    thresholds: dict[str, float]
    start_seconds: Tensor
    window_scores: Tensor
    window_seconds: float
    second: float | None = None
    band: tuple[float, float] | None = None
    map: DeviationMap | None = None
    deviations: dict[str, float] = field(default_factory=dict)


def check_explainable(module: Any) -> None:
    """Refuse a module that does not say where or in what a sound deviates.

    Args:
        module: a Pipeline, eager or exported.

    Raises:
        ParameterError: it is no detector, or its model has neither `error_map` nor `deviations`.
    """
    check_detector(module)
    if not _has_map(module) and not hasattr(module.model, "deviations"):
        raise ParameterError(_MUTE)


def _has_map(module: Any) -> bool:
    return hasattr(module.model, "error_map") and hasattr(module.features, "mel")


def explain_detection(
    module: nn.Module,
    source: Source | Tensor,
    *,
    device: str | None = None,
    batch_size: int = 8,
) -> Explanation:
    """Say where and in what a recording deviates from the sound that a detector learned.

    Autoencoders tell the second and the band that they rebuild worst; detectors on vectors the
    features furthest from the normal clips' mean, of the whole recording or of the window that
    scores highest. A recording is decoded as `predict` does it, and has the same score.

    Args:
        module: detector, eager or exported.
        source: a path, bytes or open file; or a waveform `(time,)` at the module's rate.
        device: `"cpu"`, `"cuda"` ...: the module is moved there; `None` = where it is.
        batch_size: windows scored together.

    Raises:
        ParameterError: no detector, or one that cannot say it; a waveform of another shape.
        DecodeError: the recording cannot be read, is empty or too short.
    """
    check_explainable(module)
    pipeline = placed(module, device, batch_size)
    if isinstance(source, Tensor) and source.dim() != 1:
        raise ParameterError(f"source: a waveform must be (time,), got {source.dim()} axes")
    if not isinstance(source, Tensor) and hasattr(source, "read"):
        source = source.read()  # it is read twice
    with answering(pipeline):
        clip = _Clip(pipeline, source, batch_size)
        found = clip.found
        if _has_map(pipeline):
            found.update(_where(pipeline, clip, batch_size))
        else:
            found.update(_in_what(pipeline, clip))
    return Explanation(**found)


class _Clip:
    """A recording's score and time line, and parts of it to look at again."""

    def __init__(self, module: Any, source: Source | Tensor, batch_size: int) -> None:
        self._module, self._source = module, source
        self._waveform = source if isinstance(source, Tensor) else None
        name = "<waveform>" if isinstance(source, Tensor) else source
        if self._waveform is None and module.window == 0:
            self._waveform = self._load(0.0, None)
        if self._waveform is not None:
            check_seconds(
                name, len(self._waveform) / module.sample_rate, least_seconds(module), PAD
            )
        score, self.starts, self.scores, window = self._scored(batch_size)
        told = named(module, score, name)
        self.found: dict[str, Any] = {
            "score": score,
            **{key: told.get(key) for key in ("threshold", "p_value", "is_anomaly")},
            "seconds": float(self.starts[-1]) + window,
            "thresholds": named_thresholds(module),
            "start_seconds": self.starts,
            "window_scores": self.scores,
            "window_seconds": window,
        }

    def worst(self) -> float:
        """Where the window that scores highest starts."""
        return float(self.starts[self.scores.argmax()])

    def part(self, start: float, seconds: float) -> Tensor:
        """Samples of a part, where the module is."""
        if self._waveform is None:
            found = self._load(start, seconds)
        else:
            rate = self._module.sample_rate
            first = round(start * rate)
            found = self._waveform[first : first + min(len(self._waveform), round(seconds * rate))]
        return found.to(self._module.temperature.device)

    def _load(self, start: float, seconds: float | None) -> Tensor:
        source: Any = self._source
        return load(source, self._module.sample_rate, offset=start, duration=seconds)[0][0]

    def _scored(self, batch_size: int) -> tuple[float, Tensor, Tensor, float]:
        """Score, the time line's starts and scores, and how long its windows are."""
        module, waveform = self._module, self._waveform
        if module.window == 0:
            return _short_windows(module, self.part(0.0, 1e9), batch_size)
        if waveform is None:
            source: Any = self._source
            starts, scores = score_windows(module, source, batch_size)
        else:
            found = module.window_scores(waveform[None].to(module.temperature.device))
            scores, starts = found[0][0], found[1][0].cpu()
        whole = torch.ones_like(scores[None], dtype=torch.bool)
        score = float(module.combine(scores[None], whole))
        window = module.window
        if len(starts) == 1:
            window = len(self.part(0.0, window)) / module.sample_rate
        return score, starts, scores.cpu(), window


def _short_windows(
    module: Any, waveform: Tensor, batch_size: int
) -> tuple[float, Tensor, Tensor, float]:
    """Score of the whole, and of windows that overlap by half; the last one ends with it."""
    rate = module.sample_rate
    score = module(waveform[None])
    window = max(_LINE_SECONDS, 2 * len(waveform) / rate / _LINE_WINDOWS, least_seconds(module))
    size = round(window * rate)
    if len(waveform) <= size:
        return float(score), torch.zeros(1, dtype=torch.float64), score.cpu(), len(waveform) / rate
    starts = [*range(0, len(waveform) - size, max(1, size // 2)), len(waveform) - size]
    cut = torch.stack([waveform[start : start + size] for start in starts])
    scores = torch.cat([module(part) for part in cut.split(batch_size)])
    return float(score), torch.tensor(starts).double() / rate, scores.cpu(), size / rate


def _in_what(module: Any, clip: _Clip) -> dict[str, Any]:
    """The features that deviate most."""
    start, seconds = (clip.worst(), module.window) if module.window > 0 else (0.0, 1e9)
    x, counts = module.front(clip.part(start, seconds)[None])
    try:
        values = module.model.deviations(x, counts)[0].nan_to_num()
    except (ParameterError, torch.jit.Error) as error:  # as a Fusion of models that tell nothing
        raise ParameterError(_MUTE) from error
    names = column_names(module.features)
    order = values.abs().argsort(descending=True, stable=True)[:_NAMED].tolist()
    found = {names[i]: float(values[i]) for i in order}
    told = ", ".join(f"{name} {value:+.1f}" for name, value in list(found.items())[:_TOLD])
    when = f" at {start:.1f}-{start + seconds:.1f} s" if len(clip.starts) > 1 else ""
    windowed = module.window > 0
    return {
        "reason": f"most deviates{when if windowed else ''} in {told} standard deviations",
        "deviations": found,
        "second": start if windowed else None,
    }


def _where(module: Any, clip: _Clip, batch_size: int) -> dict[str, Any]:
    """The second and band that are rebuilt worst."""
    start, seconds = 0.0, 1e9
    if module.window > 0:
        seconds = max(_MAP_SECONDS, module.window)
        # From the start of a window on, that the part is cut as the whole is.
        near = clip.starts[clip.starts >= clip.worst() - (seconds - module.window) / 2]
        start = float(near[0])
    found = _map(module, clip.part(start, seconds), start, batch_size)
    frame, lowest, highest = _peak(found.errors, found.frame_seconds)
    second = start + frame * found.frame_seconds
    band = float(found.band_edges[lowest]), float(found.band_edges[highest + 1])
    reason = f"most deviates at {second:.1f} s, {hertz(*band)}"
    return {"reason": reason, "second": second, "band": band, "map": found}


def _map(module: Any, waveform: Tensor, start: float, batch_size: int) -> DeviationMap:
    """Input and errors of all windows, put in their places."""
    cut, lengths, starts, _ = module.windows(waveform[None])
    frames = module.features.frame_counts(_feature_samples(module, lengths[0]))
    step = frame_seconds(module, frames, lengths[0])
    places = (starts[0] / step).round().long().tolist()
    n_frames = places[-1] + int(frames.max())
    image = errors = total = torch.zeros(0)
    for i in range(0, len(places), batch_size):
        x, counts = module.front(cut[0, i : i + batch_size], lengths[0, i : i + batch_size])
        squares = module.model.error_map(x, counts)
        if not len(image):
            image = torch.zeros(squares.shape[1], n_frames)
            errors, total = torch.zeros_like(image), torch.zeros(n_frames)
        for place, count, shown, wrong in zip(
            places[i:], counts.tolist(), x[:, 0].cpu(), squares.cpu(), strict=False
        ):
            image[:, place : place + count] += shown[:, :count]
            errors[:, place : place + count] += wrong[:, :count]
            total[place : place + count] += 1
    total = total.clamp(min=1)
    return DeviationMap(start, step, band_edges(module.features), image / total, errors / total)


def _feature_samples(module: Any, lengths: Tensor) -> Tensor:
    """Samples at the features' rate, which a preprocessing step may change."""
    same = lengths * module.features.sample_rate // module.sample_rate
    return same.clamp(min=module.min_samples)


def _peak(errors: Tensor, frame_seconds: float) -> tuple[int, int, int]:
    """Frame, lowest and highest band of the largest error, blurred a little."""
    half = max(0, round(_BLUR_SECONDS / frame_seconds / 2))
    kernel, padding = (_BLUR_BANDS, 2 * half + 1), (_BLUR_BANDS // 2, half)
    blurred = nn.functional.avg_pool2d(
        errors[None], kernel, stride=1, padding=padding, count_include_pad=False
    )[0]
    band, frame = divmod(int(blurred.argmax()), blurred.shape[1])
    enough = (blurred[:, frame] >= blurred[band, frame] / 2).tolist()
    return frame, *around(enough, band)
