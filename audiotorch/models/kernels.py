"""Classifiers that compare a vector with those of the training: support vectors and neighbours."""

import math
from typing import Optional

import torch
from torch import Tensor

from audiotorch.models.estimators import Estimator, both_sides

__all__ = ["Neighbours", "SupportVectors", "unit_vectors"]


class SupportVectors(Estimator):
    """`SVC`: a decision between each two classes, and the votes that they make.

    It has no probabilities, and stands inside a calibration. One against the rest: votes of the
    pairs, plus a third of a vote at most for the sum of a class's margins. With a linear kernel
    contributions are of that sum, the sum of the decisions for a class against each other.

    Args:
        vectors: support vectors `(n, n_features)`, or the pairs' weights `(n_pairs, n_features)`
            of a linear kernel.
        weights: `(n, n_pairs)`: what each vector adds to each pair's decision; `None` = linear.
        bias: `(n_pairs,)`.
        sides: `(n_pairs, n_classes)`: 1 for a pair's first class, -1 for its second. Of two
            classes, where the second is the one decided for: empty.
        kernel: `"linear"`, `"rbf"`, `"poly"` or `"sigmoid"`.
        gamma: of the kernel.
        coef0: of the kernel.
        degree: of the kernel.
        votes: one column a class instead of one a pair, where there are more than two classes.
    """

    vectors: Tensor
    weights: Tensor
    bias: Tensor
    sides: Tensor

    def __init__(
        self,
        vectors: Tensor,
        weights: Optional[Tensor],
        bias: Tensor,
        sides: Tensor,
        *,
        kernel: str,
        gamma: float,
        coef0: float,
        degree: float,
        votes: bool,
    ) -> None:
        super().__init__()
        self.is_probability = False
        self.explains = kernel == "linear"
        self.kernel = kernel
        self.gamma = float(gamma)
        self.coef0 = float(coef0)
        self.degree = float(degree)
        self.votes = votes and sides.numel() > 0
        self.register_buffer("vectors", vectors)
        self.register_buffer("weights", torch.zeros(0) if weights is None else weights)
        self.register_buffer("bias", bias)
        self.register_buffer("sides", sides)

    def decision(self, x: Tensor) -> Tensor:
        """Return the decision: of two classes, of each pair, or of each class."""
        pairs = self._pairs(x.double())
        if not self.votes:
            return pairs
        margin = pairs @ self.sides
        lost = (pairs < 0).double()
        votes = (1.0 - lost) @ self.sides.clamp(min=0.0) + lost @ (-self.sides).clamp(min=0.0)
        return votes + margin / (3.0 * (margin.abs() + 1.0))

    def _pairs(self, x: Tensor) -> Tensor:
        if self.kernel == "rbf":
            # Differences, not products: near a support vector those would cancel.
            distance = torch.cdist(
                x, self.vectors, compute_mode="donot_use_mm_for_euclid_dist"
            ).square()
            return torch.exp(-self.gamma * distance) @ self.weights + self.bias
        product = x @ self.vectors.T
        if self.kernel == "linear":
            return product + self.bias
        product = self.gamma * product + self.coef0
        like = torch.tanh(product) if self.kernel == "sigmoid" else product.pow(self.degree)
        return like @ self.weights + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the decision: there are no probabilities."""
        return self.decision(x)

    def contributions(self, x: Tensor) -> Tensor:
        """Return weight times feature, of a linear kernel."""
        found = x.double().unsqueeze(-1) * self.vectors.T
        return found @ self.sides if self.sides.numel() > 0 else both_sides(found)

    def baseline(self) -> Tensor:
        """Return the bias."""
        return self.bias @ self.sides if self.sides.numel() > 0 else both_sides(self.bias)


class Neighbours(Estimator):
    """`KNeighborsClassifier`: votes of the nearest vectors of the training.

    Of training vectors equally far, those that came first in the training count as nearer. (In
    scikit-learn that hangs on its search: a tree's order, or the rounding of a matrix product.) So
    answers differ where vectors of several classes are equally far, and some are one too many.

    Args:
        vectors: of the training, `(n, n_features)`.
        votes: `(n, n_classes)`, 1 for each vector's class.
        n_neighbours: how many vote.
        p: of the Minkowski distance, infinity for the widest side; 0 = cosine distance.
        by_distance: votes count by `1 / distance`; where that is infinite, only those count.
    """

    vectors: Tensor
    votes: Tensor

    def __init__(
        self, vectors: Tensor, votes: Tensor, *, n_neighbours: int, p: float, by_distance: bool
    ) -> None:
        super().__init__()
        self.n_neighbours = n_neighbours
        self.p = float(p)
        self.by_distance = by_distance
        self.register_buffer("vectors", unit_vectors(vectors) if p == 0 else vectors)
        self.register_buffer("votes", votes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the share of the votes of each class."""
        x = x.double()
        if self.p == 0.0:
            distance = (1.0 - unit_vectors(x) @ self.vectors.T).clamp(min=0.0, max=2.0)
        else:
            distance = torch.cdist(
                x, self.vectors, p=self.p, compute_mode="donot_use_mm_for_euclid_dist"
            )
        farthest = distance.topk(self.n_neighbours, dim=1, largest=False)[0][:, -1:]
        inside, tied = distance < farthest, distance == farthest
        left = self.n_neighbours - inside.sum(dim=1, keepdim=True)
        chosen = inside | (tied & (tied.cumsum(dim=1) <= left))
        weight = chosen.double()
        if self.by_distance:
            weight = torch.where(chosen, 1.0 / distance, 0.0)
            infinite = weight.isinf()
            alone = infinite.any(dim=1, keepdim=True)
            weight = torch.where(alone, infinite.double(), weight)
        votes = weight @ self.votes
        share = votes / votes.sum(dim=1, keepdim=True)
        # The maximum of differences, of p = infinity, passes over a missing value.
        return share.masked_fill(x.isnan().any(dim=1, keepdim=True), math.nan)


def unit_vectors(x: Tensor) -> Tensor:
    """Return vectors of length 1 in the same directions; zeros stay zeros.

    Args:
        x: `(batch, n_features)`.
    """
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(norm == 0, 1.0, norm)
