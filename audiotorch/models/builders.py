"""What to take out of each fitted scikit-learn estimator, and the module to put it into."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.models.calibrated import Calibrated, Isotonic, Sigmoid, Tempered
from audiotorch.models.densities import Mahalanobis, Mixture, Nearest
from audiotorch.models.estimators import (
    Average,
    Chain,
    Constant,
    Estimator,
    Logistic,
    Projection,
    Scaler,
)
from audiotorch.models.kernels import Neighbours, SupportVectors
from audiotorch.models.trees import Boosted, Forest, Isolation, Start, TreeNodes, Trees

__all__ = ["convert", "probable"]

_KERNELS = ("linear", "poly", "rbf", "sigmoid")


def convert(fitted: Any) -> Estimator:
    """Turn a fitted estimator into a module; an SVC gives one that has only a `decision`.

    Classes are looked up by name: subclasses may compute something else.

    Args:
        fitted: an estimator of scikit-learn, or `audiotorch.models.nearest.NearestDistance`.

    Raises:
        ParameterError: as `tensorize`.
    """
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    kind = type(fitted)
    package = kind.__module__.partition(".")[0]
    if package not in ("sklearn", "audiotorch") or kind.__name__ not in _BUILDERS:
        raise ParameterError(
            f"{kind.__name__}: cannot be turned into tensors; must be one of "
            f"{', '.join(sorted(_BUILDERS))}"
        )
    try:
        if kind.__name__ != "Pipeline":
            check_is_fitted(fitted)
    except NotFittedError as error:
        raise ParameterError(f"{kind.__name__}: is not fitted; call fit first") from error
    if getattr(fitted, "n_outputs_", 1) != 1 or getattr(fitted, "outputs_2d_", False):
        raise ParameterError(f"{kind.__name__}: answers for several outputs; fit one for each")
    module = _BUILDERS[kind.__name__](fitted)
    module.n_features = int(getattr(fitted, "n_features_in_", module.n_features))
    return module


def probable(fitted: Any) -> Estimator:
    """Turn a fitted estimator into a module, and refuse a classifier without probabilities.

    Args:
        fitted: an estimator of scikit-learn.

    Raises:
        ParameterError: as `tensorize`.
    """
    module = convert(fitted)
    if isinstance(_last(module), SupportVectors):
        raise ParameterError(
            "SVC: has no probabilities of its own; fit CalibratedClassifierCV(SVC(), "
            "ensemble=False)"
        )
    return module


def _last(module: Estimator) -> Estimator:
    return _last(module.last) if isinstance(module, Chain) else module


def _constant(values: Any) -> Tensor:
    """A float64 tensor of its own."""
    if hasattr(values, "toarray"):
        raise ParameterError("the estimator was fitted on sparse vectors; fit on dense ones")
    return torch.from_numpy(np.array(values, dtype=np.float64, order="C"))


def _pipeline(fitted: Any) -> Estimator:
    steps = [step for _, step in fitted.steps if step is not None and step != "passthrough"]
    if not steps:
        raise ParameterError("Pipeline: has no step but passthrough; there is nothing to compute")
    modules = [convert(step) for step in steps]
    return modules[0] if len(modules) == 1 else Chain(modules[:-1], modules[-1])


def _scaler(fitted: Any) -> Estimator:
    mean = None if fitted.mean_ is None or not fitted.with_mean else _constant(fitted.mean_)
    return Scaler(mean, None if fitted.scale_ is None else _constant(fitted.scale_))


def _pca(fitted: Any) -> Estimator:
    scale = np.ones(len(fitted.components_))
    if fitted.whiten:
        scale = np.maximum(np.sqrt(fitted.explained_variance_), np.finfo(np.float64).eps)
    return Projection(_constant(fitted.components_), _constant(fitted.mean_), _constant(scale))


def _logistic(fitted: Any) -> Estimator:
    # liblinear without an intercept has a single 0 instead of one a class.
    bias = np.broadcast_to(fitted.intercept_, len(fitted.coef_))
    return Logistic(_constant(fitted.coef_), _constant(bias))


def _svc(fitted: Any) -> Estimator:
    if fitted.kernel not in _KERNELS:
        raise ParameterError(f"SVC: kernel={fitted.kernel!r} must be one of {', '.join(_KERNELS)}")
    vectors = _constant(fitted.support_vectors_)
    # libsvm's layout: row j - 1 of the coefficients of class i's vectors, and row i of class j's,
    # belong to the pair (i, j).
    owner = np.repeat(np.arange(len(fitted.n_support_)), fitted.n_support_)
    n_classes = len(fitted.classes_)
    pairs = [(i, j) for i in range(n_classes) for j in range(i + 1, n_classes)]
    weights = np.zeros((len(owner), len(pairs)))
    sides = np.zeros((len(pairs), n_classes))
    for k, (i, j) in enumerate(pairs):
        weights[owner == i, k] = fitted._dual_coef_[j - 1, owner == i]
        weights[owner == j, k] = fitted._dual_coef_[i, owner == j]
        sides[k, i], sides[k, j] = 1.0, -1.0
    bias = np.array(fitted._intercept_)
    if n_classes == 2:
        # Of two classes, scikit-learn has the decision for the second one.
        weights, bias, sides = -weights, -bias, sides[:0]
    linear = fitted.kernel == "linear"
    return SupportVectors(
        _constant(weights).T @ vectors if linear else vectors,
        None if linear else _constant(weights),
        _constant(bias),
        _constant(sides),
        kernel=fitted.kernel,
        gamma=fitted._gamma,
        coef0=fitted.coef0,
        degree=fitted.degree,
        votes=fitted.decision_function_shape == "ovr",
    )


def _neighbours(fitted: Any) -> Estimator:
    powers = {"euclidean": 2.0, "l2": 2.0, "manhattan": 1.0, "l1": 1.0, "cityblock": 1.0}
    powers |= {"minkowski": fitted.p, "chebyshev": np.inf, "cosine": 0.0}
    if fitted.metric not in powers or fitted.metric_params:
        raise ParameterError(
            f"KNeighborsClassifier: metric={fitted.metric!r} with metric_params="
            f"{fitted.metric_params} must be one of {', '.join(powers)}, without parameters"
        )
    if fitted.weights not in (None, "uniform", "distance"):
        raise ParameterError(
            f"KNeighborsClassifier: weights={fitted.weights!r} must be uniform or distance"
        )
    if fitted.n_neighbors > fitted.n_samples_fit_:
        raise ParameterError(
            f"KNeighborsClassifier: n_neighbors={fitted.n_neighbors} of {fitted.n_samples_fit_} "
            "vectors; fit with fewer neighbours"
        )
    return Neighbours(
        _constant(fitted._fit_X),
        _constant(np.eye(len(fitted.classes_))[np.ravel(fitted._y)]),
        n_neighbours=fitted.n_neighbors,
        p=powers[fitted.metric],
        by_distance=fitted.weights == "distance",
    )


def _nodes(tree: Any, value: Any) -> TreeNodes:
    """The arrays of scikit-learn's `Tree`, with values of each node."""
    return TreeNodes(
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        is_leaf=tree.children_left < 0,
        nan_right=tree.missing_go_to_left == 0,
        value=np.asarray(value, dtype=np.float64).reshape(tree.node_count, -1),
        weight=tree.weighted_n_node_samples,
    )


