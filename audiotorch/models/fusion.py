"""Several detectors that answer together, fused without labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.models.conformal import rows_by_group
from audiotorch.models.estimators import Estimator

__all__ = ["CrossFit", "Fusion", "cross_fit"]

_COMBINE = ("p_value", "rank", "conformal")


class _Place(Estimator):
    """A member's score to its place among reference scores: `(batch,)` to `(batch,)`.

    The share of the `n` references below it, of `n + 1`: 0 to 1, interpolated linearly between
    references, equal ones at their mean rank. Below the smallest and above the largest, where
    the share stands still, it goes on with the distance `z` from it, counted in distances between
    the largest and the median: order is kept, however far off a score lies.

    Args:
        reference: finite scores, `(n,)`.
        open_end: above the largest, add `log(1 + z) / (n + 1)`, which never ends; else
            `z / (1 + z) / (n + 1)`, which stays below 1.
    """

    values: Tensor
    heights: Tensor
    counted: Tensor
    scale: Tensor

    def __init__(self, reference: Tensor, open_end: bool) -> None:
        super().__init__()
        ordered = reference.detach().to(torch.float64).sort().values
        values, sizes = torch.unique_consecutive(ordered, return_counts=True)
        ranks = sizes.cumsum(0) - (sizes - 1) / 2
        reach = float(ordered[-1] - ordered[(len(ordered) - 1) // 2])
        reach = reach or float(ordered[-1] - ordered[0]) or 1.0
        # Twice the only value is a segment too: of no length, and never looked at.
        both = [values, values] if len(values) == 1 else [values]
        self.step = 1.0 / (len(ordered) + 1)
        self.open_end = open_end
        self.register_buffer("values", torch.cat(both))
        self.register_buffer("heights", (ranks * self.step).repeat(len(both)))
        self.register_buffer("counted", ordered)
        self.register_buffer("scale", torch.tensor(reach, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Return the place; NaN stays NaN."""
        x = x.to(torch.float64).contiguous()
        right = torch.searchsorted(self.values, x).clamp(min=1, max=self.values.shape[0] - 1)
        low = self.values[right - 1]
        width = self.values[right] - low
        part = (x - low) / torch.where(width > 0, width, torch.ones_like(width))
        height = self.heights[right - 1]
        inside = height + part * (self.heights[right] - height)
        below = (self.values[0] - x) / self.scale
        above = (x - self.values[-1]) / self.scale
        # At an infinite distance the quotient z / (1 + z) would be NaN.
        rest = 1.0 / (1.0 + above)
        further = torch.log1p(above.clamp(min=0.0)) if self.open_end else 1.0 - rest
        place = torch.where(above >= 0, self.heights[-1] + self.step * further, inside)
        return torch.where(below >= 0, self.heights[0] / (1.0 + below), place)

    @torch.jit.export
    def p_value(self, x: Tensor) -> Tensor:
        """Return the conformal p-value, `(1 + #{reference >= score}) / (n + 1)`."""
        x = x.to(torch.float64).contiguous()
        n = self.counted.shape[0]
        share = self.step * (1.0 + (n - torch.searchsorted(self.counted, x)))
        return torch.where(x.isnan(), x, share)


