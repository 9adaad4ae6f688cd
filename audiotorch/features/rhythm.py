"""Onset strength, its local autocorrelation, and the tempo that this shows."""

import math
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.features import filters
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import length_mask, mask_frames, pad_ends, power_to_db
from audiotorch.features.spectrogram import MelSpectrogram

__all__ = ["OnsetStrength", "Tempo", "Tempogram"]


class OnsetStrength(Feature):
    """How much louder the mel bands are than shortly before: the curve that peaks at onsets.

    `mean_f max(0, S[f, t] - R[f, t - lag])`, `S` the mel spectrogram in dB, floored 80 dB below the
    clip's own maximum, and `R` its greatest value over `max_size` neighbouring bands. The curve is
    delayed by `lag` frames and, when centred, by `n_fft // (2 * hop_length)` more: its first
    frames are 0, and what would lie past the clip's last frame is dropped.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        lag: frames between the two spectra that are compared.
        max_size: mel bands whose greatest value is the reference; more than 1 suppresses vibrato.
        detrend: take out the mean level, by the filter `(1 - 1/z) / (1 - 0.99/z)`.
        aggregate: `"mean"` or `"median"` over the bands.
        center: delay the curve by half a window; the spectrogram itself is always centred.
        mel: further settings of `MelSpectrogram`, such as `n_mels`, `fmax`, `window`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., 1, frames)`, dB; frames past a clip's own are 0.

    Raises:
        ParameterError: `lag` or `max_size` below 1, another `aggregate`, and as `MelSpectrogram`.

    Reference:
        Böck and Widmer (2013), Maximum filter vibrato suppression for onset detection. Same values
        as `librosa.onset.onset_strength`.

    Example:
        >>> OnsetStrength()(torch.zeros(2, 22050)).shape
        torch.Size([2, 1, 44])
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        lag: int = 1,
        max_size: int = 1,
        detrend: bool = False,
        aggregate: str = "mean",
        center: bool = True,
        **mel: Any,
    ) -> None:
        super().__init__(MelSpectrogram(sample_rate, n_fft, hop_length, **mel))
        check_positive(lag=lag, max_size=max_size)
        if aggregate not in ("mean", "median"):
            raise ParameterError(f"aggregate={aggregate!r}: must be 'mean' or 'median'")
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.lag = lag
        self.max_size = max_size
        self.detrend = detrend
        self.aggregate = aggregate
        self.delay = lag + (n_fft // (2 * hop_length) if center else 0)

    def derive(self, mel_specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the onset strength of a mel spectrogram `(batch, n_mels, frames)`."""
        n_frames = mel_specgram.shape[-1]
        db = power_to_db(mel_specgram)
        earlier = db if self.max_size == 1 else _band_maximum(db, self.max_size)
        rise = torch.relu(db[..., self.lag :] - earlier[..., : -self.lag])
        if self.aggregate == "median":
            onset = _median_band(rise)
        else:
            onset = rise.mean(dim=-2, keepdim=True)
        onset = torch.nn.functional.pad(onset, (self.delay, 0))[..., :n_frames]
        if self.detrend:
            onset = _detrend(onset)
        # Of a clip so short that nothing but the delay is left, too: no number where there is none.
        onset = onset.masked_fill(~db[:, :1, :1].isfinite(), math.nan)
        return onset if lengths is None else mask_frames(onset, self.frame_counts(lengths))


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
        windows = _windows(onset.squeeze(1), counts, self.window, self.win_length, self.center)
        rows = _autocorrelation(windows, self.win_length)
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
        windows = _windows(curve, counts, self.window, self.win_length, True)
        if self.per_frame:
            rows = _autocorrelation(windows, self.win_length)
            tempo = self._likeliest(rows / _frame_norm(rows, math.inf)).unsqueeze(1)
            tempo = mask_frames(tempo, counts)
        else:
            mean = _mean_autocorrelation(windows, counts, self.win_length)
            tempo = self._likeliest(mean).unsqueeze(1)
        return tempo.to(onset.dtype)

    def _likeliest(self, similarity: Tensor) -> Tensor:
        """Return the tempo at the likeliest lag of `(..., lags)`, NaN where nothing is known."""
        score = torch.log1p(1e6 * similarity) + self.log_prior.double()
        tempo = self.bpm.double()[score.argmax(dim=-1)]
        return tempo.masked_fill(similarity[..., 0].isnan(), math.nan)


