"""A recording at a glance, and two side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from audiotorch.features.filters import mel_frequencies
from audiotorch.plot.density import draw_density, name_peaks, spectral_peaks
from audiotorch.plot.figure import new_figure, save_figure, short
from audiotorch.plot.images import bin_edges, column_edges, draw_bins, mel_edges
from audiotorch.plot.measures import Density, Envelope, Power, frame_sizes, gather
from audiotorch.plot.recording import Recording, Sound
from audiotorch.plot.scales import mark_seconds
from audiotorch.plot.sounds import draw_envelope

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["compare", "overview"]

_TOP_DB = 80.0
_N_MELS = 128
_COLOURS = ("#0072b2", "#d55e00")  # Wong's blue and vermilion: apart for colour-blind eyes, too
_ALIKE = 3.0  # times as long as the other, and both are drawn to one scale of time


class _Measured(NamedTuple):
    recording: Recording
    envelope: Envelope
    power: Power
    density: Density

    @property
    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """Power of spectrogram and mel spectrogram."""
        return self.power.columns, self.power.mel(_N_MELS)


def overview(
    source: Sound,
    sample_rate: int | None = None,
    *,
    title: str = "",
    offset: float = 0.0,
    duration: float | None = None,
    out: str | Path | None = None,
) -> "Figure":
    """Draw a recording at a glance: waveform, spectrogram, mel spectrogram and spectral density.

    The recording is read once, block by block, at its own rate; all of its samples count, and an
    hour takes seconds. Each panel shows what the function of its name does: `waveform`,
    `spectrogram`, `mel_spectrogram`, `power_spectral_density`.

    Args:
        source: path, a file's content as bytes, an open binary file, or samples of full scale 1,
            `(time,)` or `(channels, time)`.
        sample_rate: Hz; needed for samples, `None` keeps a file's own.
        title: stands above it; empty = the file's name.
        offset: seconds to skip.
        duration: seconds to draw; `None` = to the end.
        out: file to write, .png, .svg or .pdf; `None` writes none.

    Raises:
        ParameterError: as `waveform`, or another suffix of `out`.
        DecodeError: as `waveform`.
    """
    measured = _measure(Recording(source, sample_rate, offset, duration))
    figure = new_figure(13.3, 7.5)
    grid = figure.add_gridspec(3, 2, width_ratios=[1.55, 1], height_ratios=[1, 1.5, 1.5])
    wave, linear, mel = (figure.add_subplot(grid[row, 0]) for row in range(3))
    draw_envelope(wave, measured.recording, measured.envelope)
    _draw_images([linear, mel], measured)
    _share_time([wave, linear, mel])
    image = linear.images[0]
    figure.colorbar(
        image, ax=[wave, linear, mel], label="dB (maximum of the panel = 0)", pad=0.01, shrink=0.7,
        anchor=(0.0, 0.0), aspect=40,
    )  # fmt: skip
    psd = figure.add_subplot(grid[:, 1])
    draw_density(psd, measured.density, colour=_COLOURS[0])
    name_peaks(psd, "log", [("black", peak) for peak in spectral_peaks(measured.density, 6)])
    titles = ("Waveform", "Short-time Fourier transform", "Mel spectrogram")
    for axes, text in zip((wave, linear, mel), titles, strict=True):
        axes.set_title(text, loc="left", fontsize=11)
    psd.set_title("Power spectral density (Welch)", loc="left", fontsize=11)
    figure.suptitle(_heading(measured.recording, title), fontsize=14)
    if out is not None:
        save_figure(figure, out)
    return figure


def compare(
    source: Sound,
    other: Sound,
    sample_rate: int | None = None,
    *,
    titles: Sequence[str] = ("", ""),
    offset: float = 0.0,
    duration: float | None = None,
) -> "Figure":
    """Draw two recordings side by side, to the same scales.

    Amplitudes, frequencies and decibels are the same on both sides, 0 dB being the maximum of both;
    times are, too, unless one lasts more than 3 times as long as the other. Below stand both
    spectral densities in one panel.

    Args:
        source: as in `overview`.
        other: as in `overview`.
        sample_rate: Hz; needed for samples, `None` keeps each file's own.
        titles: stand above the sides; empty = the files' names.
        offset: seconds to skip, of both.
        duration: seconds to draw, of both; `None` = to the end.

    Raises:
        ParameterError: as `waveform`.
        DecodeError: as `waveform`.
    """
    sides = [_measure(Recording(each, sample_rate, offset, duration)) for each in (source, other)]
    figure = new_figure(13.3, 10.0)
    grid = figure.add_gridspec(4, 2, height_ratios=[0.8, 1.3, 1.3, 1.8])
    limit = 1.05 * max(float(np.abs(side.envelope.columns[:2]).max()) for side in sides)
    both = [side.levels for side in sides]
    refs = [max(float(levels.max()) for levels in pair) for pair in zip(*both, strict=True)]
    high = max(side.recording.sample_rate for side in sides) / 2
    longest = max(side.recording.seconds for side in sides)
    same = longest <= _ALIKE * min(side.recording.seconds for side in sides)
    pictures: list[Any] = []
    for column, (side, title) in enumerate(zip(sides, titles, strict=True)):
        panels = [figure.add_subplot(grid[row, column]) for row in range(3)]
        draw_envelope(
            panels[0], side.recording, side.envelope, limit=max(limit, 1e-9),
            colour=_COLOURS[column],
        )  # fmt: skip
        _draw_images(panels[1:], side, refs, high)
        if same:
            mark_seconds(panels[2], offset, offset + longest)
        _share_time(panels)
        panels[0].set_title(_heading(side.recording, title), fontsize=11, color=_COLOURS[column])
        pictures += panels[1:]
    image = pictures[0].images[0]
    figure.colorbar(image, ax=pictures, label="dB (maximum of both sides = 0)", pad=0.01, aspect=40)
    psd = figure.add_subplot(grid[3, :])
    _draw_densities(psd, sides, titles, high)
    return figure


def _measure(recording: Recording) -> _Measured:
    """Let a recording pass by once."""
    measured = _Measured(
        recording,
        Envelope(recording.n_samples),
        Power(recording, *frame_sizes(recording.sample_rate, None, None)),
        Density(recording),
    )
    gather(recording, [measured.envelope, measured.power, measured.density])
    return measured


def _draw_images(
    panels: "Sequence[Axes]",
    measured: _Measured,
    refs: Sequence[float | None] = (None, None),
    high: float | None = None,
) -> None:
    """Draw spectrogram and mel spectrogram, without a bar."""
    recording = measured.recording
    rate, power = recording.sample_rate, measured.power
    limits = (0.0, rate / 2 if high is None else high)
    mel = mel_edges(mel_frequencies(_N_MELS + 2, 0.0, rate / 2))
    edges = (bin_edges(rate, power.n_fft), mel)
    for k, levels in enumerate(measured.levels):
        seconds = column_edges(recording, power.hop_length, power.per_column, levels.shape[1])
        draw_bins(
            panels[k], recording, levels, seconds, edges[k], scale=("linear", "mel")[k],
            limits=limits, top_db=_TOP_DB, ref=refs[k], label=None,
        )  # fmt: skip


def _share_time(panels: "Sequence[Axes]") -> None:
    """Write the time below the last of panels that stand above each other."""
    for axes in panels[:-1]:
        mark_seconds(axes, *panels[-1].get_xlim())
        axes.set_xlabel("")
        axes.tick_params(labelbottom=False)


def _draw_densities(
    axes: "Axes", sides: Sequence[_Measured], titles: Sequence[str], high: float
) -> None:
    """Draw both curves, and the names of their strongest peaks in their colours."""
    peaks = []
    for side, title, colour, which in zip(
        sides, titles, _COLOURS, ("first", "second"), strict=True
    ):
        name = short(title or side.recording.name or which)
        draw_density(axes, side.density, high=high, label=name, colour=colour)
        peaks += [(colour, peak) for peak in spectral_peaks(side.density, 3)]
    name_peaks(axes, "log", peaks)
    axes.set_title("Power spectral density (Welch)", loc="left", fontsize=11)
    axes.legend(loc="lower left", fontsize=9)


def _heading(recording: Recording, title: str) -> str:
    """Name, duration, rate and channels on one line."""
    seconds = recording.seconds
    minutes, rest = divmod(round(seconds), 60)
    if seconds >= 3600:
        length = f"{minutes // 60} h {minutes % 60:02d} min"
    else:
        length = f"{minutes} min {rest:02d} s" if seconds >= 120 else f"{seconds:.3g} s"
    n = recording.n_channels
    channels = {1: "mono", 2: "stereo"}.get(n, f"{n} channels")
    facts = [length, f"{recording.sample_rate / 1000:g} kHz", channels, recording.container]
    name = short(title or recording.name)
    return " \u00b7 ".join(part for part in (name, *facts) if part)
