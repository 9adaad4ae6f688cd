"""Axes in seconds, Hz, mel and notes."""

from typing import TYPE_CHECKING

import numpy as np

from audiotorch.errors import ParameterError
from audiotorch.features.filters import hz_to_mel, mel_to_hz

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "SCALES",
    "extremes",
    "hertz",
    "mark_frequencies",
    "mark_seconds",
    "note_name",
    "positions",
    "time_unit",
]

SCALES = ("linear", "log", "mel", "note")
"""How an axis of frequencies may be divided."""

_NAMES = ("C", "C\u266f", "D", "D\u266f", "E", "F", "F\u266f", "G", "G\u266f", "A", "A\u266f", "B")
_A4 = 440.0
_C1 = _A4 * 2.0 ** (-45 / 12)
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_LONG, _VERY_LONG = 120.0, 7200.0  # seconds from which on clocks are read
_APART = 0.055  # of an axis, at least, from tick to tick


def mark_seconds(axes: "Axes", start: float, end: float) -> None:
    """Let the horizontal axis run over a time, in seconds, or on a clock if that is long.

    Positions stay seconds. From 2 minutes on they are written as minutes:seconds, from 2 hours on
    as hours:minutes, and the axis says so.

    Args:
        axes: to be marked.
        start: seconds, left end.
        end: seconds, right end.
    """
    from matplotlib.ticker import AutoLocator, FuncFormatter, MultipleLocator, ScalarFormatter

    axes.set_xlim(start, end)
    label = time_unit(start, end)
    axes.set_xlabel(label)
    if label == "seconds":
        axes.xaxis.set_major_locator(AutoLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        return
    inches = axes.get_position().width * axes.figure.figure.get_figwidth()
    n_most = max(2.0, inches / 0.7)
    step = next((s for s in _STEPS if (end - start) / s <= n_most), _STEPS[-1])
    over = 3600 if label == "hours:minutes" else 60
    if over == 3600:
        step = max(step, 60)

    def clock(value: float, _: object) -> str:
        whole, part = divmod(round(value), over)
        return f"{whole}:{part // (over // 60):02d}"

    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(clock))


def time_unit(start: float, end: float) -> str:
    """Say how the times between two are written: what `mark_seconds` labels the axis with.

    Args:
        start: seconds.
        end: seconds.
    """
    if end < _LONG or end - start < 10:
        return "seconds"
    return "minutes:seconds" if end < _VERY_LONG or end - start < 600 else "hours:minutes"


def mark_frequencies(
    axes: "Axes", scale: str, low: float, high: float, *, along: str = "y"
) -> None:
    """Let an axis run over frequencies; positions are Hz on every scale.

    Args:
        axes: to be marked.
        scale: one of `SCALES`; `"note"` is logarithmic, with the names of notes.
        low: Hz, lower end; on logarithmic scales above 0.
        high: Hz, upper end.
        along: `"x"` or `"y"`.

    Raises:
        ParameterError: an unknown scale.
    """
    from matplotlib.ticker import AutoLocator, FixedLocator, FuncFormatter, NullFormatter

    if scale not in SCALES:
        raise ParameterError(f"scale={scale!r}: must be one of {', '.join(SCALES)}")
    axis = axes.xaxis if along == "x" else axes.yaxis
    set_scale = axes.set_xscale if along == "x" else axes.set_yscale
    if scale in ("log", "note"):
        set_scale("log", base=2 if scale == "note" else 10)
    elif scale == "mel":
        set_scale("function", functions=(hz_to_mel, mel_to_hz))
    (axes.set_xlim if along == "x" else axes.set_ylim)(low, high)
    axis.set_label_text("note" if scale == "note" else "Hz")
    if scale == "linear":
        axis.set_major_locator(AutoLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: hertz(value)))
        return
    major, minor = _notes(low, high) if scale == "note" else _round_hertz(scale, low, high)
    axis.set_major_locator(FixedLocator(list(major)))
    axis.set_minor_locator(FixedLocator(list(minor)))
    axis.set_minor_formatter(NullFormatter())
    write = note_name if scale == "note" else hertz
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))


