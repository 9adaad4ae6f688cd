"""Decision trees side by side, as tensors of their nodes: forests, boosters, isolation forests."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Tuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.models.estimators import Estimator, both_sides, probabilities

__all__ = ["Boosted", "Forest", "Isolation", "Start", "TreeNodes", "Trees"]

Array = npt.NDArray[Any]


@dataclasses.dataclass
class TreeNodes:
    """The nodes of one tree; the first one is the root.

    Attributes:
        feature: what an inner node looks at, `(n,)` int.
        threshold: an inner node sends greater values to the right, `(n,)` float64.
        left: an inner node's left child; of leaves itself or below 0.
        right: its right child.
        is_leaf: `(n,)` bool.
        nan_right: whether missing values go to the right, `(n,)` bool.
        value: `(n, n_values)`; of inner nodes only for `contributions`.
        weight: of each node in the training, `(n,)`.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    is_leaf: Array
    nan_right: Array
    value: Array
    weight: Array


def _join(trees: Sequence[TreeNodes]) -> tuple[TreeNodes, Array]:
    """All nodes in one table, and the place of each root."""
    sizes = np.array([len(tree.feature) for tree in trees])
    roots = np.cumsum(sizes) - sizes
    parts = {
        field.name: np.concatenate([getattr(tree, field.name) for tree in trees])
        for field in dataclasses.fields(TreeNodes)
    }
    shift = np.repeat(roots, sizes)
    parts["left"] = parts["left"].astype(np.int64) + shift
    parts["right"] = parts["right"].astype(np.int64) + shift
    return TreeNodes(**parts), roots


def _levels(nodes: TreeNodes, roots: Array) -> list[Array]:
    """The nodes level by level, a right child behind its left one."""
    levels = [roots]
    while True:
        inner = levels[-1][~nodes.is_leaf[levels[-1]]]
        if not len(inner):
            return levels
        levels.append(np.stack([nodes.left[inner], nodes.right[inner]], axis=1).ravel())


def _fill_means(nodes: TreeNodes, levels: list[Array]) -> None:
    """Give inner nodes the mean of their leaves: boosters set the values of leaves alone."""
    for level in reversed(levels):
        inner = level[~nodes.is_leaf[level]]
        left, right = nodes.left[inner], nodes.right[inner]
        total = nodes.weight[left] + nodes.weight[right]
        # Vectors may all weigh nothing.
        share = np.where(total > 0, nodes.weight[left] / np.where(total > 0, total, 1.0), 0.5)
        share = share[:, None]
        nodes.value[inner] = share * nodes.value[left] + (1.0 - share) * nodes.value[right]


