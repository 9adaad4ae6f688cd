"""What Lightning steps through for classes: loss and metrics around a Pipeline."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from audiotorch.data.datamodule import Batch
from audiotorch.errors import ParameterError, printable
from audiotorch.models.ensemble import Ensemble
from audiotorch.pipeline import Pipeline
from audiotorch.training.augment import Augment
from audiotorch.training.stepping import PipelineTask, check_share, full_precision

__all__ = ["ClassificationTask", "balanced_weights", "warmup_cosine"]

# Bins of the calibration error; 15 is what the literature reports (Guo et al. 2017).
_CALIBRATION_BINS = 15


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_share: float = 0.1) -> LambdaLR:
    """Learning rate that rises linearly, then falls along a half cosine to zero.

    Args:
        optimizer: its learning rates are the peak.
        total_steps: optimizer steps of the whole training.
        warmup_share: share of the steps that rise, from 0 to below 1.

    Raises:
        ParameterError: `warmup_share` lies outside its range, or `total_steps` is below 1.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> warmup_cosine(optimizer, total_steps=10, warmup_share=0.4).get_last_lr()
        [0.25]
    """
    if not 0 <= warmup_share < 1:
        raise ParameterError(
            f"warmup_share={warmup_share!r}: must be from 0 to below 1; 0.1 is a common choice"
        )
    if not 1 <= total_steps < math.inf:
        raise ParameterError(
            f"total_steps={total_steps!r}: must be at least 1 and finite; set trainer.max_epochs"
        )
    warmup = round(warmup_share * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (total_steps - warmup))))

    return LambdaLR(optimizer, factor)


def balanced_weights(counts: Tensor) -> Tensor:
    """Weight of each class in the loss so that all classes weigh the same: n / (n_classes count).

    Args:
        counts: training clips of each class; a class without any gets weight 0.

    Shape:
        - Input and output: `(n_classes,)`

    Reference:
        Same values as `sklearn.utils.class_weight.compute_class_weight("balanced")`.

    Example:
        >>> balanced_weights(torch.tensor([1, 3]))
        tensor([2.0000, 0.6667])
    """
    counts = counts.double()
    weights = counts.sum() / (counts.numel() * counts.clamp(min=1))
    return torch.where(counts > 0, weights, 0.0).float()


class ClassificationTask(PipelineTask):
    """Trains a Pipeline to give each clip one label.

    The loss is the cross-entropy of `pipeline.model`'s logits against soft targets. With
    `ema_decay` an exponential moving average of the model's weights and buffers is kept; it is what
    validation, test, export and a later `load_checkpoint_pipeline` use. Early in training the decay
    is min(ema_decay, (1 + n) / (10 + n)) after n steps, so that the random start is forgotten.

    All randomness of a step (augmentation, dropout) is a function of seed, epoch, step and rank:
    a resumed run repeats what an uninterrupted one does.

    Args:
        pipeline: the Pipeline to train; its labels give the classes.
        optimizer: called with the parameters.
        scheduler: called with the optimizer and `total_steps`, stepped every step; None keeps the
            learning rate.
        class_weights: "balanced" weighs every class equally in the training loss; needs
            `class_counts`. None weighs every clip equally.
        class_counts: training clips of each class, `(n_classes,)`.
        label_smoothing: share of the target spread over all classes, from 0 to below 1.
        ema_decay: of the averaged weights, from 0 to below 1; None keeps no average.
        augment: applied to training batches.
        seed: of augmentation and dropout.
        record: plain data to keep in each checkpoint, next to labels and scores.

    Raises:
        ParameterError: a setting lies outside its range, or the pipeline has fewer than two labels.
    """

    weights: Tensor | None

    def __init__(
        self,
        pipeline: Pipeline,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        *,
        class_weights: str | None = None,
        class_counts: Tensor | None = None,
        label_smoothing: float = 0.0,
        ema_decay: float | None = None,
        augment: Augment | None = None,
        seed: int = 42,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            pipeline, optimizer, scheduler, ema_decay=ema_decay, seed=seed, record=record
        )
        check_share("label_smoothing", label_smoothing)
        self.n_classes = len(pipeline.labels)
        if self.n_classes < 2:
            raise ParameterError(
                f"labels={list(pipeline.labels)!r}: must be two or more; add clips of another class"
            )
        self.label_smoothing = label_smoothing
        self.augment = augment
        weights = _class_weights(class_weights, class_counts)
        self.register_buffer("weights", weights, persistent=False)
        self.val_metrics = _metrics(self.n_classes)
        self.test_metrics = _metrics(self.n_classes)

    def training_step(self, batch: Batch, step: int) -> Tensor:
        """Loss of one augmented batch."""
        generator = Augment.generator(self.seed + self.global_rank, self.current_epoch, step)
        # Dropout reads the global generator, whose state a checkpoint does not hold.
        torch.manual_seed(generator.initial_seed())
        waveform, lengths = batch.waveform, batch.lengths
        target = F.one_hot(batch.target, self.n_classes).to(waveform.dtype)
        with full_precision(waveform):
            if self.augment is not None:
                waveform, lengths = self.augment.waveform(waveform, lengths, generator)
            x, counts = self.pipeline.front(waveform, lengths)
            if self.augment is not None:
                if x.ndim == 4:
                    x = self.augment.image(x, counts, generator)
                x, counts, target = self.augment.mix(x, counts, target, generator)
        model = self.pipeline.model
        if isinstance(model, Ensemble):  # each member learns from its own errors
            logits = model.each(x, counts)
            target = target.unsqueeze(1).expand_as(logits)
        else:
            logits = model(x, counts)
        loss = F.cross_entropy(
            logits.flatten(0, -2),
            target.flatten(0, -2),
            weight=self.weights,
            label_smoothing=self.label_smoothing,
        )
        self.log_loss(loss, len(target))
        return loss

    def validation_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Answers and losses, clip by clip."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Answers and losses, clip by clip."""
        return self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, stage: str) -> dict[str, Tensor]:
        with full_precision(batch.waveform):
            x, counts = self.pipeline.front(batch.waveform, batch.lengths)
        logits = self.network(x, counts).float()
        losses = F.cross_entropy(logits, batch.target, reduction="none")
        probabilities = logits.softmax(-1)
        self._metrics(stage).update(probabilities, batch.target)
        self.log(f"{stage}/loss", losses.mean(), batch_size=len(losses), sync_dist=True)
        return {"loss": losses.detach(), "probabilities": probabilities.detach()}

    def _metrics(self, stage: str) -> MetricCollection:
        return self.val_metrics if stage == "val" else self.test_metrics

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the validation clips."""
        self._summarise("val")

    def on_test_epoch_end(self) -> None:
        """Log the figures of the test clips."""
        self._summarise("test")

    def _summarise(self, stage: str) -> None:
        metrics = self._metrics(stage)
        values = metrics.compute()
        metrics.reset()
        confusion = values.pop("confusion_matrix").long().cpu()
        scores: dict[str, Any] = {name: float(value) for name, value in values.items()}
        scores["loss"] = float(self.trainer.callback_metrics[f"{stage}/loss"])
        scores["recall"] = {
            label: None if int(row.sum()) == 0 else int(row[k]) / int(row.sum())
            for k, (label, row) in enumerate(zip(self.pipeline.labels, confusion, strict=True))
        }
        scores["confusion_matrix"] = confusion.tolist()
        self.scores[stage] = scores
        for name in ("acc", "f1", "ece"):
            self.log(f"{stage}/{name}", scores[name], prog_bar=name == "acc", sync_dist=True)
        for label, recall in scores["recall"].items():
            if recall is not None:  # Names of curves are text; labels may be folders' odd names.
                self.log(f"{stage}/recall/{printable(label)}", recall, sync_dist=True)


def _class_weights(choice: str | None, counts: Tensor | None) -> Tensor | None:
    if choice is None:
        return None
    if choice != "balanced" or counts is None:
        raise ParameterError(
            f"class_weights={choice!r}: must be null, or 'balanced' with class_counts; "
            "set task.class_weights"
        )
    return balanced_weights(counts)


def _metrics(n_classes: int) -> MetricCollection:
    # Every process of a distributed run evaluates every clip: there is nothing to add up.
    alone: dict[str, Any] = {"sync_on_compute": False}
    bins = _CALIBRATION_BINS
    return MetricCollection(
        {
            "acc": MulticlassAccuracy(n_classes, average="micro", **alone),
            "f1": MulticlassF1Score(n_classes, average="macro", **alone),
            "ece": MulticlassCalibrationError(n_classes, n_bins=bins, **alone),
            "confusion_matrix": MulticlassConfusionMatrix(n_classes, **alone),
        },
        compute_groups=False,
    )