def positions(scale: str, frequencies: np.ndarray) -> np.ndarray:
    """Return where frequencies lie on a scale, in a unit of its own.

    Args:
        scale: one of `SCALES`.
        frequencies: Hz.
    """
    hz = np.asarray(frequencies, dtype=float)
    if scale == "linear":
        return hz
    if scale == "mel":
        return np.asarray(hz_to_mel(hz))
    return np.log2(np.maximum(hz, 1e-9))


def extremes(scale: str, sample_rate: float, n_fft: int) -> tuple[float, float]:
    """Return the frequencies at which an axis starts and ends, if nobody says so.

    From 0 to half the sample rate; on the logarithmic scale from 20 Hz, and on that of notes from
    C1 to C9, where FFT and rate reach so far.

    Args:
        scale: one of `SCALES`.
        sample_rate: Hz.
        n_fft: samples of the FFT; where bins are wider than 40 Hz, the first one's lower edge.
    """
    nyquist = sample_rate / 2
    if scale in ("linear", "mel"):
        return 0.0, nyquist
    edge = low = 0.5 * sample_rate / max(n_fft, 8)
    if nyquist >= 80:
        low = max(low, _C1 if scale == "note" else 20.0)
    high = min(nyquist, 256 * _C1) if scale == "note" else nyquist
    return (low, high) if low < high else (edge, nyquist)


def hertz(value: float) -> str:
    """Write a frequency of a tick: 500, 2k, 12.5k.

    Args:
        value: Hz.
    """
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def note_name(frequency: float) -> str:
    """Name the note of equal temperament, A4 = 440 Hz, that lies nearest to a frequency.

    Args:
        frequency: Hz, above 0.

    Example:
        >>> note_name(440.0), note_name(65.4), note_name(466.2)
        ('A4', 'C2', 'A♯4')
    """
    number = round(69 + 12 * float(np.log2(frequency / _A4)))
    return f"{_NAMES[number % 12]}{number // 12 - 1}"


def _notes(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies of the notes that are named, and of those that have a tick."""
    first = int(np.ceil(12 * np.log2(low / _A4) - 1e-9)) + 69
    last = int(np.floor(12 * np.log2(high / _A4) + 1e-9)) + 69
    numbers = np.arange(first, last + 1)
    octaves = (last - first) / 12
    named: tuple[int, ...]
    marked: tuple[int, ...]
    if octaves > 5:
        named, marked = (0,), (2, 4, 5, 7, 9, 11)
    elif octaves > 1.3:
        named, marked = (0, 4, 9), (2, 5, 7, 11)
    else:
        named, marked = tuple(range(12)), ()
    frequencies = _A4 * 2.0 ** ((numbers - 69) / 12)
    chosen = np.isin(numbers % 12, named)
    return frequencies[chosen], frequencies[np.isin(numbers % 12, marked)]


def _round_hertz(scale: str, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Round frequencies that are far enough apart on a scale, and those between them."""
    decades = 10.0 ** np.arange(np.floor(np.log10(max(low, 1.0))), np.ceil(np.log10(high)) + 1)
    minor = (decades[:, None] * np.arange(1, 10)).ravel()
    major = (decades[:, None] * np.array([1, 2, 5])).ravel()
    if np.sum((major >= low) & (major <= high)) < 3:
        major = np.append(minor, 1.5 * decades)
        major.sort()
    if scale == "mel":
        major = np.insert(major, 0, 0.0)
    inside = [tick for tick in major if low <= tick <= high]
    places = positions(scale, np.array([low, high, *inside]))
    share = (places[2:] - places[0]) / (places[1] - places[0])
    kept: list[float] = []
    reached = -1.0
    for tick, place in zip(inside, share, strict=True):
        if place - reached >= _APART:
            kept.append(tick)
            reached = place
    # On the mel scale they would crowd below 1 kHz.
    between = minor[(minor > low) & (minor < high) & (scale != "mel")]
    return np.array(kept), between[~np.isin(between, kept)]
