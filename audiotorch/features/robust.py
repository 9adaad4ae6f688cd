"""One vector a clip that loses little on speakers, microphones and places not heard before."""

import math
from typing import List, Optional

import torch
from torch import Tensor, nn

from audiotorch.audio.frames import length_mask
from audiotorch.errors import ParameterError
from audiotorch.features.filters import dct_matrix
from audiotorch.features.functional import MIN_SPREAD_DB, frames_at, power_to_db
from audiotorch.features.texture import TextureStatistics

__all__ = ["RobustVector"]

# Share of a clip's loudness left out at either end.
_ENDS = 0.01
# Mean and spread of the texture's columns over recorded words and environmental sounds, by kind:
# no kind is to outweigh the others.
_TYPICAL = {
    "colour_mean": (0.0, 0.35),
    "colour_std": (0.6, 0.2),
    "colour_max": (1.5, 0.7),
    "modulation_octave0": (2.4, 1.3),
    "modulation_octave1": (2.2, 1.0),
    "modulation_octave2": (1.7, 0.85),
    "modulation_octave3": (0.6, 0.8),
    "modulation_octave4": (-1.0, 0.85),
    "modulation_octave5": (-2.3, 1.0),
    "modulation_octave6": (-3.6, 1.1),
    "modulation_level": (3.7, 1.1),
    "modulation_crest": (2.0, 0.5),
}


