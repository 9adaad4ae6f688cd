"""`RemoveSilence`: what is loud enough to hear, joined."""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from audiotorch.audio.frames import check_clips, frame_sums, full_lengths, length_mask, silence_past
from audiotorch.audio.preprocess import check_rate
from audiotorch.errors import ParameterError

__all__ = ["RemoveSilence"]

_FRAME = 2048
_HOP = 512
_FLOOR = 1e-10  # of the power, librosa's; clips below it all through are kept whole


class RemoveSilence(nn.Module):
    """Cut silence out of each clip and join what is left.

    Silent is a frame whose level lies `top_db` or more below that of the clip's loudest frame. A
    frame has 2048 samples and is centred on the first of its 512. What is left is widened by
    `pad_ms` on both sides, no further than the clip goes; pieces that then overlap are one. A clip
    without any sound stays whole, and so does one with a sample that is not finite.

    Args:
        sample_rate: Hz.
        top_db: decibels below the loudest frame, above 0.
        pad_ms: milliseconds kept on each side of what is left, at least 0; rounded down to samples.

    Shape:
        - Input: `(..., time)`, `lengths (...)` or None
        - Output: `(..., time)` with what is left at the beginning and zeros behind it, and
          `lengths (...)`: how much is left of each clip

    Raises:
        ParameterError: an argument is out of range; in `forward`, a shape or type does not fit.

    Reference:
        Same intervals as `librosa.effects.split`, before they are widened.

    Example:
        >>> waveform = torch.cat([torch.zeros(8000), torch.ones(4000), torch.zeros(8000)])
        >>> cut, length = RemoveSilence(8000)(waveform)
        >>> cut.shape, length
        (torch.Size([20000]), tensor(6432))
    """

    def __init__(self, sample_rate: int, top_db: float = 20.0, pad_ms: float = 50) -> None:
        super().__init__()
        self.sample_rate = check_rate("sample_rate", sample_rate)
        if not (math.isfinite(top_db) and top_db > 0):
            raise ParameterError(f"top_db={top_db!r}: must be above 0 decibels, such as 20.0")
        if not (math.isfinite(pad_ms) and pad_ms >= 0):
            raise ParameterError(f"pad_ms={pad_ms!r}: must be at least 0 milliseconds, such as 50")
        self.top_db = float(top_db)
        self.n_pad = int(self.sample_rate * pad_ms / 1000)

    def forward(
        self, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Move what is left of each clip to its beginning."""
        check_clips(waveform, lengths)
        waveform = silence_past(waveform, lengths)
        lengths = full_lengths(waveform, lengths)
        if waveform.shape[-1] == 0:
            return waveform, lengths
        clips = waveform.reshape(-1, waveform.shape[-1])
        kept = self._kept(clips, lengths.reshape(-1))
        # Kept samples are counted from 1 on; all the others meet at place 0, which is dropped.
        place = kept.cumsum(-1).masked_fill(~kept, 0)
        room = clips.new_zeros(clips.shape[0], clips.shape[1] + 1)
        joined = room.scatter(-1, place, clips)[:, 1:]
        return joined.reshape(waveform.shape), kept.sum(-1).reshape(lengths.shape)

    def _kept(self, clips: Tensor, lengths: Tensor) -> Tensor:
        """Say which samples of `(clips, time)` stay."""
        loud = self._loud(clips, 1 + torch.div(lengths, _HOP, rounding_mode="floor"))
        loud = loud | ~loud.any(-1, keepdim=True)
        # A loud frame keeps the samples of its hop, and n_pad more on each side: whole hops first.
        n_hops = self.n_pad // _HOP
        width = 2 * n_hops + 1
        total = nn.functional.pad(loud, [n_hops + 2, n_hops + 1]).cumsum(-1)
        near = total[:, width:] > total[:, :-width]
        # That has a hop more at either end than there are frames, for what is left of n_pad: it
        # reaches the beginning of the next hop and the end of the one before.
        rest = self.n_pad % _HOP
        sample = torch.arange(_HOP, device=clips.device)
        kept = near[:, 1:-1, None] | (near[:, :-2, None] & (sample < rest))
        kept = kept | (near[:, 2:, None] & (sample >= _HOP - rest))
        return kept.flatten(1)[:, : clips.shape[1]] & length_mask(lengths, clips.shape[1])

    def _loud(self, clips: Tensor, frame_counts: Tensor) -> Tensor:
        """Say which frames of `(clips, time)` are not silent, `(clips, frames)`.

        In float32 and librosa's order of steps, since rounding decides for a frame at the limit.
        """
        sums = frame_sums(clips.float().square(), _FRAME, _HOP, _FRAME // 2, _FRAME // 2)
        level = (sums / _FRAME).sqrt()
        own = length_mask(frame_counts, level.shape[1])
        peak = level.masked_fill(~own, 0.0).amax(-1, keepdim=True)
        level_db = 10.0 * level.square().clamp(min=_FLOOR).log10()
        level_db = level_db - 10.0 * peak.square().clamp(min=_FLOOR).log10()
        return own & (level_db > -self.top_db)
