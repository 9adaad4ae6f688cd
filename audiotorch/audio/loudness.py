"""`NormalizeLoudness`: to one loudness as heard."""

import math
from typing import Optional, Tuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from audiotorch.audio.frames import check_clips, full_lengths, length_mask, silence_past
from audiotorch.audio.preprocess import check_rate
from audiotorch.errors import ParameterError

__all__ = ["NormalizeLoudness"]

_MIN_RATE = 4000  # the shelf of the K weighting lies at 1682 Hz
_OFFSET = 0.691  # LUFS: a sine of 997 Hz at full scale has -3.01
_GATE_LUFS = -70.0
_GATE_SHARE = 0.1  # of the mean power: 10 LU below it
_BLOCK = 4  # steps of 0.1 s
_SEGMENT = 7  # steps filtered at a time


class NormalizeLoudness(nn.Module):
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
        if not math.isfinite(target_lufs) or not _GATE_LUFS < target_lufs <= 0:
            raise ParameterError(
                f"target_lufs={target_lufs!r}: must be above {_GATE_LUFS:.0f} and at most 0 LUFS, "
                "such as -23.0"
            )
        self.target_lufs = float(target_lufs)
        self.n_step = round(self.sample_rate / 10)
        weighting = _k_weighting(self.sample_rate, (1 + _SEGMENT) * self.n_step)
        self.register_buffer("weighting", torch.from_numpy(weighting), persistent=False)

    def forward(
        self, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Scale each clip by its own loudness."""
        check_clips(waveform, lengths)
        waveform = silence_past(waveform, lengths)
        if waveform.shape[-1] == 0:
            return waveform, lengths
        clips = waveform.reshape(-1, waveform.shape[-1])
        if clips.dtype != torch.float64:
            clips = clips.float()
        own_lengths = full_lengths(waveform, lengths)
        power = self._gated_power(clips, own_lengths.reshape(-1)).reshape(own_lengths.shape)
        target = 10.0 ** ((self.target_lufs + _OFFSET) / 10.0)
        silent = power <= 0
        gain = (target / power.masked_fill(silent, target)).sqrt().unsqueeze(-1)
        return waveform * gain.to(waveform.dtype), lengths

    def _gated_power(self, clips: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean power of the blocks that count, 0 where none does."""
        n_block = _BLOCK * self.n_step
        steps = self._step_energies(clips, lengths)
        power = steps.unfold(-1, _BLOCK, 1).sum(-1) / lengths.clamp(min=1, max=n_block).unsqueeze(
            -1
        )
        counts = 1 + torch.div(lengths - n_block, self.n_step, rounding_mode="floor")
        own = length_mask(counts.clamp(min=1), power.shape[-1])
        counted = own & (power > 10.0 ** ((_GATE_LUFS + _OFFSET) / 10.0))
        mean = _mean_where(counted, power)
        return _mean_where(counted & (power > _GATE_SHARE * mean.unsqueeze(-1)), power)

    def _step_energies(self, clips: Tensor, lengths: Tensor) -> Tensor:
        """Return the K-weighted energy of each step, at least a block of them."""
        # Both filters have died away to 1e-9 after one step. So a segment follows a step of what
        # was before it, which takes what comes round from the transform's other end.
        n_samples = clips.shape[-1]
        n_segments = -(-n_samples // (_SEGMENT * self.n_step))
        n_padded = n_segments * _SEGMENT * self.n_step
        padded = torch.nn.functional.pad(clips, [self.n_step, n_padded - n_samples])
        segments = padded.unfold(-1, (1 + _SEGMENT) * self.n_step, _SEGMENT * self.n_step)
        spectrum = torch.fft.rfft(segments)
        spectrum = spectrum * self.weighting.to(spectrum.dtype)
        weighted = torch.fft.irfft(spectrum, segments.shape[-1])[..., self.n_step :].flatten(1)
        weighted = silence_past(weighted, lengths)
        return weighted.square().unflatten(-1, [-1, self.n_step]).sum(-1)


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
    numerator = [top + middle * k / q + k**2, 2 * (k**2 - top), top - middle * k / q + k**2]
    shelf = _polynomial(numerator, delay) / _polynomial(_denominator(k, q), delay)
    # What it hardly hears: a high pass, whose numerator the standard leaves at 1, -2, 1.
    k, q = np.tan(np.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    denominator = _denominator(k, q)
    high_pass = denominator[0] * (1 - delay) ** 2 / _polynomial(denominator, delay)
    response: npt.NDArray[np.complex128] = shelf * high_pass
    return response


def _denominator(k: float, q: float) -> list[float]:
    return [1 + k / q + k**2, 2 * (k**2 - 1), 1 - k / q + k**2]


def _polynomial(
    coefficients: list[float], delay: npt.NDArray[np.complex128]
) -> npt.NDArray[np.complex128]:
    return coefficients[0] + coefficients[1] * delay + coefficients[2] * delay**2
