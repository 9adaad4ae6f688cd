"""The onset strength's local autocorrelation, and the tempo that it shows."""

import math
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from audiotorch.audio.frames import is_plain_cpu, length_mask, pad_ends
from audiotorch.errors import ParameterError
from audiotorch.features import filters
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import mask_frames
from audiotorch.features.onset import OnsetStrength

__all__ = ["Tempo", "Tempogram"]

# Windows transformed at a time: more in float64 would overflow the cache.
PIECE = 128


class Tempogram(Feature):
    """Autocorrelation of the onset strength in a window around each frame.

    Row `k` compares the curve with itself `k` frames later: a beat of `b` per minute stands at
    `k = 60 * sample_rate / (hop_length * b)`. Before its first frame and after a clip's own last
    one the curve goes on as a straight line to 0, over half a window. Each frame is divided by its
    norm, where there is any onset in its window.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        win_length: frames of the window; 384 are 8.9 s at the defaults.
        center: centre the windows on their frames; otherwise they begin there, and only whole ones
            count.
        window: name of the window, for `scipy.signal.get_window`.
        norm: `inf` (greatest value), the exponent of another norm, or `None`.
        onset: further settings of `OnsetStrength`, such as `max_size` and `aggregate`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., win_length, frames)`, frames past a clip's own are 0.

    Raises:
        ParameterError: `win_length` below 1, an unknown window, a norm that is not positive, fewer
            frames than `win_length` without centring, and as `OnsetStrength`.

    Reference:
        Grosche, Müller and Kurth (2010), Cyclic tempogram: a mid-level tempo representation for
        music signals. Same values as `librosa.feature.tempogram`.

    Example:
        >>> Tempogram()(torch.zeros(2, 22050)).shape
        torch.Size([2, 384, 44])
    """

    passes_on_to = OnsetStrength
    window: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        win_length: int = 384,
        center: bool = True,
        window: str = "hann",
        norm: float | None = math.inf,
        **onset: Any,
    ) -> None:
        super().__init__(OnsetStrength(sample_rate, n_fft, hop_length, **onset))
        check_positive(win_length=win_length, norm=norm)
        self.sample_rate = sample_rate
        self.win_length = win_length
        self.center = center
        self.norm = 0.0 if norm is None else float(norm)
        self.register_buffer("window", _padded_window(window, win_length), persistent=False)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        counts: Tensor = self.source.frame_counts(lengths)
        return counts if self.center else (counts - self.win_length + 1).clamp(min=0)

    def derive(self, onset: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the tempogram of an onset strength `(batch, 1, frames)`."""
        if not self.center and onset.shape[-1] < self.win_length:
            raise ParameterError(
                f"waveform: has {onset.shape[-1]} frames, needs at least "
                f"win_length={self.win_length}; pad it"
            )
        counts = None if lengths is None else self.source.frame_counts(lengths)
        stretches = _stretches(
            onset.squeeze(1), counts, self.win_length, self.window.shape[0], self.center
        )
        rows = _autocorrelation(stretches, self.window, self.win_length)
        if not self.center:
            rows = rows[:, : onset.shape[-1] - self.win_length + 1]
        if self.norm > 0:
            rows = rows / _frame_norm(rows, self.norm)
        feature = rows.transpose(-1, -2)
        return feature if lengths is None else mask_frames(feature, self.frame_counts(lengths))


class Tempo(Feature):
    """Beats per minute: the lag at which the onset strength resembles itself most.

    The tempogram, each frame with a maximum of 1, is averaged over the clip's own frames; of
    `log(1 + 1e6 * mean) - ((log2(bpm) - log2(start_bpm)) / std_bpm) ** 2 / 2` the greatest value
    counts, and of equal ones that of the shortest lag. A silent clip's tempo is the one nearest to
    `start_bpm`. Piecewise constant: it has no gradient.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        start_bpm: the most likely tempo beforehand, beats per minute.
        std_bpm: spread of likely tempi around it, octaves.
        ac_size: seconds of the tempogram's window, at least two frames.
        max_tempo: answers lie below this, beats per minute; `None` = no limit.
        aggregate: `"mean"` for one tempo a clip, `None` for one of each frame.
        onset: further settings of `OnsetStrength`, but for its `aggregate`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1)`, or without aggregation `(..., 1, frames)`, where frames past a clip's
          own are 0.

    Raises:
        ParameterError: a number that is not positive, `ac_size` below two frames, another
            `aggregate`, and as `OnsetStrength`.

    Reference:
        Same values as `librosa.feature.tempo`.

    Example:
        >>> Tempo()(torch.zeros(3, 22050)).shape
        torch.Size([3, 1])
    """

    passes_on_to = OnsetStrength
    window: Tensor
    bpm: Tensor
    log_prior: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        start_bpm: float = 120.0,
        std_bpm: float = 1.0,
        ac_size: float = 8.0,
        max_tempo: float | None = 320.0,
        aggregate: str | None = "mean",
        **onset: Any,
    ) -> None:
        super().__init__(OnsetStrength(sample_rate, n_fft, hop_length, **onset))
        check_positive(start_bpm=start_bpm, std_bpm=std_bpm, ac_size=ac_size, max_tempo=max_tempo)
        if aggregate not in ("mean", None):
            raise ParameterError(f"aggregate={aggregate!r}: must be 'mean' or None")
        self.sample_rate = sample_rate
        self.win_length = int(ac_size * sample_rate) // hop_length
        if self.win_length < 2:
            shortest = 2 * hop_length / sample_rate
            raise ParameterError(
                f"ac_size={ac_size}: must be at least {shortest:.3g} s, two frames"
            )
        self.per_frame = aggregate is None
        with np.errstate(divide="ignore"):
            bpm = 60.0 * sample_rate / (hop_length * np.arange(float(self.win_length)))
        log_prior = -0.5 * ((np.log2(bpm) - np.log2(start_bpm)) / std_bpm) ** 2
        # Where all lags are at or above the limit, there is none.
        self.min_lag = 0 if max_tempo is None else int(np.argmax(bpm < max_tempo))
        log_prior[: self.min_lag] = -np.inf
        self.register_buffer("window", _padded_window("hann", self.win_length), persistent=False)
        self.register_buffer("bpm", torch.from_numpy(bpm), persistent=False)
        self.register_buffer("log_prior", torch.from_numpy(log_prior), persistent=False)

    def derive(self, onset: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the tempo of an onset strength `(batch, 1, frames)`."""
        counts = None if lengths is None else self.frame_counts(lengths)
        # In float64: at most lags of a clip with few onsets the truth is 0, and there the prior
        # decides between neighbours that differ by 1e-4 after the factor of 1e6.
        curve = onset.detach().squeeze(1).double()
        n_lags = self.win_length
        stretches = _stretches(curve, counts, n_lags, self.window.shape[0], True)
        if self.per_frame:
            rows = _autocorrelation(stretches, self.window, n_lags)
            tempo = self._likeliest(rows / _frame_norm(rows, math.inf)).unsqueeze(1)
            tempo = mask_frames(tempo, counts)
        else:
            mean = _mean_autocorrelation(stretches, counts, self.window, n_lags)
            tempo = self._likeliest(mean).unsqueeze(1)
        return tempo.to(onset.dtype)

    def _likeliest(self, similarity: Tensor) -> Tensor:
        """Return the tempo at the likeliest lag of `(..., lags)`, NaN where nothing is known."""
        score = torch.log1p(1e6 * similarity) + self.log_prior.double()
        tempo = self.bpm.double()[score.argmax(dim=-1)]
        return tempo.masked_fill(similarity[..., 0].isnan(), math.nan)


def _padded_window(name: str, win_length: int) -> Tensor:
    """Return a window, and zeros up to a quick FFT size that lags of a whole window fit in."""
    import scipy.fft

    taps = filters.window(name, win_length, win_length)
    n_fft = scipy.fft.next_fast_len(2 * win_length - 1, real=True)
    return torch.nn.functional.pad(taps, (0, n_fft - win_length))


def _stretches(
    onset: Tensor, counts: Optional[Tensor], win_length: int, n_fft: int, center: bool
) -> Tensor:
    """Return the stretch of the onset strength that the window at each frame sees, as a view.

    Args:
        onset: zero past each clip's own frames.
        counts: int64, frames of each clip; `None` = all full.
        win_length: frames of the window.
        n_fft: frames of a stretch; those past the window stand for zeros.
        center: centre the windows, with straight lines to 0 beyond both ends of the clip.

    Shape:
        - Input: `(batch, frames)` and `(batch,)`
        - Output: `(batch, frames, n_fft)`
    """
    n_frames = onset.shape[-1]
    if center:
        onset = _ramp_ends(onset, counts, win_length // 2)
    return torch.nn.functional.pad(onset, (0, n_fft)).unfold(-1, n_fft, 1)[:, :n_frames]


def _ramp_ends(onset: Tensor, counts: Optional[Tensor], size: int) -> Tensor:
    """Continue each clip on both sides by a line that reaches 0 after `size` frames."""
    n_frames = onset.shape[-1]
    position = torch.arange(-size, n_frames + size, device=onset.device)
    last = position.new_full((1,), n_frames - 1) if counts is None else counts - 1
    steps = torch.minimum(position, last.unsqueeze(-1) - position) + max(size, 1)
    weight = (steps.double() / max(size, 1)).clamp(min=0.0, max=1.0)
    return pad_ends(onset, counts, size, "edge") * weight.to(onset.dtype)


def _spectra(stretches: Tensor, window: Tensor) -> Tensor:
    """Return the Fourier transform of each stretch `(..., n_fft)` under the window."""
    # Copied first: of overlapping views torch would else lay a long clip's windows out crosswise.
    windows = stretches.clone(memory_format=torch.contiguous_format)
    return torch.fft.rfft(windows.mul_(window.to(stretches.dtype)))


def _autocorrelation(stretches: Tensor, window: Tensor, n_lags: int) -> Tensor:
    """Return the autocorrelation of each windowed stretch `(..., n_fft)`: `(..., n_lags)`."""
    spectra = _spectra(stretches, window)
    return torch.fft.irfft(spectra * spectra.conj(), n=stretches.shape[-1])[..., :n_lags]


def _frame_norm(rows: Tensor, norm: float) -> Tensor:
    """Return the norm over lags of autocorrelations `(..., lags)`, 1 where there is no onset."""
    if norm == math.inf:
        return _sound(rows[..., :1])  # no lag correlates more than none
    total = _sound(rows.double().abs().pow(norm).sum(dim=-1, keepdim=True))
    return total.pow(1.0 / norm).to(rows.dtype)


def _sound(divisor: Tensor, tiny: float = 2.2250738585072014e-308) -> Tensor:
    """Return 1 for divisors below float64's smallest normal number, as librosa does."""
    return divisor.masked_fill(divisor.double() < tiny, 1.0)


def _mean_autocorrelation(
    stretches: Tensor, counts: Optional[Tensor], window: Tensor, n_lags: int
) -> Tensor:
    """Return the mean over a clip's own windows of their autocorrelations with a maximum of 1.

    The Fourier transform of a sum being the sum of the transforms, only one is inverted for each
    clip.

    Args:
        stretches: as `_stretches` gives them, without a gradient.
        counts: int64, windows of each clip; `None` = all full.
        window: zero past its own length.
        n_lags: lags kept.

    Shape:
        - Input: `(batch, windows, n_fft)` and `(batch,)`
        - Output: `(batch, n_lags)`
    """
    n_windows, n_fft = stretches.shape[1], stretches.shape[2]
    if counts is None:
        counts = torch.full_like(stretches[:, 0, 0], n_windows, dtype=torch.long)
    share = counts.to(stretches.dtype).reciprocal().unsqueeze(-1).expand(-1, n_windows)
    share = share.masked_fill(~length_mask(counts, n_windows), 0.0)
    if not torch.jit.is_scripting():
        if is_plain_cpu(stretches):
            power: Tensor = _power_by_pieces(stretches, share, window)
            return torch.fft.irfft(power, n=n_fft)[:, :n_lags]
    return torch.fft.irfft(_power(stretches, share, window), n=n_fft)[:, :n_lags]


def _power(stretches: Tensor, share: Tensor, window: Tensor) -> Tensor:
    """Return the power spectra of windowed stretches of energy 1, summed by their shares.

    Args:
        stretches: as `_stretches` gives them, without a gradient.
        share: weight of each window.
        window: zero past its own length.

    Shape:
        - Input: `(batch, windows, n_fft)` and `(batch, windows)`
        - Output: `(batch, n_fft // 2 + 1)`
    """
    n_fft = stretches.shape[-1]
    power = torch.view_as_real(_spectra(stretches, window)).flatten(-2).square_()
    # Parseval: all bins stand for two, but for the first and, of an even size, the last.
    energy = 2 * power.sum(dim=-1) - power[..., 0]
    if n_fft % 2 == 0:
        energy = energy - power[..., -2]
    weight = share * (n_fft / _sound(energy))
    weighted = torch.matmul(weight.unsqueeze(1), power).squeeze(1)
    return weighted.unflatten(-1, (n_fft // 2 + 1, 2)).sum(dim=-1)


@torch.jit.unused
def _power_by_pieces(stretches: Tensor, share: Tensor, window: Tensor) -> Tensor:
    """Return what `_power` returns, some windows at a time."""
    batch, n_windows, n_fft = stretches.shape
    power = stretches.new_zeros(batch, n_fft // 2 + 1)
    step = max(1, PIECE // batch)
    for start in range(0, n_windows, step):
        part = (slice(None), slice(start, start + step))
        power += _power(stretches[part], share[part], window)
    return power
