"""Pictures of features over time: MFCC, chroma, and any feature by name."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.features import FEATURES, MFCC, ChromaSTFT
from audiotorch.features.extractor import FeatureExtractor
from audiotorch.plot.images import column_edges, draw_rows
from audiotorch.plot.measures import COLUMNS, EXACT, Columns, frame_sizes, threads_for
from audiotorch.plot.recording import Recording, Sound
from audiotorch.plot.scales import mark_seconds
from audiotorch.plot.sounds import on_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PITCHES", "UNITS", "chroma", "feature_over_time", "mfcc"]

PITCHES = ("C", "C\u266f", "D", "D\u266f", "E", "F", "F\u266f", "G", "G\u266f", "A", "A\u266f", "B")
"""Pitch classes in the order of chroma's rows."""

UNITS = {
    "zero_crossing_rate": "sign changes per sample",
    "rms": "root mean square, full scale = 1",
    "spectral_centroid": "Hz",
    "spectral_bandwidth": "Hz",
    "spectral_rolloff": "Hz",
    "spectral_contrast": "dB, peak above valley",
    "spectral_flatness": "0 = tone, 1 = noise",
    "poly_features": "coefficient",
    "spectrogram": "dB of power",
    "mel_spectrogram": "dB of power",
    "mfcc": "coefficient",
    "delta_mfcc": "coefficient per frame",
    "delta2_mfcc": "coefficient per frame, squared",
    "chroma_stft": "share of the strongest pitch class",
    "chroma_cqt": "share of the strongest pitch class",
    "chroma_cens": "share of the frame",
    "cqt": "dB of magnitude",
    "tonnetz": "tonal centroid",
    "harmonic_ratio": "share that is harmonic",
    "onset_strength": "rise in dB",
    "tempogram": "autocorrelation of onsets",
    "tempo": "beats per minute",
}
"""What each feature's numbers are, as written beside the axis."""

_ROWS = {
    "chroma_stft": PITCHES,
    "chroma_cqt": PITCHES,
    "chroma_cens": PITCHES,
    "tonnetz": ("fifths x", "fifths y", "minor thirds x", "minor thirds y",
                "major thirds x", "major thirds y"),
    "poly_features": ("slope", "level at 0 Hz"),
    "spectral_contrast": ("0 to 200 Hz", "200 to 400 Hz", "400 to 800 Hz", "0.8 to 1.6 kHz",
                          "1.6 to 3.2 kHz", "3.2 to 6.4 kHz", "above 6.4 kHz"),
}  # fmt: skip
_IN_DB = {"spectrogram": 10.0, "mel_spectrogram": 10.0, "cqt": 20.0}
_MOST_CURVES = 7  # more rows than this are drawn as an image
_PIECE_SECONDS = 30.0
_CONTEXT = 32  # frames before and behind a piece, so that its edges are not the recording's


