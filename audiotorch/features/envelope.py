"""One vector a clip: how the course of its level repeats, such as heartbeats or strokes do."""

from typing import List, Optional

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError
from audiotorch.features.functional import MIN_SPREAD_DB, mask_frames, power_to_db
from audiotorch.features.mel import MelSpectrogram

__all__ = ["EnvelopeRhythm"]


class EnvelopeRhythm(nn.Module):
    """A front end: the autocorrelation of a band's level in dB.

    The level of a band, floored `top_db` below its loudest frame, loses its mean over the clip;
    `r[lag] = sum(x[t] x[t + lag]) / sum(x[t]^2)`. Neither how loud nor how long a recording is
    plays a part, and steady noise little: what is told is when things happen, as the two sounds of
    a heartbeat, and whether something fills the pauses between them. Beyond a clip's own frames
    `r` is 0, and a level that stands still gives zeros.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        fmin: lowest frequency of the band, Hz.
        fmax: highest frequency, Hz; `None` = half the sample rate.
        n_mels: mel bands that the band is summed up from.
        top_db: dynamic range kept below the loudest frame, dB.
        max_lag: longest lag, seconds: a beat, and a little more.
        lag_step: frames between the lags that are kept.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples
        - Output: `(batch, lags)`; `names` tells each column: `lag_0.048` is in seconds

    Raises:
        ParameterError: a number that is not positive, a longest lag below `lag_step` frames, and as
            `MelSpectrogram`.

    Reference:
        Schmidt et al. (2010), Segmentation of heart sound recordings by a duration-dependent hidden
        Markov model: heart rate and systole by the autocorrelation of the envelope.

    Example:
        >>> EnvelopeRhythm(4000)(torch.randn(2, 8000)).shape
        torch.Size([2, 25])
    """

    output_shape: List[int]
    lags: Tensor

    def __init__(
        self,
        sample_rate: int = 4000,
        n_fft: int = 256,
        hop_length: int = 64,
        *,
        fmin: float = 100.0,
        fmax: float | None = 800.0,
        n_mels: int = 16,
        top_db: float = 60.0,
        max_lag: float = 1.2,
        lag_step: int = 3,
    ) -> None:
        super().__init__()
        for name, value in (("top_db", top_db), ("lag_step", lag_step)):
            if not value > 0:
                raise ParameterError(f"{name}={value}: must be greater than 0")
        self.mel = MelSpectrogram(
            sample_rate, n_fft, hop_length, n_mels=n_mels, fmin=fmin, fmax=fmax, single=False
        )
        self.last_lag = int(max_lag * sample_rate / hop_length)
        if self.last_lag < lag_step:
            least = lag_step * hop_length / sample_rate
            raise ParameterError(f"max_lag={max_lag}: must be at least {least:g} s, the first lag")
        self.sample_rate = sample_rate
        self.top_db = float(top_db)
        self.min_spread_db = MIN_SPREAD_DB
        self.min_samples = 1
        self.normalised = False
        lags = torch.arange(lag_step, self.last_lag + 1, lag_step)
        self.register_buffer("lags", lags, persistent=False)
        self.names: List[str] = [f"lag_{lag * hop_length / sample_rate:.3f}" for lag in lags]
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
        # In float64, so that the order of summation, and with it padding, leaves no trace.
        power = mel.double().sum(dim=1, keepdim=True)
        level = mask_frames(power_to_db(power, top_db=self.top_db), counts)
        count = counts.clamp(min=1).double()[:, None, None]
        course = mask_frames(level - level.sum(dim=-1, keepdim=True) / count, counts)[:, 0]
        # Zeros behind, so that no frame meets one from the other end.
        n = course.shape[-1] + self.last_lag
        spectrum = torch.fft.rfft(course, n=n)
        swing = torch.fft.irfft(spectrum.real.square() + spectrum.imag.square(), n=n)
        least = count[:, 0] * self.min_spread_db**2
        rhythm = swing.index_select(1, self.lags) / torch.maximum(swing[:, :1], least)
        # Not rounding, where no frame has a partner; times 0 keeps a NaN.
        rhythm = torch.where(self.lags < counts[:, None], rhythm, 0.0 * swing[:, :1])
        return rhythm.to(waveform.dtype)