class Fusion(nn.Module):
    """Detectors side by side; each one's score is brought to its place among normal scores.

    Scores of different detectors have no common scale, and without anomalies there are no labels to
    learn weights from. But each knows how normal clips score that it was not fitted on
    (`cross_fit(...).scores`), and how many of them score higher means the same everywhere. Places
    are averaged; higher = more anomalous, and beyond all references scores keep their order.

    The references are fixed and need no property: any fixed function of the members' scores is a
    score. So a threshold from the fused scores of held-back clips, which neither members nor
    references have seen, promises its rate as that of any detector does.

    Args:
        members: detectors, `(x, counts) -> score (batch,)`, that take the same input.
        references: normal scores of each member, `(n,)`: in the precision that the members answer
            in, best by their own `forward`, so that an equal score counts as equal.
        combine: `"p_value"`: 1 minus the mean of the p-values, which are interpolated. A member's
            p-value ends at 0, so that one alone cannot raise the alarm. `"rank"`: the mean of the
            ranks over `n + 1`, which goes on above the largest reference with the logarithm of the
            distance, so that one sure member counts more. `"conformal"`: 1 minus the mean of the
            conformal p-values themselves, in steps, and at most half a step more for order
            among equals: for members and calibration of `cross_fit`, with the Pipeline's
            `calibration` from `mean_p_calibration` and its thresholds from `cross_thresholds`.

    Shape:
        - Input: as the members'
        - Output: `(batch,)`, in the members' dtype; NaN where a member's score is NaN

    Raises:
        ParameterError: no members, not one reference each, references that are empty or not finite,
            of different lengths for `"conformal"`, or an unknown `combine`.

    Example:
        >>> class Loudness(nn.Module):
        ...     def forward(self, x, counts):
        ...         return x.abs().mean(dim=1)
        >>> fused = Fusion([Loudness(), Loudness()], [torch.tensor([1.0, 2.0, 3.0])] * 2)
        >>> fused(torch.tensor([[2.0], [2.5]]), torch.tensor([1, 1]))
        tensor([0.5000, 0.6250])
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        references: Sequence[Tensor | np.ndarray],
        combine: str = "p_value",
    ) -> None:
        super().__init__()
        if combine not in _COMBINE:
            raise ParameterError(f"combine={combine!r}: must be one of {_COMBINE}")
        scores = [torch.as_tensor(reference) for reference in references]
        _check_members(len(members), scores, combine)
        self.members = nn.ModuleList(members)
        self.places = nn.ModuleList(_Place(each, combine == "rank") for each in scores)
        self.combine = combine
        # Half of the smallest step of a mean p-value.
        self.half_step = 0.5 / (len(scores) * (len(scores[0]) + 1))

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return the fused score; shapes as in the class docstring."""
        scores = self.each(x, counts)
        places = []
        p_values = []
        for k, place in enumerate(self.places):
            places.append(place(scores[:, k]))
            p_values.append(place.p_value(scores[:, k]))  # type: ignore[operator]
        fused = torch.stack(places).mean(dim=0)
        if self.combine == "conformal":
            fused = 1.0 - torch.stack(p_values).mean(dim=0) + self.half_step * fused
        return fused.to(scores.dtype)

    @torch.jit.export
    def each(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return the members' own scores, `(batch, n_members)`."""
        scores = []
        for member in self.members:
            scores.append(member(x, counts))
        return torch.stack(scores, dim=1)

    @torch.jit.export
    def deviations(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return the mean of the members' deviations, of those that tell them, `(batch, d)`.

        Raises:
            ParameterError: no member tells any.
        """
        found = []
        for member in self.members:
            if hasattr(member, "deviations"):
                found.append(member.deviations(x, counts))  # type: ignore[operator]
        if len(found) == 0:
            raise ParameterError("deviations: no member of this Fusion tells any")
        return torch.stack(found).mean(dim=0)


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Detectors that were each fitted without one fold of the normal clips.

    Args:
        members: the fitted detectors, one a fold.
        folds: rows of the clips that each member was not fitted on, ascending.
        scores: of each clip by the member that was not fitted on it, `(n,)`.
        calibration: sorted scores of each fold by its member: one clip of each group, and as many
            in every fold, since a spare one is left out by lot.
    """

    members: list[Any]
    folds: list[np.ndarray]
    scores: np.ndarray
    calibration: list[np.ndarray]


def cross_fit(
    fit: Callable[[np.ndarray], Any],
    score: Callable[[Any, np.ndarray], np.ndarray],
    x: np.ndarray,
    *,
    groups: Sequence[str | None] | None = None,
    n_folds: int = 5,
    seed: int = 42,
) -> CrossFit:
    """Fit a detector to all folds but one, for each fold, and score that one with it.

    The scores of all clips serve as `references` of a `Fusion`. Members and calibration make a
    cross-conformal detector, which learns from nearly all clips and still has a threshold:

        fitted = cross_fit(partial(fit_detector, detector, seed=seed), anomaly_scores, x)
        model = Fusion([DetectorModel(d) for d in fitted.members], fitted.calibration, "conformal")
        calibration = mean_p_calibration(n_folds, len(fitted.calibration[0]))
        thresholds = cross_thresholds(n_folds, len(fitted.calibration[0]), {"alarm": 0.05})

    Args:
        fit: called with the training rows of `x`, returns a fitted detector.
        score: called with that and rows of `x`, returns their scores.
        x: normal clips, `(n, ...)`.
        groups: group of each clip, which no fold splits; a clip with None is alone in its group.
        n_folds: folds with as many groups each, give or take one; fewer where there are fewer.
        seed: of the draw of the folds.

    Raises:
        ParameterError: fewer than two folds or groups, or groups that are not one a clip.
    """
    known = [None] * len(x) if groups is None else list(groups)
    if len(known) != len(x):
        raise ParameterError(f"groups: {len(known)} for {len(x)} clips; give one a clip")
    rows = rows_by_group(known)
    n_folds = min(n_folds, len(rows))
    if n_folds < 2:
        raise ParameterError(
            f"n_folds={n_folds}, {len(rows)} groups of clips: need at least two of both"
        )
    generator = np.random.default_rng(seed)
    parts = np.array_split(generator.permutation(len(rows)), n_folds)
    folds, members, calibration = [], [], []
    scores = np.zeros(len(x))
    for part in parts:
        held_out = np.sort(np.concatenate([rows[i] for i in part]))
        member = fit(x[np.setdiff1d(np.arange(len(x)), held_out)])
        scores[held_out] = score(member, x[held_out])
        drawn = [int(generator.choice(rows[i])) for i in part[: len(rows) // n_folds]]
        folds.append(held_out)
        members.append(member)
        calibration.append(np.sort(scores[drawn]))
    return CrossFit(members, folds, scores, calibration)


def _check_members(n_members: int, references: Sequence[Tensor], combine: str) -> None:
    if not n_members or n_members != len(references):
        raise ParameterError(
            f"members: {n_members}, references: {len(references)}; need one reference for each of "
            "at least one member"
        )
    for k, reference in enumerate(references):
        if reference.dim() != 1 or not len(reference) or not bool(reference.isfinite().all()):
            raise ParameterError(
                f"references[{k}]: shape {list(reference.shape)}; need finite scores (n,), of one "
                "clip at least"
            )
    sizes = [len(reference) for reference in references]
    if combine == "conformal" and len(set(sizes)) > 1:
        raise ParameterError(
            f"references: of {sizes} scores; combine='conformal' needs as many of each member, as "
            "cross_fit gives them"
        )
