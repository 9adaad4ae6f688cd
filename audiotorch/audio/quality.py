"""What is wrong with a recording: `check` for a waveform, `QualityMeter` for a stream of blocks."""

import copy
import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from audiotorch.audio.cliff import bandwidth, find_cliff
from audiotorch.audio.findings import Evidence, Finding, Quality, Thresholds, judge
from audiotorch.audio.measures import PIECE_FRAMES, Measures, Samples
from audiotorch.audio.preprocess import check_rate
from audiotorch.errors import ParameterError

__all__ = ["Finding", "Quality", "QualityMeter", "Thresholds", "check"]

_BEFORE_SECONDS = 0.006  # around a piece, so that a hole of half a second is seen whole
_AFTER_SECONDS = 0.51
_MARGIN = 32
_FEWEST_LEVELS = 10  # frames; fewer have no quietest tenth
_FEWEST_STEEP = 100  # samples
_EQUAL = 1e-4  # of the level: channels that differ by less, -80 dB, are one
_ROUNDING = 0.6 / 32768  # RMS of the difference that rounding to 16 bits makes
_LOUD_FOR_ROUNDING = 20 / 32768


def check(waveform: Tensor, sample_rate: int, **thresholds: float) -> Quality:
    """Measure a recording and find its faults.

    Findings are meant to be true: clean recordings that are quiet, dull, noisy by nature, 8-bit
    or end in silence have none. Clipping is found by flat peaks at whatever level, so also in
    what was turned down afterwards; after lossy coding or resampling, only near full scale.

    Args:
        waveform: float samples, full scale at 1.0; a NumPy array will do.
        sample_rate: Hz.
        **thresholds: fields of `audiotorch.audio.quality.Thresholds`, such as
            `min_duration=1.0` seconds.

    Shape:
        - waveform: `(time,)` or `(channel, time)`

    Raises:
        ParameterError: a wrong shape or type, or an unknown threshold.

    Example:
        >>> tone = 0.5 * torch.sin(torch.arange(8000) * 0.3)
        >>> check(tone, 8000).ok
        True
        >>> [finding.name for finding in check(tone.clamp(-0.3, 0.3)[:3000], 8000).findings]
        ['too_short', 'clipping']
    """
    samples = _as_samples(waveform)
    meter = QualityMeter(sample_rate, len(samples), **thresholds)
    meter.update(waveform)
    return meter.result()


class QualityMeter:
    """`check` for a recording that comes in consecutive blocks, at bounded memory.

    However the recording is cut into blocks, the result is the same.

    Args:
        sample_rate: Hz.
        n_channels: number of channels.
        **thresholds: as for `check`.

    Raises:
        ParameterError: an argument is out of range or unknown.

    Example:
        >>> meter = QualityMeter(8000, 2)
        >>> for _ in range(5):
        ...     meter.update(torch.zeros(2, 1000))
        >>> meter.result().duration_seconds
        0.625
    """

    def __init__(self, sample_rate: int, n_channels: int, **thresholds: float) -> None:
        self.sample_rate = check_rate("sample_rate", sample_rate)
        if isinstance(n_channels, bool) or not isinstance(n_channels, int) or n_channels < 1:
            raise ParameterError(f"n_channels={n_channels!r}: must be 1 or more")
        self.n_channels = n_channels
        known = {field.name for field in dataclasses.fields(Thresholds)}
        for name in thresholds:
            if name not in known:
                raise ParameterError(
                    f"{name}: no such threshold; known: {', '.join(sorted(known))}"
                )
        self.thresholds = Thresholds(**thresholds)
        self._measures = Measures(
            self.sample_rate, n_channels, self.thresholds.clip_level, self.thresholds.silence_db
        )
        self._piece = PIECE_FRAMES * self._measures.frame
        self._before = round(_BEFORE_SECONDS * self.sample_rate) + _MARGIN
        self._after = round(_AFTER_SECONDS * self.sample_rate) + _MARGIN
        self._past = np.zeros((n_channels, 0), np.float32)
        self._waiting: list[Samples] = []
        self._n_waiting = 0

    def update(self, block: Tensor) -> None:
        """Take in the next block.

        Args:
            block: `(channel, time)`, or `(time,)` of one channel; any length.

        Raises:
            ParameterError: another number of channels, or no float tensor.
        """
        samples = _as_samples(block)
        if len(samples) != self.n_channels:
            raise ParameterError(
                f"block of {len(samples)} channel(s): must have n_channels={self.n_channels}"
            )
        self._waiting.append(samples)
        self._n_waiting += samples.shape[1]
        if self._n_waiting >= self._piece + self._after:
            samples, self._past = self._take(self._measures, self._after)
            self._waiting, self._n_waiting = [samples], samples.shape[1]
        # A copy, so that the caller's block can go, and may be written over.
        self._waiting[-1] = samples.copy()

    def result(self) -> Quality:
        """Measures and findings of all blocks so far; more may follow."""
        measures = copy.deepcopy(self._measures)
        self._take(measures, 0)
        return _conclude(measures, self.thresholds)

    def _take(self, measures: Measures, ahead: int) -> tuple[Samples, Samples]:
        """Measure all pieces that have `ahead` samples after them; return what is left, and past.

        Pieces lie at fixed places of the recording, whatever the blocks: so results do not
        depend on these.
        """
        waiting = np.concatenate([self._past, *self._waiting], axis=1)
        at, end = self._past.shape[1], waiting.shape[1]
        while at < end and (ahead == 0 or at + self._piece + ahead <= end):
            stop = min(at + self._piece, end)
            measures.add(
                waiting[:, at:stop],
                before=waiting[:, max(0, at - self._before) : at],
                after=waiting[:, stop : stop + self._after],
            )
            at = stop
        return waiting[:, at:], waiting[:, max(0, at - self._before) : at].copy()


