"""Sound texture: one vector a clip that tells rain from fire, and a rotor from the sea."""

import math
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from audiotorch.audio.frames import length_mask
from audiotorch.errors import ParameterError
from audiotorch.features.functional import MIN_SPREAD_DB, mask_frames, power_to_db
from audiotorch.features.mel import MelSpectrogram
from audiotorch.features.pooling import StatisticsPooling

__all__ = ["TextureStatistics"]

# The floor of modulation power, dB^2: that of noise of a tenth of a dB.
_MIN_SWING = 0.01
# Below lie words, waves and steps; above, what turns: rotors, engines, drills.
_CREST_HZ = 8.0


class TextureStatistics(nn.Module):
    """A front end: statistics of the log-mel spectrogram and of how its bands' levels swing.

    Three parts, joined in this order:

    - colour: mean, standard deviation and maximum over time of each mel band in dB, less the
      clip's mean and divided by its standard deviation, so that the level of the recording is out;
    - modulation spectrum: power of each band's swings (neighbouring mel bands averaged), in dB^2
      and natural log, octave by octave up to half the frame rate, the last octave without its
      highest rate and cut where the window's length is no power of two: the octaves less their
      mean, then that mean, for each band;
    - modulation crest: log of highest to mean power at the rates from 8 Hz on, for each band. A
      rotor or an engine has a line there; rain and fire have none.

    Power and crest are means over Hann windows that overlap by half at least and run from the
    clip's first frame to its last, which count little, as a window's ends do. A clip shorter than
    a window gets one of its own length.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        n_mels: mel bands.
        fmin: lowest frequency, Hz.
        fmax: highest frequency, Hz; `None` = half the sample rate.
        top_db: dynamic range kept below the clip's maximum, dB.
        n_bands: bands of the modulation spectrum, a divisor of `n_mels`.
        modulation_frames: frames of a modulation window: 3 s as it stands.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples
        - Output: `(batch, 3 * n_mels + n_bands * (octaves + 2))`: 336 numbers, 7 octaves from a
          third of a hertz on, as it stands; `names` tells each column

    Raises:
        ParameterError: `n_mels` is no multiple of `n_bands`, a number that is not positive, a
            window of fewer than 16 frames or without two rates from 8 Hz on, and as
            `MelSpectrogram`.

    Reference:
        McDermott & Simoncelli (2011), Sound texture perception via statistics of the auditory
        periphery.

    Example:
        >>> TextureStatistics()(torch.randn(2, 22050)).shape
        torch.Size([2, 336])
    """

    output_shape: List[int]
    octaves: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 512,
        hop_length: int = 256,
        *,
        n_mels: int = 64,
        fmin: float = 0.0,
        fmax: float | None = None,
        top_db: float = 80.0,
        n_bands: int = 16,
        modulation_frames: int = 256,
    ) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            sample_rate, n_fft, hop_length, n_mels=n_mels, fmin=fmin, fmax=fmax, single=False
        )
        if n_bands < 1 or n_mels % n_bands:
            raise ParameterError(f"n_bands={n_bands}: must divide n_mels={n_mels}")
        if not top_db > 0:
            raise ParameterError(f"top_db={top_db}: must be greater than 0")
        if modulation_frames < 16:
            raise ParameterError(f"modulation_frames={modulation_frames}: must be at least 16")
        self.crest_bin = math.ceil(_CREST_HZ * modulation_frames * hop_length / sample_rate)
        if self.crest_bin >= modulation_frames // 2:
            raise ParameterError(
                f"hop_length={hop_length}: too long for rates above {_CREST_HZ:g} Hz; lower it"
            )
        self.pooling = StatisticsPooling(["mean", "std", "max"])
        self.sample_rate = sample_rate
        self.top_db = float(top_db)
        self.n_bands = n_bands
        self.modulation_frames = modulation_frames
        self.min_samples = 1
        self.min_spread_db = MIN_SPREAD_DB
        self.min_swing = _MIN_SWING
        octaves = _octave_bank(modulation_frames)
        self.register_buffer("octaves", octaves, persistent=False)
        self.names: List[str] = _names(self.pooling.statistics, n_mels, n_bands, octaves.shape[1])
        self.normalised = False
        self.output_shape = [len(self.names)]

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (samples) have."""
        return self.mel.frame_counts(lengths)

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the vector; shapes and errors as in the class docstring."""
        if waveform.dim() != 2:
            raise ParameterError(f"waveform: must be (batch, time), got {waveform.dim()} axes")
        mel = self.mel(waveform, lengths)
        counts = torch.full(mel.shape[:1], mel.shape[-1], dtype=torch.int64, device=mel.device)
        if lengths is not None:
            counts = self.mel.frame_counts(lengths)
        return self.describe(mel, counts).to(waveform.dtype)

    def describe(self, mel: Tensor, counts: Tensor) -> Tensor:
        """Return the vector of mel spectrograms, in float64.

        Args:
            mel: power, `(batch, n_mels, frames)`.
            counts: int64, frames of each clip, `(batch,)`.
        """
        # In float64, so that the order of summation, and with it padding, leaves no trace.
        db = power_to_db(mel, top_db=self.top_db).double()
        return torch.cat([self._colour(db, counts), self._modulation(db, counts)], dim=1)

    def _colour(self, db: Tensor, counts: Tensor) -> Tensor:
        """Statistics of the image that `SpectrogramImage(normalize="clip")` draws."""
        mean, std, peak = self.pooling(db, counts).chunk(3, dim=1)
        centre = mean.mean(dim=1, keepdim=True)
        variance = (std.square() + (mean - centre).square()).mean(dim=1, keepdim=True)
        spread = variance.clamp(min=self.min_spread_db**2).sqrt()
        return torch.cat([mean - centre, std, peak - centre], dim=1) / spread

    def _modulation(self, db: Tensor, counts: Tensor) -> Tensor:
        bands = db.unflatten(1, (self.n_bands, -1)).mean(dim=2)
        mean = mask_frames(bands, counts).sum(dim=-1, keepdim=True) / counts[:, None, None]
        windows, n_windows = self._windows(mask_frames(bands - mean, counts), counts)
        spectrum = torch.fft.rfft(windows * self._taper(counts)[:, None, None])
        power = spectrum.real.square() + spectrum.imag.square()
        fast = power[..., self.crest_bin :] + self.min_swing
        # Of each window first: the highest of a mean would fall with the number of windows.
        crest = (fast.amax(dim=-1, keepdim=True) / fast.mean(dim=-1, keepdim=True)).log()
        own = length_mask(n_windows, power.shape[2])[:, None, :, None]
        mean_power = power.masked_fill(~own, 0.0).sum(dim=2) / n_windows[:, None, None]
        mean_crest = crest.masked_fill(~own, 0.0).sum(dim=2) / n_windows[:, None, None]
        shape = (mean_power @ self.octaves.to(power.dtype) + self.min_swing).log()
        level = shape.mean(dim=-1, keepdim=True)
        return torch.cat([shape - level, level, mean_crest], dim=-1).flatten(1)

    def _windows(self, bands: Tensor, counts: Tensor) -> Tuple[Tensor, Tensor]:
        """Return `(batch, n_bands, windows, modulation_frames)` and how many are each clip's own.

        They start evenly spaced from the first frame to the last that one can start at.
        """
        n_frames, width = self.modulation_frames, bands.shape[-1]
        hop = n_frames // 2
        last = (counts - n_frames).clamp(min=0)
        n_windows = 1 + (last + hop - 1) // hop
        # More than any clip of this width needs: torch.export takes one for a special case.
        window = torch.arange(width // hop + 2, device=bands.device)
        start = window * last[:, None] // (n_windows - 1).clamp(min=1)[:, None]
        frame = torch.arange(n_frames, device=bands.device)
        index = (start[:, :, None] + frame).clamp(max=width - 1).flatten(1)
        windows = bands.gather(2, index[:, None].expand(-1, self.n_bands, -1))
        return windows.unflatten(2, (-1, n_frames)), n_windows

    def _taper(self, counts: Tensor) -> Tensor:
        """Return a Hann window of unit energy for each clip, `(batch, modulation_frames)`."""
        width = counts.clamp(min=1, max=self.modulation_frames).double().unsqueeze(1)
        frame = torch.arange(self.modulation_frames, device=counts.device, dtype=torch.float64)
        taper = torch.sin(math.pi * (frame + 0.5) / width).square()
        taper = taper.masked_fill(frame >= width, 0.0)
        return taper / taper.square().sum(dim=1, keepdim=True).sqrt()


def _names(statistics: List[str], n_mels: int, n_bands: int, n_octaves: int) -> List[str]:
    """Names of the columns: colour by mel band, then band by band what swings in it."""
    colour = [f"colour_{name}_{k}" for name in statistics for k in range(n_mels)]
    swings = [f"modulation_octave{k}" for k in range(n_octaves)]
    swings += ["modulation_level", "modulation_crest"]
    return colour + [f"{name}_{band}" for band in range(n_bands) for name in swings]


def _octave_bank(n_frames: int) -> Tensor:
    """Weights that average an rfft's bins 1, 2-3, 4-7 ... below the last: `(bins, octaves)`."""
    n_bins = n_frames // 2
    bank = torch.zeros(1 + n_bins, (n_bins - 1).bit_length(), dtype=torch.float64)
    for k in range(bank.shape[1]):
        low, high = 2**k, min(2 ** (k + 1), n_bins)
        bank[low:high, k] = 1 / (high - low)
    return bank
