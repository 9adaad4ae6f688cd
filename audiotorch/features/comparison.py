"""torchaudio's own features, as a front end to compare with."""

import warnings
from typing import List, Optional, Sequence

import torch
import torchaudio
from torch import Tensor, nn

from audiotorch.audio.frames import pad_ends
from audiotorch.errors import ParameterError
from audiotorch.features.functional import check_waveform, mask_frames, mask_samples
from audiotorch.features.pooling import StatisticsPooling, mfcc_names

__all__ = ["TorchaudioStatistics"]


class TorchaudioStatistics(nn.Module):
    """A front end of torchaudio's MFCC and deltas at its own defaults, pooled over the clip.

    For comparison, and in float64 whatever it is given: HTK mel bands without area normalisation,
    mirrored ends, deltas over 5 frames with repeated ends; so the numbers are not librosa's. A clip
    gives the same alone, in a batch and padded, which torchaudio alone does not: each has its own
    ends and dynamic range here.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames; `None` = half of `n_fft`.
        n_mfcc: coefficients.
        n_mels: mel bands.
        statistics: as `StatisticsPooling`.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples
        - Output: `(batch, 3 * len(statistics) * n_mfcc)`: MFCC, delta, delta of the delta, each
          with all its statistics; `names` tells each column.

    Raises:
        ParameterError: a size that is not positive, `n_mfcc` above `n_mels`, as
            `StatisticsPooling`.

    Reference:
        `torchaudio.transforms.MFCC` and `torchaudio.functional.compute_deltas`, clip by clip.

    Example:
        >>> TorchaudioStatistics(statistics=["mean"])(torch.zeros(2, 16000)).shape
        torch.Size([2, 120])
    """

    output_shape: List[int]

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 400,
        hop_length: int | None = None,
        *,
        n_mfcc: int = 40,
        n_mels: int = 128,
        statistics: Sequence[str] = ("mean", "std", "min", "max"),
    ) -> None:
        super().__init__()
        hop = n_fft // 2 if hop_length is None else hop_length
        for name, value in (("sample_rate", sample_rate), ("n_fft", n_fft), ("hop_length", hop)):
            if not value > 0:
                raise ParameterError(f"{name}={value}: must be greater than 0")
        if not 1 <= n_mfcc <= n_mels:
            raise ParameterError(f"n_mfcc={n_mfcc}: must lie in 1 to n_mels={n_mels}")
        # Mirrored here, at each clip's own end, and so not once more there.
        settings = {"n_fft": n_fft, "hop_length": hop, "n_mels": n_mels, "center": False}
        with warnings.catch_warnings():
            # At its defaults some bands hold no FFT bin; comparing with them is the point.
            warnings.filterwarnings("ignore", message="At least one mel filterbank")
            mfcc = torchaudio.transforms.MFCC(sample_rate, n_mfcc, melkwargs=settings)
        # In float32 the rounding of its FFT, which differs from batch to batch, reaches 0.03 dB.
        self.mfcc = mfcc.double()
        self.pooling = StatisticsPooling(statistics)
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop
        self.min_samples = 1
        self.names: List[str] = mfcc_names(self.pooling.statistics, n_mfcc)
        self.normalised = False
        self.output_shape = [len(self.names)]

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames clips of these lengths (int64, samples) have."""
        return 1 + lengths // self.hop_length

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the vector; shapes and errors as in the class docstring."""
        check_waveform(waveform, lengths)
        if waveform.dim() != 2:
            raise ParameterError(f"waveform: must be (batch, time), got {waveform.dim()} axes")
        if lengths is None:
            lengths = torch.full(
                waveform.shape[:1], waveform.shape[1], dtype=torch.int64, device=waveform.device
            )
        counts = self.frame_counts(lengths)
        padded = pad_ends(mask_samples(waveform, lengths), lengths, self.n_fft // 2, "reflect")
        mel = mask_frames(self.mfcc.MelSpectrogram(padded.to(self.mfcc.dct_mat.dtype)), counts)
        # The axis of length 1 is torchaudio's channel: a dynamic range for each clip.
        db = self.mfcc.amplitude_to_DB(mel.unsqueeze(1)).squeeze(1)
        mfcc = torch.matmul(db.transpose(1, 2), self.mfcc.dct_mat).transpose(1, 2)
        mfcc = self._own_ends(mfcc, counts)
        delta = torchaudio.functional.compute_deltas(mfcc)
        delta = self._own_ends(delta, counts)
        delta2 = torchaudio.functional.compute_deltas(delta)
        rows = torch.cat([mfcc, delta, delta2], dim=1)
        rows = mask_frames(rows, counts).unflatten(1, (3, -1))
        vector = self.pooling(rows, counts.unsqueeze(-1).expand(-1, 3)).flatten(1)
        return vector.to(waveform.dtype)

    def _own_ends(self, feature: Tensor, counts: Tensor) -> Tensor:
        """Repeat each clip's last frame behind it, as torchaudio does at the tensor's end."""
        frame = torch.arange(feature.shape[-1], device=feature.device)
        index = torch.minimum(frame, (counts - 1).clamp(min=0).unsqueeze(-1)).unsqueeze(1)
        return feature.gather(-1, index.expand(-1, feature.shape[1], -1))
