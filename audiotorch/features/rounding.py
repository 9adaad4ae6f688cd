"""The separation's transforms by numpy, for clips in which librosa's rounding is heard.

In digital silence beside a sound the parts of a clip are what the transforms leave there by
rounding, 1e-8 of the sound. Features that divide each frame by its norm show just that, or the
rounding that a resampler makes of it, far away from the sound and changed by its last bit. So
nothing will do but librosa's own steps, each in the precision that librosa takes for it.
"""

from collections.abc import Iterator
from typing import Any, Optional, Tuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiotorch.audio.fourier import cut_frames
from audiotorch.audio.frames import length_mask

__all__ = ["invert", "is_faint", "transform"]

Array = npt.NDArray[Any]


def is_faint(magnitude: Tensor, frame_counts: Optional[Tensor]) -> Tensor:
    """Say which clips have a frame so quiet that rounding of the loudest frame shows in it.

    Rounding is half an `eps` of the loudest frame, and shows where it is 1 % or so.

    Args:
        magnitude: at least 0.
        frame_counts: int64, frames of each clip; `None` = all full.

    Shape:
        - Input: `(batch, freq, frames)` and `(batch,)`
        - Output: `(batch,)` bool; false for clips of silence alone
    """
    quietest = loudest = magnitude.amax(dim=1)
    if frame_counts is not None:
        own = length_mask(frame_counts, magnitude.shape[2])
        loudest = loudest.masked_fill(~own, 0.0)
        quietest = quietest.masked_fill(~own, torch.inf)
    return quietest.amin(dim=1) < 64 * torch.finfo(magnitude.dtype).eps * loudest.amax(dim=1)


def transform(
    stage: Any,
    waveform: Tensor,
    lengths: Optional[Tensor],
    spectrum: Tensor,
    magnitude: Tensor,
    faint: Tensor,
) -> Tuple[Tensor, Tensor]:
    """Return spectra and magnitudes, those of faint clips as numpy rounds them.

    Args:
        stage: the `STFT` that gave the spectra.
        waveform: float samples.
        lengths: int64, samples of each clip; `None` = all full.
        spectrum: of the clips; not changed.
        magnitude: of the spectra; changed in place.
        faint: which clips are, as `is_faint` says.

    Shape:
        - Input: `(batch, time)`, `(batch,)`, `(batch, freq, frames)` twice, and `(batch,)`
        - Output: `(batch, freq, frames)` twice
    """
    if not faint.any():
        return spectrum, magnitude
    spectrum = spectrum.clone()
    n_fft = stage.window.shape[0]
    kind = np.complex64 if waveform.dtype == torch.float32 else np.complex128
    for clip, own in _clips(waveform, lengths, faint):
        frames = cut_frames(own, n_fft, stage.hop_length, stage.center, stage.pad_mode)
        # Torch's transform has another last bit in one of some thousand numbers.
        columns = np.fft.rfft((frames[0] * stage.window.double()).numpy()).astype(kind)
        spectrum[clip, :, : len(columns)] = torch.from_numpy(columns).T
        magnitude[clip, :, : len(columns)] = torch.from_numpy(np.abs(columns)).T
    return spectrum, magnitude


def invert(
    stage: Any,
    part: Tensor,
    lengths: Optional[Tensor],
    spectrum: Tensor,
    mask: Tensor,
    faint: Tensor,
) -> Tensor:
    """Return a part of the clips, that of faint ones as `librosa.istft` rounds it.

    Args:
        stage: the `STFT` that gave the spectra.
        part: of the clips; changed in place.
        lengths: int64, samples of each clip; `None` = all full.
        spectrum: of the clips, as `transform` returns it.
        mask: what the part has of each bin.
        faint: which clips are, as `is_faint` says.

    Shape:
        - Input: `(batch, time)`, `(batch,)`, `(batch, freq, frames)` twice, and `(batch,)`
        - Output: `(batch, time)`
    """
    taps = stage.window.double().numpy()
    n_fft = len(taps)
    start = n_fft // 2 if stage.center else 0
    for clip, own in _clips(part, lengths, faint):
        samples = own[0].numpy()
        n_frames = 1 + (len(samples) + 2 * start - n_fft) // stage.hop_length
        columns = spectrum[clip, :, :n_frames].T.numpy()
        frames = np.fft.irfft(_masked(columns, mask[clip, :, :n_frames].T.numpy()), n_fft)
        total, envelope = (
            _overlapped(pieces, weights, stage.hop_length, samples.dtype)[start:][: len(samples)]
            for pieces, weights in ((frames, taps), (np.ones_like(frames), taps**2))
        )
        covered = envelope > np.finfo(samples.dtype).tiny
        samples[: len(total)] = total / np.where(covered, envelope, 1)
    return part


def _clips(
    waveform: Tensor, lengths: Optional[Tensor], faint: Tensor
) -> Iterator[Tuple[int, Tensor]]:
    """Give each faint clip's place and own samples, `(1, time)`."""
    sizes = [waveform.shape[1]] * len(waveform) if lengths is None else lengths.tolist()
    for clip in faint.nonzero().flatten().tolist():
        yield clip, waveform[clip : clip + 1, : sizes[clip]]


def _masked(spectrum: Array, mask: Array) -> Array:
    """Return mask times magnitude times phase: other numbers than mask times spectrum."""
    magnitude = np.abs(spectrum)
    divisor = np.where(magnitude == 0, 1, magnitude)
    kept = magnitude * mask
    masked = np.empty_like(spectrum)
    masked.real = kept * (spectrum.real / divisor)
    masked.imag = kept * (spectrum.imag / divisor)
    return masked


def _overlapped(frames: Array, taps: Array, hop_length: int, dtype: npt.DTypeLike) -> Array:
    """Return the sum of weighted frames, products in float64 and each sum rounded to `dtype`."""
    n_frames, n_fft = frames.shape
    n_pieces = -(-n_fft // hop_length)
    total = np.zeros((n_frames + n_pieces, hop_length), dtype)
    # Backwards, so that each sample takes in its frames from the first to the last.
    for i in reversed(range(n_pieces)):
        piece = slice(i * hop_length, min((i + 1) * hop_length, n_fft))
        rows = total[i : i + n_frames, : piece.stop - piece.start]
        rows += frames[:, piece] * taps[piece]
    return total.ravel()
