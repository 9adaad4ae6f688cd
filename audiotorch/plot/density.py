"""The power spectral density, and its strongest peaks by name."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from audiotorch.errors import ParameterError
from audiotorch.features.feature import check_positive
from audiotorch.plot.measures import Density, gather
from audiotorch.plot.recording import Recording, Sound
from audiotorch.plot.scales import SCALES, extremes, mark_frequencies, note_name, positions
from audiotorch.plot.sounds import on_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Peak", "draw_density", "name_peaks", "power_spectral_density", "spectral_peaks"]

_PROMINENT_DB = 6.0
_TONAL_DB = 10.0
_TONAL_BINS = 3.0  # a Hann window draws a pure tone 2 bins wide 6 dB below its top
_SIGMAS = 5.0  # above what lies around; the mean of n segments of noise varies by 4.34/sqrt(n) dB
_INCHES, _ROW_INCHES = 0.078, 0.19  # that a letter is wide and a line high
_FLOOR = 1e-20  # of density: 200 dB below full scale


class Peak(NamedTuple):
    """A peak of a spectrum.

    Attributes:
        frequency: Hz, between the bins.
        db: level at the top.
        prominence_db: above the higher of the valleys to its sides.
        is_tonal: whether it is as narrow as a tone's.
    """

    frequency: float
    db: float
    prominence_db: float
    is_tonal: bool

    @property
    def name(self) -> str:
        """Its frequency, and of a tone the note: `440 Hz A4`."""
        if self.frequency >= 1000:
            text = f"{self.frequency / 1000:.2f} kHz"
        else:
            text = f"{self.frequency:.{0 if self.frequency >= 100 else 1}f} Hz"
        return f"{text} {note_name(self.frequency)}" if self.is_tonal else text


def power_spectral_density(
    source: Sound,
    sample_rate: int | None = None,
    *,
    ax: "Axes | None" = None,
    title: str = "",
    offset: float = 0.0,
    duration: float | None = None,
    scale: str = "log",
    n_fft: int | None = None,
    n_peaks: int = 5,
    label: str | None = None,
) -> "Axes":
    """Draw Welch's power spectral density of the average of the channels, and name its peaks.

    Decibels are of full scale: 0 dB is a power of 1 per Hz, where samples reach from -1 to 1. All
    samples count, block by block. A peak is named where it stands out from both its sides, by 6 dB
    or, of short recordings, more; the note is named where it is as narrow as a tone's.

    Args:
        source: as in `waveform`.
        sample_rate: Hz; needed for samples, `None` keeps a file's own.
        ax: to be drawn on; `None` = of a new figure.
        title: stands above it.
        offset: seconds to skip.
        duration: seconds to draw; `None` = to the end.
        scale: of frequencies: `"log"`, `"linear"`, `"mel"` or `"note"`.
        n_fft: samples of a segment; `None` = a power of two that lasts about 0.2 s, or gives a
            short recording 7 segments. Longer recordings than 2**23 samples are taken in float32.
        n_peaks: the strongest that are named, at most.
        label: name of the curve, for a legend.

    Raises:
        ParameterError: an unknown scale, a size that is not positive, and as `waveform`.
        DecodeError: as `waveform`.

    Reference:
        Same values as `scipy.signal.welch(x, sample_rate, nperseg=n_fft)`.
    """
    check_positive(n_fft=n_fft)
    if scale not in SCALES:
        raise ParameterError(f"scale={scale!r}: must be one of {', '.join(SCALES)}")
    recording = Recording(source, sample_rate, offset, duration)
    density = Density(recording, n_fft)
    gather(recording, [density])
    axes = on_axes(ax, title)
    draw_density(axes, density, scale=scale, label=label)
    if n_peaks:
        name_peaks(axes, scale, [("black", peak) for peak in spectral_peaks(density, n_peaks)])
    return axes


def spectral_peaks(density: Density, n_peaks: int = 5) -> list[Peak]:
    """Find the strongest peaks that stand out, the strongest first.

    Args:
        density: measured.
        n_peaks: at most.
    """
    from scipy.signal import find_peaks, peak_widths

    power = density.density
    if len(power) < 8 or power.max() <= _FLOOR:
        return []
    db = _decibels(power)
    # Of few segments noise alone has peaks; nothing 90 dB below the top is one.
    least = max(_PROMINENT_DB, 30.0 / np.sqrt(density.n_segments))
    places, found = find_peaks(np.maximum(db, db.max() - 90), prominence=least)
    # The first two bins hold what the removed mean left.
    places, prominences = places[places >= 2], found["prominences"][places >= 2]
    bin_hz = density.frequencies[1]
    peaks: list[Peak] = []
    for k in np.argsort(-db[places], kind="stable"):
        i = int(places[k])
        left, top, right = db[i - 1 : i + 2]
        shift = 0.5 * (left - right) / min(left - 2 * top + right, -1e-12)
        frequency = (i + float(np.clip(shift, -0.5, 0.5))) * bin_hz
        if db[i] < _level_around(db, i) + _SIGMAS * 4.34 / np.sqrt(density.n_segments):
            continue
        # The width where the level has fallen by 6 dB.
        edge = (prominences[k : k + 1], np.array([0]), np.array([len(db) - 1]))
        share = min(6.0 / float(prominences[k]), 1.0)
        width = float(peak_widths(db, np.array([i]), share, edge)[0][0])
        tonal = bool(prominences[k] >= _TONAL_DB and width <= _TONAL_BINS)
        # Tones may lie a semitone apart; of humps, as speech has many, one in a third of an octave.
        apart = 1 / 13 if tonal else 1 / 3
        if any(abs(np.log2(frequency / other.frequency)) < apart for other in peaks):
            continue
        height = float(top - 0.25 * (left - right) * shift)
        peaks.append(Peak(float(frequency), height, float(prominences[k]), tonal))
        if len(peaks) == n_peaks:
            break
    return peaks


def draw_density(
    axes: "Axes",
    density: Density,
    *,
    scale: str = "log",
    high: float | None = None,
    label: str | None = None,
    colour: str = "#0072b2",
) -> None:
    """Draw the curve, in dB of full scale per Hz.

    Args:
        axes: to be drawn on.
        density: measured.
        scale: of frequencies, one of `SCALES`.
        high: Hz at the right end; `None` = half the sample rate.
        label: name of the curve, for a legend.
        colour: of the curve.
    """
    lowest, highest = extremes(scale, density.sample_rate, density.n_fft)
    mark_frequencies(axes, scale, lowest, high or highest, along="x")
    db, shown = _decibels(density.density), density.frequencies > 0
    if not shown.any():  # of a recording of one sample
        shown = np.ones(len(db), bool)
    axes.plot(density.frequencies[shown], db[shown], color=colour, linewidth=1.2, label=label)
    if label is None and not axes.get_legend_handles_labels()[0]:
        axes.fill_between(density.frequencies[shown], db[shown], -400, color=colour, alpha=0.12)
    top = max(float(line.get_ydata().max()) for line in axes.lines)  # type: ignore[union-attr]
    low = min(float(np.quantile(line.get_ydata(), 0.04)) for line in axes.lines)  # type: ignore
    axes.set_ylim(max(low - 6, top - 100), top + 6)
    axes.set_ylabel("dBFS per Hz")
    axes.grid(which="major", color="0.88", linewidth=0.6)
    axes.set_axisbelow(True)


def name_peaks(axes: "Axes", scale: str, peaks: list[tuple[str, Peak]]) -> None:
    """Write names above a curve like flags on poles, so that none crosses another.

    Args:
        axes: with the curve.
        scale: of its frequencies, one of `SCALES`.
        peaks: each with its colour.
    """
    low, high = axes.get_xlim()
    inside = sorted((peak, colour) for colour, peak in peaks if low <= peak.frequency <= high)
    if not inside:
        return
    root: Any = axes.figure.figure  # of a sub-figure too
    box = axes.get_position()
    wide, tall = box.width * root.get_figwidth(), box.height * root.get_figheight()
    ends = positions(scale, np.array([low, high]))
    places = positions(scale, np.array([peak.frequency for peak, _ in inside]))
    places = (places - ends[0]) / np.ptp(ends) * wide
    rows = _rows(places, np.array([_INCHES * len(peak.name) + 0.1 for peak, _ in inside]))
    # Room above the curve for the rows, and no ticks beside them.
    bottom, top = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= top])
    share = min(0.5, (_ROW_INCHES * (max(rows) + 1) + 0.1) / tall)
    axes.set_ylim(bottom, bottom + (top - bottom) / (1 - share))
    for (peak, colour), place, row in zip(inside, places, rows, strict=True):
        height = 1 - (0.12 + _ROW_INCHES * (max(rows) - row)) / tall
        axes.annotate(
            f" {peak.name}", (peak.frequency, peak.db), (place / wide, height),
            textcoords="axes fraction", ha="left", va="center", fontsize=9, color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.5, "linewidth": 0.8,
                        "relpos": (0.0, 0.5), "shrinkA": 0.0, "shrinkB": 0.0},
        )  # fmt: skip
        axes.plot([peak.frequency], [peak.db], marker="o", markersize=4, color=colour)


def _rows(places: np.ndarray, widths: np.ndarray) -> list[int]:
    """Row of each flag from below: above those whose poles stand under it."""
    rows = [0] * len(places)
    for i in reversed(range(len(places))):
        under = [rows[j] for j in range(i + 1, len(places)) if places[j] < places[i] + widths[i]]
        rows[i] = max(under, default=-1) + 1
    return rows


def _level_around(db: np.ndarray, i: int) -> float:
    """Median level half an octave to both sides of a bin."""
    reach = max(8.0, 0.41 * i)
    return float(np.median(db[max(2, int(i - reach)) : int(i + reach) + 1]))


def _decibels(power: np.ndarray) -> np.ndarray:
    return np.asarray(10 * np.log10(np.maximum(power, _FLOOR)))
