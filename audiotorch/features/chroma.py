"""Chroma: how much of each pitch class sounds, whatever the octave; and what follows from it."""

from collections.abc import Sequence
from typing import Any, ClassVar, Optional

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from audiotorch.audio.frames import is_plain_cpu
from audiotorch.errors import ParameterError
from audiotorch.features import filters
from audiotorch.features.constantq import CQT
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import mask_frames
from audiotorch.features.harmonic import Harmonic
from audiotorch.features.spectrogram import Spectrogram
from audiotorch.features.tuning import PitchHistogram

__all__ = ["ChromaCENS", "ChromaCQT", "ChromaSTFT", "HarmonicTonnetz", "Tonnetz"]


class ChromaSTFT(Feature):
    """Chroma of a power spectrogram.

    Each FFT bin counts for the pitch classes around its own, by a Gaussian one semitone wide in
    all, and most in the octave `ctroct`. The bins' pitch is taken from the clip's own tuning.
    Differentiable but for `tuning=None`, whose estimate counts as constant.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        norm: each frame's norm, above 0; `None` = not normalised.
        tuning: deviation from the concert pitch in pitch classes; `None` = each clip's own, as
            `PitchHistogram` finds it in the spectrogram.
        n_chroma: pitch classes of an octave.
        ctroct: the octave that counts most, above 27.5 Hz.
        octwidth: octaves to each side that count as one standard deviation; `None` = all alike.
        base_c: the first row is C, else A.
        spectrogram: further settings of `Spectrogram`: `win_length window center pad_mode power`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_chroma, frames)`; frames that are silent, or past a clip's own, are 0.

    Raises:
        ParameterError: a setting out of range, and as `Spectrogram`.

    Reference:
        Same values as `librosa.feature.chroma_stft`.

    Example:
        >>> ChromaSTFT()(torch.zeros(2, 22050)).shape
        torch.Size([2, 12, 44])
    """

    __jit_ignored_attributes__: ClassVar = ["_banks"]
    passes_on_to = Spectrogram
    octaves: Tensor
    distance: Tensor
    sharpness: Tensor
    bank: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        norm: float | None = np.inf,
        tuning: float | None = None,
        n_chroma: int = 12,
        ctroct: float = 5.0,
        octwidth: float | None = 2.0,
        base_c: bool = True,
        **spectrogram: Any,
    ) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, **spectrogram))
        check_positive(n_chroma=n_chroma, norm=norm, ctroct=ctroct, octwidth=octwidth)
        self.norm = None if norm is None else float(norm)
        self.n_chroma = n_chroma
        self.ctroct = ctroct
        self.octwidth = 0.0 if octwidth is None else float(octwidth)
        classes, octaves, width = filters.chroma_bins(sample_rate, n_fft, n_chroma)
        # Whether row 0 stands for A or C, the bank's rows follow each other.
        first = 3 * (n_chroma // 12) if base_c else 0
        rows = (np.arange(n_chroma) + first) % n_chroma
        half = round(n_chroma / 2)
        buffers = {
            "octaves": octaves,
            "distance": (classes - rows[:, None] + half) % n_chroma - half,
            "sharpness": 2.0 / width**2,
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        # Not annotated in the class: TorchScript would take that for the module's type.
        self.histogram: Any = None
        fixed = torch.zeros(0, dtype=torch.float64)
        if tuning is None:
            self.histogram = PitchHistogram(sample_rate, n_fft, n_chroma)
        else:
            fixed = self._bank(torch.tensor([tuning], dtype=torch.float64), torch.float64)
        self.register_buffer("bank", fixed, persistent=False)
        self._banks: Any = {}

    def _bank(self, tuning: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the weights `(batch, n_chroma, freq)` for each clip's tuning `(batch,)`.

        Made anew for each clip: a file that held them for all hundred tunings would have 5 MB more.
        """
        shift = tuning.to(dtype).reshape(-1, 1, 1)
        distance = self.distance.to(dtype) - shift
        # To the nearest octave: into [-n_chroma / 2, n_chroma / 2).
        half = round(self.n_chroma / 2)
        distance = distance - self.n_chroma * ((distance + half) / self.n_chroma).floor()
        weights = torch.exp(distance.square() * -self.sharpness.to(dtype))
        weights = weights / weights.square().sum(dim=1, keepdim=True).sqrt()
        if self.octwidth > 0:
            octave = self.octaves.to(dtype) - shift / self.n_chroma
            weights = weights * torch.exp(-0.5 * ((octave - self.ctroct) / self.octwidth).square())
        return weights

    @torch.jit.unused
    def _kept_bank(self, tuning: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the same as `_bank` for places on the histogram's grid, each made but once."""
        places = tuning.tolist()
        for place in set(places):
            if (place, dtype) not in self._banks:
                shift = self.histogram.edges[place : place + 1]
                self._banks[place, dtype] = self._bank(shift, dtype)[0]
        return torch.stack([self._banks[place, dtype] for place in places])

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the chroma of a spectrogram `(batch, freq, frames)`."""
        bank = self.bank.to(specgram.dtype)
        if self.histogram is not None:
            counts = None if lengths is None else self.frame_counts(lengths)
            tuning = self.histogram(specgram, counts)
            keeps = False
            if not torch.jit.is_scripting():
                keeps = is_plain_cpu(specgram) and not torch.compiler.is_compiling()
            if keeps:
                bank = self._kept_bank(tuning, specgram.dtype)
            else:
                bank = self._bank(self.histogram.edges[tuning], specgram.dtype)
        return _normalize(_weighted_sum(bank, specgram), self.norm)


class ChromaCQT(Feature):
    """Chroma of a constant-Q transform.

    The bins of each pitch class are added up over all octaves. Differentiable but where bins are
    silent or chroma is cut off by `threshold`.

    Args:
        sample_rate: Hz.
        hop_length: samples between frames.
        fmin: centre of the lowest bin, Hz, before tuning; `None` = the note C1, 32.7 Hz.
        norm: each frame's norm, above 0; `None` = not normalised.
        threshold: before normalisation, values below this count as 0; `None` = none do.
        tuning: deviation from the concert pitch in bins; `None` = each clip's own.
        n_chroma: pitch classes of an octave.
        n_octaves: octaves of the transform.
        window: weights with which neighbouring bins count too; `None` = they do not.
        bins_per_octave: steps of an octave, a multiple of `n_chroma`; `None` = `n_chroma`.
        cqt_mode: `"full"`; librosa's `"hybrid"` is not offered.
        source: the stage that gives the waveform; `None` = what is given.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_chroma, frames)`, frames as those of `CQT`; past a clip's own they are 0.

    Raises:
        ParameterError: a setting out of range, and as `CQT`.

    Reference:
        Same values as `librosa.feature.chroma_cqt`. Where a clip is silent, librosa may show the
        rounding of its resampler, brought to norm 1.

    Example:
        >>> ChromaCQT()(torch.zeros(22050)).shape
        torch.Size([12, 44])
    """

    bank: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        hop_length: int = 512,
        *,
        fmin: float | None = None,
        norm: float | None = np.inf,
        threshold: float | None = 0.0,
        tuning: float | None = None,
        n_chroma: int = 12,
        n_octaves: int = 7,
        window: Sequence[float] | None = None,
        bins_per_octave: int | None = 36,
        cqt_mode: str = "full",
        source: nn.Module | None = None,
    ) -> None:
        check_positive(fmin=fmin, norm=norm, n_chroma=n_chroma, n_octaves=n_octaves)
        if cqt_mode != "full":
            raise ParameterError(f"cqt_mode={cqt_mode!r}: must be 'full'")
        steps = n_chroma if bins_per_octave is None else bins_per_octave
        n_bins = n_octaves * steps
        bank = filters.cq_to_chroma(n_bins, steps, n_chroma, fmin=fmin, window=window)
        super().__init__(
            CQT(
                sample_rate,
                hop_length,
                fmin=fmin,
                n_bins=n_bins,
                bins_per_octave=steps,
                tuning=tuning,
                source=source,
            )
        )
        self.norm = None if norm is None else float(norm)
        self.threshold = threshold
        self.n_chroma = n_chroma
        self.register_buffer("bank", bank, persistent=False)

    def derive(self, cqt: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the chroma of a constant-Q transform `(batch, n_bins, frames)`."""
        chroma = _weighted_sum(self.bank, cqt)
        if self.threshold is not None:
            chroma = chroma.masked_fill(chroma < self.threshold, 0.0)
        return _normalize(chroma, self.norm)


class ChromaCENS(Feature):
    """Chroma of a constant-Q transform, quantised, smoothed and normalised: robust to dynamics.

    The share of each pitch class in its frame is counted in quarters: one for each of 0.4, 0.2, 0.1
    and 0.05 that it exceeds. Not differentiable, as these counts do not change a little.

    Args:
        sample_rate: Hz.
        hop_length: samples between frames.
        norm: each frame's norm, above 0; `None` = not normalised.
        win_len_smooth: frames over which counts are averaged; `None` = not at all.
        smoothing_window: name of the average's window, for `scipy.signal.get_window`.
        chroma: further settings of `ChromaCQT`: `fmin tuning n_chroma n_octaves bins_per_octave
            cqt_mode window source`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_chroma, frames)`, as `ChromaCQT`.

    Raises:
        ParameterError: `win_len_smooth` not positive, an unknown window, and as `ChromaCQT`.

    Reference:
        Müller and Ewert (2011), Chroma toolbox: MATLAB implementations for extracting variants of
        chroma-based audio features. Same values as `librosa.feature.chroma_cens`.

    Example:
        >>> ChromaCENS()(torch.zeros(22050)).shape
        torch.Size([12, 44])
    """

    passes_on_to = ChromaCQT
    weights: Tensor

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
        super().__init__(ChromaCQT(sample_rate, hop_length, norm=None, **chroma))
        check_positive(norm=norm, win_len_smooth=win_len_smooth)
        self.norm = None if norm is None else float(norm)
        taps = np.ones(1)
        if win_len_smooth is not None:
            # With the zeros at both ends that a symmetric window has.
            taps = filters.symmetric_window(smoothing_window, win_len_smooth + 2)
            taps = taps / taps.sum()
        weights = torch.from_numpy(taps[::-1].copy()).reshape(1, 1, -1)
        self.register_buffer("weights", weights, persistent=False)

    def derive(self, chroma: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the smoothed counts of a chromagram `(batch, n_chroma, frames)`."""
        share = _normalize(chroma.detach(), 1.0)
        counts = torch.zeros_like(share)
        for step in [0.4, 0.2, 0.1, 0.05]:
            counts = counts + 0.25 * (share > step).to(share.dtype)
        counts = torch.where(share.isnan(), share, counts)
        rows = counts.flatten(0, 1).unsqueeze(1)
        before = (self.weights.shape[2] - 1) // 2
        rows = pad(rows, [before, self.weights.shape[2] - 1 - before])
        smooth = conv1d(rows, self.weights.to(rows.dtype)).reshape(counts.shape)
        if lengths is not None:
            smooth = mask_frames(smooth, self.frame_counts(lengths))
        return _normalize(smooth, self.norm)


class Tonnetz(Feature):
    """Tonal centroids: chroma on the circles of fifths, minor thirds and major thirds.

    Each circle gives two rows, sine and cosine; that of the major thirds has half the radius.
    Differentiable as `ChromaCQT` is.

    Args:
        sample_rate: Hz.
        hop_length: samples between frames.
        chroma: further settings of `ChromaCQT`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 6, frames)`, frames as those of `ChromaCQT`; past a clip's own they are 0.

    Raises:
        ParameterError: as `ChromaCQT`.

    Reference:
        Harte, Sandler and Gasser (2006), Detecting harmonic change in musical audio. Same values as
        `librosa.feature.tonnetz`.

    Example:
        >>> Tonnetz()(torch.zeros(22050)).shape
        torch.Size([6, 44])
    """

    passes_on_to = ChromaCQT
    basis: Tensor

    def __init__(self, sample_rate: int = 22050, hop_length: int = 512, **chroma: Any) -> None:
        super().__init__(ChromaCQT(sample_rate, hop_length, **chroma))
        semitones = np.linspace(0.0, 12.0, self.source.n_chroma, endpoint=False)
        # Semitones to half turns: a fifth has seven semitones, and 7 / 6 turn the circle of fifths
        # seven times in twelve.
        half_turns = np.array([7 / 6, 7 / 6, 3 / 2, 3 / 2, 2 / 3, 2 / 3])[:, None] * semitones
        half_turns[::2] -= 0.5
        radius = np.array([1.0, 1.0, 1.0, 1.0, 0.5, 0.5])[:, None]
        basis = torch.from_numpy(radius * np.cos(np.pi * half_turns))
        self.register_buffer("basis", basis, persistent=False)

    def derive(self, chroma: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the centroids of a chromagram `(batch, n_chroma, frames)`."""
        return _weighted_sum(self.basis, _normalize(chroma, 1.0))


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


def _weighted_sum(weights: Tensor, feature: Tensor) -> Tensor:
    """Multiply matrices in float64: in float32 the order of a sum, and so a clip's padding, shows.

    Shape:
        - Input: `(rows, n)` or `(batch, rows, n)`, and `(batch, n, frames)`
        - Output: `(batch, rows, frames)`
    """
    return torch.matmul(weights.double(), feature.double()).to(feature.dtype)


def _normalize(chroma: Tensor, norm: Optional[float]) -> Tensor:
    """Divide each frame by its norm, or by 1 where that is no normal number, as in silence."""
    if norm is None:
        return chroma
    if norm == float("inf"):
        length = chroma.abs().amax(dim=-2, keepdim=True)
    else:
        # In float64, as librosa has it. A root's slope at 0 is infinite: there the length is 1.
        total = chroma.abs().double().pow(norm).sum(dim=-2, keepdim=True)
        length = torch.where(total == 0.0, 1.0, total).pow(1.0 / norm)
    smallest = 1.1754943508222875e-38 if chroma.dtype == torch.float32 else 2.2250738585072014e-308
    return chroma / torch.where(length < smallest, 1.0, length).to(chroma.dtype)
