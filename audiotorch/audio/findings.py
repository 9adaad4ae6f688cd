"""From measured numbers to findings: `Quality`, its thresholds, and what they say of it."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from audiotorch.errors import ParameterError

__all__ = ["Evidence", "Finding", "Quality", "Thresholds", "judge"]

_STRAIGHT, _BENT = 0.95, 0.6  # by the factor two it is 1 and about 0, by four 1 and 0.5
_CODEC_RATE = 32000  # Hz; from here on lossy codecs cut off the top, MP3 at 15 or 16 kHz
_CODEC_SHARE = 0.6  # so that there only a bandwidth below this share says something
_FEWEST_CLIPPED = 10
_CLUSTERED = 3.5  # clipped samples come in runs; those of a high tone stand alone
_TOP_HEAVY = 0.75  # a sine has 0.46 times as many samples above 0.99 as between 0.9 and 0.99


@dataclass(frozen=True)
class Finding:
    """One fault of a recording.

    Attributes:
        name: `clipping silence dc_offset too_short empty non_finite dead_channel
            identical_channels low_level noisy low_bandwidth` or `dropouts`.
        message: one sentence: how much, where, and what to do.
    """

    name: str
    message: str


@dataclass(frozen=True)
class Thresholds:
    """From where on `check` finds fault.

    Attributes:
        clip_level: magnitude from which on a sample counts as clipped.
        max_clipped_share: share of such samples, if they are more than smooth peaks explain.
        min_flat_tops: plateaus at the extremes, at whatever level, that make clipping.
        min_duration: seconds.
        silence_db: dBFS below which a frame of 32 ms is silent.
        max_silence_share: share of silent frames; field recordings hold up to 0.93.
        max_dc_offset: mean of a channel, of full scale.
        dead_channel_db: level of a dead channel against the loudest one.
        min_peak_db: peak in dBFS.
        min_snr_db: estimated signal-to-noise ratio. None by default: rain or a machine is all
            steady sound, and only you know whether that is the noise. For speech 10 is fair.
        min_bandwidth: share of half the sample rate; at most 0.6 counts from 32 kHz on, where
            lossy codecs cut off more than that without harm.
    """

    clip_level: float = 0.99
    max_clipped_share: float = 0.001
    min_flat_tops: float = 3
    min_duration: float = 0.5
    silence_db: float = -60.0
    max_silence_share: float = 0.98
    max_dc_offset: float = 0.01
    dead_channel_db: float = -60.0
    min_peak_db: float = -40.0
    min_snr_db: float = -math.inf
    min_bandwidth: float = 0.8

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                raise ParameterError(f"{name}={value!r}: must be a number")
        if not 0 < self.clip_level:
            raise ParameterError(f"clip_level={self.clip_level!r}: must be above 0, such as 0.99")
        if self.min_flat_tops < 1:
            raise ParameterError(f"min_flat_tops={self.min_flat_tops!r}: must be 1 or more")


@dataclass(frozen=True)
class Quality:
    """What `check` measured, and what it found.

    Levels are relative to full scale, 1.0; decibels of silence are minus infinity. Numbers that
    an empty or silent recording cannot have are NaN. Channels count from 0.

    Attributes:
        sample_rate: Hz.
        n_channels: number of channels.
        n_frames: samples per channel.
        duration_seconds: length.
        peak: largest magnitude.
        peak_db: the same in dBFS.
        rms_db: root mean square over all channels, in dBFS.
        clipped_share: share of samples of magnitude 0.99 or more (`clip_level`).
        n_flat_tops: plateaus of equal samples at the extremes with steep ends.
        longest_flat_top: samples in the longest of them.
        silence_share: share of 32 ms frames below -60 dBFS (`silence_db`).
        digital_silence_share: share of those that hold nothing but zeros.
        dc_offset: the mean of largest magnitude among the channels.
        n_non_finite: samples that are NaN, infinite or beyond 1e12; all other numbers are of the
            remaining ones.
        dead_channels: those silent or 60 dB below the loudest (`dead_channel_db`).
        identical_channels: pairs that are equal to rounding.
        inverted_channels: pairs that are equal but for the sign.
        snr_db: level over the steady background, an estimate from the signal alone: the mean
            power of the 32 ms frames against that of the quietest tenth. It is right for sound
            with pauses in steady noise; without pauses it tells how much the level moves.
        bandwidth_hz: highest frequency that stands out of the noise of 16 bits; where there is a
            cliff below `min_bandwidth`, the cliff's.
        n_dropouts: holes of 2 to 500 ms cut into sound.
        dropout_seconds: when the first five of them begin.
        findings: the faults, none on a sound recording.
    """

    sample_rate: int
    n_channels: int
    n_frames: int
    duration_seconds: float
    peak: float
    peak_db: float
    rms_db: float
    clipped_share: float
    n_flat_tops: int
    longest_flat_top: int
    silence_share: float
    digital_silence_share: float
    dc_offset: float
    n_non_finite: int
    dead_channels: tuple[int, ...]
    identical_channels: tuple[tuple[int, int], ...]
    inverted_channels: tuple[tuple[int, int], ...]
    snr_db: float
    bandwidth_hz: float
    n_dropouts: int
    dropout_seconds: tuple[float, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """No fault was found."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold; NaN and infinities become None."""
        values = dataclasses.asdict(self)
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                values[name] = None
            elif isinstance(value, tuple):
                values[name] = [list(item) if isinstance(item, tuple) else item for item in value]
        return values


