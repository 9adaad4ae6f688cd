"""One vector a clip for detectors of anomalies: level, colour and swings of each band."""

from typing import List, Optional

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.features.functional import power_to_db
from audiotorch.features.level import RMS
from audiotorch.features.pooling import StatisticsPooling
from audiotorch.features.texture import TextureStatistics

__all__ = ["SoundProfile"]


class SoundProfile(nn.Module):
    """A front end: level statistics of each mel band beside the texture of the sound.

    Three parts, joined in this order:

    - level: power of the clip in dB, the mean over frames. It stays in: a machine that grows quiet
      is one of the things that a detector is to notice. Normal and later recordings have to be made
      with the same gain; where they are not, put a `Normalize` in front.
    - band levels: mean, standard deviation, minimum and maximum over time of each mel band in dB,
      floored `top_db` below the clip's maximum.
    - texture: `TextureStatistics` of the same mel spectrogram, which no level touches.

    Columns come in units of their own: a StandardScaler belongs behind.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        n_mels: mel bands.
        fmin: lowest frequency, Hz.
        fmax: highest frequency, Hz; `None` = half the sample rate.
        top_db: dynamic range kept below the clip's maximum, dB.
        n_bands: bands of the modulation spectrum, a divisor of `n_mels`.
        modulation_frames: frames of a modulation window.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples
        - Output: `(batch, 1 + 4 * n_mels + texture)`: 593 numbers as it stands; `names` tells
          each column

    Raises:
        ParameterError: as `TextureStatistics`.

    Reference:
        The level is `librosa.feature.rms(y)` squared, averaged and in dB; band levels are what
        numpy's `mean`, `std`, `min` and `max` make of
        `librosa.power_to_db(librosa.feature.melspectrogram(y))`.

    Example:
        >>> SoundProfile()(torch.randn(2, 22050)).shape
        torch.Size([2, 593])
    """

    output_shape: List[int]

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 1024,
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
        self.texture = TextureStatistics(
            sample_rate,
            n_fft,
            hop_length,
            n_mels=n_mels,
            fmin=fmin,
            fmax=fmax,
            top_db=top_db,
            n_bands=n_bands,
            modulation_frames=modulation_frames,
        )
        self.rms = RMS(sample_rate, frame_length=n_fft, hop_length=hop_length)
        self.pooling = StatisticsPooling()
        self.sample_rate = sample_rate
        self.top_db = float(top_db)
        self.min_samples = 1
        self.normalised = False
        bands = [f"band_{name}_{k}" for name in self.pooling.statistics for k in range(n_mels)]
        self.names: List[str] = ["level", *bands, *self.texture.names]
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
        # In float64, so that the order of summation, and with it padding, leaves no trace.
        power = self.rms(waveform.double(), lengths).square().sum(dim=-1) / counts[:, None]
        level = power_to_db(power, top_db=None)
        bands = self.pooling(power_to_db(mel, top_db=self.top_db).double(), counts)
        texture = self.texture.describe(mel, counts)
        return torch.cat([level, bands, texture], dim=1).to(waveform.dtype)
