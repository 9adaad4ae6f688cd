"""What scikit-learn hands over as X, as one recording or waveform a row."""

import os
from numbers import Number
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array
from torch import Tensor

from audiotorch.audio.clips import check_seconds, read_clip
from audiotorch.audio.io import LOUDEST
from audiotorch.audio.source import source_name
from audiotorch.errors import AudioTorchError, DecodeError, ParameterError

__all__ = ["clips_of", "is_source", "read_row"]

_TAKEN = "X must be a list of paths, bytes or mono waveforms, a column of them, or (clips, time)"
_MAX_INTEGER = 1 << 15  # beyond it, integers are a file's, not samples


def clips_of(X: Any) -> tuple[list[Any], Any]:
    """List the clips of X, and say of which table they are the rows.

    What a clip holds is not looked at yet, only what kind of thing it is.

    Args:
        X: as `AudioFeatures.transform` takes it.

    Returns:
        A path, bytes, file object, missing value or waveform for each row; and X as something with
        columns, `None` where it has none.

    Raises:
        ParameterError: it is something else.
    """
    if is_source(X):
        raise ParameterError(f"X={source_name(X)!r}: is one recording; put it into a list")
    if isinstance(X, Tensor):
        X = _as_numpy(X)
    if isinstance(X, list | tuple):
        X, elements = _unpacked(X)
        if elements:
            return _checked(list(X)), None
    array = X if hasattr(X, "toarray") else np.asarray(X)  # check_array speaks of sparse ones
    if array.dtype.kind == "S":
        raise ParameterError(
            f"X: dtype {array.dtype} cuts off zeros at a recording's end; use dtype=object"
        )
    if array.ndim == 0:
        raise ParameterError(f"X is a {type(X).__name__}: {_TAKEN}; list(X) may help")
    if not _holds_clips(array):
        return _rows(array), X if hasattr(X, "columns") else array
    if array.ndim == 1:
        return _checked(list(array)), None
    if array.shape[1:] != (1,):
        raise ParameterError(_which_column(X, array))
    return _checked(list(array[:, 0])), X if hasattr(X, "columns") else array


def is_source(clip: Any) -> bool:
    """Say whether a clip is yet to be decoded.

    Args:
        clip: out of `clips_of`.
    """
    kinds = str | os.PathLike | bytes | bytearray | memoryview
    return isinstance(clip, kinds) or hasattr(clip, "read")


def read_row(
    clip: Any, row: int, sample_rate: int, min_seconds: float, remedy: str
) -> Tensor | AudioTorchError | OSError:
    """Decode a recording, or take a waveform; return, not raise, what is wrong with it.

    Args:
        clip: out of `clips_of`.
        row: its place.
        sample_rate: Hz of the clip.
        min_seconds: shorter clips are wrong, as empty ones are.
        remedy: what to do about a clip that is too short.

    Shape:
        - Output: `(time,)` float32
    """
    if is_source(clip):
        return read_clip(clip, sample_rate, min_seconds, remedy)
    name = f"X[{row}]"
    if _is_missing(clip):
        return ParameterError(f"{name}={clip!r}: is no recording")
    with np.errstate(over="ignore"):
        # A copy: memory that cannot be written to is no tensor.
        waveform = torch.from_numpy(np.array(_as_numpy(clip), dtype=np.float32))
    if not (waveform.abs() <= LOUDEST).all():
        return ParameterError(f"{name}: has samples that are NaN, infinite or beyond {LOUDEST:g}")
    try:
        check_seconds(name, len(waveform) / sample_rate, min_seconds, remedy)
    except DecodeError as error:
        return ParameterError(str(error))
    return waveform


def _is_missing(clip: Any) -> bool:
    """None, NaN, or pandas' NA, which is told by name as pandas may not be there."""
    is_nan = isinstance(clip, float) and clip != clip
    return clip is None or is_nan or type(clip).__name__ in ("NAType", "NaTType")


def _as_numpy(waveform: Any) -> Any:
    if not isinstance(waveform, Tensor):
        return np.asarray(waveform)
    waveform = waveform.detach().cpu()
    return (waveform.float() if waveform.dtype == torch.bfloat16 else waveform).numpy()


def _unpacked(X: list[Any] | tuple[Any, ...]) -> tuple[Any, bool]:
    """Tell a list of clips from a table or a waveform that is written as lists of numbers."""
    if not X or not isinstance(X[0], list | tuple | Number) or _is_missing(X[0]):
        return X, True
    try:
        return np.asarray(X), False
    except ValueError:  # rows of different lengths
        return X, True


def _holds_clips(array: Any) -> bool:
    """Whether something in an array is no number; nothing at all is taken for no recordings."""
    if array.dtype.kind != "O":
        return array.dtype.kind in "UT"
    kinds = str | os.PathLike | bytes | np.ndarray | Tensor | list | None
    return array.size == 0 or any(
        isinstance(each, kinds) or hasattr(each, "read") for each in array.flat
    )


def _rows(array: Any) -> list[Any]:
    """The waveforms that a table's rows are."""
    if array.ndim == 1:
        raise ParameterError(
            f"X: has the shape {array.shape}: {_TAKEN}. Reshape your data with "
            "X.reshape(1, -1) if it is one waveform"
        )
    if array.ndim > 2:
        raise ParameterError(
            f"X: has the shape {tuple(array.shape)}: {_TAKEN}; average channels first, as "
            "X.mean(axis=1)"
        )
    try:
        table = check_array(array, ensure_all_finite=False, estimator="AudioFeatures")
    except ValueError as error:
        raise ParameterError(f"X: {error}") from error
    _refuse_pcm(table, "X")
    return list(table)


def _checked(clips: list[Any]) -> list[Any]:
    """Refuse what is no clip at all, wherever it stands."""
    if not clips:
        raise ParameterError(f"X is empty: {_TAKEN}; give at least one clip")
    for row, clip in enumerate(clips):
        if is_source(clip) or _is_missing(clip):
            continue
        if not isinstance(clip, np.ndarray | Tensor | list | tuple):
            raise ParameterError(f"X[{row}]={clip!r}: is no clip; {_TAKEN}")
        samples = _as_numpy(clip)
        if samples.ndim != 1:
            raise ParameterError(
                f"X[{row}]: has the shape {samples.shape}, a clip has one axis; average channels "
                "first, with X.mean(axis) or ToMono"
            )
        if samples.dtype.kind not in "fiu":
            raise ParameterError(f"X[{row}]: has dtype {samples.dtype}, samples are real numbers")
        _refuse_pcm(samples, f"X[{row}]")
    return clips


def _refuse_pcm(samples: Any, name: str) -> None:
    if samples.dtype.kind not in "iu" or samples.size == 0:
        return
    if samples.dtype.itemsize < 4 or np.abs(samples).max() > _MAX_INTEGER:
        raise ParameterError(
            f"{name}: {samples.dtype} samples as they stand in files; bring them to [-1, 1], such "
            "as int16 by X / 32768"
        )


def _which_column(X: Any, array: Any) -> str:
    """The message about a table of several columns that are not all numbers."""
    if not hasattr(X, "columns"):
        return f"X: has the shape {array.shape}, and a clip is one column; take X[:, [k]]"
    text = [
        name
        for name, column in zip(X.columns, array.T, strict=True)
        if all(is_source(each) or _is_missing(each) for each in column)
    ]
    best = text[0] if text else next(iter(X.columns))
    return (
        f"X: has the columns {', '.join(map(str, X.columns))}; select the one of recordings, such "
        f"as X[[{best!r}]], or ColumnTransformer([('audio', AudioFeatures(), [{best!r}]), ...])"
    )
