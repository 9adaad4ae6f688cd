"""Mel spectrogram, and its decibels."""

from typing import Any, List, Optional

import torch
from torch import Tensor

from audiotorch.audio.fourier import takes_single
from audiotorch.features import filters
from audiotorch.features.feature import Feature
from audiotorch.features.functional import power_to_db
from audiotorch.features.spectrogram import Spectrogram

__all__ = ["MelDecibels", "MelSpectrogram"]

# Matrix products of other widths take up to three times as long.
_BLOCK_BANDS = 16


class MelSpectrogram(Feature):
    """Power spectrogram summed into mel bands.

    On the CPU, without gradients, float32 clips of 128 frames and more are transformed in float32
    first, and anew in float64 the frames with a band so faint that this might show: one in five to
    one in fifty. On recordings that stays within 1e-6 of the clip's maximum and, down to 80 dB
    below it, within 1e-3 dB; who keeps a wider range in dB wants `single=False`. With that,
    elsewhere, and where `FeatureExtractor` shares the spectra with other features, all is
    transformed in float64.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        n_mels: number of bands.
        fmin: lowest frequency, Hz.
        fmax: highest frequency, Hz; `None` = half the sample rate.
        htk: HTK's mel scale instead of Slaney's.
        norm: `"slaney"` (unit area) or `None` (unit peak).
        spectrogram: further settings of `Spectrogram`: `power win_length window center pad_mode
            single`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_mels, frames)`, frames past a clip's own are 0.

    Raises:
        ParameterError: as `Spectrogram` and `filters.mel_bank`.

    Reference:
        Same values as `librosa.feature.melspectrogram`.

    Example:
        >>> MelSpectrogram(n_mels=40)(torch.zeros(22050)).shape
        torch.Size([40, 44])
    """

    passes_on_to = Spectrogram
    chunk_scale = 2
    bank: Tensor
    widths: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        n_mels: int = 128,
        fmin: float = 0.0,
        fmax: float | None = None,
        htk: bool = False,
        norm: str | None = "slaney",
        **spectrogram: Any,
    ) -> None:
        super().__init__(Spectrogram(sample_rate, n_fft, hop_length, **spectrogram))
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        bank = filters.mel_bank(
            sample_rate, n_fft, n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=norm
        )
        self._quick = self.source.power == 2.0 and spectrogram.get("single") is not False
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("widths", bank.sum(dim=1), persistent=False)
        self._block_bands = _BLOCK_BANDS
        self.blocks: List[List[int]] = _bank_blocks(bank)

    def compute(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the mel spectrogram of `(batch, time)` at once."""
        if not torch.jit.is_scripting():
            if self._quick and takes_single(waveform):
                return self._quickly(waveform, lengths)
        return self.derive(self.source.compute(waveform, lengths), lengths)

    @torch.jit.unused
    def _quickly(self, waveform: Tensor, lengths: Optional[Tensor]) -> Tensor:
        """Return the same, of power taken in float32 where clips are long."""
        short = self.source.are_short(waveform, lengths)
        if short.all():
            return self.derive(self.source.compute(waveform, lengths))
        mel = self._in_single(waveform, lengths)
        if short.any():
            own = None if lengths is None else lengths[short]
            mel[short] = self.derive(self.source.compute(waveform[short], own))
        return mel

    @torch.jit.unused
    def _in_single(self, waveform: Tensor, lengths: Optional[Tensor]) -> Tensor:
        """Return bands of power taken in float32, or in float64 where that might show.

        Rounding of a band in dB grows as the root of how far it lies below the frame's mean: at
        55 dB it has been seen to reach 9e-4 dB. What lies 80 dB below the clip's maximum is cut off
        in decibels. Clips whose loudest band lies below the mean are a matter of rounding as well.
        """
        below = self.source
        waveform = below.source.source.compute(waveform, lengths)
        frames = below.source.frames(waveform, lengths, double=False)
        power = below.masked(below.source.power(frames, torch.complex64), lengths)
        mel = self.derive(power)
        bands = mel.transpose(-1, -2)  # as they lie in memory
        top = bands.amax(dim=(-2, -1), keepdim=True)
        mean = power.mean(dim=-2).unsqueeze(-1)
        # Positive between floor and limit.
        floor = 0.5e-8 * top
        limit = (3e-6 * mean * self.widths).clamp_(min=floor)
        chosen = limit.sub_(bands).mul_(bands - floor).amax(dim=-1) > 0
        chosen |= mean.squeeze(-1).amax(dim=-1, keepdim=True) * self.widths.amax() > 2 * top[..., 0]
        for places, exact in below.exactly(frames, chosen):
            bands[places] = self.derive(exact.unsqueeze(0)).squeeze(0).transpose(0, 1)
        return mel

    def derive(self, specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the mel spectrogram of a spectrogram `(batch, freq, frames)`."""
        bank = self.bank.to(specgram.dtype)
        frames = specgram.transpose(-1, -2)  # as they lie in memory
        bands: List[Tensor] = []
        for top, bottom, first, last in self.blocks:
            block = bank[top:bottom, first:last]
            more = self._block_bands - block.shape[0]
            if more > 0:
                block = torch.nn.functional.pad(block, [0, 0, 0, more])
            bands.append(torch.matmul(frames[..., first:last], block.transpose(0, 1)))
        return torch.cat(bands, dim=-1)[..., : self.n_mels].transpose(-1, -2)


def _bank_blocks(bank: Tensor) -> List[List[int]]:
    """First and end row, first and end bin of blocks of bands that hold all but zeros.

    Of 131,200 numbers of librosa's bank, 2,018 are not 0; most of the others are left out.
    """
    blocks = []
    for rows in torch.arange(bank.shape[0]).split(_BLOCK_BANDS):
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        used = bank[top:bottom].amax(dim=0).nonzero()
        blocks.append([top, bottom, int(used[0]), int(used[-1]) + 1])
    return blocks


class MelDecibels(Feature):
    """Decibels of a mel spectrogram: the stage below cepstrum and onsets.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        mel: further settings of `MelSpectrogram`.

    Shape:
        - Input: `(..., time)` and lengths `(...)` in samples
        - Output: `(..., n_mels, frames)`, dB, floored 80 dB below the clip's own maximum. Frames
          past a clip's own may be anything: what is built on this leaves them out.

    Raises:
        ParameterError: as `MelSpectrogram`.

    Reference:
        Same values as `librosa.power_to_db(librosa.feature.melspectrogram(y))`.
    """

    passes_on_to = MelSpectrogram
    chunk_scale = 2

    def __init__(
        self, sample_rate: int = 22050, n_fft: int = 2048, hop_length: int = 512, **mel: Any
    ) -> None:
        super().__init__(MelSpectrogram(sample_rate, n_fft, hop_length, **mel))
        self.n_mels: int = self.source.n_mels

    def derive(self, mel_specgram: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the decibels of a mel spectrogram `(batch, n_mels, frames)`."""
        return power_to_db(mel_specgram)
