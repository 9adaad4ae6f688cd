"""The short-time Fourier transform and its inverse."""

from typing import Optional

import torch
from torch import Tensor

from audiotorch.audio.frames import is_plain_cpu, length_mask, pad_ends
from audiotorch.errors import ParameterError

__all__ = [
    "complex_dtype",
    "cut_frames",
    "istft",
    "power_spectrum",
    "stft",
    "takes_single",
    "transform",
]


def stft(
    waveform: Tensor,
    window: Tensor,
    hop_length: int,
    center: bool = True,
    pad_mode: str = "constant",
    lengths: Optional[Tensor] = None,
) -> Tensor:
    """Return the short-time Fourier transform, computed in float64 as librosa does.

    In float32 its rounding reaches 6e-3 dB in bins 80 dB below the clip's maximum.

    Args:
        waveform: float samples.
        window: as long as the FFT.
        hop_length: samples between frames.
        center: pad `n_fft // 2` samples on each side, so that frame `t` is centred on sample
            `t * hop_length`.
        pad_mode: how that padding is filled; `"constant"` = zeros, librosa's default.
        lengths: int64, samples of each clip, where other padding starts; `None` = all full.

    Shape:
        - Input: `(batch, time)`
        - Output: `(batch, 1 + n_fft // 2, frames)`, complex of the waveform's precision;
          `frames = 1 + time // hop_length` when centered.

    Raises:
        ParameterError: no sample, or without centring fewer than the window's.

    Reference:
        Same values as `librosa.stft`.
    """
    frames = cut_frames(waveform, window.shape[0], hop_length, center, pad_mode, lengths)
    return transform(frames, window, complex_dtype(waveform)).transpose(-1, -2)


def cut_frames(
    waveform: Tensor,
    n_fft: int,
    hop_length: int,
    center: bool = True,
    pad_mode: str = "constant",
    lengths: Optional[Tensor] = None,
    double: bool = True,
) -> Tensor:
    """Return the frames that `stft` transforms, in float64 if `double`; the rest is as there.

    Shape:
        - Input: `(batch, time)`
        - Output: `(batch, frames, n_fft)`
    """
    shortest = 1 if center else n_fft
    if waveform.shape[-1] < shortest:
        raise ParameterError(
            f"waveform: has {waveform.shape[-1]} samples, needs at least {shortest}; pad it"
        )
    padding = n_fft // 2
    if center and pad_mode == "constant":
        # `pad` would fill the middle twice.
        zeros = waveform.new_zeros(waveform.shape[0], padding)
        waveform = torch.cat([zeros, waveform, zeros], dim=-1)
    elif center:
        waveform = pad_ends(waveform, lengths, padding, pad_mode)
    if double:
        waveform = waveform.double()
    return waveform.unfold(-1, n_fft, hop_length)


def transform(frames: Tensor, window: Tensor, dtype: torch.dtype, power: bool = False) -> Tensor:
    """Return the Fourier transform of windowed frames, or its power.

    Args:
        frames: of a waveform.
        window: as long as a frame.
        dtype: complex type that the transform is rounded to.
        power: square its magnitude.

    Shape:
        - Input: `(batch, frames, n_fft)` and `(n_fft,)`
        - Output: `(batch, frames, 1 + n_fft // 2)`
    """
    window = window.to(frames.dtype)
    if not torch.jit.is_scripting():
        if is_plain_cpu(frames):
            run = _operator if torch.compiler.is_compiling() else _by_pieces
            answer: Tensor = run(frames, window, dtype, power)
            return answer
    spectrum = torch.fft.rfft(frames * window).to(dtype)
    return power_spectrum(spectrum) if power else spectrum


@torch.jit.unused
def takes_single(waveform: Tensor) -> bool:
    """Say whether power spectra of a waveform may be taken in float32 first, in half the time.

    Not on GPUs, which gain nothing, and not when exported: frames are looked at to find those for
    which that is too coarse, and to take them in float64.
    """
    float32 = waveform.dtype == torch.float32
    return float32 and is_plain_cpu(waveform) and not torch.compiler.is_compiling()


def power_spectrum(spectrum: Tensor) -> Tensor:
    """Return the squared magnitude of a complex tensor."""
    # Both parts are squared at once: strided operations cost four times as much.
    squares = torch.view_as_real(spectrum).square()
    return squares[..., 0] + squares[..., 1]


