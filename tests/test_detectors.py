import io
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import table
from contract import run_on_fake_cuda, scripted
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import audiotorch as at
from audiotorch.errors import ParameterError
from audiotorch.features import MFCCStatistics, SummaryVector
from audiotorch.models import steady, tensorize
from audiotorch.models.detectors import (
    DETECTORS,
    DetectorModel,
    anomaly_scores,
    build_detector,
    fit_detector,
    normal_statistics,
)

# Of the score. Both sides compute in float64; measured: 7e-12 at most.
TOLERANCE = 1e-9
# The same, for an answer in float32.
SINGLE = 1e-6

CASES: dict[str, dict[str, Any]] = {
    "isolation forest": {"name": "isolation_forest"},
    "half the features": {"name": "isolation_forest", "max_features": 0.5, "pca": None},
    "gaussian": {"name": "gaussian"},
    "oracle shrinkage": {"name": "gaussian", "shrinkage": "oas"},
    "given shrinkage": {"name": "gaussian", "shrinkage": 0.2, "pca": 0.95},
    "full": {"name": "gmm", "covariance_type": "full"},
    "tied": {"name": "gmm", "covariance_type": "tied", "n_components": 3},
    "diag": {"name": "gmm", "covariance_type": "diag"},
    "spherical": {"name": "gmm", "covariance_type": "spherical"},
    "one component": {"name": "gmm", "n_components": 1, "covariance_type": "full", "pca": 10},
    "nearest": {"name": "knn"},
    "farthest of five": {"name": "knn", "n_neighbors": 5, "distance": "largest"},
    "by angle": {"name": "knn", "metric": "cosine", "n_neighbors": 3},
    "whitened": {"name": "knn", "pca": 50, "whiten": True},
}
CORPORA = ("machine", "heart", "digits")


def vectors(n: int = 60, d: int = 8, seed: int = 0) -> np.ndarray:
    """Correlated columns of very different size and spread."""
    mixing = np.random.default_rng(d).normal(size=(d, d))
    x = np.random.default_rng(seed).normal(size=(n, d)) @ mixing
    return x * np.geomspace(0.01, 100.0, d) + np.linspace(-5.0, 50.0, d)


def fit(case: str, x: np.ndarray) -> Any:
    return fit_detector(build_detector(**CASES[case]), x, notes=[])


def frames(x: Any) -> Tensor:
    return torch.ones(len(x), dtype=torch.int64)


