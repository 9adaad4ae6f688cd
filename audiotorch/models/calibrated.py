"""Classifiers behind a calibration that turns what they say into honest probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor

from audiotorch.models.estimators import Estimator, probabilities

__all__ = ["Calibrated", "Isotonic", "Sigmoid", "Tempered"]


class Sigmoid(Estimator):
    """Platt's curve, one a column: `1 / (1 + exp(slope * x + offset))`.

    Args:
        slope: `(n_columns,)`.
        offset: `(n_columns,)`.
    """

    slope: Tensor
    offset: Tensor

    def __init__(self, slope: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("slope", slope)
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        """Return the calibrated columns."""
        return torch.sigmoid(-(self.slope * x + self.offset))


class Isotonic(Estimator):
    """Steps that were fitted to rise, one curve a column: straight lines between knots.

    Args:
        x: each column's knots, rising.
        y: their values.
    """

    knots: Tensor
    values: Tensor
    first: Tensor
    last: Tensor

    def __init__(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> None:
        super().__init__()
        width = max(2, *(len(knots) for knots in x))
        # One row a column: flat behind the last knot, where the clamp lets no value go.
        further = [knots[-1] + (1.0 + knots[-1].abs()) * torch.arange(1, width + 1) for knots in x]
        rows = [torch.cat([a, b])[:width] for a, b in zip(x, further, strict=True)]
        values = [torch.cat([knots, knots[-1].repeat(width)])[:width] for knots in y]
        self.register_buffer("knots", torch.stack(rows))
        self.register_buffer("values", torch.stack(values))
        self.register_buffer("first", torch.stack([knots[0] for knots in x]))
        self.register_buffer("last", torch.stack([knots[-1] for knots in x]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the calibrated columns."""
        rows = torch.minimum(torch.maximum(x, self.first), self.last).T.contiguous()
        right = torch.searchsorted(self.knots, rows).clamp(min=1, max=self.knots.shape[1] - 1)
        x0, y0 = self.knots.gather(1, right - 1), self.values.gather(1, right - 1)
        slope = (self.values.gather(1, right) - y0) / (self.knots.gather(1, right) - x0)
        return (slope * (rows - x0) + y0).T


class Calibrated(Estimator):
    """A classifier whose classes were calibrated one by one, and then made to add up to 1.

    Contributions and baseline are those of the classifier inside, before the calibration.

    Args:
        inner: the classifier.
        curves: `Sigmoid` or `Isotonic`, of the columns of its decision.
        columns: the class that each of them stands for, int64.
        n_classes: how many classes there are.
    """

    columns: Tensor

    def __init__(
        self, inner: Estimator, curves: Estimator, columns: Tensor, n_classes: int
    ) -> None:
        super().__init__()
        self.inner = inner
        self.n_features = inner.n_features
        self.curves = curves
        self.n_classes = n_classes
        self.explains = inner.explains
        self.register_buffer("columns", columns)

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities."""
        # Of an SVC's pairs of classes, scikit-learn calibrates as many as there are classes.
        found = self.curves(self.inner.decision(x)[:, : self.columns.shape[0]])
        if self.n_classes == 2:
            return torch.cat([1.0 - found, found], dim=1)
        empty = torch.zeros(x.shape[0], self.n_classes, dtype=found.dtype, device=found.device)
        found = empty.index_copy(1, self.columns, found)
        total = found.sum(dim=1, keepdim=True)
        return torch.where(total != 0, found / total, 1.0 / self.n_classes).clamp(max=1.0)

    def contributions(self, x: Tensor) -> Tensor:
        """Return the contributions to the classifier inside."""
        return self.inner.contributions(x)

    def baseline(self) -> Tensor:
        """Return the baseline of the classifier inside."""
        return self.inner.baseline()


class Tempered(Estimator):
    """A classifier whose scores were divided by one temperature.

    Decisions are scores as they are, of two classes `(-decision, decision)`; of probabilities it is
    the logarithm. Contributions and baseline are those of the classifier inside.

    Args:
        inner: the classifier.
        beta: one over the temperature.
    """

    def __init__(self, inner: Estimator, beta: float) -> None:
        super().__init__()
        self.inner = inner
        self.n_features = inner.n_features
        self.beta = beta
        self.explains = inner.explains

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities."""
        if self.inner.is_probability:
            # As scikit-learn, which adds 1e-12 to keep the logarithm finite.
            return probabilities(self.beta * torch.log(self.inner(x) + 1e-12))
        decision = self.inner.decision(x)
        if decision.shape[1] == 1:
            decision = torch.cat([-decision, decision], dim=1)
        return probabilities(self.beta * decision)

    def contributions(self, x: Tensor) -> Tensor:
        """Return the contributions to the classifier inside."""
        return self.inner.contributions(x)

    def baseline(self) -> Tensor:
        """Return the baseline of the classifier inside."""
        return self.inner.baseline()
