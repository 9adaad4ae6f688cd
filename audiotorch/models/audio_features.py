"""`AudioFeatures`: a scikit-learn transformer from recordings to named columns."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data
from torch import Tensor, nn

from audiotorch.audio.chunks import n_cores
from audiotorch.audio.clips import padded_batches
from audiotorch.audio.source import source_name
from audiotorch.errors import AudioTorchError, DecodeError, ParameterError
from audiotorch.features.extractor import FEATURES, told_of_rate
from audiotorch.features.pooling import (
    MFCCStatistics,
    PooledFeatures,
    SummaryVector,
    VectorPooling,
    column_names,
)
from audiotorch.features.robust import RobustVector
from audiotorch.features.texture import TextureStatistics
from audiotorch.models.clip_inputs import clips_of, is_source, read_row

__all__ = ["FRONT_ENDS", "AudioFeatures"]

FRONT_ENDS: Mapping[str, Callable[[int], nn.Module]] = {
    "summary": partial(SummaryVector, single=False),
    "mfcc_stats": MFCCStatistics,
    "texture_stats": TextureStatistics,
    "robust": RobustVector,
}
"""Front ends by name, with the numbers of their exported files, from the sample rate."""

_Read = Tensor | AudioTorchError | OSError
_MAX_SAMPLES = 1 << 22  # of a padded batch
_PAD = "pad the clip, or raise min_duration"


class AudioFeatures(TransformerMixin, BaseEstimator):
    """Recordings to named columns of numbers, as the first step of a scikit-learn Pipeline.

    There is nothing to learn, so `transform` works without `fit` too. A clip's numbers are those
    that `Pipeline.front` of the same front end gives, whatever stands beside it.

    Args:
        features: `"summary"` (`SummaryVector`), `"mfcc_stats"`, `"texture_stats"` or `"robust"`;
            names of `FEATURES`, each pooled to mean and standard deviation; or a front end of your
            own, as a Pipeline takes it: images are pooled as `VectorPooling` does.
        sample_rate: Hz that files are brought to, and that waveforms have. Names stand for the
            default settings, whose frames are in samples: for words at 8 kHz give
            `RobustVector(8000, 256, 80, n_mels=32, texture_weight=0.7)`.
        min_duration: seconds; shorter clips count as padded with zeros to it. 0 refuses those too
            short for the features.
        batch_size: clips decoded and computed together; no number depends on it.
        on_error: what a clip does that cannot be read, is empty, too short, missing or not finite:
            `"raise"`, or `"nan"`, which gives it a row of NaN and a warning that names it.
        device: `"cpu"`, `"cuda"` ... to compute on; `None` = the CPU, or where your front end is.

    Attributes:
        n_features_in_: columns of X in `fit`; not there where X was a list or a Series.
        feature_names_in_: their names, where X was a DataFrame.
        front_end_: the module, for `audiotorch.Pipeline`; built anew in pickled copies.

    Shape:
        - Input: n paths, bytes or open files, in a list, Series or column; n mono waveforms of any
          lengths in a list; or `(n, time)`, waveforms of one length
        - Output: `(n, len(get_feature_names_out()))` float64

    Raises:
        ParameterError: in `fit` and `transform`, a setting that is not admissible, an X that holds
            something else, or a waveform that is not usable.
        DecodeError: in `transform`, a file that cannot be read.

    Example:
        >>> AudioFeatures(["rms", "tempo"]).fit_transform([torch.zeros(22050)]).shape
        (1, 3)
    """

    def __init__(
        self,
        features: str | Sequence[str] | nn.Module = "summary",
        *,
        sample_rate: int = 22050,
        min_duration: float = 0.5,
        batch_size: int = 32,
        on_error: str = "raise",
        device: str | None = None,
    ) -> None:
        self.features = features
        self.sample_rate = sample_rate
        self.min_duration = min_duration
        self.batch_size = batch_size
        self.on_error = on_error
        self.device = device

    def fit(self, X: Any, y: Any = None) -> "AudioFeatures":
        """Check the settings and what kind of thing X is; no file is opened yet.

        Args:
            X: recordings or waveforms, as in the class docstring.
            y: not used.
        """
        self._check_settings()
        clips, table = clips_of(X)
        for name in {"n_features_in_", "feature_names_in_"} & set(vars(self)):
            delattr(self, name)
        if table is not None:
            validate_data(self, table, skip_check_array=True)
        self._front_end = self._build()
        if self.on_error == "raise":
            for row, clip in enumerate(clips):
                if not is_source(clip):
                    self._checked(clip, self._read(self._front_end, clip, row))
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float64]:
        """Decode, resample, batch and compute.

        Args:
            X: recordings or waveforms, as in the class docstring.
        """
        self._check_settings()
        clips, table = clips_of(X)
        if table is not None and hasattr(self, "n_features_in_"):
            self._check_columns(table)
        front_end = self.front_end_
        rows = np.full((len(clips), len(_names(front_end))), np.nan)
        for waveforms in self._waveforms(front_end, clips):
            for batch, padded, lengths in padded_batches(waveforms, _MAX_SAMPLES):
                rows[batch] = self._compute(front_end, padded, lengths)
        return rows

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Return the names of the columns, such as `mfcc_mean_0`.

        Args:
            input_features: `None`, or the names of X's columns, which change nothing.

        Raises:
            ParameterError: other names, or as many, as X had in `fit`.
        """
        given = None if input_features is None else list(input_features)
        seen = getattr(self, "feature_names_in_", None)
        if given is not None and seen is not None and given != list(seen):
            raise ParameterError(
                f"input_features={given}: input_features is not equal to feature_names_in_, "
                f"{list(seen)}; leave it out"
            )
        n = getattr(self, "n_features_in_", None)
        if given is not None and n is not None and len(given) != n:
            raise ParameterError(
                f"input_features should have length equal to number of features ({n}), got "
                f"{len(given)}; leave it out"
            )
        return np.asarray(_names(self.front_end_), dtype=object)

    @property
    def front_end_(self) -> Any:
        """The module `(waveform, lengths) -> (batch, columns)`, made for this object alone."""
        return vars(self)["_front_end"] if "_front_end" in vars(self) else self._build()

    def __getstate__(self) -> dict[str, Any]:
        # Settings say all: a copy in another process, or in a file, need not hold the filters.
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_front_end"}

    def __sklearn_tags__(self) -> Tags:
        # They speak of tables of numbers, whose rows are waveforms; paths are taken beside these.
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.allow_nan = self.on_error == "nan"
        return tags

    def _check_settings(self) -> None:
        """Refuse settings; `features` and `device` are refused where the module is built."""
        if not isinstance(self.sample_rate, Integral) or self.sample_rate < 1:
            raise ParameterError(f"sample_rate={self.sample_rate!r}: must be an integer above 0")
        if not isinstance(self.min_duration, Real) or not 0 <= self.min_duration < 3600:
            raise ParameterError(
                f"min_duration={self.min_duration!r}: must be at least 0, below an hour"
            )
        if not isinstance(self.batch_size, Integral) or self.batch_size < 1:
            raise ParameterError(f"batch_size={self.batch_size!r}: must be an integer above 0")
        if self.on_error not in ("raise", "nan"):
            raise ParameterError(f"on_error={self.on_error!r}: must be 'raise' or 'nan'")

    def _build(self) -> nn.Module:
        if isinstance(self.features, nn.Module):
            module = _fitting(copy.deepcopy(self.features), self.sample_rate)
        else:
            module = _named(self.features, int(self.sample_rate))
        try:
            return module.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ParameterError(
                f"device={self.device!r}: torch cannot use it: {reason}"
            ) from error

    def _check_columns(self, table: Any) -> None:
        """Compare columns with those of `fit`."""
        width = table.shape[1]
        if not hasattr(table, "columns") and width != self.n_features_in_:
            raise ParameterError(
                f"X has {width} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input, as in fit; clips of different lengths "
                "come in a list"
            )
        validate_data(self, table, reset=False, skip_check_array=True)

    def _waveforms(self, front_end: Any, clips: list[Any]) -> Iterator[dict[int, Tensor]]:
        """Give some of the clips that can be used at a time, by row."""
        with ThreadPoolExecutor(n_cores()) as pool:
            for start in range(0, len(clips), self.batch_size):
                chunk = range(start, min(start + self.batch_size, len(clips)))
                read = list(pool.map(lambda row: self._read(front_end, clips[row], row), chunk))
                usable: dict[int, Tensor] = {}
                for row, found in zip(chunk, read, strict=True):
                    waveform = self._checked(clips[row], found)
                    if waveform is not None:
                        usable[row] = waveform
                yield usable

    def _read(self, front_end: Any, clip: Any, row: int) -> _Read:
        # The rate of `fit`, whatever was set since.
        needed = front_end.min_samples / front_end.sample_rate
        least = needed if self.min_duration < needed else 0.0
        return read_row(clip, row, front_end.sample_rate, least, _PAD)

    def _checked(self, clip: Any, found: _Read) -> Tensor | None:
        """Return a clip's samples, or say what is wrong with it."""
        if isinstance(found, Tensor):
            return found
        if isinstance(found, OSError):
            found = DecodeError(f"{source_name(clip)}: {found}")
        if self.on_error == "nan":
            # Told of the caller of `transform`, which scikit-learn wraps.
            warnings.warn(f"{found}; its row is NaN", UserWarning, stacklevel=5)
            return None
        raise type(found)(
            f"{found}; or let on_error='nan' give it a row of NaN, as no row of X can be left out "
            "in a scikit-learn Pipeline"
        ) from found

    def _compute(self, front_end: Any, waveform: Tensor, lengths: Tensor) -> Any:
        """Return the rows of clips that are zero behind their ends: see `Pipeline.prepare`."""
        least = round(self.min_duration * front_end.sample_rate)
        waveform = nn.functional.pad(waveform, [0, max(0, least - waveform.shape[1])])
        where = next((x.device for x in (*front_end.parameters(), *front_end.buffers())), None)
        lengths = lengths.clamp(min=least).to(where)
        with torch.no_grad():
            x = front_end(waveform.to(where), lengths)
            rows = VectorPooling()(x, front_end.frame_counts(lengths))
        return rows.double().cpu().numpy()


