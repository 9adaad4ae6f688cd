"""Decoded clips, the batches made of them, and a training order keyed by seed and epoch."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import Dataset, DistributedSampler

from audiotorch.audio.io import load
from audiotorch.data.manifest import Clip
from audiotorch.errors import AudioTorchError

__all__ = ["AudioDataset", "Batch", "EpochSampler", "WaveformStore", "collate"]

Key = tuple[int, int]
"""What the training sampler yields: epoch and index of the clip."""


class Batch(NamedTuple):
    """Clips of different lengths in one tensor.

    Args:
        waveform: float32 `(batch, time)`; zeros follow each clip's own samples.
        lengths: int64 `(batch,)`, samples of each clip.
        target: int64 `(batch,)`, index into the labels.
        index: int64 `(batch,)`, index of the clip in its dataset.
    """

    waveform: Tensor
    lengths: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which a batch has no use for


def collate(items: Sequence[tuple[Tensor, int, int]]) -> Batch:
    """Pad clips to the longest of the batch.

    Args:
        items: what `AudioDataset` yields: waveform `(time,)`, target, index.

    Example:
        >>> batch = collate([(torch.ones(3), 0, 7), (torch.ones(2), 1, 4)])
        >>> batch.waveform.shape, batch.lengths.tolist(), batch.index.tolist()
        (torch.Size([2, 3]), [3, 2], [7, 4])
    """
    waveforms, targets, indices = zip(*items, strict=True)
    return Batch(
        nn.utils.rnn.pad_sequence(list(waveforms), batch_first=True),
        torch.tensor([waveform.shape[-1] for waveform in waveforms]),
        torch.tensor(targets),
        torch.tensor(indices),
    )


class WaveformStore:
    """Decoded mono waveforms by path: in memory up to a limit, decoded again beyond it.

    Waveforms lie in a few large blocks, because worker processes get one file descriptor for each
    tensor, and pages without reference counts stay shared after a fork.

    Args:
        sample_rate: rate of the waveforms in Hz.
        cache_gb: memory to keep, in units of 1e9 bytes; 0 keeps nothing.
    """

    BLOCK = 1 << 24  # samples, 64 MiB

    def __init__(self, sample_rate: int, cache_gb: float = 2.0) -> None:
        self.sample_rate = sample_rate
        self._room = int(cache_gb * 1e9) // 4
        self._blocks: list[Tensor] = []
        self._places: dict[Path, tuple[int, int, int]] = {}
        self._pending: list[Tensor] = []

    def read(self, paths: Sequence[Path], min_duration: float) -> list[tuple[Path, str]]:
        """Decode files in threads, keep what fits, and return the bad ones with reasons.

        Args:
            paths: the files.
            min_duration: seconds below which a clip is refused as too short.

        Returns:
            Path and reason of every file that cannot be used, in the order of `paths`.
        """
        failures = []
        # libsndfile and soxr release the interpreter lock.
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            results = track(
                pool.map(self._attempt, paths),
                "reading audio",
                total=len(paths),
                console=Console(stderr=True),
                transient=True,
                disable=not sys.stderr.isatty(),
            )
            for path, result in zip(paths, results, strict=True):
                reason = result if isinstance(result, str) else self._fault(result, min_duration)
                if reason:
                    failures.append((path, reason))
                else:
                    assert isinstance(result, Tensor)
                    self._keep(path, result)
        finally:
            # An interrupted run must not wait for all the files that are queued.
            pool.shutdown(cancel_futures=True)
        self._close_block()
        return failures

    def __getitem__(self, path: Path) -> Tensor:
        """The waveform `(time,)` of a file."""
        place = self._places.get(path)
        if place is None:
            return self._decode(path)
        block, start, length = place
        return self._blocks[block][start : start + length]

    def _decode(self, path: Path) -> Tensor:
        return load(path, sample_rate=self.sample_rate)[0][0]

    def _attempt(self, path: Path) -> Tensor | str:
        try:
            return self._decode(path)
        except (AudioTorchError, OSError) as error:
            return str(error).removeprefix(f"{path}: ")

    def _fault(self, waveform: Tensor, min_duration: float) -> str:
        """Why a decoded waveform cannot be used; empty if it can."""
        seconds = waveform.numel() / self.sample_rate
        if seconds == 0:
            return "it holds no samples"
        return (
            f"too short: {seconds:.3f} s, below {min_duration} s" if seconds < min_duration else ""
        )

    def _keep(self, path: Path, waveform: Tensor) -> None:
        if waveform.numel() > self._room:
            return
        start = sum(pending.numel() for pending in self._pending)
        self._places[path] = (len(self._blocks), start, waveform.numel())
        self._pending.append(waveform)
        self._room -= waveform.numel()
        if start + waveform.numel() >= self.BLOCK:
            self._close_block()

    def _close_block(self) -> None:
        if self._pending:
            self._blocks.append(torch.cat(self._pending))
            self._pending = []


class AudioDataset(Dataset[tuple[Tensor, int, int]]):
    """Clips as waveforms with targets.

    Item `i`, or `(epoch, i)` as the training sampler asks for it, is the waveform `(time,)`, the
    target and `i`. A clip longer than `max_duration` is cropped: to a part that depends on seed,
    epoch and index alone.

    Args:
        clips: the clips.
        labels: class names; the target is a label's position here.
        sample_rate: rate of the waveforms in Hz.
        max_duration: seconds that a waveform may last; None keeps whole clips.
        seed: what the crops are keyed by.
        store: decoded waveforms at `sample_rate`; None decodes at each access.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Sequence[str],
        sample_rate: int = 22050,
        *,
        max_duration: float | None = None,
        seed: int = 42,
        store: WaveformStore | None = None,
    ) -> None:
        self.clips = list(clips)
        self.labels = list(labels)
        self.sample_rate = sample_rate
        self.seed = seed
        self.max_samples = None if max_duration is None else round(max_duration * sample_rate)
        self._store = store if store is not None else WaveformStore(sample_rate, 0.0)
        positions = {label: i for i, label in enumerate(self.labels)}
        self.targets = torch.tensor([positions[clip.label] for clip in self.clips])

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int | Key) -> tuple[Tensor, int, int]:
        """Waveform `(time,)`, target and index of one clip."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        waveform = self.whole(index)
        if self.max_samples is not None and waveform.shape[-1] > self.max_samples:
            start = self._crop_start(epoch, index, waveform.shape[-1] - self.max_samples)
            waveform = waveform[start : start + self.max_samples]
        return waveform, int(self.targets[index]), index

    def whole(self, index: int) -> Tensor:
        """Waveform `(time,)` of one clip, however long it is."""
        return self._store[self.clips[index].path]

    def _crop_start(self, epoch: int, index: int, room: int) -> int:
        generator = _generator(self.seed, epoch, index)
        return int(torch.randint(room + 1, (), generator=generator))


class EpochSampler(DistributedSampler[Any]):
    """The training order, which depends on seed and epoch alone.

    It keeps no state, so that a resumed run sees the order of an uninterrupted one: Lightning calls
    `set_epoch` at the start of each epoch. Under `torch.distributed` each process gets its own
    share, of equal length. Being a DistributedSampler, Lightning leaves it in its place. A last
    batch of a single clip, which batch normalisation cannot train on, is dropped.

    Args:
        targets: class of each clip, `(n,)`.
        batch_size: clips in a batch of one process.
        seed: what the order is keyed by.
        balanced: whether clips are drawn with replacement, every class equally often, instead of
            each once.
    """

    def __init__(
        self, targets: Tensor, batch_size: int, seed: int = 42, balanced: bool = False
    ) -> None:
        ready = torch.distributed.is_available() and torch.distributed.is_initialized()
        world = torch.distributed.get_world_size() if ready else 1
        rank = torch.distributed.get_rank() if ready else 0
        super().__init__(targets, num_replicas=world, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.balanced = balanced
        self.targets = targets
        if batch_size > 1 and self.num_samples > 1 and self.num_samples % batch_size == 1:
            self.num_samples -= 1

    def order(self) -> list[int]:
        """The clips of all processes in this epoch, before they are shared out."""
        generator = _generator(self.seed, self.epoch)
        n = len(self.targets)
        if not self.balanced:
            return torch.randperm(n, generator=generator).tolist()
        weights = 1.0 / torch.bincount(self.targets).double()[self.targets]
        return torch.multinomial(weights, n, replacement=True, generator=generator).tolist()

    def __iter__(self) -> Iterator[Key]:
        order = self.order()
        order += order[: self.total_size - len(order)]
        share = order[self.rank :: self.num_replicas][: self.num_samples]
        return iter([(self.epoch, index) for index in share])

    def __len__(self) -> int:
        return self.num_samples


def _generator(*key: int) -> torch.Generator:
    """A generator keyed by several numbers, alike in every process."""
    state = 0
    for number in key:
        # Mixes like splitmix64, so that neighbouring keys give unrelated generators.
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    # Positive and below 2**63, as manual_seed wants it.
    return torch.Generator().manual_seed(state >> 1)
