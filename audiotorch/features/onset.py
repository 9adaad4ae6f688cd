"""Onset strength: the curve that peaks where something begins to sound."""

import math
from typing import Any, Optional

import torch
from torch import Tensor

from audiotorch.errors import ParameterError
from audiotorch.features.feature import Feature, check_positive
from audiotorch.features.functional import mask_frames
from audiotorch.features.mel import MelDecibels

__all__ = ["OnsetStrength"]


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

    passes_on_to = MelDecibels

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
        super().__init__(MelDecibels(sample_rate, n_fft, hop_length, **mel))
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

    def derive(self, db: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the onset strength of a mel spectrogram in dB, `(batch, n_mels, frames)`."""
        n_frames = db.shape[-1]
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
