"""scikit-learn's detectors of anomalies, fitted on vectors of normal clips alone."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.covariance import OAS, LedoitWolf, ShrunkCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.features.pooling import VectorPooling
from audiotorch.models.classic import (
    check_settings,
    check_vectors,
    convergence_told,
    fewer_neighbours,
)
from audiotorch.models.estimators import Scaler
from audiotorch.models.nearest import NearestDistance
from audiotorch.models.tensorize import tensorize

__all__ = [
    "DETECTORS",
    "DETECTOR_KINDS",
    "DetectorModel",
    "anomaly_scores",
    "build_detector",
    "fit_detector",
    "is_detector",
    "normal_statistics",
]

log = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float64]


DETECTORS: Mapping[str, tuple[type[BaseEstimator], dict[str, Any]]] = {
    "isolation_forest": (IsolationForest, {"n_estimators": 100, "contamination": 0.05}),
    # Where the shrinkage has a name, a class of that name.
    "gaussian": (ShrunkCovariance, {"shrinkage": "ledoit_wolf"}),
    # Of some dozen clips, full covariances know no other clip; nor do those of hardly any spread.
    "gmm": (
        GaussianMixture,
        {"n_components": 2, "covariance_type": "diag", "reg_covar": 0.1},
    ),
    "knn": (NearestDistance, {}),
}
"""Classes and the settings in which they differ from their own defaults; seeds come on top."""

DETECTOR_KINDS: tuple[type[BaseEstimator], ...] = (
    IsolationForest,
    LedoitWolf,
    OAS,
    ShrunkCovariance,
    GaussianMixture,
    NearestDistance,
)
"""Classes that `anomaly_scores` and `DetectorModel` take."""

_COVARIANCES = {"ledoit_wolf": LedoitWolf, "oas": OAS}
_CHOICES = {"metric": ("euclidean", "cosine"), "distance": ("mean", "largest")}
# Components with less than this share of the first one's spread are rounding: nothing to whiten.
_RANK = 1e-6


def build_detector(
    name: str,
    *,
    scale: bool = True,
    pca: int | float | Literal["default"] | None = "default",
    whiten: bool = False,
    seed: int = 42,
    **settings: Any,
) -> Pipeline:
    """Build an unfitted scikit-learn Pipeline: a scaler, a PCA, then the detector.

    Args:
        name: `isolation_forest`; `gaussian`, the Mahalanobis distance from the mean under a shrunk
            covariance; `gmm`, a mixture of Gaussians; `knn`, the distance to the nearest normals.
        scale: put a StandardScaler in front; False for vectors that are normalised already.
        pca: components that are kept, no more than there are clips or features; below 1 as many as
            hold this share of the variance; None = no PCA; `"default"` = 50 for
            `isolation_forest`, else None.
        whiten: bring the kept components to the same spread; those without any are left out.
        seed: `random_state` of the PCA and the detector, where they have one.
        settings: of the detector, in scikit-learn's names. For `gaussian` also `shrinkage`:
            `"ledoit_wolf"` (default) or `"oas"`, which choose it by the clips, or a number from 0
            to 1. For `knn` those of `NearestDistance`. The `reg_covar` of `gmm` is a variance, 0.1
            where that of the scaled features is 1.

    Returns:
        A Pipeline with the steps `scaler` and `pca` (if any) and `detector`.

    Raises:
        ParameterError: an unknown name or setting, or a value out of range.
    """
    if name not in DETECTORS:
        raise ParameterError(f"detector={name!r}: must be one of {', '.join(DETECTORS)}")
    kind, defaults = DETECTORS[name]
    if settings.get("n_neighbors", 0) is None:  # as model=knn has it, a classifier or a detector
        del settings["n_neighbors"]
    settings = {**defaults, **settings}
    known = check_settings(name, kind, settings)
    if name == "gaussian":
        kind, settings = _covariance(**settings)
    for key, choices in _CHOICES.items():
        if key in known and settings.get(key, choices[0]) not in choices:
            raise ParameterError(f"{key}={settings[key]!r}: must be one of {', '.join(choices)}")
    seeded = {"random_state": seed} if "random_state" in known else {}
    steps: list[tuple[str, Any]] = [("scaler", StandardScaler())] if scale else []
    if pca == "default":
        pca = 50 if name == "isolation_forest" else None
    if pca is not None:
        _check_pca(pca)
        steps.append(("pca", PCA(pca, whiten=whiten, random_state=seed)))
    elif whiten:
        raise ParameterError("whiten=True: needs a PCA; give pca, such as pca=50")
    return Pipeline([*steps, ("detector", kind(**{**seeded, **settings}))])


def _covariance(shrinkage: Any, **settings: Any) -> tuple[type[BaseEstimator], dict[str, Any]]:
    if isinstance(shrinkage, str) and shrinkage in _COVARIANCES:
        return _COVARIANCES[shrinkage], settings
    number = isinstance(shrinkage, int | float) and not isinstance(shrinkage, bool)
    if not number or not 0 <= shrinkage <= 1:
        raise ParameterError(
            f"shrinkage={shrinkage!r}: must be {' or '.join(_COVARIANCES)}, or from 0 to 1"
        )
    return ShrunkCovariance, {**settings, "shrinkage": float(shrinkage)}


def _check_pca(pca: Any) -> None:
    whole = isinstance(pca, int) and not isinstance(pca, bool) and pca >= 1
    if not whole and not (isinstance(pca, float) and 0 < pca < 1):
        raise ParameterError(
            f"pca={pca!r}: must be a whole number of components from 1, a share of the variance "
            "between 0 and 1, or None"
        )


def fit_detector(
    detector: BaseEstimator,
    x: Vectors,
    seed: int | None = None,
    *,
    notes: list[str] | None = None,
) -> Any:
    """Clone a detector and fit it on normal clips.

    Constant columns do no harm, and there may be more columns than clips. Where clips are fewer
    than components or neighbours, there will be fewer of those.

    Args:
        detector: from `build_detector`, or another of its kinds, alone or last in a Pipeline.
        x: vectors of the normal clips, `(n, d)`, float64; `audiotorch.models.steady` first takes
            the rounding of the features out of them.
        seed: `random_state` of every step that has one; None = as built.
        notes: receives what the user has to know, one sentence each; None logs it as warnings.

    Raises:
        ParameterError: fewer than two vectors, all the same, or not finite; or settings that
            scikit-learn refuses.
    """
    if x.ndim != 2 or len(x) < 2 or not x.shape[1]:
        raise ParameterError(
            f"x has shape {x.shape}: need (n, d), the vectors of at least 2 normal clips"
        )
    check_vectors(x, np.zeros(len(x), dtype=np.int64))
    n_distinct = len(np.unique(x, axis=0))
    if n_distinct == 1:
        raise ParameterError(
            f"x: all {len(x)} vectors are the same; give normal clips that differ, not copies of "
            "one or silence"
        )
    fitted = clone(detector)
    if seed is not None:
        seeds = [key for key in fitted.get_params() if key.rpartition("__")[2] == "random_state"]
        fitted.set_params(**dict.fromkeys(seeds, seed))
    told = _adapt(fitted, x, n_distinct)
    name = type(_last(fitted)).__name__
    try:
        with convergence_told(
            told, f"{name} stopped before it converged: raise max_iter, or take fewer components"
        ):
            fitted.fit(x)
    except (ValueError, TypeError) as error:
        raise ParameterError(f"{name} cannot be fitted: {error}") from error
    if notes is not None:
        notes += told
    else:
        for note in told:
            log.warning("%s", note)
    return fitted


def _last(fitted: Any) -> Any:
    return fitted[-1] if isinstance(fitted, Pipeline) else fitted


def _adapt(detector: Any, x: Vectors, n_distinct: int) -> list[str]:
    """Ask no more components and neighbours than the clips allow."""
    last, told = _last(detector), []
    for i, step in enumerate(detector.named_steps.values() if last is not detector else []):
        if isinstance(step, PCA) and isinstance(step.n_components, int):
            most = min(x.shape)
            if step.whiten:
                most = _rank(clone(detector[:i]).fit_transform(x) if i else x)
            step.set_params(n_components=min(step.n_components, most))
    if isinstance(last, NearestDistance):
        told += fewer_neighbours(detector, len(x))
    if isinstance(last, GaussianMixture) and isinstance(last.n_components, int):
        # One clip alone has no spread.
        most = max(1, n_distinct // 2)
        if last.n_components > most:
            told.append(
                f"n_components={most} instead of {last.n_components}: there are {n_distinct} "
                "different clips, and each component needs two"
            )
            last.set_params(n_components=most)
    return told


def _rank(x: Vectors) -> int:
    spread = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    return max(1, int((spread > _RANK * spread[0]).sum()))


def anomaly_scores(fitted: Any, x: Vectors) -> Vectors:
    """Return scikit-learn's own score of each vector, higher = more anomalous.

    IsolationForest and GaussianMixture: minus `score_samples`, in 0 to 1 and the negative
    log-density. Covariances: the square root of `mahalanobis`, a distance in standard deviations.
    `NearestDistance`: the distance.

    Args:
        fitted: from `fit_detector`.
        x: vectors.

    Shape:
        - Input: `(n, d)`
        - Output: `(n,)`, float64
    """
    last = _last(fitted)
    if last is not fitted and len(fitted) > 1:
        x = fitted[:-1].transform(x)
    found = np.sqrt(last.mahalanobis(x)) if hasattr(last, "mahalanobis") else -last.score_samples(x)
    return np.asarray(found, dtype=np.float64)


def is_detector(fitted: Any) -> bool:
    """Say whether something is one of our detectors, alone or last in a Pipeline, and fitted.

    Args:
        fitted: anything.
    """
    last = _last(fitted)
    return type(last) in DETECTOR_KINDS and hasattr(fitted, "n_features_in_")


def normal_statistics(x: Vectors) -> tuple[Vectors, Vectors]:
    """Return mean and standard deviation of each feature, to measure deviations by.

    A feature that hardly varies in the training would make any deviation endless. So the standard
    deviation counts as a thousandth of the feature's largest absolute value at least, and as 1
    where that is below 2**-34, which is rounding: there deviations are in the feature's own unit.

    Args:
        x: vectors of the normal clips.

    Shape:
        - Input: `(n, d)`
        - Output: `(d,)` and `(d,)`

    Example:
        >>> normal_statistics(np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 0.0]]))[1].tolist()
        [1.0, 0.005, 1.0]
    """
    size = np.abs(x).max(axis=0)
    spread = np.maximum(x.std(axis=0), 1e-3 * size)
    return x.mean(axis=0), np.where(size < 2.0**-34, 1.0, spread)


class DetectorModel(nn.Module):
    """A fitted detector as a Pipeline's model.

    A vector with a NaN has no score but NaN, also from trees that would send missing values
    somewhere. Everything is computed in float64.

    Images are pooled first: mean, standard deviation, minimum and maximum of each row over the
    clip's own frames.

    Args:
        fitted: from `fit_detector`, or another of its kinds.
        normals: vectors of the normal clips `(n, d)`, or their `normal_statistics`.

    Attributes:
        n_features: width of the vectors.

    Shape:
        - Input: `(batch, n_features)` or `(batch, channel, n_mels, frames)`, and frame counts
          `(batch,)`
        - Output: `(batch,)`, the `anomaly_scores` in the input's dtype

    Raises:
        ParameterError: as `tensorize`; no detector; statistics of another width, or that are no
            numbers to measure by; in `forward`, vectors of another width.

    Example:
        >>> x = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
        >>> model = DetectorModel(fit_detector(build_detector("knn", scale=False), x), x)
        >>> model(torch.tensor([[2.0, 4.0]]), torch.tensor([9]))
        tensor([3.3028])
    """

    def __init__(self, fitted: Any, normals: Vectors | tuple[Vectors, Vectors]) -> None:
        super().__init__()
        if not is_detector(fitted):
            kinds = ", ".join(kind.__name__ for kind in DETECTOR_KINDS)
            raise ParameterError(
                f"{type(_last(fitted)).__name__}: is no fitted detector; must be one of {kinds}, "
                "fitted, alone or last in a Pipeline"
            )
        self.detector = tensorize(fitted)
        self.n_features = self.detector.n_features
        mean, std = normals if isinstance(normals, tuple) else normal_statistics(normals)
        if mean.shape != (self.n_features,) or std.shape != (self.n_features,):
            raise ParameterError(
                f"normals: mean {mean.shape} and standard deviation {std.shape} must each have "
                f"the {self.n_features} features of the detector"
            )
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ParameterError("normals: must be finite, with standard deviations above 0")
        self.normals = Scaler(_tensor(mean), _tensor(std))
        self.pooling = VectorPooling()

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores; shapes as in the class docstring."""
        x = self._vector(x, lengths)
        return self.detector(x).masked_fill(x.isnan().any(dim=1), math.nan).to(x.dtype)

    @torch.jit.export
    def deviations(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return how far each feature lies from the normal clips' mean, with its sign.

        In standard deviations of the normal clips: see `normal_statistics`.

        Args:
            x: as `forward`.
            lengths: as `forward`.

        Shape:
            - Output: `(batch, n_features)`, in the input's dtype
        """
        x = self._vector(x, lengths)
        return self.normals(x).to(x.dtype)

    def _vector(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.pooling(x, lengths)
        if x.dim() != 2 or x.shape[1] != self.n_features:
            raise ParameterError(
                f"x: must be (batch, {self.n_features}) as in the training, got {list(x.shape)}"
            )
        return x


def _tensor(values: Vectors) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))
