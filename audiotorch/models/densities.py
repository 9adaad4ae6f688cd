"""How far a vector lies from those of the training: distances and densities, as torch modules."""

import math

import torch
from torch import Tensor

from audiotorch.models.estimators import Estimator
from audiotorch.models.kernels import unit_vectors

__all__ = ["Mahalanobis", "Mixture", "Nearest"]


class Mahalanobis(Estimator):
    """The distance from a mean, in standard deviations of a Gaussian.

    Args:
        location: the mean, `(n_features,)`.
        precision: inverse of the covariance, `(n_features, n_features)`.
    """

    location: Tensor
    factor: Tensor

    def __init__(self, location: Tensor, precision: Tensor) -> None:
        super().__init__()
        # The length of a projection, unlike a sum of products, is never below 0.
        values, axes = torch.linalg.eigh(precision)
        self.register_buffer("location", location)
        self.register_buffer("factor", axes * values.clamp(min=0.0).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Return the distances, `(batch,)`."""
        return torch.linalg.vector_norm((x.double() - self.location) @ self.factor, dim=1)


class Mixture(Estimator):
    """`GaussianMixture`: minus the log-density, the `score_samples` of scikit-learn.

    Means are subtracted before anything is squared: scikit-learn's own sums of squares cancel where
    features are large against their spread.

    Args:
        means: `(n_components, n_features)`.
        factors: what scaled each component to a spread of 1: `(n_components, n_features)`, or
            matrices `(n_components or 1, n_features, n_features)`, triangular, to the right.
        weights: share of each component, `(n_components,)`.
    """

    means: Tensor
    factors: Tensor
    offset: Tensor

    def __init__(self, means: Tensor, factors: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.diagonal = factors.dim() == 2
        scales = factors if self.diagonal else factors.diagonal(dim1=-2, dim2=-1)
        usual = 0.5 * means.shape[1] * math.log(2.0 * math.pi)
        self.register_buffer("means", means.unsqueeze(1))
        self.register_buffer("factors", factors.unsqueeze(1) if self.diagonal else factors)
        self.register_buffer("offset", weights.log() + scales.log().sum(dim=1) - usual)

    def forward(self, x: Tensor) -> Tensor:
        """Return minus the log-density, `(batch,)`."""
        centred = x.double() - self.means
        if self.diagonal:
            centred = centred * self.factors
        else:
            centred = torch.matmul(centred, self.factors)
        log_density = self.offset.unsqueeze(1) - 0.5 * centred.square().sum(dim=2)
        return -torch.logsumexp(log_density, dim=0)


class Nearest(Estimator):
    """The distance to the nearest vectors of the training: their mean, or the farthest of them.

    Args:
        vectors: of the training, `(n, n_features)`.
        n_neighbours: how many are asked.
        cosine: one minus the cosine of the angle instead of the Euclidean distance.
        largest: of the distances the largest instead of the mean.
    """

    vectors: Tensor

    def __init__(self, vectors: Tensor, *, n_neighbours: int, cosine: bool, largest: bool) -> None:
        super().__init__()
        self.n_neighbours = n_neighbours
        self.cosine = cosine
        self.largest = largest
        self.register_buffer("vectors", unit_vectors(vectors) if cosine else vectors)

    def forward(self, x: Tensor) -> Tensor:
        """Return the distances, `(batch,)`."""
        x = x.double()
        if self.cosine:
            x = unit_vectors(x)
        # Differences, not products: of near vectors those would cancel.
        distance = torch.cdist(x, self.vectors, compute_mode="donot_use_mm_for_euclid_dist")
        if self.cosine:
            # A vector of zeros has no direction: to scikit-learn it is at right angles to all.
            missing = _is_zero(x).unsqueeze(1) + _is_zero(self.vectors)
            distance = 0.5 * (distance.square() + missing)
        near = distance.topk(self.n_neighbours, dim=1, largest=False)[0]
        return near.amax(dim=1) if self.largest else near.mean(dim=1)


def _is_zero(x: Tensor) -> Tensor:
    return (x == 0.0).all(dim=1).double()
