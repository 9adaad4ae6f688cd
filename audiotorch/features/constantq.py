"""Constant-Q and variable-Q transforms: spectra whose bins are notes."""

from collections.abc import Sequence
from typing import Any, List, Optional

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from audiotorch.audio.frames import pad_ends
from audiotorch.errors import ParameterError
from audiotorch.features.decimate import Decimate
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import mask_frames, safe_sqrt
from audiotorch.features.octaves import OctaveBank, Plan, Settings, plan
from audiotorch.features.tuning import Tuning
from audiotorch.features.wavelets import C1_HZ, frequencies_of

__all__ = ["CQT", "VQT"]


class VQT(Feature):
    """Magnitudes of a variable-Q transform.

    Bin `k` is centred on `f_k` Hz, with `bins_per_octave` bins to the octave, and its bandwidth is
    `alpha_k f_k + gamma`, where `alpha_k` follows from the neighbours' distance. The highest octave
    is filtered at the sample rate given, each one below after another halving of it. Frame `t` is
    centred on sample `t * hop_length`. Differentiable but for silent bins, where the gradient is
    0, and for `tuning=None`, whose estimate counts as constant.

    Args:
        sample_rate: Hz.
        hop_length: samples between frames. If it can be halved once for each octave but the first,
            all octaves are filtered alike.
        fmin: centre of the lowest bin, Hz, before tuning; `None` = the note C1, 32.7 Hz.
        n_bins: number of bins.
        intervals: `"equal"`, or the steps of an octave as ratios in [1, 2).
        gamma: offset of the bandwidths, Hz; `None` makes them a fixed share of the ear's.
        bins_per_octave: steps of an octave; `intervals` given as ratios take its place.
        tuning: deviation from the concert pitch in bins; `None` = each clip's own, as `Tuning`
            estimates it.
        filter_scale: below 1 for shorter filters, finer in time and coarser in frequency.
        norm: norm of the filters, above 0; `None` = not normalised.
        sparsity: share of each filter's spectrum that is left out, in [0, 1).
        window: name of the filters' window, for `scipy.signal.get_window`.
        scale: divide by the root of the filters' lengths.
        pad_mode: `"constant"` (zeros), `"reflect"` or `"edge"`.
        source: the stage that gives the waveform; `None` = what is given.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_bins, frames)`, as many frames as the highest octave has: `1 + time //
          hop_length`; where `sample_rate` is over four times the highest filter's end, halvings
          before that may round this up. Frames past a clip's own are 0.

    Raises:
        ParameterError: a setting out of range, or filters that reach above half the sample rate.

    Reference:
        Schörkhuber, Klapuri, Holighaus and Dörfler (2014), A Matlab toolbox for efficient perfect
        reconstruction time-frequency transforms with log-frequency resolution. Same values as
        `numpy.abs(librosa.vqt(y))`.

    Example:
        >>> VQT()(torch.zeros(22050)).shape
        torch.Size([84, 44])
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        hop_length: int = 512,
        *,
        fmin: float | None = None,
        n_bins: int = 84,
        intervals: str | Sequence[float] = "equal",
        gamma: float | None = None,
        bins_per_octave: int = 12,
        tuning: float | None = 0.0,
        filter_scale: float = 1.0,
        norm: float | None = 1.0,
        sparsity: float = 0.01,
        window: str = "hann",
        scale: bool = True,
        pad_mode: str = "constant",
        source: nn.Module | None = None,
    ) -> None:
        super().__init__(source)
        check_positive(sample_rate=sample_rate, hop_length=hop_length, norm=norm)
        check_positive(filter_scale=filter_scale)
        _check_ranges(gamma, sparsity, pad_mode)
        if not isinstance(intervals, str):
            bins_per_octave, intervals = len(intervals), tuple(intervals)
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.n_bins = n_bins
        self.bins_per_octave = bins_per_octave
        self.pad_mode = pad_mode
        # Not annotated in the class: TorchScript would take these for the modules' types.
        self.tuner: Any = None
        if tuning is None:
            self.tuner = Tuning(sample_rate, bins_per_octave=bins_per_octave)
            tunings = self.tuner.histogram.edges[:-1].tolist()
        else:
            tunings = [tuning]
        fmin = C1_HZ if fmin is None else fmin
        frequencies = frequencies_of(n_bins, fmin, bins_per_octave, intervals)
        settings = Settings(
            sample_rate,
            hop_length,
            tuple(frequencies),
            bins_per_octave,
            tuple(tunings),
            filter_scale,
            gamma,
            norm,
            sparsity,
            window,
            scale,
        )
        self._lay_out(plan(settings), scale)

    def _lay_out(self, plan: Plan, scale: bool) -> None:
        self.factor = plan.factor
        self.hop_lengths = list(plan.hop_lengths)
        self.halved = list(plan.halved)
        # Where lengths do not count, a filter's output grows with the rate it runs at.
        exponent = 0.5 if scale else 1.0
        self.early: Any = None
        if plan.factor > 1:
            self.early = Decimate(plan.factor, gain=plan.factor**exponent)
        self.halve = Decimate(2, gain=2.0**exponent)
        self.banks: Any = nn.ModuleList([OctaveBank(bank) for bank in plan.banks])

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths have.

        Args:
            lengths: int64, samples.

        Shape:
            - Input: any
            - Output: as the input.
        """
        shortened = torch.div(lengths + (self.factor - 1), self.factor, rounding_mode="floor")
        return 1 + torch.div(shortened, self.hop_lengths[0], rounding_mode="floor")

    def derive(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the transform of waveforms `(batch, time)`."""
        if waveform.shape[-1] < 1:
            raise ParameterError("waveform: has 0 samples, needs at least 1; pad it")
        tuning: Optional[Tensor] = None
        if self.tuner is not None:
            tuning = self.tuner.index(waveform, lengths)
        signal, ends = waveform, lengths
        if self.early is not None:
            signal, ends = self.early(signal, ends)
        n_frames = 1 + signal.shape[-1] // self.hop_lengths[0]
        parts: List[Tensor] = []
        for bank in self.banks:
            matrix = bank.choose(tuning, waveform.dtype)
            for _ in range(bank.n_octaves):
                octave = len(parts)
                if self.halved[octave]:
                    signal, ends = self.halve(signal, ends)
                padded = self._padded(signal, ends, bank.n_fft // 2)
                parts.append(bank(padded, self.hop_lengths[octave], n_frames, matrix))
        parts.reverse()
        answer = _magnitude(torch.cat(parts, dim=-1)).transpose(1, 2)
        return answer if lengths is None else mask_frames(answer, self.frame_counts(lengths))

    def _padded(self, signal: Tensor, lengths: Optional[Tensor], size: int) -> Tensor:
        if self.pad_mode == "constant":
            return pad(signal, [size, size])
        return pad_ends(signal, lengths, size, self.pad_mode)


class CQT(VQT):
    """Magnitudes of a constant-Q transform: all filters have the same number of cycles.

    Bin `k` is centred on `fmin 2^(k / bins_per_octave)` Hz; the rest is as in `VQT`, with `gamma=0`
    and `intervals="equal"`.

    Args:
        sample_rate: Hz.
        hop_length: samples between frames.
        settings: further settings of `VQT`: `fmin n_bins bins_per_octave tuning filter_scale norm
            sparsity window scale pad_mode source`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_bins, frames)`, as `VQT`.

    Raises:
        ParameterError: as `VQT`.

    Reference:
        Schörkhuber and Klapuri (2010), Constant-Q transform toolbox for music processing. Same
        values as `numpy.abs(librosa.cqt(y))`.

    Example:
        >>> CQT(n_bins=48)(torch.zeros(2, 22050)).shape
        torch.Size([2, 48, 44])
    """

    passes_on_to = VQT

    def __init__(self, sample_rate: int = 22050, hop_length: int = 512, **settings: Any) -> None:
        for name in {"gamma", "intervals"} & settings.keys():
            raise ParameterError(f"{name}={settings[name]}: is a setting of VQT, not of CQT")
        super().__init__(sample_rate, hop_length, gamma=0.0, intervals="equal", **settings)


def _check_ranges(gamma: float | None, sparsity: float, pad_mode: str) -> None:
    if gamma is not None and gamma < 0:
        raise ParameterError(f"gamma={gamma}: must be at least 0, or None")
    if not 0 <= sparsity < 1:
        raise ParameterError(f"sparsity={sparsity}: must lie in [0, 1)")
    if pad_mode not in ("constant", "reflect", "edge"):
        raise ParameterError(f"pad_mode={pad_mode!r}: must be 'constant', 'reflect' or 'edge'")


def _magnitude(parts: Tensor) -> Tensor:
    """Return the root of the squares' sum over the axis before the last; without slope at 0."""
    real, imaginary = parts[..., 0, :], parts[..., 1, :]
    if not parts.requires_grad:
        # Squares would vanish below 1e-19, which chroma of a fading clip still shows.
        return torch.hypot(real, imaginary)
    return safe_sqrt(real.square() + imaginary.square())