def _as_samples(waveform: Tensor) -> Samples:
    tensor = torch.as_tensor(waveform).detach()
    if tensor.dim() not in (1, 2) or not tensor.is_floating_point():
        raise ParameterError(
            f"waveform of shape {tuple(tensor.shape)} and {tensor.dtype}: must be a float tensor "
            "(time,) or (channel, time), full scale at 1.0"
        )
    if tensor.dim() == 2 and tensor.shape[0] == 0:
        raise ParameterError(f"waveform of shape {tuple(tensor.shape)}: must have a channel")
    samples: Samples = torch.atleast_2d(tensor).to("cpu", torch.float32).numpy()
    return samples


def _conclude(measures: Measures, thresholds: Thresholds) -> Quality:
    """The numbers of a recording from its sums."""
    rate, n_frames, n_channels = measures.sample_rate, measures.n_frames, len(measures.sums)
    n_finite = int(measures.n_finite.sum())
    power = np.diag(measures.products)
    mean_power = power.sum() / n_finite if n_finite else math.nan
    means = measures.sums / np.maximum(measures.n_finite, 1)
    dead, same, inverted = _compare_channels(measures, thresholds.dead_channel_db)
    heard = mean_power > 0 and measures.n_spectra > 0
    spectrum = measures.spectrum / max(1, measures.n_spectra)
    cliff = find_cliff(spectrum, rate, mean_power) if heard else None
    quality = Quality(
        sample_rate=rate,
        n_channels=n_channels,
        n_frames=n_frames,
        duration_seconds=n_frames / rate,
        peak=measures.peak if n_finite else math.nan,
        peak_db=_decibels(measures.peak**2) if n_finite else math.nan,
        rms_db=_decibels(mean_power),
        clipped_share=measures.n_clipped / n_finite if n_finite else math.nan,
        n_flat_tops=measures.n_flat_tops,
        longest_flat_top=measures.longest_flat_top,
        silence_share=_share(measures.n_silent, measures.n_levels),
        digital_silence_share=_share(measures.n_digital_silence, measures.n_levels),
        dc_offset=float(means[np.abs(means).argmax()]) if n_finite else math.nan,
        n_non_finite=measures.n_non_finite,
        dead_channels=dead,
        identical_channels=same,
        inverted_channels=inverted,
        snr_db=_snr(measures, mean_power),
        bandwidth_hz=bandwidth(spectrum, rate) if heard else math.nan,
        n_dropouts=measures.n_dropouts,
        dropout_seconds=tuple(at / rate for at in measures.dropouts),
    )
    evidence = Evidence(
        n_clipped_pairs=measures.n_clipped_pairs,
        n_near_full=measures.n_near_full,
        first_clipped=measures.first_clipped / rate,
        first_flat_top=measures.first_flat_top / rate,
        first_non_finite=measures.first_non_finite / rate,
        cliff_hz=cliff,
        straight_shares=_straight_shares(measures),
    )
    findings = judge(quality, evidence, thresholds)
    if any(finding.name == "low_bandwidth" for finding in findings) and cliff is not None:
        quality = dataclasses.replace(quality, bandwidth_hz=cliff)
    return dataclasses.replace(quality, findings=findings)


def _straight_shares(measures: Measures) -> tuple[float, float]:
    if min(measures.n_steep) < _FEWEST_STEEP:
        return 0.0, 0.0
    (even, odd), (of_even, of_odd) = measures.n_straight, measures.n_steep
    return even / of_even, odd / of_odd


def _decibels(power: float) -> float:
    return 10 * math.log10(power) if power > 0 else (math.nan if math.isnan(power) else -math.inf)


def _share(count: int, total: int) -> float:
    return count / total if total else math.nan


def _compare_channels(
    measures: Measures, dead_channel_db: float
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """Dead channels, and pairs of the others that are equal, or equal but for the sign."""
    power = np.diag(measures.products) / np.maximum(measures.n_finite, 1)
    alive = (power > 0) & (power >= power.max(initial=0) * 10 ** (dead_channel_db / 10))
    dead = tuple(np.flatnonzero(~alive).tolist()) if alive.any() else ()
    pairs: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for one in np.flatnonzero(alive).tolist():
        for other in np.flatnonzero(alive).tolist():
            if other <= one:
                continue
            count = max(1, int(min(measures.n_finite[one], measures.n_finite[other])))
            both = measures.products[one, one] + measures.products[other, other]
            level = math.sqrt(both / 2 / count)
            limit = _EQUAL * level
            if level >= _LOUD_FOR_ROUNDING:
                limit = max(limit, _ROUNDING)
            for sign, found in zip((1, -1), pairs, strict=True):
                rest = max(0.0, both - 2 * sign * measures.products[one, other])
                if math.sqrt(rest / count) <= limit:
                    found.append((one, other))
    return dead, tuple(pairs[0]), tuple(pairs[1])


def _snr(measures: Measures, mean_power: float) -> float:
    """Mean power over that of the steady background, below which a tenth of the frames lies."""
    if measures.levels.sum() < _FEWEST_LEVELS:
        return math.nan
    floor = 10 ** (measures.level_below(0.1) / 10)
    # Steady sound comes out near 0 dB and below, where the ratio says nothing any more.
    return _decibels(max(mean_power / floor - 1, 0.1))