class _Frames(NamedTuple):
    """Rows over time: mean, lowest and highest of each column `(rows, columns)`, and its place."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    per_column: int


def mfcc(
    source: Sound,
    sample_rate: int | None = None,
    *,
    ax: "Axes | None" = None,
    title: str = "",
    offset: float = 0.0,
    duration: float | None = None,
    n_mfcc: int = 20,
    n_fft: int | None = None,
    hop_length: int | None = None,
    cmap: str = "viridis",
    colorbar: bool = True,
) -> "Axes":
    """Draw mel-frequency cepstral coefficients over time.

    Coefficient 0, the level, is ten times as large as the others and more: the colours span what
    96 % of the others span, and what lies beyond has the first or last one. Of more than 1024
    frames, a column is the mean of as many as it takes. Recordings of more than 2**23 samples are
    taken half a minute at a time, and the dynamic range of 80 dB is each piece's own.

    Args:
        source: as in `waveform`.
        sample_rate: Hz; needed for samples, `None` keeps a file's own.
        ax: to be drawn on; `None` = of a new figure.
        title: stands above it.
        offset: seconds to skip.
        duration: seconds to draw; `None` = to the end.
        n_mfcc: coefficients.
        n_fft: FFT size in samples; `None` = 2048 up to 48 kHz, 4096 up to 96 kHz and so on.
        hop_length: samples between frames; `None` = a quarter of `n_fft`.
        cmap: colours, a name of matplotlib's.
        colorbar: draw the bar.

    Raises:
        ParameterError: as `waveform` and `audiotorch.features.MFCC`.
        DecodeError: as `waveform`.
    """
    recording = Recording(source, sample_rate, offset, duration)
    n_fft, hop_length = frame_sizes(recording.sample_rate, n_fft, hop_length)
    module = MFCC(recording.sample_rate, n_fft, hop_length, n_mfcc=n_mfcc)
    found = _frames(recording, module, hop_length)
    axes = on_axes(ax, title)
    label = "value" if colorbar else None
    limits = _without_level(found)
    _draw_image(axes, recording, hop_length, found, label=label, cmap=cmap, limits=limits)
    _mark_rows(axes, "mfcc", {})
    return axes


def chroma(
    source: Sound,
    sample_rate: int | None = None,
    *,
    ax: "Axes | None" = None,
    title: str = "",
    offset: float = 0.0,
    duration: float | None = None,
    n_fft: int | None = None,
    hop_length: int | None = None,
    cmap: str = "magma",
    colorbar: bool = True,
) -> "Axes":
    """Draw how much of each pitch class sounds over time, whatever the octave, from C up to B.

    Of more than 1024 frames, a column is the mean of as many as it takes. Recordings of more than
    2**23 samples are taken half a minute at a time, each with its own tuning.

    Args:
        source: as in `waveform`.
        sample_rate: Hz; needed for samples, `None` keeps a file's own.
        ax: to be drawn on; `None` = of a new figure.
        title: stands above it.
        offset: seconds to skip.
        duration: seconds to draw; `None` = to the end.
        n_fft: FFT size in samples; `None` = 2048 up to 48 kHz, 4096 up to 96 kHz and so on.
        hop_length: samples between frames; `None` = a quarter of `n_fft`.
        cmap: colours, a name of matplotlib's.
        colorbar: draw the bar.

    Raises:
        ParameterError: as `waveform` and `audiotorch.features.ChromaSTFT`.
        DecodeError: as `waveform`.
    """
    recording = Recording(source, sample_rate, offset, duration)
    n_fft, hop_length = frame_sizes(recording.sample_rate, n_fft, hop_length)
    module = ChromaSTFT(recording.sample_rate, n_fft, hop_length)
    found = _frames(recording, module, hop_length)
    axes = on_axes(ax, title)
    label = UNITS["chroma_stft"] if colorbar else None
    _draw_image(axes, recording, hop_length, found, label=label, cmap=cmap, limits=(0.0, 1.0))
    axes.set_yticks(range(12), PITCHES)
    axes.set_ylabel("pitch class")
    return axes


def feature_over_time(
    source: Sound,
    sample_rate: int | None = None,
    feature: str = "rms",
    *,
    ax: "Axes | None" = None,
    title: str = "",
    offset: float = 0.0,
    duration: float | None = None,
    hop_length: int = 512,
    **settings: Any,
) -> "Axes":
    """Draw a feature of `audiotorch.FEATURES` over time: up to 7 rows as curves, more as an image.

    Of more than 1024 frames, a column is the mean of as many as it takes, and a curve has a band
    from the lowest to the highest. Recordings of more than 2**23 samples are taken half a
    minute at a time: what a feature takes from the whole clip, such as its maximum or its tuning,
    is then the piece's. `tempo`, one number a clip or a piece, is a level line.

    Args:
        source: as in `waveform`.
        sample_rate: Hz; needed for samples, `None` keeps a file's own.
        feature: its name.
        ax: to be drawn on; `None` = of a new figure.
        title: stands above it; empty = the feature's name on a new figure.
        offset: seconds to skip.
        duration: seconds to draw; `None` = to the end.
        hop_length: samples between frames.
        settings: further settings of the feature, such as `n_fft`.

    Raises:
        ParameterError: an unknown feature or setting, and as `waveform` and the feature.
        DecodeError: as `waveform`.
    """
    if feature not in FEATURES:
        raise ParameterError(f"feature={feature!r}: must be one of {', '.join(FEATURES)}")
    recording = Recording(source, sample_rate, offset, duration)
    rate = recording.sample_rate
    module = FeatureExtractor([feature], rate, hop_length=hop_length, **settings)
    found = _frames(recording, lambda clip: module(clip)[feature], hop_length)
    name = feature.replace("_", " ")
    axes = on_axes(ax, title or (name if ax is None else ""), 10.0, 3.2)
    if len(found.mean) > _MOST_CURVES:
        if feature in _IN_DB:
            found = _in_decibels(found, _IN_DB[feature])
        cmap = "magma" if feature in _IN_DB or feature in _ROWS else "viridis"
        limits = _without_level(found) if feature == "mfcc" else None
        _draw_image(
            axes, recording, hop_length, found, label=UNITS[feature], cmap=cmap, limits=limits
        )
        _mark_rows(axes, feature, settings)
    else:
        names = None if settings else _ROWS.get(feature)
        _draw_curves(axes, recording, hop_length, found, names)
        axes.set_ylabel(UNITS[feature])
    return axes


def _draw_image(
    axes: "Axes", recording: Recording, hop_length: int, found: _Frames, **settings: Any
) -> None:
    n = found.mean.shape[1]
    edges = column_edges(recording, hop_length, found.per_column, n)
    draw_rows(axes, edges, found.mean, **settings)
    mark_seconds(axes, recording.offset, recording.end)


def _draw_curves(
    axes: "Axes",
    recording: Recording,
    hop_length: int,
    found: _Frames,
    names: tuple[str, ...] | None,
) -> None:
    n_rows, n = found.mean.shape
    edges = column_edges(recording, hop_length, found.per_column, n)
    centres = (edges[:-1] + edges[1:]) / 2
    # Wong's colours, which differ for colour-blind eyes, too.
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
    for row in range(n_rows):
        label = names[row] if names else f"row {row}"
        marker = "." if n <= 2 else ""
        axes.plot(
            centres, found.mean[row], color=colours[row], linewidth=1.2, label=label, marker=marker
        )
        if found.per_column > 1:
            low, high = found.low[row], found.high[row]
            axes.fill_between(centres, low, high, color=colours[row], alpha=0.2, linewidth=0)
    if n_rows > 1:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    mark_seconds(axes, recording.offset, recording.end)


def _mark_rows(axes: "Axes", feature: str, settings: dict[str, Any]) -> None:
    """Say what the rows of an image are."""
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    label = {
        "spectrogram": "FFT bin", "mel_spectrogram": "mel band", "tempogram": "lag in frames",
        "cqt": "bin", **dict.fromkeys(("mfcc", "delta_mfcc", "delta2_mfcc"), "coefficient"),
    }.get(feature, "row")  # fmt: skip
    if feature in _ROWS and not settings:
        axes.set_yticks(range(len(_ROWS[feature])), _ROWS[feature])
        label = "pitch class"
    elif feature == "cqt" and not settings:
        axes.set_yticks(range(0, 84, 12), [f"C{octave}" for octave in range(1, 8)])
        label = "note"
    axes.set_ylabel(label)


def _without_level(found: _Frames) -> tuple[float, float]:
    """What 96 % of the coefficients span, without the first, which is the level."""
    others = found.mean[1:] if len(found.mean) > 1 else found.mean
    low, high = np.quantile(others, [0.02, 0.98])
    return float(low), float(high)


def _in_decibels(found: _Frames, factor: float) -> _Frames:
    db = factor * np.log10(np.maximum(found.mean, 1e-5 if factor == 20 else 1e-10))
    db = np.maximum(db, db.max() - 80)
    return _Frames(db, db, db, found.per_column)


def _frames(recording: Recording, module: Callable[[Tensor], Tensor], hop_length: int) -> _Frames:
    """Compute a feature of a recording's average channel, frames pooled into columns."""
    n_frames = 1 + recording.n_samples // hop_length
    per_column = max(1, -(-n_frames // COLUMNS))
    kept = Columns(COLUMNS)
    rest: np.ndarray | None = None
    with threads_for(recording):
        for piece in _pieces(recording, module, hop_length):
            joined = piece if rest is None else np.concatenate([rest, piece], axis=1)
            size = joined.shape[1] // per_column * per_column
            rest = joined[:, size:].copy()
            if size:
                kept.add(_pooled(joined[:, :size], per_column))
    if rest is not None and rest.shape[1]:
        kept.add(_pooled(rest, rest.shape[1]))
    mean, low, high = kept.all().numpy()
    return _Frames(mean, low, high, per_column)


def _pooled(frames: np.ndarray, per_column: int) -> Tensor:
    """Mean, lowest and highest of each column, `(3, rows, columns)`."""
    cut = frames.reshape(len(frames), -1, per_column)
    # The mean of one is itself, to the last bit.
    mean = cut[..., 0] if per_column == 1 else cut.mean(axis=2)
    return torch.from_numpy(np.stack([mean, cut.min(axis=2), cut.max(axis=2)]))


def _pieces(
    recording: Recording, module: Callable[[Tensor], Tensor], hop_length: int
) -> Iterator[np.ndarray]:
    """Give frames `(rows, n)`, of a long recording some at a time."""
    if recording.n_samples <= EXACT:
        yield _computed(module, recording.mono(), 1 + recording.n_samples // hop_length)
        return
    context = _CONTEXT * hop_length
    size = max(context, round(_PIECE_SECONDS * recording.sample_rate / hop_length) * hop_length)
    before: Tensor | None = None
    here: Tensor | None = None
    for block in recording.blocks(size):
        behind = block.mean(dim=0, keepdim=True)
        if here is not None:
            yield _middle(module, before, here, behind[:, :context], hop_length)
            before = here[:, -context:]
        here = behind
    if here is not None:
        yield _middle(module, before, here, None, hop_length)


def _middle(
    module: Callable[[Tensor], Tensor],
    before: Tensor | None,
    here: Tensor,
    behind: Tensor | None,
    hop_length: int,
) -> np.ndarray:
    """Frames of a piece, computed with what lies before and behind it."""
    clip = torch.cat([part for part in (before, here, behind) if part is not None], dim=-1)
    first = 0 if before is None else before.shape[-1] // hop_length
    n_own = here.shape[-1] // hop_length + (behind is None)
    frames = _computed(module, clip, 1 + clip.shape[-1] // hop_length)
    return frames[:, first : first + n_own]


def _computed(module: Callable[[Tensor], Tensor], clip: Tensor, n_frames: int) -> np.ndarray:
    """Frames `(rows, n)` of `(1, time)`; one number of a clip is repeated."""
    with torch.no_grad():
        values = module(clip)[0].numpy()
    return values if values.ndim == 2 else np.repeat(values[:, None], n_frames, axis=1)
