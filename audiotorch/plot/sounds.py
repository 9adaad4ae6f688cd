"""Pictures of sounds."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from audiotorch.features import MelSpectrogram, PowerToDB
from audiotorch.features.filters import hz_to_mel
from audiotorch.plot.figure import new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "draw_mel",
    "spectrogram",
]


def spectrogram(waveform: Tensor, sample_rate: int, title: str = "") -> "Figure":
    """Draw one clip's mel spectrogram, 60 dB deep, in kHz over seconds.

    Args:
        waveform: `(time,)`
        sample_rate: Hz.
        title: stands above it.
    """
    figure = new_figure(4.0, 3.0)
    axes = figure.add_subplot()
    draw_mel(axes, waveform, sample_rate)
    axes.set_ylabel("kHz")
    axes.set_title(plain(title), fontsize=10)
    return figure


def draw_mel(axes: "Axes", waveform: Tensor, sample_rate: int) -> None:
    """Draw a mel spectrogram with frequency in kHz and time in seconds."""
    hop = max(1, sample_rate // 100)
    # 160 samples at least: at rates of a kilohertz or so, bands would else hold no FFT bin.
    mel = MelSpectrogram(sample_rate, max(4 * hop, 160), hop, n_mels=40)
    db = PowerToDB(ref="max", top_db=60.0)(mel(waveform)).numpy()
    seconds = len(waveform) / sample_rate
    axes.imshow(db, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, len(db)))
    top = hz_to_mel(np.array(sample_rate / 2))
    ticks = np.array([kilo for kilo in (0.5, 1, 2, 4, 8) if 1000 * kilo < sample_rate / 2])
    axes.set_yticks(hz_to_mel(1000 * ticks) / top * len(db), [f"{tick:g}" for tick in ticks])
    axes.set_xticks([0, seconds], ["0", f"{seconds:.1f} s"])
    axes.tick_params(labelsize=8)
