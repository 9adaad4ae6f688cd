"""Pictures of sounds: waveform, spectrogram, mel spectrogram."""

from typing import TYPE_CHECKING, Any

import numpy as np

from audiotorch.errors import ParameterError
from audiotorch.features.feature import check_positive
from audiotorch.features.filters import mel_frequencies
from audiotorch.plot.figure import NEUTRAL, axes_for, plain
from audiotorch.plot.images import TO_MAXIMUM, bin_edges, column_edges, draw_bins, mel_edges
from audiotorch.plot.measures import Envelope, Power, frame_sizes, gather
from audiotorch.plot.recording import Recording, Sound
from audiotorch.plot.scales import SCALES, extremes, mark_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "draw_envelope",
    "draw_mel",
    "mel_spectrogram",
    "on_axes",
    "spectrogram",
    "waveform",
]

_MOST_LANES = 8  # channels that are drawn apart


def waveform(
    source: Sound,
    sample_rate: int | None = None,
    *,
    ax: "Axes | None" = None,
    title: str = "",
    offset: float = 0.0,
    duration: float | None = None,
) -> "Axes":
    """Draw samples over time, each channel in a lane of its own.

    Up to some 2000 samples are drawn one by one. Of more, each column of the picture shows the
    lowest and the highest sample that it covers, so that no click is lost, and darker the root mean
    square. Files are read block by block.

    Args:
        source: path, a file's content as bytes, an open binary file, or samples of full scale 1,
            `(time,)` or `(channels, time)`; more than 8 channels are drawn as their extremes.
        sample_rate: Hz; needed for samples, `None` keeps a file's own.
        ax: to be drawn on; `None` = of a new figure.
        title: stands above it.
        offset: seconds to skip.
        duration: seconds to draw; `None` = to the end.

    Raises:
        ParameterError: samples without a rate, of another shape, not float, none, NaN or infinite;
            a part that is out of range.
        DecodeError: as `audiotorch.load`, and a file without samples.
    """
    recording = Recording(source, sample_rate, offset, duration)
    envelope = Envelope(recording.n_samples)
    gather(recording, [envelope])
    axes = on_axes(ax, title, 10.0, 2.6)
    draw_envelope(axes, recording, envelope)
    return axes


def spectrogram(
    source: Sound,
    sample_rate: int | None = None,
    *,
    ax: "Axes | None" = None,
    title: str = "",
    offset: float = 0.0,
    duration: float | None = None,
    scale: str = "linear",
    n_fft: int | None = None,
    hop_length: int | None = None,
    top_db: float = 80.0,
    fmin: float | None = None,
    fmax: float | None = None,
    cmap: str = "magma",
    colorbar: bool = True,
) -> "Axes":
    """Draw the short-time spectrum of the average of the channels, in dB below its maximum.

    Frame `i` is centred on `i * hop_length / sample_rate` seconds. Of more than 1024 frames, a
    column is the mean power of as many as it takes; if these are more than 8, every other one is
    left out where frames overlap by more than half, so that all samples count. Files are read block
    by block. On all scales but the linear one, bins finer than the picture are drawn as their
    maximum.

    Args:
        source: as in `waveform`.
        sample_rate: Hz; needed for samples, `None` keeps a file's own.
        ax: to be drawn on; `None` = of a new figure.
        title: stands above it.
        offset: seconds to skip.
        duration: seconds to draw; `None` = to the end.
        scale: of frequencies: `"linear"`, `"log"`, `"mel"`, or `"note"`, which is logarithmic, too,
            and names the notes.
        n_fft: FFT size in samples; `None` = 2048 up to 48 kHz, 4096 up to 96 kHz and so on.
        hop_length: samples between frames; `None` = a quarter of `n_fft`.
        top_db: dB below the maximum that are shown.
        fmin: lowest frequency shown, Hz; `None` = 0; of `"log"` 20 Hz, of `"note"` C1, or half a
            bin where that is more.
        fmax: highest frequency shown, Hz; `None` = half the sample rate, of `"note"` C9 at most.
        cmap: colours, a name of matplotlib's.
        colorbar: draw the bar of dB.

    Raises:
        ParameterError: an unknown scale, a size that is not positive, an empty range of
            frequencies, and as `waveform`.
        DecodeError: as `waveform`.
    """
    check_positive(top_db=top_db)
    if scale not in SCALES:
        raise ParameterError(f"scale={scale!r}: must be one of {', '.join(SCALES)}")
    recording = Recording(source, sample_rate, offset, duration)
    n_fft, hop_length = frame_sizes(recording.sample_rate, n_fft, hop_length)
    limits = _limits(recording, scale, n_fft, fmin, fmax)
    power = Power(recording, n_fft, hop_length)
    gather(recording, [power])
    axes = on_axes(ax, title)
    edges = bin_edges(recording.sample_rate, n_fft)
    label = TO_MAXIMUM if colorbar else None
    settings: dict[str, Any] = {"scale": scale, "limits": limits, "top_db": top_db, "cmap": cmap}
    levels = power.columns
    seconds = column_edges(recording, power.hop_length, power.per_column, levels.shape[1])
    draw_bins(axes, recording, levels, seconds, edges, label=label, **settings)
    return axes


