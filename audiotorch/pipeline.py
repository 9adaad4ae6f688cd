"""The Pipeline: everything between a waveform and an answer, as one module."""

from collections.abc import Iterable, Sequence
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, nn

from audiotorch.answers import Prediction, predict
from audiotorch.audio import Resample, Source
from audiotorch.errors import ParameterError
from audiotorch.features.functional import mask_samples

__all__ = ["Pipeline", "Prediction", "predict"]

_TASKS = ("classification", "multilabel", "anomaly")


class _Chain(nn.Module):
    """Preprocessing steps one after another, each `(waveform, lengths) -> (waveform, lengths)`."""

    def __init__(self, steps: Iterable[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tuple[Tensor, Tensor]:
        for step in self.steps:
            out = step(waveform, lengths)
            waveform = out[0]
            kept = out[1]
            assert kept is not None
            lengths = kept
        return waveform, lengths


def _check_rates(sample_rate: int, steps: Sequence[nn.Module], wanted: int) -> None:
    """Follow the sample rate through the preprocessing."""
    rate = sample_rate
    for step in steps:
        if isinstance(step, Resample):
            if step.orig_freq != rate:
                raise ParameterError(
                    f"preprocess: Resample({step.orig_freq}, {step.new_freq}) gets {rate} Hz; "
                    f"build it as Resample({rate}, {step.new_freq})"
                )
            rate = step.new_freq
        elif getattr(step, "sample_rate", rate) != rate:
            name = type(step).__name__
            raise ParameterError(
                f"preprocess: {name}(sample_rate={step.sample_rate}) gets {rate} Hz; "
                f"build it with sample_rate={rate}"
            )
    if rate != wanted:
        raise ParameterError(
            f"sample_rate={sample_rate}: the features expect {wanted} Hz and get {rate}; build "
            "both with one rate, or put a Resample into preprocess"
        )


def _full_lengths(waveform: Tensor, lengths: Optional[Tensor]) -> Tensor:
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

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` int64 in samples, `None` = all full
        - Output: probabilities `(batch, n_classes)`, softmax (sigmoid for multilabel) of
          `logits / temperature`; for anomaly the score `(batch,)`, higher = more anomalous.

    Raises:
        ParameterError: an unknown task, a negative duration, repeated labels, a rate that the
            features do not expect; in `forward`, wrong shapes or integer samples.

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
    ) -> None:
        super().__init__()
        if task not in _TASKS:
            raise ParameterError(f"task={task!r}: must be one of {_TASKS}")
        if min_duration is None or not 0 <= min_duration < 3600:
            raise ParameterError(f"min_duration={min_duration}: must be at least 0, below an hour")
        if len(set(labels)) < len(labels):
            raise ParameterError(f"labels={list(labels)}: each name must stand once")
        front_end: Any = features
        steps = [preprocess] if isinstance(preprocess, nn.Module) else list(preprocess or ())
        _check_rates(sample_rate, steps, front_end.sample_rate)
        self.preprocess = _Chain(steps)
        self.features = features
        self.model = model
        self.labels = [str(label) for label in labels]
        self.sample_rate = int(sample_rate)
        self.min_duration = float(min_duration)
        self.min_samples = round(min_duration * front_end.sample_rate)
        self.task = task
        self.threshold_names = []
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("thresholds", torch.zeros(0))
        self.register_buffer("calibration", torch.zeros(0))

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return probabilities or scores; shapes and errors as in the class docstring."""
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
            - Output: `(batch, n_classes)`, or `(batch,)` for anomaly
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
        # TorchScript's round gives a float.
        window = int(round(window_seconds * self.sample_rate))  # noqa: RUF046
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
        """Decode, resample, batch and answer; as `audiotorch.predict(self, sources)`.

        Recordings of many minutes go through `audiotorch.timeline` instead, window by window.

        Args:
            sources: a path, bytes or open file, or several of them.
            device: `"cpu"`, `"cuda"` ...; `None` = where the module is.
            batch_size: clips answered together.
        """
        return predict(self, sources, device=device, batch_size=batch_size)
