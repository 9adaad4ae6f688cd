"""Whether two channels are two voices, as of a call, or one scene in stereo."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from audiotorch.transcribe.backends import SAMPLE_RATE

__all__ = ["apart"]

_MAX_LAG = SAMPLE_RATE // 50  # a sound reaches the microphones of a room within 20 ms
_ALIKE = 0.1  # correlation that two channels of one scene exceed
_AUDIBLE = 1e-3  # root mean square, -60 dB of full scale
_MAX_BLOCKS = 20  # looked at until something is heard


def apart(blocks: Iterator[Tensor]) -> tuple[bool, Iterator[Tensor]]:
    """Return whether a recording has two channels without anything in common, and its blocks.

    Where the second channel is the first one upside down, as of a cable with its wires crossed, it
    is turned over: the average of the two would be silence.

    Of the first block in which something is heard the channels are correlated, their low
    frequencies weakened, so that hum or an offset does not join them. The channels of a scene in
    stereo exceed 0.3, nearly all; two voices that have a channel each stay below 0.1.

    Args:
        blocks: of the recording, `(channel, time)` at 16 kHz.
    """
    seen = []
    found = inverted = False
    for block in itertools.islice(blocks, _MAX_BLOCKS):
        seen.append(block)
        if block.shape[0] != 2:
            break
        if block.shape[1] and float(block.square().mean(dim=1).max()) > _AUDIBLE**2:
            found = _correlation(block) < _ALIKE
            inverted = _is_inverted(block)
            break
    blocks = itertools.chain(seen, blocks)
    if inverted:
        signs = torch.tensor([[1.0], [-1.0]])
        blocks = (block * signs for block in blocks)
    return found, blocks


def _is_inverted(block: Tensor) -> bool:
    """Whether the average of two channels loses nine tenths of their power to their difference."""
    left, right = block
    return float((left + right).square().sum()) < 0.1 * float((left - right).square().sum())


def _correlation(block: Tensor) -> float:
    """The largest correlation of the two channels at any lag; 1 where one of them is empty."""
    bright = block[:, 1:] - 0.97 * block[:, :-1]
    left, right = torch.fft.rfft(bright.double(), 2 * block.shape[1])
    correlation = torch.fft.irfft(left * right.conj()).abs()
    norm = bright.double().norm(dim=1).prod()
    if norm == 0:
        return 1.0
    lags = torch.cat([correlation[: _MAX_LAG + 1], correlation[-_MAX_LAG:]])
    return float(lags.max() / norm)
