"""`RemoveSilence`: what is loud enough to hear, joined."""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from audiotorch.audio.chunks import Walker, walks
from audiotorch.audio.frames import check_clips, frame_sums, full_lengths, length_mask
from audiotorch.audio.preprocess import check_rate
from audiotorch.errors import ParameterError

__all__ = ["RemoveSilence"]


class RemoveSilence(Walker):
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
        (torch.Size([20000]), tensor(6944))
    """

    def __init__(self, sample_rate: int, top_db: float = 20.0, pad_ms: float = 50) -> None:
        super().__init__()
        self.sample_rate = check_rate("sample_rate", sample_rate)
        if not (math.isfinite(top_db) and top_db > 0):
            raise ParameterError(f"top_db={top_db!r}: must be above 0 decibels, such as 20.0")
        if not (math.isfinite(pad_ms) and pad_ms >= 0):
            raise ParameterError(f"pad_ms={pad_ms!r}: must be at least 0 milliseconds, such as 50")
        self.frame_length = 2048
        self.hop_length = 512
        self.top_db = float(top_db)
        self.n_pad = int(self.sample_rate * pad_ms / 1000)

    def forward(
        self, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Move what is left of each clip to its beginning."""
        check_clips(waveform, lengths)
        if waveform.numel() == 0:
            return waveform, full_lengths(waveform, lengths)
        clips = waveform.reshape(-1, waveform.shape[-1])
        clip_lengths = None if lengths is None else lengths.reshape(-1)
        if not torch.jit.is_scripting():
            if walks(clips):
                answer: Tuple[Tensor, Tensor] = self._walk(clips, clip_lengths)
                return answer[0].reshape(waveform.shape), answer[1].reshape(waveform.shape[:-1])
        left, counts = self.compute(clips, clip_lengths)
        return left.reshape(waveform.shape), counts.reshape(waveform.shape[:-1])

    def compute(self, clips: Tensor, lengths: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Return what is left of `(batch, time)`, and how much that is."""
        if lengths is None:
            kept = self._kept(self._loud(clips, None), clips.shape[1])
        else:
            own = length_mask(lengths, clips.shape[1])
            clips = torch.where(own, clips, 0.0)
            kept = own & self._kept(self._loud(clips, lengths), clips.shape[1])
        # Samples that stay are counted from 1 on; the others meet at place 0, which is dropped.
        place = kept.cumsum(-1)
        room = clips.new_zeros(clips.shape[0], clips.shape[1] + 1)
        return room.scatter(-1, torch.where(kept, place, 0), clips)[:, 1:], place[:, -1]

    def _kept(self, loud: Tensor, n_samples: int) -> Tensor:
        """Say which of `n_samples` stay, of loud frames `(batch, frames)`."""
        hop = self.hop_length
        # A loud frame keeps the samples of its hop, and n_pad more on each side: whole hops first.
        n_hops = self.n_pad // hop
        width = 2 * n_hops + 1
        total = nn.functional.pad(loud, [n_hops + 2, n_hops + 1]).cumsum(-1)
        near = (total[:, width:] > total[:, :-width]).unsqueeze(-1)
        # That has a hop more at either end than there are frames, for what is left of n_pad: it
        # reaches the beginning of the next hop and the end of the one before.
        rest = self.n_pad % hop
        middle = near[:, 1:-1]
        begin = middle | near[:, :-2]
        end = middle | near[:, 2:]
        if 2 * rest > hop:
            middle = begin | end
        n_outer = min(rest, hop - rest)
        parts = [begin.expand(-1, -1, n_outer), middle.expand(-1, -1, hop - 2 * n_outer)]
        parts.append(end.expand(-1, -1, n_outer))
        return torch.cat(parts, dim=-1).flatten(1)[:, :n_samples]

    def _loud(self, clips: Tensor, lengths: Optional[Tensor]) -> Tensor:
        """Say which frames of `(batch, time)` are not silent, or all where a clip has none.

        In float32 and librosa's order of steps, since rounding decides for a frame at the limit.
        """
        half = self.frame_length // 2
        # A frame more than any clip has: torch.export takes a size of 1 for a special case.
        after = half + self.hop_length
        squares = clips.float().square()
        sums = frame_sums(squares, self.frame_length, self.hop_length, half, after)
        level = (sums / self.frame_length).sqrt()
        counts = 1 + torch.div(full_lengths(clips, lengths), self.hop_length, rounding_mode="floor")
        own = length_mask(counts, level.shape[1])
        peak = level.masked_fill(~own, 0.0).amax(-1, keepdim=True)
        # Below librosa's floor everything is as loud: a clip that never exceeds it stays whole.
        level_db = 10.0 * level.square().clamp(min=1e-10).log10()
        level_db = level_db - 10.0 * peak.square().clamp(min=1e-10).log10()
        loud = own & (level_db > -self.top_db)
        return loud | ~loud.any(-1, keepdim=True)
