"""Lower sample rates by powers of two, block by block in the frequency domain."""

from functools import lru_cache
from typing import Optional, Tuple

import numpy as np
import numpy.typing as npt
import soxr
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from audiotorch.audio.frames import is_plain_cpu
from audiotorch.errors import ParameterError
from audiotorch.features.functional import mask_samples

__all__ = ["Decimate"]

_BLOCK = 1024  # samples of a block at the new rate: fast to transform, most of it kept
_REACH = 160  # samples at the new rate that hold each half of the filter
_ONSET = 120  # outputs from a clip's first on that may differ from the convolution
_NEGLIGIBLE = 1e-7  # of the kernel's peak; what soxr shows beyond is float32's rounding
_ONSET_FLOOR = 1e-6  # of the kernel's peak; what lies below is mostly rounding

Array = npt.NDArray[np.float64]


class Decimate(nn.Module):
    """Keep one sample of every `factor`, behind the low-pass filter of soxr at quality HQ.

    The filter is soxr's own, measured, and stops at half the new rate, down to float32's rounding.
    So a block's spectrum times the filter's response, cut there, is the new block's spectrum: that
    takes a fifth of the time of `Resample`. On the CPU, without gradients, soxr itself is called:
    the difference is rounding, 1e-7 of the peak.

    Args:
        factor: old rate over new rate, a power of 2, at least 2.
        gain: multiplies the output.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples
        - Output: `(batch, ceil(time / factor))`, and lengths by the same rule. Where soxr rounds
          this down, the last sample is 0, as librosa has it.

    Raises:
        ParameterError: `factor` is no power of 2 from 2 on.

    Reference:
        Same values as `librosa.resample(y, orig_sr=factor, target_sr=1, res_type="soxr_hq")`.

    Example:
        >>> waveform, lengths = Decimate(2)(torch.zeros(2, 1001))
        >>> waveform.shape
        torch.Size([2, 501])
    """

    response: Tensor
    onset: Tensor

    def __init__(self, factor: int, gain: float = 1.0) -> None:
        super().__init__()
        if factor < 2 or factor & (factor - 1):
            raise ParameterError(f"factor={factor}: must be a power of 2, at least 2")
        self.factor = factor
        self.gain = float(gain)
        kernel, self.n_before, onset = _measure(factor)
        self.n_new = _BLOCK
        self.n_block = _BLOCK * factor
        # Samples of a block, at the new rate, that no end of the block has touched.
        self.n_kept = (self.n_block - len(kernel)) // factor + 1
        response = np.conj(np.fft.rfft(kernel, self.n_block))[: _BLOCK // 2 + 1] * (gain / factor)
        # As pairs of real numbers, which follow the module's precision where complex ones do not.
        pairs = torch.view_as_real(torch.from_numpy(response))
        self.register_buffer("response", pairs, persistent=False)
        self.register_buffer("onset", torch.from_numpy(onset * gain), persistent=False)

    def forward(
        self, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Return the waveform at the lower rate, and its lengths."""
        if not torch.jit.is_scripting():
            if is_plain_cpu(waveform):
                return self._by_soxr(waveform, lengths)
        factor, n_old = self.factor, waveform.shape[-1]
        n_new = (n_old + factor - 1) // factor
        # Two blocks at least: torch.export would fix the number of a single one.
        n_more = (n_new + self.n_kept - 1) // self.n_kept
        step = self.n_kept * factor
        after = n_more * step + self.n_block - self.n_before - n_old
        blocks = pad(waveform, [self.n_before, after]).unfold(-1, self.n_block, step)
        spectrum = torch.fft.rfft(blocks)[..., : self.n_new // 2 + 1]
        response = torch.view_as_complex(self.response.to(waveform.dtype))
        kept = torch.fft.irfft(spectrum * response, self.n_new)[..., : self.n_kept].flatten(1)
        n_inputs, n_outputs = self.onset.shape
        if n_inputs > 0:
            first = blocks[:, 0, self.n_before : self.n_before + n_inputs]
            onset = torch.matmul(first, self.onset.to(waveform.dtype))
            kept = kept + pad(onset, [0, kept.shape[1] - n_outputs])
        # soxr gives the rounded length, librosa follows it by zeros up to the next whole sample.
        n_heard = (2 * n_old + factor) // (2 * factor)
        if lengths is None:
            return pad(kept[:, :n_heard], [0, n_new - n_heard]), None
        heard = torch.div(2 * lengths + factor, 2 * factor, rounding_mode="floor")
        lengths = torch.div(lengths + (factor - 1), factor, rounding_mode="floor")
        return mask_samples(kept[:, :n_new], heard), lengths

    @torch.jit.unused
    def _by_soxr(
        self, waveform: Tensor, lengths: Optional[Tensor]
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Return the same, clip by clip from soxr itself.

        In digital silence beside a sound it leaves 1e-8 of the sound, rounding of its own, and
        features that divide each frame by its norm show just that. Librosa's numbers do.
        """
        factor = self.factor
        n_new = (waveform.shape[-1] + factor - 1) // factor
        answer = waveform.new_zeros(waveform.shape[0], n_new)
        sizes = [waveform.shape[-1]] * len(waveform) if lengths is None else lengths.tolist()
        for clip, own, size in zip(waveform.numpy(), answer.numpy(), sizes, strict=True):
            heard = soxr.resample(clip[: max(size, 1)], factor, 1, quality="HQ")
            np.multiply(heard, self.gain, out=own[: len(heard)], dtype=float, casting="same_kind")
        if lengths is None:
            return answer, None
        return answer, torch.div(lengths + (factor - 1), factor, rounding_mode="floor")


@lru_cache(maxsize=8)
def _measure(factor: int) -> Tuple[Array, int, Array]:
    """Return soxr's kernel `h`, the taps before its middle, and what an onset adds.

    Output `k` is the sum of `h[j] x[k factor + j - before]`. So one impulse per phase shows all of
    `h`. Near a clip's start soxr gives more than that: impulses on the first samples, one to a
    channel, show how much, `(inputs, outputs)`.
    """
    phases = np.arange(factor)
    impulses = np.zeros((2 * _REACH * factor, factor))
    impulses[_REACH * factor + phases, phases] = 1.0
    response = soxr.resample(impulses, factor, 1, quality="HQ")
    # Time runs down the rows, so taps run up them: tap = phase - row * factor.
    kernel = response[::-1].ravel()
    before = (_REACH - 1) * factor
    peak = np.abs(kernel).max()

    n_inputs = 5 * factor
    first = np.eye((_ONSET + _REACH) * factor, n_inputs)
    measured = soxr.resample(first, factor, 1, quality="HQ")[:_ONSET].T
    taps = np.arange(n_inputs)[:, None] - factor * np.arange(_ONSET) + before
    excess = measured - np.where(taps >= 0, kernel[taps.clip(0)], 0.0)
    inputs, outputs = np.nonzero(np.abs(excess) > _ONSET_FLOOR * peak)
    onset = excess[: inputs.max(initial=-1) + 1, : outputs.max(initial=-1) + 1].copy()

    used = np.flatnonzero(np.abs(kernel) > _NEGLIGIBLE * peak)
    return kernel[used[0] : used[-1] + 1], before - int(used[0]), onset
