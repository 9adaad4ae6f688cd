"""Several networks of one kind that answer together."""

from collections.abc import Callable, Sequence
from typing import Any, List

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Networks side by side, each with a random start of its own, whose answers are averaged.

    Where clips or speakers are few, much of one network's answers hangs on its start. Members see
    the same batches, but each has a loss of its own in training, which `ClassificationTask` takes
    of `each`, so that they err apart, and what they disagree on averages out.

    Args:
        n_classes: number of answers.
        input_shape: the front end's `output_shape`.
        member: builds one network from the two: a model class, with its settings bound.
        n_members: how many; time and size grow with it.

    Shape:
        - Input: as the members'
        - Output: `(batch, n_classes)`, mean log-probabilities

    Raises:
        ParameterError: fewer than one member, and as the members.

    Reference:
        Lakshminarayanan et al. (2017), Simple and scalable predictive uncertainty estimation using
        deep ensembles. Theirs averages probabilities; the mean of logs leaves the answers logits.

    Example:
        >>> from audiotorch.models import MLP
        >>> Ensemble(3, (240,), member=MLP).eval()(torch.zeros(2, 240), torch.tensor([9, 9])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: Sequence[int],
        *,
        member: Callable[..., nn.Module],
        n_members: int = 4,
    ) -> None:
        super().__init__()
        if n_members < 1:
            raise ParameterError(f"n_members={n_members}: must be at least 1")
        self.members = nn.ModuleList(
            member(n_classes=n_classes, input_shape=input_shape) for _ in range(n_members)
        )
        # Members of a kind that has no `embed` leave the ensemble without.
        size: Any = getattr(self.members[0], "embedding_size", 0)
        self.embedding_size = n_members * int(size)
        if all(getattr(member, "explains", False) for member in self.members):
            self.explains = True

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return log-probabilities; shapes as in the class docstring."""
        return self.each(x, lengths).log_softmax(dim=-1).mean(dim=1)

    def each(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of every member, `(batch, n_members, n_classes)`."""
        return torch.stack([member(x, lengths) for member in self.members], dim=1)

    def embed(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the embeddings of all members side by side, `(batch, embedding_size)`.

        Each learned axes of its own, whose mean would mean nothing.
        """
        found = [member.embed(x, lengths) for member in self.members]  # type: ignore[operator]
        return torch.cat(found, dim=1)

    @torch.jit.export
    def contributions(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean of the members' contributions, as `MLP` has them.

        Shape:
            - Output: `(batch, n_columns, n_classes)`, float64

        Raises:
            ParameterError: members of a kind that tells none, as networks on images.
        """
        found: List[Tensor] = []
        for member in self.members:
            if hasattr(member, "contributions"):
                found.append(member.contributions(x, lengths))  # type: ignore[operator]
        if len(found) == 0:
            raise ParameterError("contributions: no member of this Ensemble tells any")
        return torch.stack(found).mean(dim=0)