@dataclass(frozen=True)
class Evidence:
    """What the findings need beside a `Quality`.

    Attributes:
        n_clipped_pairs: neighbours that both reach the clipping level.
        n_near_full: samples just below the clipping level.
        first_clipped: seconds.
        first_flat_top: seconds.
        first_non_finite: seconds.
        cliff_hz: of the spectrum, or None.
        straight_shares: of the even and the odd samples on slopes, those on straight lines; zeros
            if there are too few.
    """

    n_clipped_pairs: int
    n_near_full: int
    first_clipped: float
    first_flat_top: float
    first_non_finite: float
    cliff_hz: float | None
    straight_shares: tuple[float, float]


def judge(quality: Quality, evidence: Evidence, thresholds: Thresholds) -> tuple[Finding, ...]:
    """Find the faults.

    Args:
        quality: the numbers.
        evidence: further numbers.
        thresholds: from where on they are a fault.
    """
    if quality.n_frames == 0:
        return (Finding("empty", "It holds no samples: leave it out."),)
    found = [
        *_length_and_samples(quality, evidence, thresholds),
        *_levels(quality, thresholds),
        *_clipping(quality, evidence, thresholds),
        *_channels(quality, thresholds),
        *_noise(quality, thresholds),
        *_bandwidth(quality, evidence, thresholds),
    ]
    if quality.n_dropouts:
        times = ", ".join(f"{second:.3f}" for second in quality.dropout_seconds)
        more = " and later" if quality.n_dropouts > len(quality.dropout_seconds) else ""
        found.append(
            Finding(
                "dropouts",
                f"{quality.n_dropouts} gap(s) of constant samples cut into the sound, at {times} s"
                f"{more}: data was lost on the way; get the recording anew or cut there.",
            )
        )
    return tuple(found)


def _length_and_samples(
    quality: Quality, evidence: Evidence, thresholds: Thresholds
) -> Iterator[Finding]:
    if quality.duration_seconds < thresholds.min_duration:
        yield Finding(
            "too_short",
            f"It lasts {quality.duration_seconds:.3f} s, less than {thresholds.min_duration:g} s: "
            "pad it, or leave it out.",
        )
    if quality.n_non_finite:
        yield Finding(
            "non_finite",
            f"{quality.n_non_finite} sample(s) are NaN, infinite or beyond 1e12, the first at "
            f"{evidence.first_non_finite:.3f} s: repair what made them, or leave it out.",
        )


