"""`Resample`: another sample rate on tensors, as soxr has it."""

import math
from typing import Optional, Tuple

import numpy as np
import numpy.typing as npt
import soxr
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from audiotorch.audio.frames import check_clips, silence_past
from audiotorch.audio.preprocess import check_rate
from audiotorch.errors import ParameterError

__all__ = ["Resample"]

_MAX_PHASES = 2048  # up to here soxr itself works by exact phases, so that one kernel is its all
_NEGLIGIBLE = 1e-9  # of the kernel's peak; soxr's HQ filter itself stops at 2e-7
_ONSET_FLOOR = 1e-6  # of the kernel's peak; what lies below in the onset is mostly rounding
_MIN_ROWS = 32  # kernel rows from which conv1d is a well-filled matrix product


class Resample(nn.Module):
    """Change the sample rate, with the filter of soxr at quality HQ.

    A polyphase convolution whose kernel is soxr's own response, measured once: with rates reduced
    to `orig / new = o / n`, output `k n + j` is the sum over `i` of `x[k o + i] h[j, i]`. Silence
    is assumed around a clip. Inside one it agrees with soxr to 1e-6 of the peak, within the
    filter's half length of its ends to 1e-4. Equal rates leave the waveform as it is.

    Args:
        orig_freq: rate of the input in Hz.
        new_freq: rate of the output in Hz. Reduced by their greatest common divisor, both rates
            must be at most 2048: `audiotorch.load` resamples by any ratio.

    Shape:
        - Input: `(..., time)`, `lengths (...)` or None
        - Output: `(..., ceil(time * new_freq / orig_freq))`, and lengths by the same rule. Where
          soxr rounds this down, the last sample is 0, as librosa has it.

    Raises:
        ParameterError: a rate is not positive, or the ratio is too fine; in `forward`, a shape or
            type does not fit.

    Reference:
        Same values as `librosa.resample(res_type="soxr_hq")`.

    Example:
        >>> waveform, lengths = Resample(44100, 22050)(torch.zeros(2, 1001))
        >>> waveform.shape
        torch.Size([2, 501])
    """

    def __init__(self, orig_freq: int, new_freq: int) -> None:
        super().__init__()
        self.orig_freq = check_rate("orig_freq", orig_freq)
        self.new_freq = check_rate("new_freq", new_freq)
        divisor = math.gcd(self.orig_freq, self.new_freq)
        self.n_in = self.orig_freq // divisor
        self.n_out = self.new_freq // divisor
        if max(self.n_in, self.n_out) > _MAX_PHASES:
            raise ParameterError(
                f"orig_freq={orig_freq!r}, new_freq={new_freq!r}: their ratio, reduced to "
                f"{self.n_in}:{self.n_out}, must have no term above {_MAX_PHASES}; "
                "choose a rounder rate, or resample with audiotorch.load(sample_rate=...)"
            )
        kernel, self.n_before = _soxr_kernel(self.n_in, self.n_out)
        # Several steps of the filter side by side fill conv1d's matrix product: row (s, j) of the
        # wide kernel is h[j] moved right by s steps.
        n_steps = -(-_MIN_ROWS // self.n_out)
        self.stride = self.n_in * n_steps
        wide = np.zeros((n_steps, self.n_out, kernel.shape[1] + self.stride - self.n_in))
        for step in range(n_steps):
            wide[step, :, step * self.n_in : step * self.n_in + kernel.shape[1]] = kernel
        self.register_buffer(
            "kernel", torch.from_numpy(wide.reshape(-1, 1, wide.shape[2])), persistent=False
        )
        self.n_after = wide.shape[2] + self.stride
        onset = _soxr_onset(kernel, self.n_before, self.n_in, self.n_out)
        self.register_buffer("onset", torch.from_numpy(onset), persistent=False)

    kernel: Tensor
    onset: Tensor

    def forward(
        self, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Resample each clip."""
        check_clips(waveform, lengths)
        if self.n_in == self.n_out:
            return waveform, lengths
        waveform = silence_past(waveform, lengths)
        n_new = (waveform.shape[-1] * self.n_out + self.n_in - 1) // self.n_in
        rows = waveform.unsqueeze(0).flatten(0, -2).unsqueeze(1)
        rows = pad(rows, [self.n_before, self.n_after])
        blocks = conv1d(rows, self.kernel.to(waveform.dtype), stride=self.stride)
        resampled = blocks.transpose(1, 2).flatten(1)
        first = rows[:, 0, self.n_before : self.n_before + self.onset.shape[1]]
        onset = first @ self.onset.to(waveform.dtype).T
        resampled = resampled + pad(onset, [0, resampled.shape[1] - onset.shape[1]])
        # soxr gives the rounded length, librosa follows it by zeros up to the next whole sample.
        n_heard = (2 * waveform.shape[-1] * self.n_out + self.n_in) // (2 * self.n_in)
        resampled = pad(resampled[:, :n_heard], [0, n_new - n_heard])
        shape = list(waveform.shape)
        shape[-1] = n_new
        resampled = resampled.reshape(shape)
        if lengths is None:
            return resampled, None
        heard = torch.div(
            2 * self.n_out * lengths + self.n_in, 2 * self.n_in, rounding_mode="floor"
        )
        lengths = torch.div(
            self.n_out * lengths + (self.n_in - 1), self.n_in, rounding_mode="floor"
        )
        return silence_past(resampled, heard), lengths.clamp(max=n_new)


def _soxr_kernel(n_in: int, n_out: int) -> Tuple[npt.NDArray[np.float64], int]:
    """Measure soxr HQ's response `h (n_out, taps)`, and how many taps precede the output.

    An impulse at input sample `q` reaches output `k n_out + j` with the weight `h[j, q - k n_in]`.
    So one impulse per input phase shows every tap. They follow each other in one signal, at
    distances that keep their responses apart.
    """
    if n_in == n_out:
        return np.ones((1, 1)), 0
    # The filter passes 0.91 of the lower band, which takes some 100 samples of the lower rate to
    # each side; whole steps of n_in keep every impulse at its own phase.
    n_steps = -(-160 * max(n_in, n_out) // (n_out * n_in))
    reach = n_steps * n_in
    spacing = 2 * reach + n_in
    starts = reach + spacing * np.arange(n_in)
    signal = np.zeros(n_in * spacing + 2 * reach)
    signal[starts + np.arange(n_in)] = 1.0
    response = soxr.resample(signal, n_in, n_out, quality="HQ")
    # Row block (phase, step): the n_out outputs of that step, counted from the impulse's own.
    steps = np.arange(-n_steps, n_steps + 1)
    first = (starts // n_in)[:, None] + steps
    blocks = response[: (len(response) // n_out) * n_out].reshape(-1, n_out)[first]
    taps = reach + np.arange(n_in)[:, None] - steps * n_in
    kernel = np.zeros((n_out, spacing))
    kernel[:, taps.ravel()] = blocks.reshape(-1, n_out).T
    used = np.flatnonzero(np.abs(kernel).max(axis=0) > _NEGLIGIBLE * np.abs(kernel).max())
    return kernel[:, used[0] : used[-1] + 1].copy(), int(reach - used[0])


def _soxr_onset(
    kernel: npt.NDArray[np.float64], n_before: int, n_in: int, n_out: int
) -> npt.NDArray[np.float64]:
    """What soxr gives beyond the convolution: `(outputs, inputs)`, from a clip's first on.

    One impulse per channel; only the first outputs are compared.
    """
    n_inputs = kernel.shape[1] - n_before
    n_outputs = 64 * max(1, -(-n_out // n_in))
    measured = soxr.resample(np.eye(n_inputs), n_in, n_out, quality="HQ")[:n_outputs]
    computed = np.zeros_like(measured)
    for output in range(len(measured)):
        step, phase = divmod(output, n_out)
        start = n_before - step * n_in
        taps = kernel[phase, max(0, start) : max(0, start + n_inputs)]
        computed[output, max(0, -start) : max(0, -start) + len(taps)] = taps
    excess = measured - computed
    outputs, inputs = np.nonzero(np.abs(excess) > _ONSET_FLOOR * np.abs(kernel).max())
    if len(outputs) == 0:
        return np.zeros((1, 1))
    return excess[: outputs.max() + 1, : inputs.max() + 1].copy()
