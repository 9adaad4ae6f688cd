"""Mixup: who is mixed with whom and by how much, and the mixing itself."""

import torch
from torch import Tensor

__all__ = ["blend", "draw_pairs"]


def draw_pairs(
    batch: int, alpha: float, probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw each clip's partner and its own weight, Beta(alpha, alpha), or 1 where it stays alone.

    Args:
        batch: number of clips; the partners are a permutation of them.
        alpha: parameter of the Beta distribution, above 0.
        probability: that a clip is mixed, 0 to 1.
        generator: a CPU generator.

    Shape:
        - Output: int64 and float64, both `(batch,)` and on the CPU

    Reference:
        Zhang et al. (2018), mixup: Beyond empirical risk minimization.

    Example:
        >>> draw_pairs(3, 0.4, 0.0, torch.Generator())[1]
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    draw = torch.rand(batch, generator=generator, dtype=torch.float64)
    partner = torch.randperm(batch, generator=generator)
    # Beta(a, a) as a share of two Gamma(a) draws; torch.distributions takes no generator.
    alphas = torch.full((2, batch), alpha, dtype=torch.float64)
    gamma = torch._standard_gamma(alphas, generator=generator).clamp(min=1e-300)
    return partner, torch.where(draw < probability, gamma[0] / gamma.sum(0), 1.0)


def blend(x: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """Return `weight * x + (1 - weight) * x[partner]`, or x bit for bit where the weight is 1.

    Args:
        x: one item for each clip; its dtype is kept.
        partner: index of each clip's partner.
        weight: each clip's own weight, 0 to 1.

    Shape:
        - x: `(batch, ...)`, also the output's
        - partner and weight: `(batch,)`

    Example:
        >>> blend(torch.tensor([[0.0], [8.0]]), torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
        tensor([[2.],
                [8.]])
    """
    weight = weight.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    return torch.where(weight == 1, x, weight * x + (1 - weight) * x[partner])