def _tree(fitted: Any) -> Estimator:
    return _forest_of([fitted], fitted.n_features_in_)


def _forest(fitted: Any) -> Estimator:
    return _forest_of(fitted.estimators_, fitted.n_features_in_)


def _forest_of(members: Any, n_features: int) -> Estimator:
    nodes = [_nodes(member.tree_, member.tree_.value) for member in members]
    return Forest(Trees(nodes, n_features, single=True))


def _gradient_boosting(fitted: Any) -> Estimator:
    members = fitted.estimators_
    nodes = [
        _nodes(member.tree_, fitted.learning_rate * member.tree_.value)
        for member in members.ravel()
    ]
    factor = 2.0 if fitted.loss == "exponential" else 1.0
    start: Estimator = Constant(torch.zeros(members.shape[1], dtype=torch.float64))
    if type(fitted.init_).__name__ == "DummyClassifier":
        prior = _constant(fitted.init_.predict_proba(np.zeros((1, fitted.n_features_in_)))[0])
        start = Constant(Start(Constant(prior), factor)(torch.zeros(1, 1))[0])
    elif fitted.init_ != "zero":
        start = Start(probable(fitted.init_), factor)
    n_features, groups = fitted.n_features_in_, members.shape[1]
    trees = Trees(nodes, n_features, n_groups=groups, single=True, means=True)
    return Boosted(trees, start, factor=factor, takes_nan=False)


def _hist_gradient_boosting(fitted: Any) -> Estimator:
    if fitted.is_categorical_ is not None and np.any(fitted.is_categorical_):
        names = getattr(fitted, "feature_names_in_", np.arange(fitted.n_features_in_))
        names = [str(name) for name in names[np.asarray(fitted.is_categorical_, dtype=bool)]]
        raise ParameterError(
            f"HistGradientBoostingClassifier: features {', '.join(names)} are categories; "
            "fit on numbers alone"
        )
    trees = []
    for predictor in (one for stage in fitted._predictors for one in stage):
        table = predictor.nodes
        nodes = TreeNodes(
            feature=table["feature_idx"],
            threshold=table["num_threshold"],
            left=table["left"],
            right=table["right"],
            is_leaf=table["is_leaf"] != 0,
            nan_right=table["missing_go_to_left"] == 0,
            value=table["value"].reshape(-1, 1),
            weight=table["count"],
        )
        trees.append(nodes)
    start = Constant(_constant(np.ravel(fitted._baseline_prediction)))
    groups = fitted.n_trees_per_iteration_
    module = Trees(trees, fitted.n_features_in_, n_groups=groups, single=False, means=True)
    return Boosted(module, start, factor=1.0, takes_nan=True)


