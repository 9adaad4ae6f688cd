"""The filters of a constant-Q transform, octave by octave, each at its own sample rate."""

import math
from functools import lru_cache
from typing import NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor, nn

from audiotorch.audio.frames import is_plain_cpu
from audiotorch.errors import ParameterError
from audiotorch.features.wavelets import (
    Array,
    bandwidth_offsets,
    relative_bandwidths,
    wavelet_bank,
    window_bandwidth,
)

__all__ = ["OctaveBank", "Plan", "Settings", "plan"]

_DIRECT_SIZE = 512  # up to this FFT size, filters cost less on samples than on spectra
_ALIKE = 1e-9  # octaves whose filters differ by a smaller share than this have one bank


class Settings(NamedTuple):
    """What a plan depends on; meanings as in `VQT`."""

    sample_rate: int
    hop_length: int
    frequencies: tuple[float, ...]
    bins_per_octave: int
    tunings: tuple[float, ...]
    filter_scale: float
    gamma: float | None
    norm: float | None
    sparsity: float
    window: str
    scale: bool


class Bank(NamedTuple):
    """Filters that `n_octaves` octaves share, as `OctaveBank` takes them."""

    weights: Tensor
    n_fft: int
    first_bin: int
    n_octaves: int


class Plan(NamedTuple):
    """How a transform goes down the octaves, the highest first."""

    factor: int
    """Rate over the highest octave's rate."""
    hop_lengths: list[int]
    halved: list[bool]
    """Whether an octave's rate is half of the one above."""
    banks: list[Bank]


class OctaveBank(nn.Module):
    """Apply one octave's filters to frames of samples, or of their spectra.

    Args:
        bank: `weights (n_tunings, inputs, 2 * rows)`, where the outputs are the real parts of all
            rows and then the imaginary parts. The inputs are `n_fft` samples if `first_bin` is -1,
            else FFT bins from `first_bin` on.
    """

    weights: Tensor

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self.n_fft = bank.n_fft
        self.first_bin = bank.first_bin
        self.n_octaves = bank.n_octaves
        self.end_bin = bank.first_bin + bank.weights.shape[1]
        self.rows = bank.weights.shape[2] // 2
        self.register_buffer("weights", bank.weights, persistent=False)

    def choose(self, tuning: Optional[Tensor], dtype: torch.dtype) -> Tensor:
        """Return the matrix of each clip's tuning `(batch,)`, or of the only one."""
        weights = self.weights.to(dtype)
        if tuning is not None:
            weights = weights.index_select(0, tuning)
        if self.first_bin >= 0:
            # Real and imaginary part of each bin are two inputs: (a + ib) (c + id).
            turned = torch.cat((-weights[..., self.rows :], weights[..., : self.rows]), dim=-1)
            weights = torch.stack((weights, turned), dim=-2).flatten(-3, -2)
        return weights if tuning is not None else weights[0]

    def forward(self, padded: Tensor, hop_length: int, n_frames: int, matrix: Tensor) -> Tensor:
        """Return `(batch, n_frames, 2, rows)` for samples padded by half a frame at both ends."""
        frames = padded.unfold(-1, self.n_fft, hop_length)[:, :n_frames]
        if not torch.jit.is_scripting():
            if is_plain_cpu(frames) and len(frames) > 1:
                # Clip by clip, so that a clip's spectra stay in the cache.
                each = matrix if matrix.dim() == 3 else [matrix] * len(frames)
                pairs = zip(frames, each, strict=True)
                return torch.stack([self._filtered(*pair) for pair in pairs])
        return self._filtered(frames, matrix)

    def _filtered(self, frames: Tensor, matrix: Tensor) -> Tensor:
        if self.first_bin >= 0:
            spectrum = torch.fft.rfft(frames)[..., self.first_bin : self.end_bin]
            frames = torch.view_as_real(spectrum).flatten(-2)
        return torch.matmul(frames, matrix).unflatten(-1, (2, self.rows))


