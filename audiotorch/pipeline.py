"""The Pipeline: everything between a waveform and an answer, as one module."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, nn

from audiotorch.answers import Prediction, predict
from audiotorch.audio import Source
from audiotorch.audio.chain import Chain, check_rates
from audiotorch.audio.frames import cut_windows
from audiotorch.errors import ParameterError
from audiotorch.features.functional import mask_samples

__all__ = ["Pipeline", "Prediction", "predict"]

_TASKS = ("classification", "multilabel", "anomaly")
_AGGREGATES = ("mean", "max", "top_k")


def _check_windows(
    task: str, window: float | None, hop: float | None, aggregate: str, top_k: int
) -> None:
    for name, value in (("window", window), ("hop", hop)):
        if value is not None and not isinstance(value, int | float):
            raise ParameterError(f"{name}={value!r}: must be a number of seconds")
    if window is None and hop is not None:
        raise ParameterError(f"hop={hop}: leads from window to window; give window too")
    if window is not None:
        if task != "anomaly":
            raise ParameterError(f"window={window}: is for detectors; task={task!r} has none")
        if not 0.001 <= window < 3600:
            raise ParameterError(f"window={window}: must be from 0.001 s to an hour")
        if hop is not None and not 0.001 <= hop <= window:
            raise ParameterError(f"hop={hop}: must be from 0.001 s to window={window}, for no gaps")
    if aggregate not in _AGGREGATES:
        raise ParameterError(f"aggregate={aggregate!r}: must be one of {_AGGREGATES}")
    if type(top_k) is not int or top_k < 1:
        raise ParameterError(f"top_k={top_k!r}: must be a whole number of at least 1")


def _full_lengths(waveform: Tensor, lengths: Tensor | None) -> Tensor:
    """Check the shapes, and return each clip's samples, no more than there are."""
    if waveform.dim() != 2:
        raise ParameterError(
            f"waveform: must be (batch, time), got {waveform.dim()} axes; add waveform[None] "
            "for one clip, mix channels with ToMono"
        )
    batch, n_samples = waveform.shape
    if lengths is None:
        return torch.full([batch], n_samples, dtype=torch.int64, device=waveform.device)
    if list(lengths.shape) != [batch]:
        raise ParameterError(f"lengths: must be ({batch},), got {list(lengths.shape)}")
    if lengths.dtype != torch.int64:
        raise ParameterError("lengths: must be int64 samples; use lengths.long()")
    return lengths.clamp(max=n_samples)


def _aggregate(scores: Tensor, valid: Tensor, how: str, top_k: int) -> Tensor:
    """One score a clip from those of its windows; a NaN in one of them stays."""
    if how == "max":
        return scores.masked_fill(~valid, -math.inf).amax(dim=1)
    counted = valid
    if how == "top_k":
        scores = scores.masked_fill(~valid, -math.inf).sort(dim=1, descending=True)[0]
        rank = torch.arange(scores.shape[1], device=scores.device)
        counted = (rank < top_k) & (rank < valid.sum(dim=1, keepdim=True))
    return torch.where(counted, scores, 0.0).sum(dim=1) / counted.sum(dim=1).to(scores.dtype)


