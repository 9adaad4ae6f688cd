"""Beats: the path through the onset strength that fits the tempo and the onsets best."""

import math
from typing import Any, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from audiotorch.audio.chunks import Walker, walks
from audiotorch.audio.frames import length_mask
from audiotorch.errors import ParameterError
from audiotorch.features.feature import check_positive
from audiotorch.features.functional import check_waveform
from audiotorch.features.onset import OnsetStrength
from audiotorch.features.rhythm import Tempo

__all__ = ["BeatTracker"]


class BeatTracker(Walker):
    """Where the beats of a piece of music are, and how many there are in a minute.

    With one tempo for the whole clip, of all series of frames that one is taken whose sum of

        local_score[t] - tightness * log((t - previous) / period) ** 2

    is greatest: `local_score` is the onset strength in units of its
    standard deviation, smoothed, and a beat's predecessor lies half a period to two periods before
    it. Weak beats at both ends are dropped. A clip without onsets has no beats and tempo 0; one
    that is not finite has no beats and tempo NaN.

    The search runs over frames one after the other, a few at a time, for all clips together, in
    float64. There is no gradient, and no `torch.export`; TorchScript runs it.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        start_bpm: the most likely tempo beforehand, beats per minute.
        tightness: how much a beat that is early or late costs.
        trim: drop beats at the ends below half the root mean square of the smoothed beats' scores;
            otherwise only those where there is no onset at all.
        bpm: the tempo, where it is known.
        aggregate: `"median"` or `"mean"` over the bands of the onset strength.
        onset: further settings of `OnsetStrength`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: beats `(..., frames)` bool, and tempo `(..., 1)`, beats per minute

    Raises:
        ParameterError: a number that is not positive, a `bpm` with several beats in a frame, and as
            `OnsetStrength`.

    Reference:
        Ellis (2007), Beat tracking by dynamic programming. Same values as
        `librosa.beat.beat_track`, whose list of frames is `beats.nonzero()`.

    Example:
        >>> beats, tempo = BeatTracker()(torch.zeros(2, 22050))
        >>> beats.shape, tempo.shape
        (torch.Size([2, 44]), torch.Size([2, 1]))
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        start_bpm: float = 120.0,
        tightness: float = 100.0,
        trim: bool = True,
        bpm: float | None = None,
        aggregate: str = "median",
        **onset: Any,
    ) -> None:
        super().__init__()
        check_positive(tightness=tightness, bpm=bpm)
        self.tempo = Tempo(sample_rate, n_fft, hop_length, start_bpm=start_bpm, **onset)
        self.tempo.source = OnsetStrength(
            sample_rate, n_fft, hop_length, aggregate=aggregate, **onset
        )
        # librosa takes this number in float32.
        self.tightness = float(np.float32(tightness))
        self.trim = trim
        self.bpm = 0.0 if bpm is None else float(bpm)
        self.minute = sample_rate / hop_length * 60.0
        if bpm is None:
            self.max_period = self.tempo.win_length - 1
            min_period = max(self.tempo.min_lag, 1)
        else:
            self.max_period = min_period = round(self.minute / bpm)
            if min_period < 1:
                raise ParameterError(
                    f"bpm={bpm}: must be below {2 * self.minute:.6g}, or beats share a frame"
                )
        # So many frames cannot be each other's predecessors.
        self.block = max(round(min_period / 2), 1)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        counts: Tensor = self.tempo.frame_counts(lengths)
        return counts

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Return beats and tempo; shapes and errors as in the class docstring."""
        check_waveform(waveform, lengths)
        rows = waveform.detach().unsqueeze(0).flatten(0, -2)
        row_lengths = None if lengths is None else lengths.reshape(-1)
        onset, tempo = self._measure(rows, row_lengths)
        beats, tempo = self._search(onset, tempo, row_lengths)
        leading = waveform.shape[:-1]
        return beats.reshape(leading + beats.shape[1:]), tempo.reshape(leading + tempo.shape[1:])

    def _measure(self, waveform: Tensor, lengths: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """Return onset strength and its tempo, walked in chunks where that is quicker."""
        if not torch.jit.is_scripting():
            if walks(waveform):
                answer: Tuple[Tensor, Tensor] = self._walk(waveform, lengths)
                return answer
        return self.compute(waveform, lengths)

    def compute(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Return onset strength and tempo of `(batch, time)` at once, without chunks."""
        onset: Tensor = self.tempo.source.compute(waveform, lengths)
        if self.bpm > 0:
            return onset, torch.full_like(onset[:, 0, :1], self.bpm)
        tempo: Tensor = self.tempo.derive(onset, lengths)
        return onset, tempo

    def _search(
        self, onset: Tensor, tempo: Tensor, lengths: Optional[Tensor]
    ) -> Tuple[Tensor, Tensor]:
        """Return beats and the tempo, once more, of onset strengths `(batch, 1, frames)`."""
        curve = onset.squeeze(1).double()
        n_frames = curve.shape[-1]
        counts = torch.full_like(curve[:, 0], n_frames).long()
        if lengths is not None:
            counts = self.frame_counts(lengths)
        sounding = (curve != 0).any(dim=-1, keepdim=True)
        finite = curve.isfinite().all(dim=-1, keepdim=True)
        tempo = tempo.masked_fill(~sounding, 0.0).masked_fill(~finite, math.nan)
        known = sounding & finite
        curve = curve.masked_fill(~known, 0.0)
        period = (self.minute / tempo.double().masked_fill(~known, self.minute)).round()
        if self.bpm > 0:
            period = torch.full_like(period, self.max_period)
        inside = length_mask(counts, n_frames)
        score = _local_score(curve, counts, period, self.max_period).masked_fill(~inside, 0.0)
        total, previous = _track(score, period, self.tightness, self.max_period, self.block)
        beats = _follow(previous, _last_beat(total, counts), self.block)
        return _trim(score, beats & inside, counts, self.trim) & known, tempo


def _local_score(onset: Tensor, counts: Tensor, period: Tensor, max_period: int) -> Tensor:
    """Return the onset strength in standard deviations, smoothed by each clip's own Gaussian.

    Args:
        onset: zero past each clip's own frames.
        counts: int64, frames of each clip.
        period: frames between beats, whole numbers up to `max_period`.
        max_period: bound of the Gaussian's support, which ends at the clip's period.

    Shape:
        - Input: `(batch, frames)`, `(batch,)`, `(batch, 1)`
        - Output: `(batch, frames)`
    """
    count = counts.unsqueeze(-1).to(onset.dtype)
    deviation = onset - onset.sum(dim=-1, keepdim=True) / count
    deviation = deviation.masked_fill(~length_mask(counts, onset.shape[-1]), 0.0)
    variance = deviation.square().sum(dim=-1, keepdim=True) / (count - 1).clamp(min=1)
    spread = variance.sqrt()
    onset = onset / spread.masked_fill(spread == 0, 1.0)
    offset = torch.arange(-max_period, max_period + 1, dtype=onset.dtype, device=onset.device)
    # A Gaussian whose standard deviation is 1/32 of a beat.
    kernel = torch.exp(-0.5 * (offset * 32.0 / period).square())
    kernel = kernel.masked_fill(offset.abs() > period, 0.0)
    # No FFT: where there is no onset, its rounding would pass for a weak one.
    score = torch.nn.functional.conv1d(
        onset.unsqueeze(0), kernel.unsqueeze(1), padding=max_period, groups=onset.shape[0]
    )
    return score.squeeze(0)


def _track(
    score: Tensor, period: Tensor, tightness: float, max_period: int, block: int
) -> Tuple[Tensor, Tensor]:
    """Return the best sum of scores that ends at each frame, and the beat before, -1 for none.

    Args:
        score: local scores.
        period: frames between beats, whole numbers up to `max_period`.
        tightness: cost of a beat that is early or late.
        max_period: bound of all periods.
        block: frames searched at once, fewer than lie between any two beats.

    Shape:
        - Input: `(batch, frames)` and `(batch, 1)`
        - Output: `(batch, frames)` twice, the second int64
    """
    n_frames = score.shape[-1]
    n_blocks = -(-n_frames // block)
    size = n_blocks * block
    distance = torch.arange(1, 2 * max_period + 1, dtype=score.dtype, device=score.device)
    # In librosa halves are rounded to even too.
    nearest = (period / 2).round().clamp(min=1)
    cost = -tightness * (distance.log() - period.log()).square()
    cost = cost.masked_fill((distance < nearest) | (distance > 2 * period), -math.inf).unsqueeze(1)
    # Time runs backwards here: of equal predecessors the first found is then the nearest. What lies
    # before the first frame is no predecessor.
    own = torch.nn.functional.pad(score, (0, size - n_frames)).flip(-1)
    total = score.new_full((score.shape[0], size + 2 * max_period), -math.inf)
    found = torch.zeros_like(own, dtype=torch.long)
    for step in range(n_blocks):
        end = size - step * block
        candidates = total[:, end - block + 1 : end + 2 * max_period]
        best, index = (candidates.unfold(-1, 2 * max_period, 1) + cost).max(dim=-1)
        total[:, end - block : end] = own[:, end - block : end] + best.nan_to_num(neginf=0.0)
        found[:, end - block : end] = index
    total = total[:, :size].flip(-1)[:, :n_frames]
    frame = torch.arange(n_frames, device=score.device)
    previous = frame - 1 - found.flip(-1)[:, :n_frames]
    # Before the first score of one hundredth of the greatest, none has a predecessor.
    strong = score >= 0.01 * score.amax(dim=-1, keepdim=True)
    first = (frame < nearest) | (strong.cumsum(dim=-1) == 0)
    return total, previous.masked_fill(first, -1)


def _last_beat(total: Tensor, counts: Tensor) -> Tensor:
    """Return the last peak of the sums that reaches half of the peaks' median; else the last frame.

    Args:
        total: best sum of scores that ends at each frame.
        counts: int64, frames of each clip.

    Shape:
        - Input: `(batch, frames)` and `(batch,)`
        - Output: `(batch, 1)`, int64
    """
    frame = torch.arange(total.shape[-1], device=total.device)
    last = counts.unsqueeze(-1) - 1
    before = torch.nn.functional.pad(total, (1, 0), value=math.inf)[:, :-1]
    after = torch.nn.functional.pad(total, (0, 1))[:, 1:]
    peak = (total > before) & ((total >= after) | (frame == last)) & (frame <= last)
    n_peaks = peak.sum(dim=-1, keepdim=True)
    sums = total.masked_fill(~peak, math.inf).sort(dim=-1)[0]
    low = sums.gather(-1, ((n_peaks - 1) // 2).clamp(min=0))
    median = (low + sums.gather(-1, (n_peaks // 2).clamp(max=total.shape[-1] - 1))) / 2
    position = frame.expand_as(total).masked_fill(~(peak & (total >= median / 2)), -1)
    tail = position.amax(dim=-1, keepdim=True)
    return torch.where(tail < 0, last, tail)


def _follow(previous: Tensor, tail: Tensor, block: int) -> Tensor:
    """Return True at the last beat and at all beats before it.

    Args:
        previous: int64, the beat before each frame, -1 for none.
        tail: int64, the last beat.
        block: least distance of two beats, in frames.

    Shape:
        - Input: `(batch, frames)` and `(batch, 1)`
        - Output: `(batch, frames)`, bool
    """
    n_frames = previous.shape[-1]
    # Frame `n_frames` stands for none, and leads to itself.
    leap = previous.masked_fill(previous < 0, n_frames)
    leap = torch.nn.functional.pad(leap, (0, 1), value=float(n_frames))
    beats = torch.zeros_like(leap).scatter(-1, tail, 1)
    # Leaps of 1, 2, 4, ... beats: each time as many more beats are known.
    reached = 1
    while reached <= n_frames // block + 1:
        further = torch.zeros_like(beats).scatter_add(-1, leap, beats)
        beats = (beats + further).clamp(max=1)
        leap = leap.gather(-1, leap)
        reached = 2 * reached
    return beats[:, :n_frames] > 0


def _trim(score: Tensor, beats: Tensor, counts: Tensor, trim: bool) -> Tensor:
    """Return the beats without the weak ones at the ends: see `BeatTracker`.

    Args:
        score: local scores, zero past each clip's own frames.
        beats: True at beats.
        counts: int64, frames of each clip.
        trim: whether a beat must have more than a score above 0.

    Shape:
        - Input: `(batch, frames)` twice, and `(batch,)`
        - Output: `(batch, frames)`, bool
    """
    n_frames = score.shape[-1]
    threshold = torch.zeros_like(score[:, :1])
    if trim:
        # The beats' scores one after the other, in front of a place for all that is no beat.
        rank = torch.where(beats, beats.cumsum(dim=-1) - 1, n_frames + 2)
        scores = score.new_zeros((score.shape[0], n_frames + 3)).scatter(-1, rank, score)
        scores = scores[:, : n_frames + 2]
        around = torch.nn.functional.pad(scores, (1, 1))
        smooth = scores + 0.5 * (around[:, :-2] + around[:, 2:])
        # librosa's smoothed series runs two beats past the last, unless the clip is over.
        n_values = torch.minimum(beats.sum(dim=-1) + 2, counts).unsqueeze(-1)
        past = ~length_mask(n_values.squeeze(-1), n_frames + 2)
        power = smooth.masked_fill(past, 0.0).square().sum(dim=-1, keepdim=True) / n_values
        threshold = 0.5 * power.sqrt()
    strong = score > threshold
    return beats & (strong.cumsum(dim=-1) > 0) & (strong.flip(-1).cumsum(dim=-1).flip(-1) > 0)
