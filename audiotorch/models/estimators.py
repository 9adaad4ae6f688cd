"""What scikit-learn's estimators compute once they are fitted, as torch modules of their constants.

Each takes vectors `(batch, n_features)` of any float type and answers in float64. None of them
knows scikit-learn: `tensorize` takes the constants out of fitted estimators.
"""

from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError

__all__ = [
    "Average",
    "Chain",
    "Constant",
    "Estimator",
    "Logistic",
    "Projection",
    "Scaler",
    "both_sides",
    "probabilities",
]


class Estimator(nn.Module):
    """A fitted estimator: `forward` gives the transformed vectors, or probabilities.

    Its constants stay in float64 whatever the module around it is cast to: a scaler in float32
    moves vectors over the thresholds of trees.

    Attributes:
        n_features: width of the vectors.
        explains: whether `contributions` and `baseline` have an answer.
        keeps_features: whether column `i` of the answer is feature `i` (of transformers).
        is_probability: whether `decision` gives probabilities (of classifiers).
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_features = 0
        self.explains = False
        self.keeps_features = False
        self.is_probability = True

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, recurse)

    def forward(self, x: Tensor) -> Tensor:
        """Return the answer for vectors `(batch, n_features)`."""
        raise NotImplementedError

    def decision(self, x: Tensor) -> Tensor:
        """Return what scikit-learn calibrates: `decision_function` where there is one.

        Else probabilities. Of two classes it is the second one's, `(batch, 1)`; else
        `(batch, n_classes)`.
        """
        found = self.forward(x)
        return found[:, 1:] if found.shape[1] == 2 else found

    def contributions(self, x: Tensor) -> Tensor:
        """Return what each feature adds to each class, `(batch, n_features, n_classes)`."""
        raise ParameterError("contributions: this estimator has none")

    def baseline(self) -> Tensor:
        """Return what the contributions are added to, `(n_classes,)`."""
        raise ParameterError("baseline: this estimator has none")


def probabilities(raw: Tensor) -> Tensor:
    """Return probabilities of raw scores: a sigmoid of one column, a softmax of several.

    Args:
        raw: log-odds of the second class, or one score a class.

    Shape:
        - Input: `(batch, 1)` or `(batch, n_classes)`
        - Output: `(batch, 2)` or `(batch, n_classes)`
    """
    if raw.shape[1] > 1:
        return torch.softmax(raw, dim=1)
    second = torch.sigmoid(raw)
    return torch.cat([1.0 - second, second], dim=1)


def both_sides(raw: Tensor) -> Tensor:
    """Return one column a class: what speaks for the second of two speaks against the first.

    Args:
        raw: scores of the second class, or of every class, on the last axis.

    Shape:
        - Input: `(..., 1)` or `(..., n_classes)`
        - Output: `(..., 2)` or `(..., n_classes)`
    """
    return torch.cat([-raw, raw], dim=-1) if raw.shape[-1] == 1 else raw


class Scaler(Estimator):
    """`StandardScaler`: the same subtraction and division, to the last bit.

    Args:
        mean: of each feature, float64; `None` = not subtracted.
        scale: of each feature, float64; `None` = not divided by.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Optional[Tensor], scale: Optional[Tensor]) -> None:
        super().__init__()
        self.keeps_features = True
        self.register_buffer("mean", torch.zeros(1).double() if mean is None else mean)
        self.register_buffer("scale", torch.ones(1).double() if scale is None else scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled vectors."""
        return (x.double() - self.mean) / self.scale


class Projection(Estimator):
    """`PCA`: components of the vector, centred after the projection as scikit-learn does.

    Args:
        components: `(n_components, n_features)`.
        mean: `(n_features,)`.
        scale: `(n_components,)`, what whitening divides by.
    """

    components: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, components: Tensor, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("components", components)
        self.register_buffer("offset", components @ mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return the components, `(batch, n_components)`."""
        return (x.double() @ self.components.T - self.offset) / self.scale


class Chain(Estimator):
    """A classifier, a detector or one more transformer behind transformers.

    Args:
        steps: the transformers in their order.
        last: what gets the transformed vectors.
    """

    def __init__(self, steps: Sequence[Estimator], last: Estimator) -> None:
        super().__init__()
        self.steps = nn.Sequential(*steps)
        self.last = last
        self.n_features = steps[0].n_features
        kept = all(step.keeps_features for step in steps)
        self.keeps_features = kept and last.keeps_features
        self.explains = kept and last.explains
        self.is_probability = last.is_probability

    def forward(self, x: Tensor) -> Tensor:
        """Return the last step's answer."""
        return self.last(self.steps(x))

    def decision(self, x: Tensor) -> Tensor:
        """Return the last step's decision."""
        return self.last.decision(self.steps(x))

    def contributions(self, x: Tensor) -> Tensor:
        """Return the last step's contributions: of scaled features, still feature by feature."""
        return self.last.contributions(self.steps(x))

    def baseline(self) -> Tensor:
        """Return the last step's baseline."""
        return self.last.baseline()


class Average(Estimator):
    """The weighted mean of several classifiers' probabilities.

    Args:
        members: classifiers of the same classes.
        weights: of each member, `(n_members,)`; they are divided by their sum.
        explains: whether the mean of the members' contributions means something: they explain, and
            explain the same quantity.
    """

    weights: Tensor

    def __init__(self, members: Sequence[Estimator], weights: Tensor, explains: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.n_features = members[0].n_features
        self.explains = explains
        self.register_buffer("weights", weights / weights.sum())

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean probabilities."""
        found = torch.stack([member(x) for member in self.members], dim=-1)
        return (found * self.weights).sum(dim=-1)

    def contributions(self, x: Tensor) -> Tensor:
        """Return the mean of the members' contributions."""
        found = torch.stack([member.contributions(x) for member in self.members], dim=-1)  # type: ignore[operator]
        return (found * self.weights).sum(dim=-1)

    def baseline(self) -> Tensor:
        """Return the mean of the members' baselines."""
        found = torch.stack([member.baseline() for member in self.members], dim=-1)  # type: ignore[operator]
        return (found * self.weights).sum(dim=-1)


class Constant(Estimator):
    """The same answer for every vector: what a booster usually starts from.

    Args:
        answer: `(n_classes,)`.
    """

    answer: Tensor

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.explains = True
        self.register_buffer("answer", answer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the answer for each vector."""
        return self.answer.expand(x.shape[0], -1)

    def contributions(self, x: Tensor) -> Tensor:
        """Return zeros: no feature adds anything."""
        return torch.zeros_like(x.double()).unsqueeze(-1) * self.answer

    def baseline(self) -> Tensor:
        """Return the answer."""
        return self.answer


class Logistic(Estimator):
    """`LogisticRegression`: a sigmoid of one row of weights, a softmax of several.

    Contributions are weight times feature: of features that a scaler centred, weight times the
    distance from their mean in training. They add up to the decision, before sigmoid or softmax.

    Args:
        weight: `(1 or n_classes, n_features)`.
        bias: `(1 or n_classes,)`.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.explains = True
        self.is_probability = False
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities."""
        return probabilities(self.decision(x))

    def decision(self, x: Tensor) -> Tensor:
        """Return log-odds of the second of two classes, or one score a class."""
        return x.double() @ self.weight.T + self.bias

    def contributions(self, x: Tensor) -> Tensor:
        """Return weight times feature."""
        return both_sides(x.double().unsqueeze(-1) * self.weight.T)

    def baseline(self) -> Tensor:
        """Return the bias."""
        return both_sides(self.bias)
