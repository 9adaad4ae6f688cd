"""Log-mel spectrograms as images for a CNN."""

from collections.abc import Iterable, Sequence
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from audiotorch.audio.frames import length_mask
from audiotorch.errors import ParameterError
from audiotorch.features.cepstrum import Delta
from audiotorch.features.functional import MIN_SPREAD_DB, mask_frames, power_to_db, stretch_frames
from audiotorch.features.mel import MelSpectrogram

__all__ = ["SpectrogramImage"]

_NORMALIZE = ("clip", "band", "dataset", "none")


class SpectrogramImage(nn.Module):
    """Log-mel spectrogram, normalised, as an image; optionally of a fixed number of frames.

    Everything is computed on the clip's own frames: padding and other clips change nothing.

    Args:
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples between frames.
        win_length: samples of the window, at most `n_fft`, which is the default. A short one blurs
            the harmonics of a voice, and with them who speaks.
        n_mels: mel bands, the height of the image.
        fmin: lowest frequency, Hz.
        fmax: highest frequency, Hz; `None` = half the sample rate.
        top_db: dynamic range kept below the clip's maximum, dB.
        normalize: `"clip"` subtracts the clip's mean and divides by its standard deviation;
            `"band"` subtracts each band's own mean over the clip instead, which removes the
            microphone's colour; `"dataset"` uses each band's mean and standard deviation over the
            training clips, measured by `fit`; `"none"` leaves dB. Several names give an image each,
            stacked as channels: `["clip", "band"]` shows a sound's colour and its course.
        deltas: stack each image's delta and delta-delta as further channels.
        n_frames: bring the time axis to this many frames by linear interpolation, so that a word
            spoken slowly and one spoken fast look alike; `None` keeps the frames as they are.
        trim_db: with `n_frames`: first leave out leading and trailing frames whose power lies more
            than this below the clip's loudest frame.

    Shape:
        - Input: `(batch, time)` and lengths `(batch,)` in samples
        - Output: `(batch, channel, n_mels, frames)`: a channel for each name in `normalize`, three
          with deltas; frames past a clip's own are 0.

    Raises:
        ParameterError: an unknown `normalize`, `trim_db` without `n_frames`, a number that is not
            positive, too few `n_frames` for deltas, and as `MelSpectrogram`.

    Reference:
        Before normalisation and without `n_frames`, same values as
        `librosa.power_to_db(librosa.feature.melspectrogram(y))`.

    Example:
        >>> SpectrogramImage(n_mels=40)(torch.randn(2, 22050)).shape
        torch.Size([2, 1, 40, 44])
    """

    output_shape: List[int]
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        *,
        win_length: int | None = None,
        n_mels: int = 64,
        fmin: float = 0.0,
        fmax: float | None = None,
        top_db: float = 80.0,
        normalize: str | Sequence[str] = "clip",
        deltas: bool = False,
        n_frames: int | None = None,
        trim_db: float | None = None,
    ) -> None:
        super().__init__()
        ways = [normalize] if isinstance(normalize, str) else list(normalize)
        if not ways or not set(ways) <= set(_NORMALIZE):
            raise ParameterError(
                f"normalize={normalize!r}: must be one of {_NORMALIZE}, or several"
            )
        if trim_db is not None and n_frames is None:
            raise ParameterError(f"trim_db={trim_db}: needs n_frames, the frames to stretch to")
        for name, value in (("top_db", top_db), ("n_frames", n_frames), ("trim_db", trim_db)):
            if value is not None and not value > 0:
                raise ParameterError(f"{name}={value}: must be greater than 0")
        self.mel = MelSpectrogram(
            sample_rate,
            n_fft,
            hop_length,
            n_mels=n_mels,
            fmin=fmin,
            fmax=fmax,
            win_length=win_length,
            single=False,  # models see the same numbers as their exported files
        )
        self.delta = Delta(1)
        self.delta2 = Delta(2)
        if deltas and n_frames is not None and n_frames < self.delta.width:
            raise ParameterError(
                f"n_frames={n_frames}: must be at least {self.delta.width} for deltas=True"
            )
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.top_db = float(top_db)
        self.normalize: List[str] = ways
        self.deltas = deltas
        self.min_spread_db = MIN_SPREAD_DB
        self.n_frames = n_frames
        self.trim_db = None if trim_db is None else float(trim_db)
        self.min_samples = (self.delta.width - 1) * hop_length if deltas and not n_frames else 1
        self.output_shape = [len(ways) * (3 if deltas else 1), n_mels]
        self.register_buffer("mean", torch.full((n_mels, 1), torch.nan))
        self.register_buffer("std", torch.full((n_mels, 1), torch.nan))

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames the images of clips of these lengths (samples) have."""
        if self.n_frames is not None:
            return torch.full_like(lengths, self.n_frames)
        return self.mel.frame_counts(lengths)

    @torch.jit.export
    def frame_seconds(self, waveform: Tensor, lengths: Tensor) -> Tuple[Tensor, Tensor]:
        """Return when each image's first frame is, and the seconds from frame to frame.

        Args:
            waveform: `(batch, time)`
            lengths: `(batch,)`, samples.

        Shape:
            - Output: `(batch,)` each, float64
        """
        hop = self.hop_length / self.sample_rate
        n_frames = self.n_frames
        if n_frames is None:
            step = torch.full_like(lengths, hop, dtype=torch.float64)
            return torch.zeros_like(step), step
        first, last = self._span(self.mel(waveform, lengths), self.mel.frame_counts(lengths))
        return first.double() * hop, (last - first).double() * hop / max(1, n_frames - 1)

    def log_mel(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the image before normalisation, in dB, `(batch, n_mels, frames)`.

        Args:
            waveform: `(batch, time)`
            lengths: `(batch,)`, samples.
        """
        if waveform.dim() != 2:
            raise ParameterError(f"waveform: must be (batch, time), got {waveform.dim()} axes")
        mel = self.mel(waveform, lengths)
        if lengths is None:
            counts = torch.full(mel.shape[:1], mel.shape[-1], dtype=torch.int64, device=mel.device)
        else:
            counts = self.mel.frame_counts(lengths)
        db = mask_frames(power_to_db(mel, top_db=self.top_db), counts)
        n_frames = self.n_frames
        if n_frames is None:
            return db
        first, last = self._span(mel, counts)
        return stretch_frames(db, first, last, n_frames)

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return the image; shapes and errors as in the class docstring."""
        db = self.log_mel(waveform, lengths)
        counts = torch.full(db.shape[:1], db.shape[-1], dtype=torch.int64, device=db.device)
        if lengths is not None:
            counts = self.frame_counts(lengths)
        channels: List[Tensor] = []
        for way in self.normalize:
            image = mask_frames(self._normalized(db, counts, way), counts)
            channels.append(image)
            if self.deltas:
                channels += [self.delta(image, counts), self.delta2(image, counts)]
        return torch.stack(channels, dim=1)

    def _span(self, mel: Tensor, counts: Tensor) -> List[Tensor]:
        """Return the first and last frame kept of each clip."""
        frame = torch.arange(mel.shape[-1], device=mel.device)
        keep = length_mask(counts, mel.shape[-1])
        trim_db = self.trim_db
        if trim_db is not None:
            level = mel.sum(dim=-2)
            threshold = level.amax(dim=-1, keepdim=True) * 10.0 ** (-0.1 * trim_db)
            keep = keep & (level >= threshold)
        first = torch.where(keep, frame, mel.shape[-1]).amin(dim=-1)
        last = torch.where(keep, frame, -1).amax(dim=-1)
        # NaN samples leave no frame: such a clip keeps frame 0 and its NaN.
        last = last.clamp(min=0)
        return [torch.minimum(first, last), last]

    def _normalized(self, db: Tensor, counts: Tensor, way: str) -> Tensor:
        if way == "none":
            return db
        if way == "dataset":
            return (db - self.mean.to(db.dtype)) / self.std.to(db.dtype)
        # In float64, so that the order of summation, and with it padding, leaves no trace.
        exact = db.double()
        mask = length_mask(counts, db.shape[-1]).unsqueeze(-2)
        count = counts.clamp(min=1).double().unsqueeze(-1).unsqueeze(-1)
        mean = exact.masked_fill(~mask, 0.0).sum(dim=-1, keepdim=True) / count
        if way == "clip":
            mean = mean.mean(dim=-2, keepdim=True)
        centred = (exact - mean).masked_fill(~mask, 0.0)
        variance = centred.square().sum(dim=(-2, -1), keepdim=True) / (count * db.shape[-2])
        # Clamped before the root, whose gradient at 0 is infinite.
        return (centred / variance.clamp(min=self.min_spread_db**2).sqrt()).to(db.dtype)

    @torch.jit.unused
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> "SpectrogramImage":
        """Measure each band's mean and standard deviation; needed for `normalize="dataset"`.

        Args:
            batches: pairs of waveforms `(batch, time)` and lengths `(batch,)`: the training clips,
                and no others.

        Raises:
            ParameterError: no frame at all.
        """
        total = torch.zeros(self.mel.n_mels, dtype=torch.float64)
        squares, count = torch.zeros_like(total), 0
        with torch.no_grad():
            for waveform, lengths in batches:
                db = self.log_mel(waveform, lengths).double().cpu()
                total += db.sum(dim=(0, 2))
                squares += db.square().sum(dim=(0, 2))
                count += int(self.frame_counts(lengths).sum())
        if count == 0:
            raise ParameterError("batches: hold no frames; give the training clips")
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0.0).sqrt().clamp(min=MIN_SPREAD_DB)
        self.mean.copy_(mean.unsqueeze(1))
        self.std.copy_(std.unsqueeze(1))
        return self