def complex_dtype(waveform: Tensor) -> torch.dtype:
    """Return the complex type of a waveform's precision."""
    return torch.complex64 if waveform.dtype == torch.float32 else torch.complex128


def _by_pieces(frames: Tensor, window: Tensor, dtype: torch.dtype, power: bool) -> Tensor:
    """Return the same as `transform`, of some 128 frames at a time: more overflow the cache."""
    n_clips, n_frames, _ = frames.shape
    answer = _room(frames, window, dtype, power)
    n_pieces = max(1, round(n_frames / 128))
    step = -(-n_frames // n_pieces)
    n_at_once = max(1, 128 // step)
    for clip in range(0, n_clips, n_at_once):
        for frame in range(0, n_frames, step):
            part = (slice(clip, clip + n_at_once), slice(frame, frame + step))
            spectrum = torch.fft.rfft(frames[part] * window)
            if power:
                squares = torch.view_as_real(spectrum.to(dtype)).square_()
                torch.add(squares[..., 0], squares[..., 1], out=answer[part])
            else:
                answer[part] = spectrum
    return answer


def _room(frames: Tensor, window: Tensor, dtype: torch.dtype, power: bool) -> Tensor:
    shape = [*frames.shape[:2], 1 + frames.shape[2] // 2]
    return frames.new_empty(shape, dtype=dtype.to_real() if power else dtype)


# For `torch.compile`, which could but unroll the loop.
_operator = torch.library.custom_op("audiotorch::transform", _by_pieces, mutates_args=())
_operator.register_fake(_room)


def istft(
    spectrum: Tensor,
    window: Tensor,
    hop_length: int,
    n_samples: int,
    center: bool = True,
    frame_counts: Optional[Tensor] = None,
) -> Tensor:
    """Return the waveform whose short-time Fourier transform lies nearest to a spectrum.

    Frames are windowed again and added up where they lie, then divided by the sum of the squared
    windows there. Samples that no frame covers are 0. `torch.istft` knows no clips of different
    lengths, refuses windows that leave gaps, and does not run on fake devices.

    Args:
        spectrum: complex; frames past a clip's own do not count.
        window: as long as the FFT; the one of the analysis.
        hop_length: samples between frames.
        n_samples: samples of the output.
        center: frame `t` is centred on sample `t * hop_length`, else it starts there.
        frame_counts: int64, frames of each clip; `None` = all full.

    Shape:
        - Input: `(..., 1 + n_fft // 2, frames)` and `(...)`
        - Output: `(..., n_samples)`, in the spectrum's precision

    Reference:
        Griffin and Lim (1984), Signal estimation from modified short-time Fourier transform. Same
        values as `librosa.istft`.
    """
    n_fft, n_frames = window.shape[0], spectrum.shape[-1]
    frames = torch.fft.irfft(spectrum.transpose(-1, -2), n_fft)
    leading = frames.shape[:-2]
    frames = frames.reshape(-1, n_frames, n_fft)
    weight = window.to(frames.dtype)
    if frame_counts is None:
        counts = frames.new_ones(1, n_frames, 1)
    else:
        own = length_mask(frame_counts.reshape(-1), n_frames).unsqueeze(-1)
        frames = frames.masked_fill(~own, 0.0)
        counts = own.to(frames.dtype)
    # Both sums are laid out in rows of one hop, to which each frame adds a few pieces.
    n_pieces = -(-n_fft // hop_length)
    total = frames.new_zeros(frames.shape[0], n_frames + n_pieces, hop_length)
    envelope = frames.new_zeros(counts.shape[0], n_frames + n_pieces, hop_length)
    for i in range(n_pieces):
        start = i * hop_length
        piece = weight[start : start + hop_length]
        width = piece.shape[0]
        rows = total[:, i : i + n_frames, :width]
        rows.addcmul_(frames[..., start : start + width], piece)
        envelope[:, i : i + n_frames, :width].addcmul_(counts, piece.square())
    start = n_fft // 2 if center else 0
    total = total.flatten(1)[:, start : start + n_samples]
    envelope = envelope.flatten(1)[:, start : start + n_samples]
    covered = envelope > 2.0**-126  # float32's smallest normal number
    waveform = total / torch.where(covered, envelope, torch.ones_like(envelope))
    return waveform.reshape(leading + waveform.shape[-1:])