class Trees(Estimator):
    """Trees that each send a vector to a leaf; the leaves' values are summed.

    Nodes of all trees lie in one table, level by level, a right child behind its left one: a step
    down is `left + (x > threshold)`. A leaf is its own left child and nothing exceeds its
    threshold, so that every walk may take as many steps as the deepest tree asks for.

    Args:
        trees: the trees. With several groups tree `t` adds to group `t % n_groups`.
        n_features: width of the vectors.
        n_groups: sums to keep apart.
        single: compare the vectors as float32 rounds them.
        means: inner nodes have no value, and get the mean of their leaves.

    Shape:
        - Input: `(batch, n_features)`
        - Output: `(batch, n_groups * n_values)`, the sums
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    values: Tensor
    roots: Tensor

    def __init__(
        self,
        trees: Sequence[TreeNodes],
        n_features: int,
        *,
        n_groups: int = 1,
        single: bool,
        means: bool = False,
    ) -> None:
        super().__init__()
        nodes, roots = _join(trees)
        levels = _levels(nodes, roots)
        if means:
            _fill_means(nodes, levels)
        order = np.concatenate(levels)
        place = np.empty(len(nodes.feature), dtype=np.int64)
        place[order] = np.arange(len(order))
        leaf = nodes.is_leaf[order].astype(bool)
        right = nodes.nan_right[order].astype(bool) & ~leaf
        feature = np.where(leaf, 0, nodes.feature[order]).astype(np.int64)
        # Infinity sends all numbers to the left, and the missing ones, when they go to the right,
        # are made infinite.
        threshold = np.minimum(nodes.threshold[order], np.finfo(np.float64).max)
        left = np.where(leaf, np.arange(len(order)), place[nodes.left[order]])
        self.n_features = n_features
        self.n_groups = n_groups
        self.n_trees = len(trees)
        self.n_values = nodes.value.shape[1]
        self.single = single
        self.depth = len(levels) - 1
        self.has_nan_right = bool(right.any())
        self.register_buffer("feature", torch.from_numpy(feature + n_features * right))
        self.register_buffer("threshold", torch.from_numpy(np.where(leaf, math.inf, threshold)))
        self.register_buffer("left", torch.from_numpy(left))
        self.register_buffer("values", torch.from_numpy(nodes.value[order].astype(np.float64)))
        self.register_buffer("roots", torch.from_numpy(place[roots]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sums of the leaves' values."""
        columns, node, offset = self._start(x)
        for _ in range(self.depth):
            node = self._step(columns, node, offset)
        return self._sum(node.reshape(-1, self.n_trees))

    def contributions(self, x: Tensor) -> Tensor:
        """Return what each feature adds to each sum, `(batch, n_features, n_groups * n_values)`.

        A step from a node to its child credits the node's feature with the change of value.

        Reference:
            Saabas (2014), Interpreting random forests.
        """
        columns, node, offset = self._start(x)
        rows = x.shape[0] * self.n_features * self.n_groups
        credit = torch.zeros(rows, self.n_values, dtype=columns.dtype, device=columns.device)
        tree = torch.arange(self.n_trees, device=x.device) % self.n_groups
        first = (
            (torch.arange(x.shape[0], device=x.device) * self.n_features * self.n_groups)
            .unsqueeze(1)
            .add(tree)
            .reshape(-1)
        )
        for _ in range(self.depth):
            child = self._step(columns, node, offset)
            feature = self.feature.index_select(0, node) % self.n_features
            change = self.values.index_select(0, child) - self.values.index_select(0, node)
            credit = credit.index_add(0, first + feature * self.n_groups, change)
            node = child
        return credit.reshape(x.shape[0], self.n_features, self.n_groups * self.n_values)

    def baseline(self) -> Tensor:
        """Return the sums of the roots' values."""
        return self._sum(self.roots.unsqueeze(0))[0]

    def _start(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """The columns that nodes look at, each walk's node, and where its row of columns begins."""
        if x.dim() != 2 or x.shape[1] != self.n_features:
            raise ParameterError(
                f"x: must be (batch, {self.n_features}), got {list(x.shape)}: give the vectors "
                "that the trees were fitted on"
            )
        columns = x.float().double() if self.single else x.double()
        if self.has_nan_right:
            # Infinite values become the greatest number, which no infinite threshold stops.
            to_left = columns.nan_to_num(nan=-math.inf, neginf=-math.inf)
            to_right = columns.nan_to_num(nan=math.inf, neginf=-math.inf)
            columns = torch.cat([to_left, to_right], dim=1)
        row = torch.arange(x.shape[0], device=x.device) * columns.shape[1]
        offset = row.unsqueeze(1).expand(-1, self.n_trees).reshape(-1)
        return columns.reshape(-1), self.roots.repeat(x.shape[0]), offset

    def _step(self, columns: Tensor, node: Tensor, offset: Tensor) -> Tensor:
        value = columns.index_select(0, self.feature.index_select(0, node) + offset)
        return self.left.index_select(0, node) + (value > self.threshold.index_select(0, node))

    def _sum(self, node: Tensor) -> Tensor:
        """Sum the values of nodes `(batch, n_trees)` by group, without a table of them all."""
        if self.n_groups > 1:
            node = node.unflatten(1, [-1, self.n_groups]).transpose(1, 2).flatten(0, 1)
        sums = torch.nn.functional.embedding_bag(node, self.values, mode="sum")
        return sums.reshape(-1, self.n_groups * self.n_values)


class Forest(Estimator):
    """Trees whose leaves hold probabilities; the answer is their mean.

    Contributions are to that mean: with the baseline they add up to the probabilities.

    Args:
        trees: of one group, with one value a class.
    """

    def __init__(self, trees: Trees) -> None:
        super().__init__()
        self.explains = True
        self.trees = trees

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities."""
        return self.trees(x) / self.trees.n_trees

    def contributions(self, x: Tensor) -> Tensor:
        """Return what each feature adds to each probability."""
        return self.trees.contributions(x) / self.trees.n_trees

    def baseline(self) -> Tensor:
        """Return the roots' mean: about the share of each class in the training."""
        return self.trees.baseline() / self.trees.n_trees


class Boosted(Estimator):
    """Trees whose leaves add to a raw score, of the second of two classes or of each class.

    Contributions are to the raw scores, before sigmoid or softmax; of two classes the first one's
    are those of the second with the sign turned.

    Args:
        trees: of one group a raw score, with one value each.
        start: raw scores before the first tree: a `Start`, or a `Constant`, the same for all.
        factor: what the raw score is multiplied by before the sigmoid.
        takes_nan: missing values are sent where the training found best; else a vector with one
            has no answer but NaN.
    """

    def __init__(self, trees: Trees, start: Estimator, *, factor: float, takes_nan: bool) -> None:
        super().__init__()
        self.is_probability = False
        self.explains = start.explains
        self.factor = factor
        self.takes_nan = takes_nan
        self.trees = trees
        self.start = start

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities."""
        return probabilities(self.factor * self.decision(x))

    def decision(self, x: Tensor) -> Tensor:
        """Return the raw scores."""
        raw = self.start(x) + self.trees(x)
        if not self.takes_nan:
            raw = raw.masked_fill(x.isnan().any(dim=1, keepdim=True), math.nan)
        return raw

    def contributions(self, x: Tensor) -> Tensor:
        """Return what each feature adds to each raw score."""
        return both_sides(self.trees.contributions(x))

    def baseline(self) -> Tensor:
        """Return the start plus the roots' values."""
        return both_sides(self.start.baseline() + self.trees.baseline())


class Start(Estimator):
    """Another classifier's probabilities as the raw scores from which boosting starts.

    It gets the vectors as float32 rounds them, and computes in float64, where scikit-learn computes
    in float32 too: they agree to about 1e-6.

    Args:
        inner: the classifier.
        factor: as `Boosted`; raw scores are divided by it.
    """

    def __init__(self, inner: Estimator, factor: float) -> None:
        super().__init__()
        self.inner = inner
        self.factor = factor
        self.eps = torch.finfo(torch.float64).eps

    def forward(self, x: Tensor) -> Tensor:
        """Return raw scores: log-odds of the second of two classes, or centred logarithms."""
        found = self.inner(x.float()).clamp(min=self.eps, max=1.0 - self.eps)
        if found.shape[1] == 2:
            return torch.logit(found[:, 1:]) / self.factor
        found = found.log()
        return found - found.mean(dim=1, keepdim=True)


class Isolation(Estimator):
    """`IsolationForest`: how soon random cuts leave a vector alone; minus its `score_samples`.

    Args:
        trees: of one group; a leaf's value is the length of the path to it.
        typical: the sum of the trees' path lengths that gives 0.5; 0 where there is none.
    """

    def __init__(self, trees: Trees, typical: float) -> None:
        super().__init__()
        self.trees = trees
        self.typical = typical

    def forward(self, x: Tensor) -> Tensor:
        """Return scores `(batch,)` in 0 to 1, higher = more anomalous."""
        length = self.trees(x)[:, 0]
        if self.typical == 0.0:
            return torch.full_like(length, 0.5)
        return torch.exp2(-length / self.typical)
