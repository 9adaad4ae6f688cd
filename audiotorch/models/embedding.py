"""What a trained network makes of a clip, as features of another model."""

import copy
import math
from typing import Any, List, Optional

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError

__all__ = ["Embedding"]


class Embedding(nn.Module):
    """The last layer before the answer of a trained Pipeline: one vector a clip.

    The Pipeline's preprocessing, its shortest duration and its features come first. Its network
    stays as it was trained: in evaluation mode whatever is around it, and without gradients.

    Args:
        pipeline: what was trained; a copy is kept.

    Attributes:
        embedding_size: of the Pipeline's model, which has the method `embed` too.

    Shape:
        - Input: `(batch, time)` at the Pipeline's rate, and lengths `(batch,)`; `None` = all full
        - Output: `(batch, embedding_size)`

    Raises:
        ParameterError: the Pipeline's model has no such layer, as scikit-learn's have none.

    Example:
        >>> from audiotorch import Pipeline
        >>> from audiotorch.features import SpectrogramImage
        >>> from audiotorch.models import CNN
        >>> image = SpectrogramImage(8000, 256, 80, n_mels=40)
        >>> pipeline = Pipeline(image, CNN(2, image.output_shape), sample_rate=8000)
        >>> Embedding(pipeline)(torch.zeros(3, 8000)).shape
        torch.Size([3, 256])
    """

    def __init__(self, pipeline: nn.Module) -> None:
        super().__init__()
        trained: Any = pipeline
        size = getattr(trained.model, "embedding_size", 0)
        if size < 1:
            raise ParameterError(
                f"pipeline: its model {type(trained.model).__name__} has no layer before the "
                "answer; train a network, such as model=cnn"
            )
        self.pipeline = copy.deepcopy(trained).requires_grad_(False)
        self.sample_rate = int(trained.sample_rate)
        front_end = trained.features
        # The Pipeline pads to its shortest duration, where that is long enough.
        short = trained.min_samples < front_end.min_samples
        needed = front_end.min_samples * self.sample_rate / front_end.sample_rate
        self.min_samples = math.ceil(needed) if short else 1
        self.names: List[str] = [f"embedding_{k}" for k in range(size)]
        self.output_shape = [size]
        self.normalised = False
        self.eval()

    def train(self, mode: bool = True) -> "Embedding":
        """Stay in evaluation mode: neither dropout nor new statistics of batches.

        Args:
            mode: not used.
        """
        return super().train(False)

    @torch.jit.export
    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return 1 for each clip of these lengths (samples): a vector has no frames."""
        return torch.ones_like(lengths)

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the vectors; shapes as in the class docstring."""
        x, counts = self.pipeline.front(waveform, lengths)
        return self.pipeline.model.embed(x, counts)