def mel_spectrogram(
    source: Sound,
    sample_rate: int | None = None,
    *,
    ax: "Axes | None" = None,
    title: str = "",
    offset: float = 0.0,
    duration: float | None = None,
    n_mels: int = 128,
    n_fft: int | None = None,
    hop_length: int | None = None,
    top_db: float = 80.0,
    fmin: float = 0.0,
    fmax: float | None = None,
    cmap: str = "magma",
    colorbar: bool = True,
) -> "Axes":
    """Draw the mel spectrogram of the average of the channels, in dB below its maximum.

    The axis is in Hz, divided by the mel scale. Frames and columns are as in `spectrogram`.

    Args:
        source: as in `waveform`.
        sample_rate: Hz; needed for samples, `None` keeps a file's own.
        ax: to be drawn on; `None` = of a new figure.
        title: stands above it.
        offset: seconds to skip.
        duration: seconds to draw; `None` = to the end.
        n_mels: bands.
        n_fft: FFT size in samples; `None` = 2048 up to 48 kHz, 4096 up to 96 kHz and so on.
        hop_length: samples between frames; `None` = a quarter of `n_fft`.
        top_db: dB below the maximum that are shown.
        fmin: lowest frequency, Hz.
        fmax: highest frequency, Hz; `None` = half the sample rate.
        cmap: colours, a name of matplotlib's.
        colorbar: draw the bar of dB.

    Raises:
        ParameterError: as `waveform` and `audiotorch.features.MelSpectrogram`.
        DecodeError: as `waveform`.
    """
    check_positive(top_db=top_db)
    recording = Recording(source, sample_rate, offset, duration)
    n_fft, hop_length = frame_sizes(recording.sample_rate, n_fft, hop_length)
    bands = {"n_mels": n_mels, "fmin": fmin, "fmax": fmax}
    power = Power(recording, n_fft, hop_length, mel=bands)
    gather(recording, [power])
    axes = on_axes(ax, title)
    top = recording.sample_rate / 2 if fmax is None else fmax
    edges = mel_edges(mel_frequencies(n_mels + 2, fmin, top))
    limits = (float(edges[0]), float(edges[-1]))
    label = TO_MAXIMUM if colorbar else None
    settings: dict[str, Any] = {"scale": "mel", "limits": limits, "top_db": top_db, "cmap": cmap}
    levels = power.columns
    seconds = column_edges(recording, power.hop_length, power.per_column, levels.shape[1])
    draw_bins(axes, recording, levels, seconds, edges, label=label, **settings)
    return axes