def _named(features: Any, sample_rate: int) -> nn.Module:
    """Build a front end of a name, or of names of features."""
    if not isinstance(features, str | Sequence) or not all(isinstance(x, str) for x in features):
        raise ParameterError(
            f"features={features!r}: must be a name, a list of names, or a front end"
        )
    names = [features] if isinstance(features, str) else list(features)
    if not names or len(set(names)) < len(names):
        raise ParameterError(f"features={names}: must be one or more names, each once")
    known = list(FRONT_ENDS)
    if len(names) == 1 and names[0] in known:
        with told_of_rate(sample_rate):
            return FRONT_ENDS[names[0]](sample_rate)
    if unknown := [name for name in names if name not in FEATURES]:
        joined = "; a FeatureUnion joins them" if set(unknown) <= set(known) else ""
        raise ParameterError(
            f"features={features!r}: {', '.join(map(repr, unknown))} must be one of "
            f"{', '.join(known)} alone{joined}, or of at.FEATURES: {', '.join(FEATURES)}"
        )
    with told_of_rate(sample_rate):
        return PooledFeatures(names, sample_rate)


def _fitting(module: Any, sample_rate: int) -> nn.Module:
    """Refuse a front end of the user's that does not fit."""
    kind = type(module).__name__
    for name in ("sample_rate", "output_shape", "min_samples", "frame_counts"):
        if not hasattr(module, name):
            raise ParameterError(
                f"features={kind}: has no attribute {name!r}, which a front end of a Pipeline has"
            )
    if module.sample_rate != sample_rate:
        raise ParameterError(
            f"sample_rate={sample_rate}: {kind} expects {module.sample_rate} Hz; give both one rate"
        )
    fitting: nn.Module = module
    return fitting


def _names(front_end: Any) -> list[str]:
    """What a front end calls its columns; else they are numbered."""
    if hasattr(front_end, "names") or len(front_end.output_shape) > 1:
        return column_names(front_end)
    kind = type(front_end).__name__.lower()
    return [f"{kind}{k}" for k in range(front_end.output_shape[0])]
