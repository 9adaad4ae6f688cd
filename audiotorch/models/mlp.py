"""Networks on pooled vectors."""

from collections.abc import Sequence
from typing import List

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.features.pooling import StatisticsPooling

__all__ = ["MLP", "Linear"]


class MLP(nn.Module):
    """A multilayer perceptron on one vector a clip.

    Inputs are standardised by running statistics of the training batches. Images are pooled first:
    mean, standard deviation, minimum and maximum of each row over the clip's own frames.

    Args:
        n_classes: number of answers.
        input_shape: `(n_features,)` of vectors, or `(channel, n_mels)` of images: the front end's
            `output_shape`.
        hidden: width of each hidden layer; empty makes the network linear.
        dropout: share of each hidden layer dropped in training.
        n_members: networks side by side, each with a random start of its own, whose
            log-probabilities are averaged: where clips are few, one network's answers hang on its
            start.

    Shape:
        - Input: `(batch, n_features)` or `(batch, channel, n_mels, frames)`, and frame counts
          `(batch,)`
        - Output: `(batch, n_classes)`, logits; of several members in training
          `(batch, n_members, n_classes)`, for each must learn from its own errors.

    Raises:
        ParameterError: fewer than one class or member, or an `input_shape` of neither kind.

    Reference:
        Lakshminarayanan et al. (2017), Simple and scalable predictive uncertainty estimation using
        deep ensembles.

    Example:
        >>> import torch
        >>> MLP(3, (240,)).eval()(torch.zeros(2, 240), torch.tensor([44, 44])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: Sequence[int],
        *,
        hidden: Sequence[int] = (256,),
        dropout: float = 0.3,
        n_members: int = 1,
    ) -> None:
        super().__init__()
        if n_classes < 1 or n_members < 1 or len(input_shape) not in (1, 2):
            raise ParameterError(
                f"n_classes={n_classes}, n_members={n_members}, input_shape={list(input_shape)}: "
                "need at least one class and one member, and the shape of vectors (n_features,) "
                "or images (channel, n_mels)"
            )
        self.is_image = len(input_shape) == 2
        self.pooling = StatisticsPooling()
        width = int(input_shape[0])
        if self.is_image:
            width *= int(input_shape[1]) * len(self.pooling.statistics)
        # The running statistics are the scaler; learned scales would only repeat the next layer.
        self.scaler = nn.BatchNorm1d(width, affine=False)
        self.members = nn.ModuleList(
            _perceptron(width, hidden, n_classes, dropout) for _ in range(n_members)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return logits; shapes as in the class docstring."""
        if self.is_image:
            x = self.pooling(x, lengths.unsqueeze(1).expand(x.shape[:2])).flatten(1)
        x = self.scaler(x)
        logits = torch.stack([member(x) for member in self.members], dim=1)
        if len(self.members) == 1:
            return logits[:, 0]
        return logits if self.training else logits.log_softmax(dim=-1).mean(dim=1)


def _perceptron(n_in: int, hidden: Sequence[int], n_classes: int, dropout: float) -> nn.Sequential:
    layers: List[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(n_in, size), nn.ReLU(), nn.Dropout(dropout)]
        n_in = size
    return nn.Sequential(*layers, nn.Linear(n_in, n_classes))


class Linear(MLP):
    """Multinomial logistic regression on one vector a clip: an `MLP` without hidden layers.

    Args:
        n_classes: number of answers.
        input_shape: as `MLP`.

    Shape:
        - Input: as `MLP`
        - Output: `(batch, n_classes)`, logits

    Raises:
        ParameterError: as `MLP`.
    """

    def __init__(self, n_classes: int, input_shape: Sequence[int]) -> None:
        super().__init__(n_classes, input_shape, hidden=())