def _band_maximum(db: Tensor, size: int) -> Tensor:
    """Return the greatest value of `size` bands around each of `(batch, bands, frames)`."""
    bands = db.transpose(-1, -2)
    # Past the lowest and the highest band nothing is greater.
    bands = torch.nn.functional.pad(bands, (size // 2, (size - 1) // 2), value=-math.inf)
    return torch.nn.functional.max_pool1d(bands, size, stride=1).transpose(-1, -2)


def _median_band(rise: Tensor) -> Tensor:
    """Return the median over the bands of `(batch, bands, frames)`; of an even count the mean."""
    n_bands = rise.shape[-2]
    # The upper half of the bands, and of these the least one or two: quicker than two `kthvalue`.
    upper = rise.transpose(-1, -2).contiguous().topk(n_bands // 2 + 1, sorted=False)[0]
    middle = upper.topk(2 - n_bands % 2, largest=False, sorted=False)[0]
    return middle.mean(dim=-1).unsqueeze(-2)


def _detrend(onset: Tensor, pole: float = 0.99) -> Tensor:
    """Filter by `(1 - 1/z) / (1 - pole/z)`: take off what a leaky sum of the past has gathered."""
    n_frames = onset.shape[-1]
    memory = onset.double()
    # The leaky sum over 1, 2, 4, ... frames: 0.99 ** 4096 is below float64's rounding.
    for doubling in range(12):
        shift = 1 << doubling
        earlier = torch.nn.functional.pad(memory, (shift, 0))[..., :n_frames]
        memory = memory + pole**shift * earlier
    before = torch.nn.functional.pad(memory, (1, 0))[..., :n_frames]
    return (memory - before).to(onset.dtype)


def _padded_window(name: str, win_length: int) -> Tensor:
    """Return a window, and zeros up to a quick FFT size that lags of a whole window fit in."""
    taps = filters.window(name, win_length, win_length)
    # Sizes of factors 2 and 3 are quicker than those that scipy alone finds.
    sizes = [2**i * 3**j for i in range(32) for j in range(2)]
    n_fft = min(size for size in sizes if size >= 2 * win_length - 1)
    return torch.nn.functional.pad(taps, (0, n_fft - win_length))


def _windows(
    onset: Tensor, counts: Optional[Tensor], window: Tensor, win_length: int, center: bool
) -> Tensor:
    """Return the windowed stretch of the onset strength at each frame, padded for the FFT.

    Args:
        onset: zero past each clip's own frames.
        counts: int64, frames of each clip; `None` = all full.
        window: its first `win_length` values, and zeros behind them.
        win_length: frames of the window.
        center: centre the windows, with straight lines to 0 beyond both ends of the clip.

    Shape:
        - Input: `(batch, frames)` and `(batch,)`
        - Output: `(batch, frames, n_fft)`, `n_fft` the padded window's size.
    """
    n_frames = onset.shape[-1]
    if center:
        onset = _ramp_ends(onset, counts, win_length // 2)
    onset = torch.nn.functional.pad(onset, (0, window.shape[0]))
    return onset.unfold(-1, window.shape[0], 1)[:, :n_frames] * window.to(onset.dtype)


def _ramp_ends(onset: Tensor, counts: Optional[Tensor], size: int) -> Tensor:
    """Continue each clip on both sides by a line that reaches 0 after `size` frames."""
    n_frames = onset.shape[-1]
    position = torch.arange(-size, n_frames + size, device=onset.device)
    last = position.new_full((1,), n_frames - 1) if counts is None else counts - 1
    steps = torch.minimum(position, last.unsqueeze(-1) - position) + max(size, 1)
    weight = (steps.double() / max(size, 1)).clamp(min=0.0, max=1.0)
    return pad_ends(onset, counts, size, "edge") * weight.to(onset.dtype)


def _autocorrelation(windows: Tensor, n_lags: int) -> Tensor:
    """Return the autocorrelation of each window `(..., n_fft)`, the first `n_lags` lags."""
    spectrum = torch.fft.rfft(windows)
    return torch.fft.irfft(spectrum * spectrum.conj(), n=windows.shape[-1])[..., :n_lags]


def _frame_norm(rows: Tensor, norm: float) -> Tensor:
    """Return the norm over lags of autocorrelations `(..., lags)`, 1 where there is no onset."""
    if norm == math.inf:
        return _sound(rows[..., :1])  # no lag correlates more than none
    total = _sound(rows.double().abs().pow(norm).sum(dim=-1, keepdim=True))
    return total.pow(1.0 / norm).to(rows.dtype)


def _sound(divisor: Tensor, tiny: float = 2.2250738585072014e-308) -> Tensor:
    """Return 1 for divisors below float64's smallest normal number, as librosa does."""
    return divisor.masked_fill(divisor.double() < tiny, 1.0)


def _mean_autocorrelation(windows: Tensor, counts: Optional[Tensor], n_lags: int) -> Tensor:
    """Return the mean over a clip's own windows of their autocorrelations with a maximum of 1.

    The Fourier transform of a sum being the sum of the transforms, only one is inverted for each
    clip.

    Args:
        windows: as `_windows` gives them.
        counts: int64, windows of each clip; `None` = all full.
        n_lags: lags kept.

    Shape:
        - Input: `(batch, windows, n_fft)` and `(batch,)`
        - Output: `(batch, n_lags)`
    """
    n_windows = windows.shape[1]
    energy = torch.linalg.vector_norm(windows, dim=-1).square()
    weight = _sound(energy).reciprocal()
    total = torch.full_like(energy[:, :1], n_windows)
    if counts is not None:
        weight = weight.masked_fill(~length_mask(counts, n_windows), 0.0)
        total = counts.unsqueeze(-1).to(energy.dtype)
    parts = torch.view_as_real(torch.fft.rfft(windows)).flatten(-2).square()
    power = torch.matmul((weight / total).unsqueeze(1), parts).squeeze(1)
    power = power.unflatten(-1, (windows.shape[-1] // 2 + 1, 2)).sum(dim=-1)
    return torch.fft.irfft(power, n=windows.shape[-1])[:, :n_lags]
