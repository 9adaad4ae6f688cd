from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from contract import run_on_fake_cuda, scripted
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.models.conformal import cross_thresholds, mean_p_calibration, p_values
from audiotorch.models.detectors import (
    DetectorModel,
    anomaly_scores,
    build_detector,
    fit_detector,
)
from audiotorch.models.fusion import Fusion, cross_fit

COMBINE = ["p_value", "rank", "conformal"]


class Distance(nn.Module):
    """Squared distance from a centre, with deviations."""

    centre: Tensor

    def __init__(self, centre: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        return (x - self.centre.to(x.dtype)).square().sum(dim=1)

    @torch.jit.export
    def deviations(self, x: Tensor, counts: Tensor) -> Tensor:
        return x - self.centre.to(x.dtype)


class First(nn.Module):
    """The first column: a score without deviations."""

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        return x[:, 0]


def vectors(n: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def counts(x: Tensor) -> Tensor:
    return torch.full([len(x)], 9)


def fusion(combine: str, n: int = 30) -> Fusion:
    members = [Distance(torch.zeros(4)), First(), Distance(torch.ones(4))]
    x = vectors(n)
    return Fusion(members, [member(x, counts(x)) for member in members], combine).eval()


def single(reference: list[float], combine: str, scores: np.ndarray) -> np.ndarray:
    model = Fusion([First()], [torch.tensor(reference, dtype=torch.float64)], combine)
    x = torch.as_tensor(scores, dtype=torch.float64)[:, None]
    return model(x, counts(x)).numpy()


@pytest.mark.parametrize("combine", ["p_value", "rank"])
def test_place_is_the_interpolated_mean_rank(combine):
    reference = np.random.default_rng(0).integers(0, 25, 40) / 8
    scores = np.random.default_rng(1).uniform(reference.min(), reference.max(), 300)
    values = np.unique(reference)
    ranks = scipy.stats.rankdata(reference)
    heights = [ranks[reference == value][0] / 41 for value in values]
    expected = np.interp(scores, values, heights)
    found = single(reference.tolist(), combine, scores)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(single(reference.tolist(), combine, reference), ranks / 41)


@pytest.mark.parametrize("combine", COMBINE)
def test_order_is_kept_beyond_the_references(combine):
    reference = [1.0, 2.0, 2.0, 3.0, 7.0]
    scores = np.concatenate([[-np.inf, -1e30], np.linspace(-50, 50, 400), [1e4, 1e5, np.inf]])
    found = single(reference, combine, scores)
    assert not np.isnan(found).any()
    assert (np.diff(found) >= 0).all()
    inside = found[2:-1]
    assert (np.diff(inside) > 0).all()
    if combine == "rank":
        assert found[-1] == np.inf
    else:
        assert (found >= 0).all()
        assert (found <= 1).all()


@pytest.mark.parametrize("combine", ["p_value", "rank"])
def test_place_has_no_jumps(combine):
    scores = np.linspace(0, 8, 80_001)
    found = single([1.0, 1.5, 2.0, 2.0, 3.0, 7.0], combine, scores)
    assert np.diff(found).max() < 1e-3


@pytest.mark.parametrize("combine", COMBINE)
@pytest.mark.parametrize("reference", [[3.0], [3.0, 3.0, 3.0]])
def test_one_reference_score_is_enough(combine, reference):
    found = single(reference, combine, np.array([-1.0, 3.0, 4.0, 9.0]))
    assert (np.diff(found) > 0).all()
    if combine != "conformal":
        assert found[1] == pytest.approx(0.5)


def test_fused_score_is_the_mean_over_members():
    model, x = fusion("rank"), vectors(50, 3)
    each = model.each(x, counts(x))
    alone = [
        Fusion([First()], [member(vectors(30), counts(vectors(30)))], "rank")(
            each[:, k : k + 1], counts(x)
        )
        for k, member in enumerate(model.members)
    ]
    torch.testing.assert_close(model(x, counts(x)), torch.stack(alone).mean(dim=0))


def test_conformal_is_the_mean_of_the_p_values():
    model, x = fusion("conformal", 19), vectors(300, 3)
    normal = vectors(19)
    p = [
        p_values(member(x, counts(x)).numpy(), member(normal, counts(normal)).numpy())
        for member in model.members
    ]
    mean_p = np.mean(p, axis=0)
    score = model(x, counts(x)).numpy()
    calibration = mean_p_calibration(3, 19)
    # The Pipeline's own formula gives the mean back, and the thresholds agree with it.
    np.testing.assert_allclose(p_values(score, calibration), mean_p, atol=1e-12)
    for found in cross_thresholds(3, 19, {"warning": 0.3, "alarm": 0.07}):
        reported = score > np.float32(found.value)
        np.testing.assert_array_equal(reported, mean_p <= found.rate + 1e-12)
        assert 0 < reported.sum() < 300


@pytest.mark.parametrize("combine", COMBINE)
def test_missing_values_stay_in_their_row_and_alone_is_as_together(combine):
    model, x = fusion(combine), vectors(6, 2)
    x[2, 0] = float("nan")
    together = model(x, counts(x))
    assert together.isnan().tolist() == [False, False, True, False, False, False]
    for k in range(6):
        alone = model(x[k : k + 1], counts(x)[:1])
        torch.testing.assert_close(alone, together[k : k + 1], equal_nan=True)


@pytest.mark.parametrize("combine", COMBINE)
def test_scripts_exports_casts_and_runs_on_fake_cuda(combine):
    model, x = fusion(combine), vectors(7, 2)
    n = counts(x)
    file = scripted(model)
    torch.testing.assert_close(file(x, n), model(x, n), atol=1e-7, rtol=0)
    torch.testing.assert_close(file.deviations(x, n), model.deviations(x, n))
    torch.testing.assert_close(file.each(x, n), model.each(x, n))
    auto = torch.export.Dim.AUTO
    program = torch.export.export(model, (x[:2], n[:2]), dynamic_shapes=({0: auto}, {0: auto}))
    torch.testing.assert_close(program.module()(x, n), model(x, n), atol=1e-7, rtol=0)
    assert run_on_fake_cuda(model, x, n).shape == (7,)
    assert model(x.double(), n).dtype == torch.float64
    # References are constants: no cast of the module around them moves a place.
    expected = model(x, n)
    torch.testing.assert_close(model.float()(x, n), expected, atol=0, rtol=0)


def test_deviations_are_the_mean_of_those_that_tell_them():
    x = vectors(5)
    found = fusion("rank").deviations(x, counts(x))
    torch.testing.assert_close(found, x - 0.5)
    silent = Fusion([First()], [torch.arange(3.0)])
    with pytest.raises(ParameterError, match="deviations: no member of this Fusion tells any"):
        silent.deviations(x, counts(x))
    torch.testing.assert_close(scripted(silent)(x, counts(x)), silent(x, counts(x)))


def test_two_views_find_what_each_alone_misses():
    # Anomalies of two kinds, one in each member's sight, and scales that differ by a million.
    generator = np.random.default_rng(0)
    normal, new = generator.standard_normal((2, 200, 2))
    odd = generator.standard_normal((200, 2))
    odd[:100, 0] += 4
    odd[100:, 1] += 4

    class Column(nn.Module):
        def __init__(self, k: int, scale: float) -> None:
            super().__init__()
            self.k, self.scale = k, scale

        def forward(self, x: Tensor, counts: Tensor) -> Tensor:
            return self.scale * x[:, self.k]

    members = [Column(0, 1.0), Column(1, 1e6)]

    def auc(model: nn.Module) -> float:
        a, b = (model(torch.from_numpy(x), counts(torch.from_numpy(x))) for x in (odd, new))
        return float((a[:, None] > b).double().mean())

    references = [m(torch.from_numpy(normal), torch.zeros(200)) for m in members]
    alone = [auc(member) for member in members]
    for combine in ("p_value", "rank"):
        assert auc(Fusion(members, references, combine)) > max(alone) + 0.05


def test_detectors_fuse_on_their_out_of_fold_scores():
    x = vectors(60).double().numpy()
    members, references = [], []
    for name in ("gaussian", "knn"):
        detector = build_detector(name)
        members.append(DetectorModel(fit_detector(detector, x, 1), x))
        fit = partial(fit_detector, detector, seed=1)
        references.append(cross_fit(fit, anomaly_scores, x).scores)
    model = Fusion(members, references).eval()
    new = vectors(20, 5)
    score = model(new, counts(new))
    torch.testing.assert_close(scripted(model)(new, counts(new)), score, atol=1e-6, rtol=0)
    each = [m.deviations(new, counts(new)) for m in members]
    torch.testing.assert_close(model.deviations(new, counts(new)), torch.stack(each).mean(dim=0))
    assert (model(new + 50, counts(new)) > 0.98).all()


@pytest.mark.parametrize(
    ("members", "references", "combine", "message"),
    [
        ([], [], "rank", r"members: 0, references: 0"),
        ([First()], [], "rank", r"members: 1, references: 0; need one reference for each"),
        ([First()], [torch.zeros(0)], "rank", r"references\[0\]: shape \[0\]"),
        ([First()], [torch.tensor([np.nan])], "rank", r"references\[0\].*finite"),
        ([First()], [torch.zeros(3)], "mean", r"combine='mean': must be one of"),
        ([First()] * 2, [torch.zeros(3), torch.zeros(4)], "conformal", r"of \[3, 4\] scores"),
    ],
)
def test_refusals(members, references, combine, message):
    with pytest.raises(ParameterError, match=message):
        Fusion(members, references, combine)
