"""A detector of sounds that are unlike the normal ones, and its answers."""

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audiotorch.audio import Source
from audiotorch.errors import ParameterError, printable
from audiotorch.recipes.clips import summary_vector
from audiotorch.recipes.vectors import skipped, vectors_in_threads, vectors_of

__all__ = ["build_audio_anomaly_detector", "score_audio_anomaly"]

_MAX_COMPONENTS = 50
_N_TREES = 100
_SEED = 42


def build_audio_anomaly_detector(
    normal_audio_files: Iterable[str | os.PathLike[str]],
    sr: int = 22050,
    contamination: float = 0.05,
) -> dict[str, Any]:
    """Fit an isolation forest on recordings of what is normal.

    Each recording is summed up in 270 numbers, as `load_audio_dataset` does; these are scaled to
    mean 0 and deviation 1, projected on at most 50 principal components, and isolated by 100 trees
    of seed 42. A file that cannot be read is skipped with a warning that names it.

    The forest's threshold is where `contamination` of the recordings that it was fitted on count as
    anomalies. That promises nothing about others: on new normal recordings the rate of false alarms
    is often several times that. `audiotorch train model=isolation_forest` holds recordings back
    and sets a threshold with a promised rate of false alarms; it also gives one file from waveform
    to answer.

    Args:
        normal_audio_files: the recordings, of normal sound only.
        sr: Hz that recordings are brought to.
        contamination: share of them that count as anomalies, above 0 and at most 0.5.

    Returns:
        `scaler`, `pca` and `detector`, fitted estimators of scikit-learn, one behind the other;
        `sr`.

    Raises:
        ParameterError: an argument is out of range, fewer than two files can be read, or all
            sound the same.
    """
    # scikit-learn loads where it is needed only.
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.preprocessing import StandardScaler

    front_end = summary_vector(sr)
    if not isinstance(contamination, int | float) or not 0 < contamination <= 0.5:
        raise ParameterError(f"contamination={contamination!r}: must be above 0, at most 0.5")
    files = _listed(normal_audio_files)
    vectors: list[Any] = []
    for file, vector in zip(files, vectors_in_threads(front_end, files, None), strict=True):
        if isinstance(vector, Exception):
            warnings.warn(skipped(file, vector), stacklevel=2)
        else:
            vectors.append(vector)
    if len(vectors) < 2:
        raise ParameterError(
            f"normal_audio_files: {len(vectors)} of {len(files)} can be read; a detector needs at "
            "least two recordings of normal sound"
        )
    x = np.stack(vectors)
    if not np.ptp(x, axis=0).any():
        raise ParameterError(
            f"normal_audio_files: {len(x)} recordings that sound all the same; a detector needs to "
            "hear how normal sounds differ"
        )
    scaler = StandardScaler().fit(x)
    x = scaler.transform(x)
    # With so few recordings the last component is empty; the trees make nothing of it.
    pca = PCA(min(_MAX_COMPONENTS, *x.shape), random_state=_SEED).fit(x)
    forest = IsolationForest(
        n_estimators=_N_TREES, contamination=contamination, random_state=_SEED
    ).fit(pca.transform(x))
    return {"detector": forest, "scaler": scaler, "pca": pca, "sr": sr}


def score_audio_anomaly(detector_info: Mapping[str, Any], filepath: Source) -> dict[str, Any]:
    """Say how unlike the normal ones a recording is.

    Args:
        detector_info: what `build_audio_anomaly_detector` gave.
        filepath: the recording; read whole, and padded as `load_audio_dataset` does.

    Returns:
        `filepath`, as given; `score`, scikit-learn's `decision_function`: lower is more anomalous,
        below 0 is an anomaly; `is_anomaly`; `label`, `"ANOMALY"` or `"Normal"`.

    Raises:
        ParameterError: the detector takes other features.
        DecodeError: the file cannot be read, or holds no samples.
    """
    front_end = summary_vector(detector_info["sr"])
    scaler, pca, forest = (detector_info[name] for name in ("scaler", "pca", "detector"))
    if scaler.n_features_in_ != front_end.output_shape[0]:
        raise ParameterError(
            f"detector_info: its scaler takes {scaler.n_features_in_} numbers a clip, not the "
            f"{front_end.output_shape[0]} of build_audio_anomaly_detector; build it anew"
        )
    (vector,) = vectors_of(front_end, [filepath], None)
    if isinstance(vector, Exception):
        raise vector
    score = float(forest.decision_function(pca.transform(scaler.transform(vector[None])))[0])
    is_anomaly = score < 0  # as `predict` has it
    return {
        "filepath": filepath,
        "score": score,
        "is_anomaly": is_anomaly,
        "label": "ANOMALY" if is_anomaly else "Normal",
    }


def _listed(normal_audio_files: Iterable[str | os.PathLike[str]]) -> list[Path]:
    if isinstance(normal_audio_files, str | bytes | os.PathLike):
        raise ParameterError(
            f"normal_audio_files={printable(repr(normal_audio_files))}: must be a list of files, "
            "such as sorted(Path(folder).glob('*.wav'))"
        )
    return [Path(file) for file in normal_audio_files]
