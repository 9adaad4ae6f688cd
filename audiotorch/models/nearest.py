"""A detector that scikit-learn has the neighbours for, but no score."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

__all__ = ["NearestDistance"]

Vectors = npt.NDArray[np.float64]


class NearestDistance(NearestNeighbors):
    """The distance to the nearest vectors of the training, in scikit-learn's manner.

    A vector of the training is its own nearest one, at a distance of 0: scores of the training are
    lower than those of other normal clips, and no threshold can be taken from them.

    Args:
        n_neighbors: how many of the training are asked.
        distance: their `"mean"` distance, or the `"largest"`, that of the farthest of them.
        metric: `"euclidean"` or `"cosine"`.
    """

    def __init__(
        self,
        n_neighbors: int = 2,
        *,
        distance: Literal["mean", "largest"] = "mean",
        metric: Literal["euclidean", "cosine"] = "euclidean",
    ) -> None:
        # A tree of neighbours cannot be stored safely.
        super().__init__(n_neighbors=n_neighbors, algorithm="brute", metric=metric)
        self.distance = distance

    def score_samples(self, x: Vectors) -> Vectors:
        """Return minus the distance, `(n,)`: as scikit-learn's scores, higher = more normal."""
        distance, near = self.kneighbors(x)
        if self.metric == "euclidean":
            # Those found come of a matrix product, in which the distances of near vectors cancel.
            columns = [np.linalg.norm(x - self._fit_X[column], axis=1) for column in near.T]
            distance = np.stack(columns, axis=1)
        found: Vectors = distance.max(axis=1) if self.distance == "largest" else distance.mean(1)
        return -found
