"""`NormalizeLoudness`: to one loudness as heard."""

import math
from typing import Optional

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from audiotorch.audio.chunks import Step
from audiotorch.audio.frames import full_lengths, length_mask, silence_past
from audiotorch.audio.preprocess import check_rate
from audiotorch.errors import ParameterError

__all__ = ["NormalizeLoudness"]

_MIN_RATE = 4000  # the shelf of the K weighting lies at 1682 Hz


class NormalizeLoudness(Step):
    """Scale each clip to one integrated loudness.

    The clip's K-weighted power is averaged over blocks of 400 ms, one every 100 ms, of which those
    count that exceed -70 LUFS and lie less than 10 LU below the mean of those that do. A clip
    shorter than 400 ms is measured as one block of its own length. One with no block above -70 LUFS
    stays as it is. Peaks may exceed 1.

    A clip is one channel, as the standard measures a mono programme: what is played on two
    loudspeakers is 3 LU louder.

    Args:
        sample_rate: Hz, at least 4000. A step has `round(sample_rate / 10)` samples, a block four.
        target_lufs: loudness to reach, LUFS; EBU R 128 asks for -23.

    Shape:
        - Input: `(..., time)`, `lengths (...)` or None
        - Output: the same

    Raises:
        ParameterError: an argument is out of range; in `forward`, a shape or type does not fit.

    Reference:
        ITU-R BS.1770-5. `torchaudio.transforms.Loudness` clips what it filters to 1, rounds the
        filters' frequencies and takes no `lengths`.

    Example:
        >>> tone = torch.sin(2 * torch.pi * 997 * torch.arange(48000) / 48000)
        >>> NormalizeLoudness(48000)(tone)[0].abs().max()
        tensor(0.1001)
    """

    weighting: Tensor

    def __init__(self, sample_rate: int, target_lufs: float = -23.0) -> None:
        super().__init__()
        self.sample_rate = check_rate("sample_rate", sample_rate)
        if self.sample_rate < _MIN_RATE:
            raise ParameterError(
                f"sample_rate={sample_rate!r}: must be at least {_MIN_RATE} Hz to weigh what is "
                'heard; use Normalize("rms")'
            )
        if not math.isfinite(target_lufs) or not -70 < target_lufs <= 0:
            raise ParameterError(
                f"target_lufs={target_lufs!r}: must be above -70 and at most 0 LUFS, such as -23.0"
            )
        self.target_lufs = float(target_lufs)
        self.n_step = round(self.sample_rate / 10)
        self.n_segment = 7 * self.n_step  # samples filtered at a time
        weighting = _k_weighting(self.sample_rate, self.n_step + self.n_segment)
        self.register_buffer("weighting", torch.from_numpy(weighting), persistent=False)

    def compute(self, clips: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Scale each clip by its own loudness."""
        clips = silence_past(clips, lengths)
        power = self._gated_power(clips, full_lengths(clips, lengths)).unsqueeze(-1)
        target = _power_of(self.target_lufs)
        gain = (target / power.masked_fill(power == 0, target)).sqrt()
        return clips * gain.to(clips.dtype)

    def _gated_power(self, clips: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean power of the blocks that count, 0 where none does."""
        if clips.dtype != torch.float64:
            clips = clips.float()
        n_block = 4 * self.n_step
        power = self._step_energies(clips, lengths).unfold(-1, 4, 1).sum(-1)
        power = power / lengths.clamp(min=1, max=n_block).unsqueeze(-1)
        counts = 1 + torch.div(lengths - n_block, self.n_step, rounding_mode="floor")
        own = length_mask(counts.clamp(min=1), power.shape[-1])
        counted = own & (power > _power_of(-70.0))
        mean = _mean_where(counted, power).unsqueeze(-1)
        return _mean_where(counted & (power > 0.1 * mean), power)

    def _step_energies(self, clips: Tensor, lengths: Tensor) -> Tensor:
        """Return the K-weighted energy of each step, of a block at least."""
        # Both filters have died away to 1e-9 after one step. So each segment is filtered together
        # with the step before it, into which falls what comes round from the transform's other end.
        n_samples = clips.shape[-1]
        # A segment more than needed: torch.export takes a size of 1 for a special case.
        n_segments = 1 + -(-n_samples // self.n_segment)
        padded = pad(clips, [self.n_step, n_segments * self.n_segment - n_samples])
        segments = padded.unfold(-1, self.n_step + self.n_segment, self.n_segment)
        spectrum = torch.fft.rfft(segments)
        spectrum = spectrum * self.weighting.to(spectrum.dtype)
        weighted = torch.fft.irfft(spectrum, self.n_step + self.n_segment)
        weighted = silence_past(weighted[..., self.n_step :].flatten(1), lengths)
        return weighted.square().unflatten(-1, [-1, self.n_step]).sum(-1)


def _power_of(lufs: float) -> float:
    """Return the K-weighted mean square that has a loudness."""
    return 10.0 ** ((lufs + 0.691) / 10.0)


def _mean_where(counted: Tensor, power: Tensor) -> Tensor:
    total = torch.where(counted, power, torch.zeros_like(power)).sum(-1)
    return total / counted.sum(-1).clamp(min=1)


def _k_weighting(sample_rate: int, n_fft: int) -> npt.NDArray[np.complex128]:
    """Return the response of the K weighting at the frequencies of an FFT.

    The standard tabulates both filters at 48 kHz. They are bilinear transforms of the analogue ones
    below, which serve at any rate.
    """
    delay = np.exp(-2j * np.pi * np.arange(n_fft // 2 + 1) / n_fft)
    # What the head does: a shelf of 4 dB; its middle gain is almost, not quite, the root of that.
    k, q = np.tan(np.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    top = 10 ** (3.999843853973347 / 20)
    middle = top**0.4996667741545416
    shelf = _polynomial(top, middle * k / q, k**2, delay) / _polynomial(1.0, k / q, k**2, delay)
    # What it hardly hears: a high pass. The table leaves its numerator at 1, -2, 1, a gain that
    # would change with the rate: that of 48 kHz is kept.
    k, q = np.tan(np.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    high_pass = 1.004994898715 * (1 - delay) ** 2 / _polynomial(1.0, k / q, k**2, delay)
    response: npt.NDArray[np.complex128] = shelf * high_pass
    return response


def _polynomial(
    high: float, middle: float, low: float, delay: npt.NDArray[np.complex128]
) -> npt.NDArray[np.complex128]:
    """Return `high s^2 + middle s + low`, `s = (1 - delay) / (1 + delay)`, times (1 + delay)^2."""
    square = high * (1 - delay) ** 2 + middle * (1 - delay**2) + low * (1 + delay) ** 2
    return np.asarray(square)
