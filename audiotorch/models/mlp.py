"""Networks on pooled vectors."""

from collections.abc import Sequence
from typing import List

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.features.pooling import VectorPooling

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

    Attributes:
        explains: that `contributions` has an answer, as `ClassicModel` says it.

    Shape:
        - Input: `(batch, n_features)` or `(batch, channel, n_mels, frames)`, and frame counts
          `(batch,)`
        - Output: `(batch, n_classes)`, logits

    Raises:
        ParameterError: fewer than one class, or an `input_shape` of neither kind.

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
    ) -> None:
        super().__init__()
        if n_classes < 1 or len(input_shape) not in (1, 2):
            raise ParameterError(
                f"n_classes={n_classes}, input_shape={list(input_shape)}: need at least one class, "
                "and the shape of vectors (n_features,) or images (channel, n_mels)"
            )
        self.pooling = VectorPooling()
        width = int(input_shape[0])
        if len(input_shape) == 2:
            width *= int(input_shape[1]) * len(self.pooling.pooling.statistics)
        # The running statistics are the scaler; learned scales would only repeat the next layer.
        layers: List[nn.Module] = [nn.BatchNorm1d(width, affine=False)]
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        self.embedding_size = width
        self.n_before = len(layers)
        layers.append(nn.Linear(width, n_classes))
        self.layers = nn.Sequential(*layers)
        self.explains = True

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return logits; shapes as in the class docstring."""
        return self.layers(self.pooling(x, lengths))

    @torch.jit.export
    def embed(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return what the last layer answers from, `(batch, embedding_size)`."""
        x = self.pooling(x, lengths)
        for k, layer in enumerate(self.layers):  # TorchScript calls no slice of them
            if k < self.n_before:
                x = layer(x)
        return x

    @torch.jit.export
    def contributions(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return what each column of the vector adds to each class's logit, in float64.

        The gradient times the distance from the training clips' mean: without hidden layers the
        weight times the scaled column, and with them what the network does around this vector.

        Args:
            x: as `forward`.
            lengths: as `forward`.

        Shape:
            - Output: `(batch, n_columns, n_classes)`

        Reference:
            Shrikumar et al. (2016), Not just a black box (gradient times input).
        """
        x = self.layers[0](self.pooling(x, lengths))
        # What each column alone adds, carried along: `(batch, columns, width)`. No autograd, which
        # TorchScript cannot turn on where the caller turned it off.
        parts = torch.diag_embed(x)
        for k, layer in enumerate(self.layers):
            if k > 0:
                x = layer(x)
                if hasattr(layer, "in_features"):
                    parts = nn.functional.linear(parts, layer.weight)  # type: ignore[arg-type]
                else:
                    parts = torch.where((x > 0).unsqueeze(1), parts, 0.0)
        return parts.double()


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