def _isolation_forest(fitted: Any) -> Estimator:
    nodes = []
    for t, (member, own) in enumerate(
        zip(fitted.estimators_, fitted.estimators_features_, strict=True)
    ):
        length = fitted._decision_path_lengths[t] + fitted._average_path_length_per_tree[t] - 1.0
        tree = _nodes(member.tree_, length)
        tree.feature = np.where(tree.is_leaf, 0, np.asarray(own)[tree.feature])
        nodes.append(tree)
    # The usual length of a search among as many vectors as a tree was fitted on.
    n = int(fitted._max_samples)
    usual = 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n if n > 2 else n - 1.0
    return Isolation(Trees(nodes, fitted.n_features_in_, single=True), float(len(nodes) * usual))


def _gaussian(fitted: Any) -> Estimator:
    return Mahalanobis(_constant(fitted.location_), _constant(fitted.get_precision()))


def _mixture(fitted: Any) -> Estimator:
    factors = fitted.precisions_cholesky_
    if fitted.covariance_type == "tied":
        factors = factors[None]
    elif fitted.covariance_type == "spherical":
        factors = np.broadcast_to(factors[:, None], fitted.means_.shape)
    return Mixture(_constant(fitted.means_), _constant(factors), _constant(fitted.weights_))


def _nearest(fitted: Any) -> Estimator:
    if fitted.n_neighbors > fitted.n_samples_fit_:
        raise ParameterError(
            f"NearestDistance: n_neighbors={fitted.n_neighbors} of {fitted.n_samples_fit_} "
            "vectors; fit with fewer neighbours"
        )
    return Nearest(
        _constant(fitted._fit_X),
        n_neighbours=fitted.n_neighbors,
        cosine=fitted.metric == "cosine",
        largest=fitted.distance == "largest",
    )


def _calibrated(fitted: Any) -> Estimator:
    members = [_calibrated_one(one) for one in fitted.calibrated_classifiers_]
    if len(members) == 1:
        return members[0]
    weights = torch.ones(len(members), dtype=torch.float64)
    return Average(members, weights, explains=all(member.explains for member in members))


def _calibrated_one(pair: Any) -> Estimator:
    inner = convert(pair.estimator)
    if pair.method == "temperature":
        last = _last(inner)
        if isinstance(last, SupportVectors) and last.sides.numel() > 0 and not last.votes:
            raise ParameterError(
                "CalibratedClassifierCV: method='temperature' gives pairs of classes for an SVC "
                "with decision_function_shape='ovo'; use 'ovr'"
            )
        return Tempered(inner, float(pair.calibrators[0].beta_))
    curves: Estimator
    if pair.method == "sigmoid":
        curves = Sigmoid(
            _constant([curve.a_ for curve in pair.calibrators]),
            _constant([curve.b_ for curve in pair.calibrators]),
        )
    else:
        curves = Isotonic(
            [_constant(curve.X_thresholds_) for curve in pair.calibrators],
            [_constant(curve.y_thresholds_) for curve in pair.calibrators],
        )
    # Folds may lack a class, which then has no column.
    columns = np.searchsorted(pair.classes, pair.estimator.classes_)[: len(pair.calibrators)]
    return Calibrated(inner, curves, torch.from_numpy(columns), len(pair.classes))


def _frozen(fitted: Any) -> Estimator:
    return convert(fitted.estimator)


def _voting(fitted: Any) -> Estimator:
    if fitted.voting != "soft":
        raise ParameterError("VotingClassifier: voting='hard' has no probabilities; use 'soft'")
    weights = fitted._weights_not_none or [1.0] * len(fitted.estimators_)
    members = [probable(member) for member in fitted.estimators_]
    return Average(members, _constant(weights), explains=False)


_BUILDERS: Mapping[str, Callable[[Any], Estimator]] = {
    "CalibratedClassifierCV": _calibrated,
    "DecisionTreeClassifier": _tree,
    "ExtraTreeClassifier": _tree,
    "ExtraTreesClassifier": _forest,
    "FrozenEstimator": _frozen,
    "GaussianMixture": _mixture,
    "GradientBoostingClassifier": _gradient_boosting,
    "HistGradientBoostingClassifier": _hist_gradient_boosting,
    "IsolationForest": _isolation_forest,
    "KNeighborsClassifier": _neighbours,
    "LedoitWolf": _gaussian,
    "LogisticRegression": _logistic,
    "NearestDistance": _nearest,
    "OAS": _gaussian,
    "PCA": _pca,
    "Pipeline": _pipeline,
    "RandomForestClassifier": _forest,
    "SVC": _svc,
    "ShrunkCovariance": _gaussian,
    "StandardScaler": _scaler,
    "VotingClassifier": _voting,
}