class RobustVector(nn.Module):
    """A front end: the course of a word and the texture of a sound, without who and where.

    Two parts, joined in this order:

    - word: the log-mel spectrogram, floored `word_top_db` below the clip's maximum, is read at
      `n_frames` places between which equal shares of the clip's loudness lie, loudness being each
      frame's level above `loudness_db` below the loudest. So silence around a word takes no place,
      and slow and fast words are alike. Each band then loses its mean, and with it the colour of
      microphone and room; the whole is divided by its standard deviation, and a cosine transform
      over bands and over time keeps `n_quefrencies` by `n_orders` coefficients: a spectrum too
      smooth to show the pitch, and a course too smooth to show the rhythm. The order 0 in time is
      0 after the mean was taken off, and left out.
    - texture: `TextureStatistics` of the same mel spectrogram, each kind of column centred and
      scaled by fixed numbers, the whole weighted against the word.

    Columns come balanced for kernels and distances: a StandardScaler in front would raise the
    coefficients in which little is heard to the level of the others.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        n_mels: mel bands.
        fmin: lowest frequency, Hz.
        fmax: highest frequency, Hz; `None` = half the sample rate.
        word_top_db: range of the word's decibels below the clip's maximum.
        loudness_db: range below the loudest frame in which frames count as loud.
        n_frames: places in time at which a word is read.
        n_quefrencies: coefficients over bands, at most `n_mels`.
        n_orders: coefficients over time, below `n_frames`.
        texture_weight: energy of the texture's part beside the word's, as a ratio of roots: small
            for words, large for sounds that have no beginning and end.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples
        - Output: `(batch, n_quefrencies * n_orders + 336)`: 448 numbers as it stands; `names`
          tells each column

    Raises:
        ParameterError: a number that is not positive, more coefficients than bands or places, and
            as `TextureStatistics`.

    Reference:
        Davis & Mermelstein (1980), Comparison of parametric representations for monosyllabic word
        recognition; Milner (1996), Inclusion of temporal information into features for speech
        recognition (cosine transform over time); Viikki & Laurila (1998), Cepstral domain
        segmental feature vector normalization; Kuhn & Tomaschewski (1983), Improvements in
        isolated word recognition (places in time by what happens, not by the clock).

    Example:
        >>> RobustVector()(torch.randn(2, 16000)).shape
        torch.Size([2, 448])
    """

    output_shape: List[int]
    over_bands: Tensor
    over_time: Tensor
    places: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 512,
        hop_length: int = 160,
        *,
        n_mels: int = 64,
        fmin: float = 0.0,
        fmax: float | None = None,
        word_top_db: float = 42.0,
        loudness_db: float = 30.0,
        n_frames: int = 48,
        n_quefrencies: int = 16,
        n_orders: int = 7,
        texture_weight: float = 1.8,
    ) -> None:
        super().__init__()
        self.texture = TextureStatistics(
            sample_rate, n_fft, hop_length, n_mels=n_mels, fmin=fmin, fmax=fmax
        )
        for name, value in (
            ("word_top_db", word_top_db),
            ("loudness_db", loudness_db),
            ("texture_weight", texture_weight),
        ):
            if not value > 0:
                raise ParameterError(f"{name}={value}: must be greater than 0")
        for name, count, most in (
            ("n_quefrencies", n_quefrencies, n_mels),
            ("n_orders", n_orders, n_frames - 1),
        ):
            if not 1 <= count <= most:
                raise ParameterError(f"{name}={count}: must lie in 1 to {most}")
        self.sample_rate = sample_rate
        self.word_top_db = float(word_top_db)
        self.loudness_db = float(loudness_db)
        self.min_spread_db = MIN_SPREAD_DB
        self.min_samples = 1
        self.normalised = True
        size = n_quefrencies * n_orders
        # The image has a mean square of 1: now as many coefficients have about that.
        over_bands = dct_matrix(n_quefrencies, n_mels) * math.sqrt(size / (n_mels * n_frames))
        over_time = dct_matrix(n_orders + 1, n_frames)[1:].transpose(0, 1).contiguous()
        self.register_buffer("over_bands", over_bands, persistent=False)
        self.register_buffer("over_time", over_time, persistent=False)
        places = torch.linspace(_ENDS, 1 - _ENDS, n_frames, dtype=torch.float64)
        self.register_buffer("places", places, persistent=False)
        typical = [_TYPICAL[name.rpartition("_")[0]] for name in self.texture.names]
        weight = texture_weight * math.sqrt(size / len(typical))
        centre = torch.tensor([mean for mean, _ in typical], dtype=torch.float64)
        spread = torch.tensor([deviation for _, deviation in typical], dtype=torch.float64)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("scale", weight / spread, persistent=False)
        self.names: List[str] = [
            f"word_dct_{k}_{order}"
            for k in range(n_quefrencies)
            for order in range(1, n_orders + 1)
        ] + self.texture.names
        self.output_shape = [len(self.names)]

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (samples) have."""
        return self.texture.frame_counts(lengths)

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the vector; shapes and errors as in the class docstring."""
        if waveform.dim() != 2:
            raise ParameterError(f"waveform: must be (batch, time), got {waveform.dim()} axes")
        mel = self.texture.mel(waveform, lengths)
        counts = torch.full(mel.shape[:1], mel.shape[-1], dtype=torch.int64, device=mel.device)
        if lengths is not None:
            counts = self.texture.frame_counts(lengths)
        texture = (self.texture.describe(mel, counts) - self.centre) * self.scale
        return torch.cat([self._word(mel, counts), texture], dim=1).to(waveform.dtype)

    def _word(self, mel: Tensor, counts: Tensor) -> Tensor:
        # In float64, so that the order of summation, and with it padding, leaves no trace.
        mel = mel.double()
        db = power_to_db(mel, top_db=self.word_top_db)
        image = frames_at(db, self._positions(mel, counts), counts - 1)
        image = image - image.mean(dim=-1, keepdim=True)
        spread = image.square().mean(dim=(-2, -1), keepdim=True).clamp(min=self.min_spread_db**2)
        image = image / spread.sqrt()
        return (self.over_bands.double() @ image @ self.over_time.double()).flatten(1)

    def _positions(self, mel: Tensor, counts: Tensor) -> Tensor:
        """Return where in time equal shares of the loudness end, in frames, `(batch, n_frames)`."""
        level = power_to_db(mel.sum(dim=-2, keepdim=True), top_db=self.loudness_db, relative=True)
        # A little for every frame, so that no share is taken between two equal sums.
        loudness = (level.squeeze(-2) + self.loudness_db).clamp(min=1e-6)
        loudness = loudness.masked_fill(~length_mask(counts, mel.shape[-1]), 0.0)
        total = torch.nn.functional.pad(loudness.cumsum(dim=-1), [1, 0])
        wanted = self.places.double() * total[:, -1:]
        right = torch.searchsorted(total, wanted).clamp(min=1)
        right = torch.minimum(right, counts.unsqueeze(-1))
        before, after = total.gather(-1, right - 1), total.gather(-1, right)
        return (right - 1) + (wanted - before) / (after - before) - 0.5