def score(model: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    return model(torch.from_numpy(x), frames(x)).numpy()


def slow_score(fitted: Any, x: np.ndarray, training: np.ndarray) -> np.ndarray:
    """The definition, by numpy and scipy."""
    if len(fitted) > 1:
        x, training = fitted[:-1].transform(x), fitted[:-1].transform(training)
    last = fitted[-1]
    kind = type(last).__name__
    if kind == "IsolationForest":
        return -last.score_samples(x)
    if kind == "NearestDistance":
        near = np.sort(cdist(x, training, last.metric), axis=1)[:, : last.n_neighbors]
        return near[:, -1] if last.distance == "largest" else near.mean(axis=1)
    d = x.shape[1]
    if kind != "GaussianMixture":
        centred = x - training.mean(axis=0)
        return np.sqrt((centred * np.linalg.solve(last.covariance_, centred.T).T).sum(axis=1))
    spread = {
        "full": lambda k: last.covariances_[k],
        "tied": lambda k: last.covariances_,
        "diag": lambda k: np.diag(last.covariances_[k]),
        "spherical": lambda k: last.covariances_[k] * np.eye(d),
    }[last.covariance_type]
    each = [
        np.log(weight) + multivariate_normal(mean, spread(k)).logpdf(x)
        for k, (weight, mean) in enumerate(zip(last.weights_, last.means_, strict=True))
    ]
    return -logsumexp(each, axis=0)


# --- real recordings ------------------------------------------------------------------------------


def waveforms(root: Path, rate: int, rows: list[dict[str, str]]) -> list[Tensor]:
    clips = [at.load(os.fspath(root / row["file"]), rate)[0][0] for row in rows]
    return [torch.nn.functional.pad(clip, (0, max(0, 8 * 512 - len(clip)))) for clip in clips]


@pytest.fixture(scope="module")
def clips(data_root) -> dict[str, tuple[list[Tensor], int, int]]:
    """Waveforms of each corpus, normal ones first, their rate, and how many are normal."""
    machine = table(data_root / "machine_sounds" / "labels.csv")
    machine = [row for row in machine if row["machine_id"] == "dcase2020_id_00"]
    heart = sorted(table(data_root / "heart_yaseen" / "labels.csv"), key=lambda r: r["anomaly"])
    digits = table(data_root / "fsdd" / "labels.csv")[::50]
    found = {}
    for corpus, folder, rate, rows in (
        ("machine", "machine_sounds", 16000, machine),
        ("heart", "heart_yaseen", 8000, heart[::2]),
        ("digits", "fsdd", 8000, digits),
    ):
        n_normal = sum(row.get("anomaly", "0") == "0" for row in rows)
        found[corpus] = waveforms(data_root / folder, rate, rows), rate, n_normal
    return found


@pytest.fixture(scope="module")
def summaries(clips) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {
            corpus: torch.cat([SummaryVector(rate)(clip[None]) for clip in waveforms])
            .double()
            .numpy()
            for corpus, (waveforms, rate, _) in clips.items()
        }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("corpus", CORPORA)
def test_real_clips_score_as_by_sklearn(summaries, corpus, case):
    x = summaries[corpus]
    training = steady(x[: 2 * len(x) // 3])
    fitted = fit(case, training)
    expected = anomaly_scores(fitted, x)
    assert expected.shape == (len(x),)
    # scikit-learn against scipy: the same but for the cancelling in scikit-learn's own sums.
    np.testing.assert_allclose(expected, slow_score(fitted, x, training), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(tensorize(fitted)(torch.from_numpy(x)), expected, rtol=TOLERANCE)
    file = scripted(DetectorModel(fitted, training))
    found = file(torch.from_numpy(x).float(), frames(x))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=SINGLE)


@pytest.mark.parametrize("case", CASES)
def test_padded_clips_score_as_alone(clips, summaries, case):
    waveforms, rate, _ = clips["heart"]
    front, x = SummaryVector(rate), summaries["heart"]
    model = DetectorModel(fit(case, steady(x[:40])), x[:40])
    lengths = torch.tensor([len(clip) for clip in waveforms[30:50]])
    assert len(lengths.unique()) > 5
    longest = int(lengths.max()) + 5000
    padded = [torch.nn.functional.pad(w, (0, longest - len(w))) for w in waveforms[30:50]]
    with torch.no_grad():
        together = front(torch.stack(padded), lengths)
        found = model(together, frames(together))
    # Rounding of the features; an isolation forest takes it over a threshold at times.
    np.testing.assert_allclose(found, score(model, x[30:50]), rtol=1e-3)


@pytest.mark.parametrize("name", DETECTORS)
def test_diseased_hearts_score_higher(clips, summaries, name):
    """Trained on two thirds of the normal hearts. Measured: 0.98 (isolation forest) to 1.00."""
    x, n_normal = summaries["heart"], clips["heart"][2]
    n_fitted = 2 * n_normal // 3
    scores = anomaly_scores(fit_detector(build_detector(name), steady(x[:n_fitted])), x[n_fitted:])
    others = np.arange(len(scores)) >= n_normal - n_fitted
    assert roc_auc_score(others, scores) > 0.95


@pytest.mark.parametrize("name", ["isolation_forest", "gaussian"])
def test_the_exported_pipeline_scores_as_sklearn(clips, name, tmp_path):
    waveforms, rate, _ = clips["heart"]
    front = MFCCStatistics(rate, 1024, 256)
    with torch.no_grad():
        x = torch.cat([front(clip[None]) for clip in waveforms]).double().numpy()
    fitted = fit_detector(build_detector(name), x[:40])
    model = DetectorModel(fitted, x[:40])
    pipeline = at.Pipeline(front, model, sample_rate=rate, task="anomaly")
    file = at.load_pipeline(at.export(pipeline, tmp_path / "model.ts"))
    with torch.no_grad():
        found = torch.cat([file(clip[None]) for clip in waveforms])
        eager = torch.cat([pipeline(clip[None]) for clip in waveforms])
        vector, counts = file.front(waveforms[0][None])
    np.testing.assert_allclose(found, eager, rtol=1e-5)
    np.testing.assert_allclose(found, anomaly_scores(fitted, x), rtol=1e-5)
    deviations = file.model.deviations(vector, counts)
    mean, std = normal_statistics(x[:40])
    np.testing.assert_allclose(deviations[0], (x[0] - mean) / std, atol=1e-4)


# --- building -------------------------------------------------------------------------------------


def test_the_articles_detector():
    x = vectors(70, 90)
    z = vectors(30, 90, seed=1)
    scaler = StandardScaler().fit(x)
    pca = PCA(n_components=min(50, *x.shape)).fit(scaler.transform(x))
    forest = IsolationForest(n_estimators=100, contamination=0.05, random_state=42)
    forest.fit(pca.transform(scaler.transform(x)))
    expected = -forest.score_samples(pca.transform(scaler.transform(z)))
    fitted = fit_detector(build_detector("isolation_forest"), x)
    np.testing.assert_allclose(anomaly_scores(fitted, z), expected, atol=1e-12)
    assert fitted[-1].offset_ == pytest.approx(forest.offset_)


def test_steps_and_settings():
    assert list(build_detector("gaussian").named_steps) == ["scaler", "detector"]
    assert list(build_detector("isolation_forest").named_steps) == ["scaler", "pca", "detector"]
    assert list(build_detector("isolation_forest", pca=None, scale=False).named_steps) == [
        "detector"
    ]
    built = build_detector("gmm", pca=0.9, seed=7, n_components=3)
    assert (built[1].n_components, built[1].random_state) == (0.9, 7)
    assert (built[-1].n_components, built[-1].random_state) == (3, 7)
    assert build_detector("gaussian", shrinkage=0)[-1].shrinkage == 0.0
    assert build_detector("knn", n_neighbors=4)[-1].get_params() == {
        "n_neighbors": 4,
        "distance": "mean",
        "metric": "euclidean",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "forest"}, "detector='forest': must be one of isolation_forest, gaussian"),
        ({"name": "knn", "k": 3}, "knn: has no setting 'k'; must be one of distance, metric"),
        ({"name": "gaussian", "shrink": 1}, "gaussian: has no setting 'shrink'.*shrinkage"),
        ({"name": "gaussian", "shrinkage": "lw"}, "shrinkage='lw': must be ledoit_wolf or oas"),
        ({"name": "gaussian", "shrinkage": 1.5}, "shrinkage=1.5: must be .* from 0 to 1"),
        ({"name": "gaussian", "shrinkage": True}, "shrinkage=True: must be"),
        ({"name": "knn", "metric": "l1"}, "metric='l1': must be one of euclidean, cosine"),
        ({"name": "knn", "distance": "median"}, "distance='median': must be one of mean, largest"),
        ({"name": "knn", "pca": 0}, "pca=0: must be a whole number"),
        ({"name": "knn", "pca": 1.5}, r"pca=1\.5: must be"),
        ({"name": "knn", "pca": True}, "pca=True: must be"),
        ({"name": "knn", "whiten": True}, "whiten=True: needs a PCA"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ParameterError, match=message):
        build_detector(**settings)


# --- fitting --------------------------------------------------------------------------------------


def test_a_seed_of_the_fit_reaches_every_step():
    x = vectors()
    detector = build_detector("isolation_forest", n_estimators=5)
    fitted = fit_detector(detector, x, 7)
    assert [fitted[1].random_state, fitted[2].random_state] == [7, 7]
    assert fit_detector(detector, x)[2].random_state == 42
    assert not hasattr(detector[-1], "estimators_")
    again = anomaly_scores(fit_detector(detector, x, 7), x)
    np.testing.assert_array_equal(again, anomaly_scores(fitted, x))


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("case", CASES)
def test_fits_on_very_few_clips(case, n):
    x = vectors(n, 30)
    z = vectors(10, 30, seed=1)
    fitted = fit(case, x)
    expected = anomaly_scores(fitted, z)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(score(DetectorModel(fitted, x), z), expected, rtol=1e-7)


def test_what_the_clips_do_not_allow_is_told(caplog):
    x = vectors(5)
    with caplog.at_level(logging.WARNING):
        fit_detector(build_detector("knn", n_neighbors=9), x)
        fit_detector(build_detector("gmm", n_components=4), x)
    assert "n_neighbors=5 instead of 9" in caplog.text
    assert "n_components=2 instead of 4: there are 5 different clips" in caplog.text
    # Copies of a clip are no more clips; and nothing is told where nothing is cut.
    notes = []
    fit_detector(build_detector("gmm"), np.repeat(x[:2], 20, axis=0), notes=notes)
    assert notes == [
        "n_components=1 instead of 2: there are 2 different clips, and each component needs two"
    ]
    notes = []
    for name in DETECTORS:
        fit_detector(build_detector(name), vectors(60), notes=notes)
    assert notes == []
    fit_detector(build_detector("gmm", max_iter=1, tol=1e-9), vectors(60), notes=notes)
    assert notes == [
        "GaussianMixture stopped before it converged: raise max_iter, or take fewer components"
    ]


def test_whitening_leaves_out_what_is_rounding():
    """The last component of n clips has no spread; divided by it, every score would be noise."""
    x = vectors(10, 40)
    fitted = fit_detector(build_detector("knn", pca=50, whiten=True), x)
    assert fitted[1].n_components_ == 9
    x[:, 2:] = x[:, :1]
    fitted = fit_detector(build_detector("knn", pca=50, whiten=True), x)
    assert fitted[1].n_components_ == 2
    assert anomaly_scores(fitted, x[:3] + 1e-9).max() < 10.0


@pytest.mark.parametrize("case", CASES)
def test_constant_columns_and_one_feature(case):
    x = vectors(40, 6)
    x[:, 1::2] = [0.1, 0.0, 1e6]
    z = vectors(10, 6, seed=1)
    fitted = fit(case, x)
    expected = anomaly_scores(fitted, z)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(score(DetectorModel(fitted, x), z), expected, rtol=1e-7)
    fitted = fit(case, x[:, :1])
    expected = anomaly_scores(fitted, z[:, :1])
    np.testing.assert_allclose(score(DetectorModel(fitted, x[:, :1]), z[:, :1]), expected, 1e-9)


def test_wrong_vectors_are_refused():
    x = vectors()
    bad = x.copy()
    bad[7, 2] = np.nan
    detector = build_detector("gaussian")
    with pytest.raises(ParameterError, match="x: row 7 holds nan in column 2"):
        fit_detector(detector, bad)
    for wrong in (x[:1], x[0], x[:, :0], x[None]):
        with pytest.raises(ParameterError, match=r"x has shape .*at least 2 normal clips"):
            fit_detector(detector, wrong)
    with pytest.raises(ParameterError, match="all 60 vectors are the same"):
        fit_detector(detector, np.ones_like(x))
    with pytest.raises(ParameterError, match=r"IsolationForest cannot be fitted: .*n_estimators"):
        fit_detector(build_detector("isolation_forest", n_estimators=-1), x)
    with pytest.raises(ParameterError, match=r"GaussianMixture cannot be fitted: .*'tide'"):
        fit_detector(build_detector("gmm", covariance_type="tide"), x)


# --- tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_scripted_batched_broken_and_on_any_device(case):
    training = vectors()
    model = DetectorModel(fit(case, training), training)
    x = torch.from_numpy(vectors(20, seed=1))
    expected = model(x, frames(x))
    file = scripted(model)
    torch.testing.assert_close(file(x, frames(x)), expected, atol=0, rtol=1e-12)
    assert file.n_features == 8
    for i in range(3):
        alone = model(x[i : i + 1], frames(x[:1]))
        torch.testing.assert_close(alone[0], expected[i], atol=0, rtol=1e-9)
    broken = x.clone()
    broken[4, 2] = torch.nan
    others = torch.arange(len(x)) != 4
    for either in (model, file):
        answer = either(broken, frames(x))
        assert answer[4].isnan()
        torch.testing.assert_close(answer[others], expected[others], atol=0, rtol=1e-9)
        deviations = either.deviations(broken, frames(x))
        assert deviations.isnan().nonzero().tolist() == [[4, 2]]
    assert run_on_fake_cuda(model, x, frames(x)).shape == (20,)
    for cast in (model.half(), model.float()):
        assert torch.equal(cast(x, frames(x)), expected)


@pytest.mark.parametrize("case", CASES)
def test_exported_program_takes_any_batch(case):
    training = vectors()
    model = DetectorModel(fit(case, training), training).eval()
    x = torch.from_numpy(vectors(30, seed=1)).float()
    batch = {0: torch.export.Dim.AUTO}
    example = (x[:3], frames(x[:3]))
    program = torch.export.export(model, example, dynamic_shapes=(batch, batch))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    program = torch.export.load(file).module()
    for n in (1, 2, 30):
        answer = program(x[:n], frames(x[:n]))
        torch.testing.assert_close(answer, model(x[:n], frames(x[:n])), atol=0, rtol=1e-6)


def test_near_vectors_do_not_cancel():
    """A millionth apart, a million away from 0: a matrix product would find 0 or 0.01."""
    x = 1e6 + np.arange(40.0).reshape(20, 2)
    z = x + np.array([1e-6, 0.0])
    step = z[:, 0] - x[:, 0]  # as float64 holds it
    fitted = fit_detector(build_detector("knn", scale=False, n_neighbors=1), x)
    for found in (anomaly_scores(fitted, z), score(DetectorModel(fitted, x), z)):
        np.testing.assert_allclose(found, step, rtol=1e-9)
    product = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(x).kneighbors(z)[0][:, 0]
    assert np.abs(product - step).max() > 1e-6
    # scikit-learn squares before it subtracts the mean.
    wide = 1e6 + np.random.default_rng(0).normal(size=(50, 2))
    for kind in ("full", "tied", "diag", "spherical"):
        fitted = fit_detector(build_detector("gmm", covariance_type=kind, scale=False), wide)
        exact = slow_score(fitted, wide, wide)
        np.testing.assert_allclose(score(DetectorModel(fitted, wide), wide), exact, rtol=1e-9)
    assert np.abs(anomaly_scores(fitted, wide) - exact).max() > 1e-6


def test_zeros_have_no_direction():
    x = vectors(10, 4)
    x[3] = 0.0
    fitted = fit_detector(build_detector("knn", scale=False, metric="cosine", n_neighbors=2), x)
    z = np.stack([np.zeros(4), x[0], -x[0], x[3]])
    expected = anomaly_scores(fitted, z)
    np.testing.assert_allclose(score(DetectorModel(fitted, x), z), expected, atol=1e-14)
    assert expected[0] == 1.0


def test_vectors_of_the_training_are_their_own_neighbours():
    x = vectors()
    one = fit_detector(build_detector("knn", n_neighbors=1), x)
    assert np.abs(anomaly_scores(one, x)).max() == 0.0
    assert np.abs(score(DetectorModel(one, x), x)).max() == 0.0
    assert anomaly_scores(one, vectors(seed=1)).min() > 0.1


# --- deviations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deviations_are_standard_scores(dtype):
    x = vectors()
    z = torch.from_numpy(vectors(10, seed=1)).to(dtype)
    model = DetectorModel(fit("gaussian", x), x)
    found = model.deviations(z, frames(z))
    assert found.dtype == dtype
    expected = (z.double().numpy() - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(found, expected, rtol=SINGLE, atol=SINGLE)
    same = DetectorModel(fit("gaussian", x), normal_statistics(x))
    assert torch.equal(same.deviations(z, frames(z)), found)
    torch.testing.assert_close(scripted(model).deviations(z, frames(z)), found)


def test_deviations_of_constant_features_are_finite():
    x = vectors(20, 6)
    x[:, 0] = 120.0
    x[:, 1] = 0.0
    x[:, 2] = 1e-15 * np.arange(20)  # rounding
    x[:, 3] = 1e-7 * (1.0 + 0.1 * np.arange(20))  # small, and no rounding
    mean, std = normal_statistics(x)
    np.testing.assert_allclose(std[:4], [0.12, 1.0, 1.0, x[:, 3].std()])
    z = torch.from_numpy(mean + np.array([1.2, 0.5, -0.5, 0.0, std[4], -std[5]]))[None]
    found = DetectorModel(fit("nearest", x), (mean, std)).deviations(z, frames(z))
    np.testing.assert_allclose(found[0], [10.0, 0.5, -0.5, 0.0, 1.0, -1.0], atol=1e-9)


def test_images_are_pooled_as_by_numpy():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(12, 2, 3, 9, generator=generator)
    counts = torch.tensor([9, 4, 7, 2, 9, 8, 3, 9, 5, 6, 1, 9])
    rows = []
    for clip, n in zip(image.double().numpy(), counts, strict=True):
        own = clip[..., :n]
        statistics = [own.mean(-1), own.std(-1), own.min(-1), own.max(-1)]
        rows.append(np.stack(statistics, axis=1).ravel())
    pooled = np.stack(rows)
    fitted = fit("gaussian", pooled)
    model = DetectorModel(fitted, pooled)
    assert model.n_features == 24
    noisy = image.clone()
    noisy[3, ..., 2:] = torch.nan
    for clip in (image, noisy):
        np.testing.assert_allclose(model(clip, counts), anomaly_scores(fitted, pooled), rtol=1e-5)
    assert scripted(model).deviations(image, counts).shape == (12, 24)


# --- refusals -------------------------------------------------------------------------------------


def test_a_model_scores_vectors_of_its_width():
    x = vectors()
    model = DetectorModel(fit("nearest", x), x)
    with pytest.raises(ParameterError, match=r"x: must be \(batch, 8\).*got \[2, 7\]"):
        model(torch.zeros(2, 7), frames([0, 0]))
    with pytest.raises(ParameterError, match=r"normals: mean \(7,\).*the 8 features"):
        DetectorModel(fit("nearest", x), x[:, :7])
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, np.arange(60) % 2)
    for wrong in (classifier, "detector"):
        with pytest.raises(ParameterError, match="is no fitted detector; must be one of Isol"):
            DetectorModel(wrong, x)
    with pytest.raises(ParameterError, match="NearestDistance: is no fitted detector"):
        DetectorModel(build_detector("knn"), x)
    fitted = fit("nearest", x)
    fitted[-1].n_neighbors = 99
    with pytest.raises(ParameterError, match="n_neighbors=99 of 60 vectors"):
        tensorize(fitted)
    assert math.isfinite(score(model, x).sum())
