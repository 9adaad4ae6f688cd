"""Chroma, from a power spectrogram or a constant-Q transform, and what is made of it."""

import math
from functools import lru_cache
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from audiotorch.errors import ParameterError
from audiotorch.features import filters
from audiotorch.features.constantq import CQT
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import mask_frames, normalize
from audiotorch.features.harmonic import Harmonic
from audiotorch.features.spectrogram import Spectrogram
from audiotorch.features.tuning import PitchHistogram

__all__ = ["ChromaCENS", "ChromaCQT", "ChromaSTFT", "HarmonicTonnetz", "Tonnetz"]


class ChromaSTFT(Feature):
    """Power of each pitch class, from a spectrogram.

    Every bin adds to the classes by Gaussian weights around its pitch, most so in the middle
    octaves; each frame is then divided by its norm. The concert pitch is each clip's own, found as
    `PitchHistogram` does. Differentiable, but for that estimate, which counts as constant.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        norm: `inf` (greatest value), the exponent of another norm, or `None`.
        tuning: deviation from A4 = 440 Hz in steps of the scale; `None` = estimated for each clip.
        n_chroma: pitch classes, steps of an octave.
        ctroct: octave that counts most; 5 is the one from 440 Hz on.
        octwidth: spread of the weights around it, octaves; `None` = all count alike.
        base_c: the first class is C, not A.
        stft: further settings of `Spectrogram`: `win_length window center pad_mode`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_chroma, frames)`; silent frames and those past a clip's own are 0.

    Raises:
        ParameterError: a setting that is not positive, and as `Spectrogram`.

    Reference:
        Ellis (2007), Chroma feature analysis and synthesis. Same values as
        `librosa.feature.chroma_stft`.

    Example:
        >>> ChromaSTFT()(torch.zeros(2, 22050)).shape
        torch.Size([2, 12, 44])
    """

    passes_on_to = Spectrogram
    bank: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        norm: float | None = math.inf,
        tuning: float | None = None,
        n_chroma: int = 12,
        ctroct: float = 5.0,
        octwidth: float | None = 2.0,
        base_c: bool = True,
        **stft: Any,
    ) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, **stft))
        check_positive(n_chroma=n_chroma, octwidth=octwidth, norm=norm)
        self.sample_rate = sample_rate
        self.norm: Optional[float] = None if norm is None else float(norm)
        # Not annotated in the class: TorchScript would take that for the module's type.
        self.tuner: Any = None
        tunings = (tuning,)
        if tuning is None:
            self.tuner = PitchHistogram(sample_rate, n_fft, n_chroma)
            tunings = tuple(self.tuner.edges[:-1].tolist())
        bank = _banks(sample_rate, n_fft, n_chroma, tunings, ctroct, octwidth, base_c)
        self.register_buffer("bank", bank, persistent=False)

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the chroma of powers `(batch, freq, frames)`."""
        bank = self.bank.to(specgram.dtype)
        if self.tuner is not None:
            counts = None if lengths is None else self.frame_counts(lengths)
            bank = bank.index_select(0, self.tuner(specgram, counts))
        chroma = torch.matmul(specgram.transpose(1, 2), bank)
        return normalize(chroma, self.norm).transpose(1, 2)


@lru_cache(maxsize=4)
def _banks(
    sample_rate: int,
    n_fft: int,
    n_chroma: int,
    tunings: tuple[float, ...],
    ctroct: float,
    octwidth: float | None,
    base_c: bool,
) -> Tensor:
    """Weights of all tunings, `(tunings, freq, n_chroma)`, float32."""
    banks = [
        filters.chroma_bank(
            sample_rate,
            n_fft,
            n_chroma,
            tuning=tuning,
            ctroct=ctroct,
            octwidth=octwidth,
            base_c=base_c,
        )
        for tuning in tunings
    ]
    return torch.stack(banks).transpose(1, 2).contiguous()


class ChromaCQT(Feature):
    """Magnitude of each pitch class, from a constant-Q transform.

    Bins of all octaves are summed into their classes; each frame is then divided by its norm.
    Differentiable but for silent bins, where the gradient is 0; the estimated tuning counts as
    constant.

    Args:
        sample_rate: Hz.
        hop_length: samples between frames.
        fmin: centre of the lowest bin, Hz; `None` = the note C1, 32.7 Hz.
        norm: `inf` (greatest value), the exponent of another norm, or `None`.
        threshold: sums below this count as 0.
        tuning: deviation from A4 = 440 Hz in bins; `None` = estimated for each clip.
        n_chroma: pitch classes, steps of an octave.
        n_octaves: octaves above `fmin`.
        bins_per_octave: a multiple of `n_chroma`, which `None` means.
        source: the stage that gives the waveform; `None` = what is given.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_chroma, frames)`; silent frames and those past a clip's own are 0.

    Raises:
        ParameterError: `bins_per_octave` is no multiple of `n_chroma`, a setting that is not
            positive, and as `CQT`.

    Reference:
        Same values as `librosa.feature.chroma_cqt`.

    Example:
        >>> ChromaCQT()(torch.zeros(2, 22050)).shape
        torch.Size([2, 12, 44])
    """

    fold: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        hop_length: int = 512,
        *,
        fmin: float | None = None,
        norm: float | None = math.inf,
        threshold: float = 0.0,
        tuning: float | None = None,
        n_chroma: int = 12,
        n_octaves: int = 7,
        bins_per_octave: int | None = 36,
        source: nn.Module | None = None,
    ) -> None:
        check_positive(n_chroma=n_chroma, n_octaves=n_octaves, norm=norm)
        per_octave = n_chroma if bins_per_octave is None else bins_per_octave
        if per_octave < 1 or per_octave % n_chroma:
            raise ParameterError(
                f"bins_per_octave={bins_per_octave}: must be a multiple of n_chroma={n_chroma}"
            )
        super().__init__(
            CQT(
                sample_rate,
                hop_length,
                fmin=fmin,
                n_bins=n_octaves * per_octave,
                bins_per_octave=per_octave,
                tuning=tuning,
                source=source,
            )
        )
        self.sample_rate = sample_rate
        self.norm: Optional[float] = None if norm is None else float(norm)
        self.threshold = float(threshold)
        fold = filters.chroma_fold(n_octaves * per_octave, per_octave, n_chroma, fmin=fmin)
        self.register_buffer("fold", fold.T.contiguous(), persistent=False)

    def derive(self, magnitudes: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the chroma of a transform `(batch, n_bins, frames)`."""
        chroma = torch.matmul(magnitudes.transpose(1, 2), self.fold.to(magnitudes.dtype))
        if self.threshold > 0:
            chroma = chroma.masked_fill(chroma < self.threshold, 0.0)
        return normalize(chroma, self.norm).transpose(1, 2)


class ChromaCENS(Feature):
    """Chroma energy normalised statistics: coarse in level and time, so robust to dynamics.

    Chroma of a constant-Q transform, as shares of each frame's sum, are rated by how many of 0.4,
    0.2, 0.1 and 0.05 they exceed, a quarter each; the ratings are smoothed by a window, with
    nothing before the clip and after its own end, and each frame is divided by its norm. The
    ratings are steps: the gradient is 0.

    Args:
        sample_rate: Hz.
        hop_length: samples between frames.
        norm: exponent of the last norm, `inf`, or `None`.
        win_len_smooth: frames of smoothing; `None` = not smoothed.
        smoothing_window: name of its window, for `scipy.signal.get_window`.
        chroma: further settings of `ChromaCQT`: `fmin tuning n_chroma n_octaves bins_per_octave
            source`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_chroma, frames)`; frames past a clip's own are 0.

    Raises:
        ParameterError: `win_len_smooth` below 1, an unknown window, and as `ChromaCQT`.

    Reference:
        Müller and Ewert (2011), Chroma toolbox: MATLAB implementations for extracting variants of
        chroma-based audio features. Same values as `librosa.feature.chroma_cens`.

    Example:
        >>> ChromaCENS()(torch.zeros(2, 22050)).shape
        torch.Size([2, 12, 44])
    """

    passes_on_to = ChromaCQT
    smoothing: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        hop_length: int = 512,
        *,
        norm: float | None = 2.0,
        win_len_smooth: int | None = 41,
        smoothing_window: str = "hann",
        **chroma: Any,
    ) -> None:
        super().__init__(ChromaCQT(sample_rate, hop_length, norm=1.0, **chroma))
        check_positive(win_len_smooth=win_len_smooth, norm=norm)
        self.sample_rate = sample_rate
        self.norm: Optional[float] = None if norm is None else float(norm)
        taps = torch.ones(1, dtype=torch.float64)
        if win_len_smooth is not None:
            taps = filters.symmetric_window(smoothing_window, win_len_smooth + 2)
        # Reversed: a convolution, should the window not be symmetric.
        smoothing = (taps / taps.sum()).flip(0)[None, None]
        self.register_buffer("smoothing", smoothing, persistent=False)

    def derive(self, chroma: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the statistics of chroma of unit sum, `(batch, n_chroma, frames)`."""
        rating = torch.zeros_like(chroma)
        for step in (0.4, 0.2, 0.1, 0.05):
            rating = rating + 0.25 * (chroma > step).to(chroma.dtype)
        # Comparisons know no NaN; a spoilt frame must not be answered as if it were sound.
        rating = torch.where(chroma.isnan(), chroma, rating)
        batch, n_chroma, n_frames = rating.shape
        size = self.smoothing.shape[-1]
        rows = rating.reshape(batch * n_chroma, 1, n_frames).double()
        padded = torch.nn.functional.pad(rows, [size // 2, (size - 1) // 2])
        smooth = conv1d(padded, self.smoothing.double()).to(chroma.dtype)
        smooth = smooth.reshape(batch, n_chroma, n_frames)
        if lengths is not None:
            smooth = mask_frames(smooth, self.frame_counts(lengths))
        return normalize(smooth.transpose(1, 2), self.norm).transpose(1, 2)


class Tonnetz(Feature):
    """Tonal centroids: chroma as coordinates on circles of fifths, minor and major thirds.

    Differentiable where `ChromaCQT` is.

    Args:
        sample_rate: Hz.
        hop_length: samples between frames.
        chroma: further settings of `ChromaCQT`, such as `fmin`, `tuning` and `source`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 6, frames)`: x and y of the fifths, minor thirds, major thirds; silent
          frames and those past a clip's own are 0.

    Raises:
        ParameterError: as `ChromaCQT`.

    Reference:
        Harte, Sandler and Gasser (2006), Detecting harmonic change in musical audio. Same values as
        `librosa.feature.tonnetz`.

    Example:
        >>> Tonnetz()(torch.zeros(2, 22050)).shape
        torch.Size([2, 6, 44])
    """

    passes_on_to = ChromaCQT
    circles: Tensor

    def __init__(self, sample_rate: int = 22050, hop_length: int = 512, **chroma: Any) -> None:
        super().__init__(ChromaCQT(sample_rate, hop_length, **chroma))
        self.sample_rate = sample_rate
        n_chroma = self.source.fold.shape[1]
        turns = np.array([7 / 6, 7 / 6, 3 / 2, 3 / 2, 2 / 3, 2 / 3])
        phases = turns[:, None] * np.linspace(0, 12, n_chroma, endpoint=False)
        phases[::2] -= 0.5
        radii = np.array([1, 1, 1, 1, 0.5, 0.5])
        circles = torch.from_numpy(radii[:, None] * np.cos(np.pi * phases)).T.contiguous()
        self.register_buffer("circles", circles, persistent=False)

    def derive(self, chroma: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the centroids of chroma `(batch, n_chroma, frames)`."""
        shares = normalize(chroma.transpose(1, 2), 1.0)
        # In float64: the terms of a circle cancel in part.
        centroids = torch.matmul(shares.double(), self.circles.double())
        return centroids.to(chroma.dtype).transpose(1, 2)


class HarmonicTonnetz(Tonnetz):
    """Tonal centroids of a clip's harmonic part.

    Args:
        sample_rate: Hz.
        n_fft: FFT size of the separation, samples.
        hop_length: samples between frames, of the separation too.
        chroma: further settings of `ChromaCQT`, such as `fmin` and `tuning`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 6, frames)`, as `Tonnetz`

    Raises:
        ParameterError: as `ChromaCQT` and `HPSS`.

    Reference:
        Same values as `librosa.feature.tonnetz(y=librosa.effects.harmonic(y))`.
    """

    def __init__(
        self, sample_rate: int = 22050, n_fft: int = 2048, hop_length: int = 512, **chroma: Any
    ) -> None:
        harmonic = Harmonic(sample_rate, n_fft, hop_length)
        super().__init__(sample_rate, hop_length, source=harmonic, **chroma)
