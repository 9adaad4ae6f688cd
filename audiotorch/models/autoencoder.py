"""Autoencoders of spectrogram images: what they cannot predict of a clip is its anomaly score."""

from collections.abc import Sequence
from itertools import pairwise
from typing import List, Tuple

import torch
from torch import Tensor, nn

from audiotorch.audio.frames import length_mask
from audiotorch.errors import ParameterError

__all__ = ["ConvAutoencoder", "DenseAutoencoder", "InterpolatingAutoencoder"]


class _BlockAutoencoder(nn.Module):
    """A network that predicts frames of a block from that block, over all blocks of a clip.

    Blocks of `n_frames` frames start at multiples of `hop`; the last one is shifted back to end
    with the clip. A clip shorter than a block repeats its last frame. So every frame that the
    network sees is the clip's own, and padding has no way in.

    Args:
        net: `(n, n_frames, rows) -> (n, n_targets, rows)`.
        input_shape: `(channel, n_mels)` of the images.
        n_frames: frames of a block.
        hop: frames from one block to the next.
        first: the first frame of a block that is predicted.
        n_targets: how many frames are.
    """

    def __init__(
        self,
        net: nn.Module,
        input_shape: Sequence[int],
        *,
        n_frames: int,
        hop: int,
        first: int,
        n_targets: int,
    ) -> None:
        super().__init__()
        self.net = net
        self.input_shape: List[int] = [int(size) for size in input_shape]
        self.n_frames = n_frames
        self.hop = hop
        self.first = first
        self.n_targets = n_targets

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return the mean squared error over each clip's blocks; shapes as in the class docstring.

        Args:
            x: images.
            counts: each clip's own frames, int64.
        """
        places, valid = self._places(x, counts)
        predicted, target = self._predict(x, places)
        # A block's mean has a fixed order of summation; the clip's is summed in float64, so that
        # what stands beside it or follows it leaves no trace.
        errors = (predicted - target).square().mean(dim=(2, 3)).double()
        total = errors.masked_fill(~valid, 0.0).sum(dim=1)
        return (total / valid.sum(dim=1)).to(x.dtype)

    @torch.jit.export
    def error_map(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return where a clip could not be predicted: squared error by band and frame.

        The mean over the channels and over all blocks that predict a frame. It is 0 past the
        clip's own frames, and in frames that no block predicts.

        Args:
            x: images, `(batch, channel, n_mels, frames)`.
            counts: each clip's own frames, `(batch,)`.

        Shape:
            - Output: `(batch, n_mels, frames)`
        """
        places, valid = self._places(x, counts)
        predicted, target = self._predict(x, places)
        errors = (predicted - target).square().unflatten(3, self.input_shape).mean(dim=3)
        mean, _ = self._spread(errors, places, valid, x.shape[3])
        return mean.transpose(1, 2)

    @torch.jit.export
    def reconstruct(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return the image as predicted, the mean over all blocks that predict a frame.

        Frames that no block predicts are the input's; those past the clip's own are 0.

        Args:
            x: images, `(batch, channel, n_mels, frames)`.
            counts: each clip's own frames, `(batch,)`.

        Shape:
            - Output: `(batch, channel, n_mels, frames)`
        """
        places, valid = self._places(x, counts)
        predicted, _ = self._predict(x, places)
        mean, hits = self._spread(predicted, places, valid, x.shape[3])
        image = mean.transpose(1, 2).unflatten(1, self.input_shape)
        own = length_mask(counts, x.shape[3])
        unseen = (own & (hits == 0)).unsqueeze(1).unsqueeze(1)
        return torch.where(unseen, x, image)

    @torch.jit.unused
    def loss(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return the mean squared error over all blocks of a batch: what training lowers.

        Only blocks of the clips themselves go through the network, for batch normalisation must
        not learn from padding.

        Args:
            x: images, `(batch, channel, n_mels, frames)`.
            counts: each clip's own frames, `(batch,)`.

        Shape:
            - Output: a number
        """
        places, valid = self._places(x, counts)
        clip, block = valid.nonzero(as_tuple=True)
        blocks = x.flatten(1, 2).transpose(1, 2)[clip.unsqueeze(1), places[clip, block]]
        target = blocks[:, self.first : self.first + self.n_targets]
        return nn.functional.mse_loss(self.net(blocks), target)

    def _places(self, x: Tensor, counts: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the frames of each block `(batch, n, n_frames)`, and which blocks there are."""
        counts = counts.clamp(min=1, max=x.shape[3]).unsqueeze(1)
        # More than a clip of all frames has, and never 1, which torch.export takes for a special
        # case; those too many are not valid.
        n = (x.shape[3] + self.hop - 1) // self.hop + 1
        start = torch.arange(n, device=x.device) * self.hop
        room = (counts - self.n_frames).clamp(min=0)
        valid = start < room + self.hop
        inside = torch.arange(self.n_frames, device=x.device)
        places = torch.minimum(start, room).unsqueeze(2) + inside
        return torch.minimum(places, counts.unsqueeze(2) - 1), valid

    def _predict(self, x: Tensor, places: Tensor) -> Tuple[Tensor, Tensor]:
        """Return predicted and true frames of all blocks, each `(batch, n, n_targets, rows)`."""
        rows = x.flatten(1, 2).transpose(1, 2)
        index = places.flatten(1).unsqueeze(2).expand(-1, -1, rows.shape[2])
        blocks = rows.gather(1, index).reshape(-1, self.n_frames, rows.shape[2])
        target = blocks[:, self.first : self.first + self.n_targets]
        shape = [places.shape[0], places.shape[1], self.n_targets, rows.shape[2]]
        return self.net(blocks).reshape(shape), target.reshape(shape)

    def _spread(
        self, values: Tensor, places: Tensor, valid: Tensor, n_frames: int
    ) -> Tuple[Tensor, Tensor]:
        """Bring values of blocks back to frames.

        Returns the mean over the blocks that predict a frame, `(batch, frames, rows)`, and how
        many these are, `(batch, frames)`.
        """
        values = values.masked_fill(~valid.unsqueeze(2).unsqueeze(2), 0.0).flatten(1, 2)
        places = places[:, :, self.first : self.first + self.n_targets]
        hit = valid.unsqueeze(2).expand_as(places).flatten(1).to(values.dtype)
        places = places.flatten(1)
        batch, n_rows = values.shape[0], values.shape[2]
        hits = values.new_zeros([batch, n_frames]).scatter_add(1, places, hit)
        total = values.new_zeros([batch, n_frames, n_rows])
        total = total.scatter_add(1, places.unsqueeze(2).expand(-1, -1, n_rows), values)
        return total / hits.clamp(min=1.0).unsqueeze(2), hits


class DenseAutoencoder(_BlockAutoencoder):
    """Squeezes a few stacked frames through a narrow layer and back: the DCASE baseline.

    Linear layers `hidden` wide, `n_layers` of them, then `bottleneck`, then the same mirrored, each
    with batch normalisation and ReLU; a last linear layer gives the frames back. Every run of
    `n_frames` frames of a clip is a vector; the score is the mean squared error over all values of
    all of them. The defaults have 267 928 trained parameters at 128 bands.

    Args:
        input_shape: `(channel, n_mels)` of the images: the front end's `output_shape`.
        n_frames: frames stacked to one vector.
        hidden: width of the hidden layers.
        n_layers: hidden layers on each side of the bottleneck.
        bottleneck: width of the narrow layer.

    Shape:
        - Input: `(batch, channel, n_mels, frames)` and frame counts `(batch,)`
        - Output: `(batch,)`, higher = more anomalous

    Raises:
        ParameterError: an `input_shape` that is not of images, or a size below 1.

    Reference:
        Koizumi et al. (2020), Description and discussion on DCASE2020 challenge task 2.

    Example:
        >>> DenseAutoencoder((1, 40))(torch.zeros(2, 1, 40, 50), torch.tensor([50, 20])).shape
        torch.Size([2])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        n_frames: int = 5,
        hidden: int = 128,
        n_layers: int = 4,
        bottleneck: int = 8,
    ) -> None:
        rows = _check_image(input_shape, "DenseAutoencoder")
        _check_sizes(n_frames=n_frames, hidden=hidden, n_layers=n_layers, bottleneck=bottleneck)
        widths = [hidden] * n_layers + [bottleneck] + [hidden] * n_layers
        net = nn.Sequential(
            nn.Flatten(),
            *_dense(n_frames * rows, widths, n_frames * rows),
            nn.Unflatten(1, (n_frames, rows)),
        )
        super().__init__(net, input_shape, n_frames=n_frames, hop=1, first=0, n_targets=n_frames)


class InterpolatingAutoencoder(_BlockAutoencoder):
    """Predicts the middle one of a few frames from its neighbours, which alone it is given (IDNN).

    The layers are `DenseAutoencoder`'s. The score is the mean squared error of the middle frames;
    the outermost frames of a clip, which have no neighbours on one side, are predicted by none.
    What comes out of nothing, such as a click, is an error here, where a plain autoencoder may
    learn to copy it.

    Args:
        input_shape: `(channel, n_mels)` of the images: the front end's `output_shape`.
        n_frames: frames with the middle one, an odd number.
        hidden: width of the hidden layers.
        n_layers: hidden layers on each side of the bottleneck.
        bottleneck: width of the narrow layer.

    Shape:
        - Input: `(batch, channel, n_mels, frames)` and frame counts `(batch,)`
        - Output: `(batch,)`, higher = more anomalous

    Raises:
        ParameterError: an `input_shape` that is not of images, a size below 1, or an `n_frames`
            that has no middle with neighbours.

    Reference:
        Suefusa et al. (2020), Anomalous sound detection based on interpolation deep neural network.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        n_frames: int = 5,
        hidden: int = 128,
        n_layers: int = 4,
        bottleneck: int = 8,
    ) -> None:
        rows = _check_image(input_shape, "InterpolatingAutoencoder")
        _check_sizes(n_frames=n_frames, hidden=hidden, n_layers=n_layers, bottleneck=bottleneck)
        if n_frames < 3 or n_frames % 2 == 0:
            raise ParameterError(
                f"n_frames={n_frames}: must be odd and at least 3, for a frame between others"
            )
        widths = [hidden] * n_layers + [bottleneck] + [hidden] * n_layers
        net = nn.Sequential(
            _WithoutMiddle(),
            *_dense((n_frames - 1) * rows, widths, rows),
            nn.Unflatten(1, (1, rows)),
        )
        middle = n_frames // 2
        super().__init__(net, input_shape, n_frames=n_frames, hop=1, first=middle, n_targets=1)


class ConvAutoencoder(_BlockAutoencoder):
    """Squeezes blocks of a spectrogram image through strided convolutions and back.

    Each stage halves both axes (4x4 kernels, batch normalisation, ReLU), a linear layer squeezes
    what is left into `bottleneck` numbers, and mirrored stages bring the block back. Blocks overlap
    by half; the score is the mean squared error over all values of all blocks.

    Args:
        input_shape: `(channel, n_mels)` of the images: the front end's `output_shape`.
        n_frames: frames of a block.
        channels: width of each stage.
        bottleneck: width of the narrow layer.

    Shape:
        - Input: `(batch, channel, n_mels, frames)` and frame counts `(batch,)`
        - Output: `(batch,)`, higher = more anomalous

    Raises:
        ParameterError: an `input_shape` that is not of images, or a size below 1.

    Example:
        >>> ConvAutoencoder((1, 40))(torch.zeros(2, 1, 40, 50), torch.tensor([50, 20])).shape
        torch.Size([2])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        n_frames: int = 32,
        channels: Sequence[int] = (8, 16, 32, 64),
        bottleneck: int = 32,
    ) -> None:
        _check_image(input_shape, "ConvAutoencoder")
        stages = {f"channels[{k}]": n for k, n in enumerate(channels)}
        _check_sizes(n_frames=n_frames, bottleneck=bottleneck, n_stages=len(stages), **stages)
        net = _ConvNet(input_shape, n_frames, channels, bottleneck)
        hop = max(1, n_frames // 2)
        super().__init__(net, input_shape, n_frames=n_frames, hop=hop, first=0, n_targets=n_frames)


class _WithoutMiddle(nn.Module):
    """`(n, n_frames, rows)` to vectors of all frames but the middle one."""

    def forward(self, blocks: Tensor) -> Tensor:
        middle = blocks.shape[1] // 2
        return torch.cat([blocks[:, :middle], blocks[:, middle + 1 :]], dim=1).flatten(1)


class _ConvNet(nn.Module):
    """Blocks `(n, n_frames, channel * n_mels)` through convolutions; gives them back."""

    def __init__(
        self, input_shape: Sequence[int], n_frames: int, channels: Sequence[int], bottleneck: int
    ) -> None:
        super().__init__()
        self.channel, self.n_mels = (int(size) for size in input_shape)
        step = 2 ** len(channels)
        # Up to what the stages can halve; the rest is cut off again.
        self.padding = [0, -n_frames % step, 0, -self.n_mels % step]
        inner = [channels[-1], -(-self.n_mels // step), -(-n_frames // step)]
        size = inner[0] * inner[1] * inner[2]
        widths = [self.channel, *channels]
        self.encoder = nn.Sequential(*(_stage(nn.Conv2d, a, b) for a, b in pairwise(widths)))
        self.squeeze = nn.Sequential(
            nn.Flatten(),
            nn.Linear(size, bottleneck),
            nn.Linear(bottleneck, size),
            nn.Unflatten(1, tuple(inner)),
            nn.BatchNorm2d(inner[0]),
            nn.ReLU(),
        )
        mirrored = widths[:0:-1]
        self.decoder = nn.Sequential(
            *(_stage(nn.ConvTranspose2d, a, b) for a, b in pairwise(mirrored)),
            nn.ConvTranspose2d(mirrored[-1], self.channel, 4, stride=2, padding=1),
        )

    def forward(self, blocks: Tensor) -> Tensor:
        n_frames = blocks.shape[1]
        image = blocks.unflatten(2, [self.channel, self.n_mels]).permute(0, 2, 3, 1)
        image = nn.functional.pad(image, self.padding)
        image = self.decoder(self.squeeze(self.encoder(image)))
        return image[:, :, : self.n_mels, :n_frames].permute(0, 3, 1, 2).flatten(2)


def _stage(kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], n_in: int, n_out: int) -> nn.Module:
    """Halve both axes, or double them."""
    return nn.Sequential(
        kind(n_in, n_out, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
    )


def _dense(n_in: int, widths: Sequence[int], n_out: int) -> List[nn.Module]:
    """Linear layers with batch normalisation and ReLU after each, and a last one without."""
    layers: List[nn.Module] = []
    for a, b in pairwise([n_in, *widths]):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    return [*layers, nn.Linear(widths[-1], n_out)]


def _check_image(input_shape: Sequence[int], name: str) -> int:
    """Return how many values a frame has."""
    if len(input_shape) != 2:
        raise ParameterError(
            f"input_shape={list(input_shape)}: {name} reads images (channel, n_mels); choose image "
            "features such as features=log_mel"
        )
    return int(input_shape[0]) * int(input_shape[1])


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ParameterError(f"{name}={value!r}: must be a whole number of at least 1")