class Pipeline(nn.Module):
    """Waveform to answer: preprocessing, features, model, calibrated output.

    A clip's answer is the same alone, in a batch, and padded. `forward` checks shapes and dtypes
    only, so that it never waits for the device; values are checked where audio enters (`load`,
    `predict`). Labels, rate and thresholds travel with the module and with the exported file.

    Args:
        features: a front end `(waveform, lengths) -> x` with `frame_counts`, `sample_rate`,
            `output_shape` and `min_samples`.
        model: `(x, frame counts) -> logits (batch, n_classes)`, or a score `(batch,)` for anomaly.
        labels: names of the classes, in the order of the model's outputs.
        sample_rate: Hz of the waveforms that `forward` takes.
        preprocess: steps before the features, `(waveform, lengths) -> (waveform, lengths)`.
        min_duration: seconds; shorter clips count as padded with zeros to it. 0 refuses, in
            `predict`, those too short for the features.
        task: `"classification"`, `"multilabel"` or `"anomaly"`.
        window: of a detector, seconds that are scored at a time; `None` = the clip as a whole.
        hop: seconds from window to window, at most `window`, which is the default.
        aggregate: a clip's score of its windows' scores: `"mean"`, `"max"`, or `"top_k"`, the mean
            of the highest ones.
        top_k: how many these are; all where a clip has fewer.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` int64 in samples, `None` = all full
        - Output: probabilities `(batch, n_classes)`, softmax (sigmoid for multilabel) of
          `logits / temperature`; for anomaly the score `(batch,)`, higher = more anomalous.

    Raises:
        ParameterError: an unknown task, a negative duration, repeated labels, a rate that the
            features do not expect, windows of a classifier; wrong shapes or integer samples.

    Example:
        >>> from audiotorch.features import SpectrogramImage
        >>> from audiotorch.models import CNN
        >>> features = SpectrogramImage(8000, 256, 80, n_mels=40)
        >>> model = CNN(2, features.output_shape)
        >>> pipeline = Pipeline(features, model, labels=["no", "yes"], sample_rate=8000).eval()
        >>> pipeline(torch.randn(3, 8000)).shape
        torch.Size([3, 2])
    """

    labels: List[str]
    threshold_names: List[str]
    temperature: Tensor
    thresholds: Tensor
    calibration: Tensor

    def __init__(
        self,
        features: nn.Module,
        model: nn.Module,
        *,
        labels: Sequence[str] = (),
        sample_rate: int,
        preprocess: nn.Module | Sequence[nn.Module] | None = None,
        min_duration: float = 0.5,
        task: str = "classification",
        window: float | None = None,
        hop: float | None = None,
        aggregate: str = "mean",
        top_k: int = 3,
    ) -> None:
        super().__init__()
        if task not in _TASKS:
            raise ParameterError(f"task={task!r}: must be one of {_TASKS}")
        _check_windows(task, window, hop, aggregate, top_k)
        if min_duration is None or not 0 <= min_duration < 3600:
            raise ParameterError(f"min_duration={min_duration}: must be at least 0, below an hour")
        if len(set(labels)) < len(labels):
            raise ParameterError(f"labels={list(labels)}: each name must stand once")
        front_end: Any = features
        steps = [preprocess] if isinstance(preprocess, nn.Module) else list(preprocess or ())
        check_rates(sample_rate, steps, front_end.sample_rate)
        self.preprocess = Chain(steps)
        self.features = features
        self.model = model
        self.labels = [str(label) for label in labels]
        self.sample_rate = int(sample_rate)
        self.min_duration = float(min_duration)
        self.min_samples = round(min_duration * front_end.sample_rate)
        self.task = task
        self.window = 0.0 if window is None else float(window)  # 0: none
        self.hop = self.window if hop is None else float(hop)
        self.aggregate = aggregate
        self.top_k = int(top_k)
        self.threshold_names = []
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("thresholds", torch.zeros(0))
        self.register_buffer("calibration", torch.zeros(0))

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return probabilities or scores; shapes and errors as in the class docstring."""
        if self.task == "anomaly" and self.window > 0.0:
            scores, _, valid = self.window_scores(waveform, lengths)
            return self.combine(scores, valid)
        logits = self.logits(waveform, lengths)
        if self.task == "anomaly":
            return logits
        if len(self.labels) not in [0, logits.shape[-1]]:
            raise ParameterError(f"labels: {len(self.labels)} for {logits.shape[-1]} model outputs")
        if self.task == "multilabel":
            return torch.sigmoid(logits / self.temperature)
        return torch.softmax(logits / self.temperature, dim=-1)

    @torch.jit.export
    def logits(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return what the model says before calibration: what training works on.

        Args:
            waveform: `(batch, time)` at `sample_rate`.
            lengths: `(batch,)` samples; `None` = all full.

        Shape:
            - Output: `(batch, n_classes)`, or `(batch,)` for anomaly, the whole clip as one window
        """
        x, counts = self.front(waveform, lengths)
        return self.model(x, counts)

    @torch.jit.export
    def front(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Return the model's input and its frame counts, of what `forward` takes.

        Shape:
            - Output: `(batch, ...)` as the features give it, and `(batch,)`
        """
        waveform, lengths = self.prepare(waveform, lengths)
        return self.features(waveform, lengths), self.features.frame_counts(lengths)  # type: ignore[operator]

    @torch.jit.export
    def prepare(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Return what the features get: preprocessed clips that last `min_duration` at least.

        Shape:
            - Output: `(batch, time)` at the features' rate, and `(batch,)`
        """
        lengths = _full_lengths(waveform, lengths)
        if waveform.is_floating_point() and waveform.dtype != self.temperature.dtype:
            raise ParameterError("waveform: must have the Pipeline's dtype; use waveform.float()")
        waveform = mask_samples(waveform, lengths)
        waveform, lengths = self.preprocess(waveform, lengths)
        missing = max(self.min_samples - waveform.shape[1], 0)
        waveform = nn.functional.pad(waveform, [0, missing])
        return waveform, lengths.clamp(min=self.min_samples)

    @torch.jit.export
    def timeline(
        self,
        waveform: Tensor,
        lengths: Optional[Tensor] = None,
        window_seconds: float = 1.0,
        hop_seconds: float = 0.5,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Return the answer in each window of a clip.

        Windows start at multiples of the hop until one reaches the clip's end; that last one keeps
        its own shorter length.

        Args:
            waveform: `(batch, time)` at `sample_rate`.
            lengths: `(batch,)` samples; `None` = all full.
            window_seconds: length of a window, above 0.
            hop_seconds: from one start to the next, above 0.

        Shape:
            - Output: answers `(batch, n, ...)`, start seconds `(n,)`, valid `(batch, n)`: windows
              that the clip has; answers elsewhere are 0.

        Raises:
            ParameterError: a window or hop shorter than one sample.
        """
        window = int(round(window_seconds * self.sample_rate))  # noqa: RUF046 - as in `windows`
        hop = int(round(hop_seconds * self.sample_rate))  # noqa: RUF046
        if window < 1 or hop < 1:
            raise ParameterError(
                f"window_seconds={window_seconds}, hop_seconds={hop_seconds}: must be above 0"
            )
        lengths = _full_lengths(waveform, lengths)
        # With a hop beyond the window, a clip may end in the gap: no window starts past its end.
        n = max(1, min(1 - (window - waveform.shape[1]) // hop, -(-waveform.shape[1] // hop)))
        missing = max(0, (n - 1) * hop + window - waveform.shape[1])
        padded = nn.functional.pad(waveform, [0, missing])
        starts = torch.arange(n, device=waveform.device) * hop
        windows = padded.unfold(1, window, hop)[:, :n].reshape(-1, window)
        left = lengths.unsqueeze(1) - starts
        answers = self.forward(windows, left.clamp(min=0, max=window).reshape(-1))
        answers = answers.unflatten(0, [waveform.shape[0], n])
        valid = (starts == 0) | ((left > 0) & (left + hop > window))
        outside = ~valid.reshape([waveform.shape[0], n] + [1] * (answers.dim() - 2))
        return answers.masked_fill(outside, 0.0), starts.to(torch.float64) / self.sample_rate, valid

    @torch.jit.export
    def windows(
        self, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cut clips into the windows that a detector scores.

        Windows start at multiples of the hop; the last one is moved back to end with the clip, so
        that none is shorter. A clip shorter than a window is one window.

        Args:
            waveform: `(batch, time)` at `sample_rate`.
            lengths: `(batch,)` samples; `None` = all full.

        Shape:
            - Output: windows `(batch, n, samples)`, their lengths `(batch, n)`, start seconds
              `(batch, n)`, and valid `(batch, n)`: windows that the clip has
        """
        lengths = _full_lengths(waveform, lengths)
        if self.window == 0.0:
            starts = torch.zeros_like(lengths, dtype=torch.float64).unsqueeze(1)
            return waveform.unsqueeze(1), lengths.unsqueeze(1), starts, starts == 0
        window = int(round(self.window * self.sample_rate))  # noqa: RUF046 - a float in TorchScript
        hop = int(round(self.hop * self.sample_rate))  # noqa: RUF046
        cut, inside, starts, valid = cut_windows(waveform, lengths, window, hop)
        return cut, inside, starts.to(torch.float64) / self.sample_rate, valid

    @torch.jit.export
    def window_scores(
        self, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Return a detector's score of each window that the clip's score is made of.

        Args:
            waveform: `(batch, time)` at `sample_rate`.
            lengths: `(batch,)` samples; `None` = all full.

        Shape:
            - Output: scores `(batch, n)`, start seconds `(batch, n)`, valid `(batch, n)`; see
              `windows`
        """
        cut, inside, starts, valid = self.windows(waveform, lengths)
        scores = self.logits(cut.flatten(0, 1), inside.flatten())
        return scores.reshape(valid.shape), starts, valid

    @torch.jit.export
    def combine(self, scores: Tensor, valid: Tensor) -> Tensor:
        """Return clips' scores of those of their windows, by `aggregate`.

        Args:
            scores: `(batch, n)`.
            valid: `(batch, n)`: windows that the clip has, one at least.

        Shape:
            - Output: `(batch,)`
        """
        return _aggregate(scores, valid, self.aggregate, self.top_k)

    @torch.jit.export
    def p_value(self, score: Tensor) -> Tensor:
        """Return the share of normal clips that score at least as high, with the usual plus one.

        Args:
            score: anomaly scores; NaN gives NaN.

        Shape:
            - Input: any
            - Output: as the input, in `1 / (n + 1)` to 1 for `n` calibration scores

        Reference:
            Vovk et al. (2005), Algorithmic learning in a random world (conformal p-value).
        """
        n = self.calibration.shape[0]
        score = score.to(self.calibration.dtype).contiguous()
        share = (1.0 + (n - torch.searchsorted(self.calibration, score))) / (n + 1.0)
        return torch.where(score.isnan(), score, share)

    @torch.jit.unused
    def calibrate(self, scores: Tensor, thresholds: Mapping[str, float]) -> None:
        """Keep a detector's thresholds, and the scores of normal clips for its p-values.

        Args:
            scores: of clips that the model was not fitted on, `(n,)`.
            thresholds: by name, the lowest first; a clip above the last one is an anomaly.

        Raises:
            ParameterError: a classifier, or scores or thresholds that are no finite numbers in the
                Pipeline's dtype; thresholds that fall.
        """
        # Nothing lies above a NaN: such a threshold would never raise an alarm.
        limits = torch.tensor(list(thresholds.values()), dtype=torch.float64).to(self.temperature)
        rising = limits.isfinite().all() and (limits.diff() >= 0).all()
        if self.task != "anomaly" or limits.dim() != 1 or not rising:
            raise ParameterError(
                f"thresholds={dict(thresholds)}, task={self.task!r}: must be finite and rise, and "
                "are for detectors"
            )
        held_back = scores.detach().real.to(self.temperature)
        if held_back.dim() != 1 or scores.is_complex() or not bool(held_back.isfinite().all()):
            raise ParameterError("scores: must be a vector of finite numbers")
        self.calibration = held_back.sort()[0]
        self.thresholds = limits
        self.threshold_names = [str(name) for name in thresholds]

    @torch.jit.unused
    def abstain_below(self, confidence: float) -> None:
        """Have `predict` give no label where the most probable class is less probable than this.

        The exported file keeps it, in `thresholds` under the name `"abstain"`; `forward` gives
        probabilities all the same.

        Args:
            confidence: from 0, which always gives a label, to 1.

        Raises:
            ParameterError: a confidence out of range, or a detector.
        """
        if not 0 <= confidence <= 1 or self.task == "anomaly":
            raise ParameterError(
                f"confidence={confidence!r}, task={self.task!r}: must be from 0 to 1, and for "
                "classes"
            )
        self.threshold_names = ["abstain"]
        self.thresholds = torch.full_like(self.temperature, confidence).reshape(1)

    @torch.jit.unused
    def predict(
        self, sources: Source | Iterable[Source], *, device: str | None = None, batch_size: int = 8
    ) -> list[Prediction]:
        """Decode and answer, as `audiotorch.predict`; for hours of audio see `audiotorch.timeline`.

        Args:
            sources: a path, bytes or open file, or several of them.
            device: `"cpu"`, `"cuda"` ...; `None` = where the module is.
            batch_size: clips answered together.
        """
        return predict(self, sources, device=device, batch_size=batch_size)
