"""The walk over chunks of a batch, and threads, that modules take on the CPU."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional, Tuple

import torch
from torch import Tensor, nn

from audiotorch.audio.frames import check_clips, is_plain_cpu

__all__ = ["Step", "Walker", "n_cores", "walk", "walks"]

# Samples of a chunk: six clips of 5 s, so that small steps cost little beside the large ones.
CHUNK_SAMPLES = 720_000


class Walker(nn.Module):
    """A module over batches whose `compute` can be walked in chunks, or compiled.

    On the CPU, without gradients, batches are walked in chunks that fit the cache, spread over as
    many threads as `torch.get_num_threads()` says. Elsewhere, and when exported, the batch is taken
    whole. The numbers are the same but for rounding.
    """

    chunk_scale = 1
    """How many times the usual samples a chunk has: more where little is made of each."""

    def __init__(self) -> None:
        super().__init__()
        self._compiled: Any = None

    @torch.jit.unused
    def compile(self, **options: Any) -> None:
        """Hand what is done to a chunk to `torch.compile`: in place, at the first call.

        That takes half a minute or so. On CPUs it pays for `HPSS` alone, as nothing complex is
        fused. The numbers stay the same but for rounding.

        Args:
            options: as `torch.compile`; shapes are dynamic unless told otherwise.
        """
        compute: Any = self.compute
        self._compiled = torch.compile(compute, **{"dynamic": True, **options})

    @torch.jit.unused
    def _walk(self, waveform: Tensor, lengths: Optional[Tensor]) -> Any:
        compute: Any = self.compute if self._compiled is None else self._compiled
        return walk(compute, waveform, lengths, self.chunk_scale)


class Step(Walker):
    """A step over clips that keeps their lengths: the base of most that is done before features."""

    def compute(self, clips: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Return clips `(batch, time)` with the step done, zeros behind each.

        Args:
            clips: float samples; past each clip's length may lie anything.
            lengths: int64, samples of each clip, `(batch,)`; `None` = all full.
        """
        raise NotImplementedError

    def forward(
        self, waveform: Tensor, lengths: Optional[Tensor] = None
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Do the step; shapes and errors as in the class docstring."""
        check_clips(waveform, lengths)
        if waveform.numel() == 0:
            return waveform, lengths
        clips = waveform.reshape(-1, waveform.shape[-1])
        clip_lengths = None if lengths is None else lengths.reshape(-1)
        if not torch.jit.is_scripting():
            if walks(clips):
                answer: Tensor = self._walk(clips, clip_lengths)
                return answer.reshape(waveform.shape), lengths
        return self.compute(clips, clip_lengths).reshape(waveform.shape), lengths


def walks(waveform: Tensor) -> bool:
    """Say whether a batch `(batch, time)` is to be walked in chunks: see `Walker`."""
    return is_plain_cpu(waveform) and waveform.shape[0] > 0


def walk(
    compute: Callable[..., Any], waveform: Tensor, lengths: Optional[Tensor], chunk_scale: int = 1
) -> Any:
    """Return `compute(waveform, lengths)`, computed in chunks, several threads at a time.

    Args:
        compute: gives a tensor, or a dict or tuple of tensors, batch first.
        waveform: samples.
        lengths: int64, samples of each clip; `None` = all full.
        chunk_scale: how many times `CHUNK_SAMPLES` a chunk may have.

    Shape:
        - Input: `(batch, time)` and `(batch,)`
        - Output: as that of `compute`
    """
    batch, n_samples = waveform.shape
    n_threads = torch.get_num_threads()
    # glibc gives memory back after each chunk, and fetching it anew would take as long as the work.
    # Freeing one large block makes it keep as much for good.
    block = torch.empty(31 << 20, dtype=torch.uint8)
    del block
    # Chunks of whole clips, about equal, as many for each thread.
    most = max(1, chunk_scale * CHUNK_SAMPLES // max(1, n_samples))
    rounds = -(-batch // (most * n_threads))
    step = -(-batch // (rounds * n_threads))

    def run(start: int) -> Any:
        part = slice(start, start + step)
        own = None if lengths is None else lengths[part]
        # Full clips need no masks.
        if own is not None and bool((own >= n_samples).all()):
            own = None
        # Less bookkeeping for each operation, which tells where they are many and small.
        with torch.inference_mode():
            return compute(waveform[part], own)

    starts = range(0, batch, step)
    if n_threads == 1 or (len(starts) == 1 and batch * n_samples > CHUNK_SAMPLES):
        return _gather(map(run, starts), batch)
    # Torch would spread each operation over its threads, which takes small ones longer. Telling a
    # thread how many to use also tells those to come: the caller's number is set anew at the end.
    try:
        if len(starts) == 1:
            torch.set_num_threads(1)
            return _gather(map(run, starts), batch)
        with ThreadPoolExecutor(
            n_threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            try:
                return _gather(pool.map(run, starts), batch)
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(n_threads)


def n_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _gather(answers: Iterator[Any], batch: int) -> Any:
    """Join the answers of chunks along the batch, each copied as it comes."""
    first = next(answers)
    wholes = [_empty(part, batch) for part in _tensors(first)]
    start = _copy(first, wholes, 0)
    for answer in answers:
        start = _copy(answer, wholes, start)
    if isinstance(first, Tensor):
        return wholes[0]
    if isinstance(first, dict):
        return dict(zip(first, wholes, strict=True))
    return tuple(wholes)


def _tensors(answer: Any) -> Iterable[Tensor]:
    if isinstance(answer, Tensor):
        return [answer]
    return answer.values() if isinstance(answer, dict) else answer


def _empty(part: Tensor, batch: int) -> Tensor:
    """Room for a whole batch, laid out in memory as the chunk is, so that copying is quick."""
    size, stride = [batch, *part.shape[1:]], list(part.stride())
    if part.shape[0] and stride[0] == part[0].numel():
        return torch.empty_strided(size, stride, dtype=part.dtype, device=part.device)
    return part.new_empty(size)


def _copy(answer: Any, wholes: list[Tensor], start: int) -> int:
    end = start
    for whole, part in zip(wholes, _tensors(answer), strict=True):
        end = start + part.shape[0]
        whole[start:end] = part
    return end