def draw_mel(axes: "Axes", waveform: Any, sample_rate: int, title: str = "") -> None:
    """Draw a small mel spectrogram for a row of them: 40 bands, 60 dB deep, in kHz.

    Args:
        axes: to be drawn on.
        waveform: `(time,)`
        sample_rate: Hz.
        title: stands above it.
    """
    hop = max(1, sample_rate // 100)
    # 160 samples at least: at rates of a kilohertz or so, bands would else hold no FFT bin.
    settings: dict[str, Any] = {"n_mels": 40, "n_fft": max(4 * hop, 160), "hop_length": hop}
    mel_spectrogram(
        waveform, sample_rate, ax=axes, title=title, top_db=60.0, colorbar=False, **settings
    )
    ticks = [kilo for kilo in (0.5, 1, 2, 4, 8) if 1000 * kilo < sample_rate / 2]
    axes.set_yticks([1000 * kilo for kilo in ticks], [f"{kilo:g}" for kilo in ticks])
    axes.set_yticks([], minor=True)
    seconds = len(waveform) / sample_rate
    axes.set_xticks([0, seconds], ["0", f"{seconds:.1f} s"])
    axes.set(xlabel="", ylabel="")
    axes.tick_params(labelsize=8)


def draw_envelope(
    axes: "Axes",
    recording: Recording,
    envelope: Envelope,
    *,
    limit: float | None = None,
    colour: str = NEUTRAL,
) -> None:
    """Draw what `waveform` draws.

    Args:
        axes: to be drawn on.
        recording: what was measured.
        envelope: what was measured of it.
        limit: amplitude up to which a lane reaches; `None` = the largest.
        colour: of the samples.
    """
    low, high, rms = envelope.columns
    if len(low) > _MOST_LANES:
        low, high = low.min(axis=0, keepdims=True), high.max(axis=0, keepdims=True)
        rms = np.sqrt(np.mean(rms**2, axis=0, keepdims=True))
    if limit is None:
        limit = 1.05 * max(float(np.abs(low).max()), float(np.abs(high).max()), 1e-9)
    width, n = envelope.width, low.shape[1]
    centres = recording.offset + (np.arange(n) + (width - 1) / (2 * width)) * (
        width / recording.sample_rate
    )
    for lane in range(len(low)):
        middle = -2 * limit * lane
        if width == 1:
            mark = "." if n <= 100 else ""
            axes.plot(centres, low[lane] + middle, color=colour, linewidth=0.8, marker=mark)
        else:
            # With an edge, else a column alone would be thinner than a pixel.
            axes.fill_between(
                centres, low[lane] + middle, high[lane] + middle,
                facecolor=colour, edgecolor=colour, alpha=0.55, linewidth=0.5,
            )  # fmt: skip
            inner_low = np.maximum(low[lane], -rms[lane]) + middle
            inner_high = np.minimum(high[lane], rms[lane]) + middle
            axes.fill_between(centres, inner_low, inner_high, color=colour, linewidth=0)
        if lane:
            axes.axhline(middle + limit, color="0.6", linewidth=0.8)
    _mark_lanes(axes, len(low), recording.n_channels, limit)
    mark_seconds(axes, recording.offset, recording.end)


def on_axes(ax: "Axes | None", title: str, width: float = 10.0, height: float = 4.0) -> "Axes":
    """Return given axes, or those of a new figure, with a title.

    Args:
        ax: given axes.
        title: stands above them; empty = as it is.
        width: inches of a new figure.
        height: inches of a new figure.
    """
    axes = axes_for(ax, width, height)
    if title:
        axes.set_title(plain(title), fontsize=11)
    return axes


def _limits(
    recording: Recording, scale: str, n_fft: int, fmin: float | None, fmax: float | None
) -> tuple[float, float]:
    """Frequencies that are shown."""
    check_positive(n_fft=n_fft)
    nyquist = recording.sample_rate / 2
    lowest, highest = extremes(scale, recording.sample_rate, n_fft)
    low = lowest if fmin is None else fmin
    high = highest if fmax is None else fmax
    if fmin is not None and fmax is None and low >= high:
        high = nyquist
    least = 0.0 if scale in ("linear", "mel") else 1e-9
    if not least <= low < high <= nyquist:
        raise ParameterError(
            f"fmin={low:g}, fmax={high:g}: must be {'at least' if least == 0 else 'above'} 0 Hz, "
            f"fmin below fmax, and both up to {nyquist:g} Hz"
        )
    return low, high


def _minus(value: float) -> str:
    """A number with the sign that matplotlib writes."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _mark_lanes(axes: "Axes", n_lanes: int, n_channels: int, limit: float) -> None:
    """Write amplitudes beside each lane, and which channel it is."""
    axes.set_ylim(-limit * (2 * n_lanes - 1), limit)
    axes.set_ylabel("amplitude")
    names = ["left", "right"] if n_lanes == 2 else [f"channel {k + 1}" for k in range(n_lanes)]
    if n_lanes > 1:
        # Half of the lane in one digit: 0.5, 0.02.
        power = 10.0 ** np.floor(np.log10(0.7 * limit))
        tick = float(np.floor(0.7 * limit / power) * power)
        ticks = [(sign * tick, lane) for lane in range(n_lanes) for sign in (1, 0, -1)]
        if n_lanes > 3:
            ticks = [(0.0, lane) for lane in range(n_lanes)]
        axes.set_yticks([t - 2 * limit * lane for t, lane in ticks], [_minus(t) for t, _ in ticks])
        for lane, name in enumerate(names):
            axes.text(
                0.004, -2 * limit * lane + 0.95 * limit, name, fontsize=8, va="top", color="0.25",
                transform=axes.get_yaxis_transform(),
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
            )  # fmt: skip
    elif n_channels > 1:
        axes.set_ylabel(f"amplitude, {n_channels} channels")
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
