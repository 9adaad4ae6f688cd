"""Images of clips, computed once, and the blocks of frames that autoencoders train on."""

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from audiotorch.data.datamodule import collate
from audiotorch.errors import ParameterError
from audiotorch.pipeline import Pipeline
from audiotorch.training.augment import Augment

__all__ = ["BlockLoaders", "BlockSampler", "Blocks", "ClipImages", "ImageBatch"]

log = logging.getLogger(__name__)

# An epoch sees each frame about this often, in blocks that overlap.
_VIEWS = 5
# Few clips still give some steps an epoch, of batches that are enough for batch normalisation.
_MIN_STEPS, _MIN_BATCH = 16, 32


class ImageBatch(NamedTuple):
    """Images of different lengths in one tensor.

    Args:
        image: `(batch, channel, n_mels, frames)`; zeros follow each clip's own frames.
        counts: int64 `(batch,)`, frames of each clip.
        target: int64 `(batch,)`: 0 normal, 1 anomaly.
    """

    image: Tensor
    counts: Tensor
    target: Tensor


class ClipImages(Dataset[tuple[Tensor, int]]):
    """What a Pipeline's model gets of each clip, kept in memory up to a limit.

    They are not augmented: computed in each epoch anew, they would take most of the training.

    Args:
        pipeline: its front end makes the images.
        dataset: waveforms and targets, as `AudioDataset`.
        batch_size: clips computed together.
        cache_gb: memory to keep, in units of 1e9 bytes; beyond it clips are left out, at random.
        seed: what that choice is keyed by.
    """

    def __init__(
        self, pipeline: Pipeline, dataset: Any, *, batch_size: int, cache_gb: float, seed: int
    ) -> None:
        self.images: list[Tensor] = []
        self.targets: list[int] = []
        device = pipeline.temperature.device
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
        room = cache_gb * 1e9
        while order and (room > 0 or not self.images):
            taken, order = order[:batch_size], order[batch_size:]
            batch = collate([dataset[k] for k in taken])
            with torch.no_grad():
                x, counts = pipeline.front(batch.waveform.to(device), batch.lengths.to(device))
            for image, n in zip(x.cpu(), counts.tolist(), strict=True):
                self.images.append(image[..., :n].clone())
                room -= 4 * self.images[-1].numel()
            self.targets += batch.target.tolist()
        if order:
            log.warning(
                "%d of %d clips are used: their images fill data.cache_gb=%s; raise it for more",
                len(self.images),
                len(dataset),
                cache_gb,
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image `(channel, n_mels, frames)` and target of one clip."""
        return self.images[index], self.targets[index]

    @staticmethod
    def collate(items: Sequence[tuple[Tensor, int]]) -> ImageBatch:
        """Pad images to the longest of the batch.

        Args:
            items: images and targets.
        """
        images, targets = zip(*items, strict=True)
        counts = torch.tensor([image.shape[-1] for image in images])
        batch = images[0].new_zeros(len(images), *images[0].shape[:-1], int(counts.max()))
        for row, image in zip(batch, images, strict=True):
            row[..., : image.shape[-1]] = image
        return ImageBatch(batch, counts, torch.tensor(targets))


class Blocks(Dataset[Tensor]):
    """Blocks of frames of many clips; item `indices (n,)` is `(n, channel, n_mels, n_frames)`.

    A clip shorter than a block repeats its last frame, as the autoencoders do.

    Args:
        images: of the clips, `(channel, n_mels, frames)` each.
        n_frames: frames of a block.

    Raises:
        ParameterError: fewer than two blocks, on which batch normalisation cannot train.
    """

    def __init__(self, images: Sequence[Tensor], n_frames: int) -> None:
        step = max(1, n_frames // _VIEWS)
        self.rows = torch.cat([image.flatten(0, 1).T for image in images])
        self.shape = tuple(images[0].shape[:2])
        self.inside = torch.arange(n_frames)
        starts, ends, offset = [], [], 0
        for image in images:
            room = max(image.shape[-1] - n_frames, 0)
            starts.append(offset + torch.arange(0, room + step, step).clamp(max=room))
            offset += image.shape[-1]
            ends.append(torch.full_like(starts[-1], offset - 1))
        self.starts, self.ends = torch.cat(starts), torch.cat(ends)
        if len(self) < 2:
            raise ParameterError(
                f"training clips: hold {len(self)} block of {n_frames} frames; need at least two"
            )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, indices: Any) -> Tensor:
        """The blocks of these indices."""
        places = self.starts[indices].unsqueeze(1) + self.inside
        rows = self.rows[torch.minimum(places, self.ends[indices].unsqueeze(1))]
        return rows.transpose(1, 2).unflatten(1, self.shape)


class BlockSampler(DistributedSampler[Any]):
    """Batches of block indices, in an order that depends on seed and epoch alone.

    Batches of an epoch are of one size, give or take one. Under `torch.distributed` each process
    gets its own, as many as the others.

    Args:
        n_blocks: how many there are.
        batch_size: blocks in a batch of one process, at most; fewer where there are few.
        seed: what the order is keyed by.
    """

    def __init__(self, n_blocks: int, batch_size: int, seed: int) -> None:
        ready = torch.distributed.is_available() and torch.distributed.is_initialized()
        world = torch.distributed.get_world_size() if ready else 1
        rank = torch.distributed.get_rank() if ready else 0
        super().__init__(range(n_blocks), num_replicas=world, rank=rank, seed=seed)  # type: ignore[arg-type]
        size = min(batch_size, max(_MIN_BATCH, n_blocks // (_MIN_STEPS * world)))
        self.n_blocks = n_blocks
        self.steps = max(1, n_blocks // (size * world))

    def __iter__(self) -> Iterator[Tensor]:
        generator = Augment.generator(self.seed, self.epoch, 0)
        order = torch.randperm(self.n_blocks, generator=generator)
        return iter(
            order.tensor_split(self.steps * self.num_replicas)[self.rank :: self.num_replicas]
        )

    def __len__(self) -> int:
        return self.steps


class BlockLoaders:
    """Blocks to train on and whole images to evaluate, of a data module's parts.

    The images are computed when they are first asked for: by then a resumed run has its front end's
    statistics back.

    Args:
        pipeline: its model says how many frames a block has.
        data: with `train_set`, `val_set`, `test_set`, `batch_size`, `cache_gb`.
        frames_per_step: frames of all blocks of a batch, about.
        seed: of the order.
    """

    def __init__(self, pipeline: Pipeline, data: Any, *, frames_per_step: int, seed: int) -> None:
        self.pipeline = pipeline
        self.data = data
        self.frames_per_step = frames_per_step
        self.seed = seed

    @cached_property
    def train(self) -> ClipImages:
        """Images of the training clips."""
        return self._images(self.data.train_set)

    @cached_property
    def val(self) -> ClipImages:
        """Images of the clips held back."""
        return self._images(self.data.val_set)

    @cached_property
    def test(self) -> ClipImages:
        """Images of the test clips."""
        return self._images(self.data.test_set)

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Shuffled batches of blocks."""
        n_frames = int(self.pipeline.model.n_frames)  # type: ignore[arg-type]
        blocks = Blocks(self.train.images, n_frames)
        size = max(2, self.frames_per_step // n_frames)
        return DataLoader(
            blocks, batch_size=None, sampler=BlockSampler(len(blocks), size, self.seed)
        )

    def val_dataloader(self) -> Any:
        """Whole images of the clips held back; an empty list where there are none."""
        if len(self.data.val_set) == 0:
            return []
        return DataLoader(self.val, batch_size=8, collate_fn=ClipImages.collate)

    def _images(self, dataset: Any) -> ClipImages:
        return ClipImages(
            self.pipeline,
            dataset,
            batch_size=min(8, self.data.batch_size),
            cache_gb=self.data.cache_gb,
            seed=self.seed,
        )