def _levels(quality: Quality, thresholds: Thresholds) -> Iterator[Finding]:
    if quality.peak == 0:
        yield Finding("silence", "All samples are zero: leave it out, or look for the recording.")
    elif quality.peak_db < thresholds.min_peak_db:
        yield Finding(
            "low_level",
            f"It peaks at {quality.peak_db:.1f} dBFS, below {thresholds.min_peak_db:g}: record "
            "it louder; Normalize() would raise its noise with it.",
        )
    elif quality.silence_share > thresholds.max_silence_share:
        yield Finding(
            "silence",
            f"{quality.silence_share:.1%} of it lies below {thresholds.silence_db:g} dBFS "
            f"({quality.digital_silence_share:.1%} are zeros): cut it, or leave it out.",
        )
    if abs(quality.dc_offset) > thresholds.max_dc_offset:
        yield Finding(
            "dc_offset",
            f"The samples' mean is {quality.dc_offset:+.4f} of full scale: subtract it.",
        )


def _clipping(quality: Quality, evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:
    n_samples = quality.n_frames * quality.n_channels - quality.n_non_finite
    n_clipped = quality.clipped_share * n_samples
    if quality.n_flat_tops >= thresholds.min_flat_tops:
        yield Finding(
            "clipping",
            f"{quality.n_flat_tops} peaks are cut off flat, for up to {quality.longest_flat_top} "
            f"samples, the first at {evidence.first_flat_top:.3f} s (peak {quality.peak:.3f}): "
            "record with less gain.",
        )
    elif (
        quality.clipped_share > thresholds.max_clipped_share
        and n_clipped >= _FEWEST_CLIPPED
        and n_clipped > _TOP_HEAVY * evidence.n_near_full
        and n_clipped < _CLUSTERED * evidence.n_clipped_pairs
    ):
        yield Finding(
            "clipping",
            f"{quality.clipped_share:.2%} of the samples reach {thresholds.clip_level:g} or more, "
            f"the first at {evidence.first_clipped:.3f} s: record with less gain.",
        )


def _channels(quality: Quality, thresholds: Thresholds) -> Iterator[Finding]:
    if quality.dead_channels:
        which = ", ".join(map(str, quality.dead_channels))
        yield Finding(
            "dead_channel",
            f"Channel(s) {which} of {quality.n_channels} lie {-thresholds.dead_channel_db:g} dB or "
            "more below the loudest: drop them before the channels are averaged.",
        )
    pairs = [f"{a} and {b}" for a, b in quality.identical_channels]
    pairs += [f"{a} and minus {b}" for a, b in quality.inverted_channels]
    if pairs:
        advice = "averaging cancels them; keep one" if quality.inverted_channels else "keep one"
        yield Finding("identical_channels", f"Channels {', '.join(pairs)} are equal: {advice}.")


def _noise(quality: Quality, thresholds: Thresholds) -> Iterator[Finding]:
    if quality.snr_db < thresholds.min_snr_db:
        yield Finding(
            "noisy",
            f"It stands {quality.snr_db:.1f} dB over its steady background, less than "
            f"{thresholds.min_snr_db:g}: record closer, or see whether it can still be used.",
        )


def _bandwidth(quality: Quality, evidence: Evidence, thresholds: Thresholds) -> Iterator[Finding]:
    promised = quality.sample_rate / 2
    share = thresholds.min_bandwidth
    if quality.sample_rate >= _CODEC_RATE:
        share = min(share, _CODEC_SHARE)
    if evidence.cliff_hz is not None and evidence.cliff_hz < share * promised:
        yield Finding(
            "low_bandwidth",
            f"The spectrum ends in a cliff at {evidence.cliff_hz:.0f} Hz, where the rate promises "
            f"{promised:.0f}: it was upsampled or cut off; treat it as "
            f"{2 * evidence.cliff_hz:.0f} Hz material.",
        )
        return
    # Smooth and coarse waves have straight places too, but as many even as odd ones.
    straight, bent = max(evidence.straight_shares), min(evidence.straight_shares)
    if straight >= _STRAIGHT and bent <= _BENT:
        yield Finding(
            "low_bandwidth",
            f"Every second sample ({straight:.0%}) lies on a line between its neighbours: it was "
            "upsampled by linear interpolation; go back to the original.",
        )
