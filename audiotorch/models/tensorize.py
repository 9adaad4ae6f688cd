"""Fitted scikit-learn estimators as torch modules that give the same answers."""

import math
from typing import Any, Optional

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.features.pooling import VectorPooling
from audiotorch.models.builders import probable
from audiotorch.models.estimators import Estimator

__all__ = ["ClassicModel", "steady", "tensorize"]


def tensorize(fitted: Any) -> Estimator:
    """Turn a fitted scikit-learn estimator, or a Pipeline of such, into a torch module.

    The module takes vectors `(batch, n_features)`, float32 or float64, and gives in float64 what
    scikit-learn gives for the same vectors as float64: a transformer the transformed vectors; a
    classifier `predict_proba`, in the order of `classes_`; a detector the `anomaly_scores` of
    `audiotorch.models.detectors`, `(batch,)`, higher = more anomalous. Trees get vectors rounded to
    float32 where scikit-learn rounds them. It scripts and exports, and each row has the answer that
    it has alone.

    Answers agree to rounding in float64, 1e-9 and less, with these exceptions. Nearest neighbours:
    where vectors of several classes are equally far, those that came first in the training vote.
    GaussianMixture with features that are large against their spread: there scikit-learn cancels.
    GradientBoostingClassifier with an `init` of its own: 1e-6.
    Missing values: an answer where the last step has one (random forests, HistGradientBoosting,
    IsolationForest), NaN where it refuses. Infinite values, which scikit-learn refuses, are not
    looked for.

    Args:
        fitted: StandardScaler, PCA, LogisticRegression, KNeighborsClassifier,
            DecisionTreeClassifier, ExtraTreeClassifier, RandomForestClassifier,
            ExtraTreesClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier;
            CalibratedClassifierCV of a classifier or of SVC, which has no probabilities of its own;
            VotingClassifier with soft votes; IsolationForest, LedoitWolf, OAS, ShrunkCovariance,
            GaussianMixture, `audiotorch.models.nearest.NearestDistance`; Pipeline of these.

    Returns:
        The module.

    Raises:
        ParameterError: another class, one that is not fitted, or one that was fitted with what
            cannot be done here: several outputs, sparse vectors, categories, other kernels.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> fitted = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> tensorize(fitted)(torch.tensor([[1.5]]))
        tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    return probable(fitted).eval()


def steady(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Round training vectors, so that no estimator is fitted on the rounding of their features.

    Clips that end in silence share values such as an MFCC's maximum of 0, but for a last bit that
    hangs on padding, batch and machine. A booster that splits there, or a scaler that widens a
    column of such values to a spread of 1, answers by chance: HistGradientBoosting on spoken digits
    gave every eighth clip another probability when padded, up to 0.09. Columns are rounded to
    1/4096 of their standard deviation, or to 2**-34 where that is more. Only the training is
    rounded: afterwards vectors are taken as they are.

    Args:
        vectors: of the training alone.

    Shape:
        - Input: `(n_clips, n_features)`
        - Output: as the input, float64

    Example:
        >>> steady(np.array([[1e-15, 1.0], [-2e-15, 2.0]])).tolist()
        [[0.0, 1.0], [0.0, 2.0]]
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    with np.errstate(divide="ignore"):
        power = np.floor(np.log2(vectors.std(axis=0))) - 12.0
    unit = np.exp2(np.maximum(power, -34.0))
    rounded: npt.NDArray[np.float64] = np.round(vectors / unit) * unit + 0.0
    return rounded


class ClassicModel(nn.Module):
    """A fitted scikit-learn classifier as a Pipeline's model.

    It answers log-probabilities, so that the Pipeline's softmax gives the probabilities back,
    within 1e-6 in float32. Probabilities below 1e-9 count as 1e-9, but for classes that the
    training did not have: those count as 1e-30. A vector with a NaN has no answer but NaN, also
    from trees that would send missing values somewhere.

    Images are pooled first: mean, standard deviation, minimum and maximum of each row over the
    clip's own frames.

    Args:
        fitted: what `tensorize` takes, and a classifier, whose classes are whole numbers from 0:
            the places of a Pipeline's labels.
        n_classes: number of answers; `None` = the highest class plus one.

    Attributes:
        explains: whether `contributions` and `baseline` have an answer: for trees, forests and
            boosters, LogisticRegression and linear SVC, alone or calibrated, behind a
            StandardScaler or not.

    Shape:
        - Input: `(batch, n_features)` or `(batch, channel, n_mels, frames)`, and frame counts
          `(batch,)`
        - Output: `(batch, n_classes)`, log-probabilities in the input's dtype

    Raises:
        ParameterError: as `tensorize`; no classifier, or other classes; in `forward`, vectors of
            another width.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> fitted = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> answer = ClassicModel(fitted, 3)(torch.tensor([[1.5]]), torch.tensor([9]))
        >>> answer.softmax(dim=1).round(decimals=3)
        tensor([[0.5000, 0.5000, 0.0000]])
    """

    explains: bool
    classes: Tensor

    def __init__(self, fitted: Any, n_classes: Optional[int] = None) -> None:
        super().__init__()
        self.classifier = tensorize(fitted)
        self.kind = type(fitted).__name__
        if not hasattr(fitted, "classes_"):
            raise ParameterError(f"{self.kind}: is no classifier; give one, or use tensorize")
        classes = np.asarray(fitted.classes_)
        if classes.dtype.kind not in "iu" or classes.min() < 0:
            raise ParameterError(
                f"classes={classes.tolist()}: must be whole numbers from 0, the places of the "
                "Pipeline's labels; fit on those"
            )
        self.n_classes = int(classes.max()) + 1 if n_classes is None else int(n_classes)
        if classes.max() >= self.n_classes:
            raise ParameterError(
                f"n_classes={n_classes}: the classifier has class {classes.max()}; give at least "
                f"{classes.max() + 1}"
            )
        # Below any probability that is told from 0, which is what forests often say.
        self.smallest = 1e-9
        # A class that the training did not have has no probability at any temperature.
        self.never = math.log(1e-30)
        self.n_features = self.classifier.n_features
        self.explains = bool(self.classifier.explains)
        self.pooling = VectorPooling()
        self.register_buffer("classes", torch.from_numpy(classes.astype(np.int64)))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return log-probabilities; shapes as in the class docstring."""
        x = self._vector(x, lengths)
        found = self.classifier(x).clamp(min=self.smallest).log()
        answer = self._spread(found, self.never)
        return answer.masked_fill(_without_answer(x), math.nan).to(x.dtype)

    @torch.jit.export
    def contributions(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return what each feature adds to each class, in float64.

        Trees credit each split's feature with the change of the node's value, to the probability of
        forests and to the raw score of boosters; LogisticRegression and linear SVC credit weight
        times scaled feature, to their decision. Of a calibrated classifier it is what the
        classifier inside says, before the calibration. With `baseline` they add up to that. Of two
        classes, the first one's raw scores are the second one's with the sign turned.

        Args:
            x: as `forward`.
            lengths: as `forward`.

        Shape:
            - Output: `(batch, n_features, n_classes)`

        Raises:
            ParameterError: `explains` is false.

        Reference:
            Saabas (2014), Interpreting random forests.
        """
        self._check_explains()
        x = self._vector(x, lengths)
        answer = self._spread(self.classifier.contributions(x), 0.0)
        return answer.masked_fill(_without_answer(x).unsqueeze(-1), math.nan)

    @torch.jit.export
    def baseline(self) -> Tensor:
        """Return what the contributions are added to, `(n_classes,)` in float64.

        Raises:
            ParameterError: `explains` is false.
        """
        self._check_explains()
        return self._spread(self.classifier.baseline(), 0.0)

    def _check_explains(self) -> None:
        if not self.explains:
            raise ParameterError(
                f"contributions: {self.kind} has none; they are for trees, forests, boosters, "
                "logistic regression and linear SVC, behind a StandardScaler at most"
            )

    def _vector(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.pooling(x, lengths)
        if x.dim() != 2 or x.shape[1] != self.n_features:
            raise ParameterError(
                f"x: must be (batch, {self.n_features}) as in the training, got {list(x.shape)}"
            )
        return x

    def _spread(self, found: Tensor, value: float) -> Tensor:
        """Put the classes of the training, on the last axis, among all classes."""
        column = torch.full_like(found[..., :1], value)
        answer = column.repeat_interleave(self.n_classes, dim=-1)
        return answer.index_copy(-1, self.classes, found)


def _without_answer(x: Tensor) -> Tensor:
    return x.isnan().any(dim=1, keepdim=True)