@lru_cache(maxsize=8)
def plan(settings: Settings) -> Plan:
    """Lay out the octaves and build their filters.

    Raises:
        ParameterError: the filters reach above half the sample rate, or the window is unknown.
    """
    frequencies = np.array(settings.frequencies)
    n_bins, per_octave = len(frequencies), min(len(frequencies), settings.bins_per_octave)
    alpha = relative_bandwidths(frequencies, settings.bins_per_octave)
    offsets = bandwidth_offsets(alpha, settings.gamma)
    shifts = 2.0 ** (np.array(settings.tunings) / settings.bins_per_octave)
    tuned = shifts[:, None] * frequencies
    factor = _early_factor(settings, tuned, alpha, offsets)
    result = Plan(factor, [], [], [])
    rate, hop_length = settings.sample_rate / factor, settings.hop_length // factor
    last: list[Array] = []
    for octave in range(-(-n_bins // per_octave)):
        halve = octave > 0 and hop_length % 2 == 0
        if halve:
            rate, hop_length = rate / 2, hop_length // 2
        result.hop_lengths.append(hop_length)
        result.halved.append(halve)
        end = n_bins - octave * per_octave
        rows = slice(max(0, end - per_octave), end)
        # In cycles per sample.
        centres, bandwidths = tuned[:, rows] / rate, (alpha * tuned + offsets)[:, rows] / rate
        if last and all(map(_alike, last, (centres, bandwidths))):
            result.banks[-1] = result.banks[-1]._replace(n_octaves=result.banks[-1].n_octaves + 1)
        else:
            result.banks.append(_bank(settings, centres, settings.filter_scale / bandwidths))
        last = [centres, bandwidths]
    return result


def _alike(one: Array, other: Array) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=_ALIKE, atol=0.0)


def _early_factor(settings: Settings, tuned: Array, alpha: Array, offsets: Array) -> int:
    """Return the power of 2 by which the rate is lowered before the highest octave."""
    spread = window_bandwidth(settings.window) / settings.filter_scale
    reach = (tuned * (1 + 0.5 * spread * alpha) + 0.5 * offsets).max()
    nyquist = settings.sample_rate / 2
    if reach > nyquist:
        raise ParameterError(
            f"n_bins={len(alpha)}: the highest filter reaches {reach:.1f} Hz, above half of "
            f"sample_rate={settings.sample_rate}; lower n_bins or fmin"
        )
    n_octaves = -(-len(alpha) // min(len(alpha), settings.bins_per_octave))
    hop_length = settings.hop_length
    by_reach = math.ceil(math.log2(nyquist / reach)) - 2
    by_hop = (hop_length & -hop_length).bit_length() - n_octaves
    return 2 ** max(0, min(by_reach, by_hop))


def _bank(settings: Settings, centres: Array, lengths: Array) -> Bank:
    """Build an octave's filters for all tunings, `(n_tunings, rows)` centres and lengths."""
    # One size for all tunings, though the shortest filters' own might be half of it.
    n_fft = 2 ** math.ceil(math.log2(lengths.max()))
    n_tunings, rows = centres.shape
    spectra = np.empty((n_tunings, 1 + n_fft // 2, rows), dtype=np.complex64)
    for index in range(n_tunings):
        spectra[index] = wavelet_bank(
            centres[index],
            lengths[index],
            n_fft,
            window=settings.window,
            norm=settings.norm,
            sparsity=settings.sparsity,
        ).T
        if settings.scale:
            spectra[index] /= np.sqrt(lengths[index])
    if n_tunings == 1 and n_fft <= _DIRECT_SIZE:
        # The sum of X[k] B[k] over bins is that of x[n] b[n] over samples, b the transform of B.
        weights, first_bin = np.fft.fft(spectra, n_fft, axis=1), -1
    else:
        used = np.flatnonzero(np.abs(spectra).max(axis=(0, 2)))
        weights, first_bin = spectra[:, used[0] : used[-1] + 1], int(used[0])
    parts = np.concatenate([weights.real, weights.imag], axis=2).astype(np.float32)
    return Bank(torch.from_numpy(parts), n_fft, first_bin, 1)
