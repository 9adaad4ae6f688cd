"""Convolutional networks on spectrogram images."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Tuple

import torch
from torch import Tensor, nn

from audiotorch.audio.frames import length_mask
from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.features.functional import stretch_frames

__all__ = ["CNN", "TimmCNN"]


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; halves both axes when `stride` is 2.

    Frames past a clip's end are set to 0 before every convolution, so that the clip's last frames
    see what they see when the clip stands alone: the zero padding.
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        same = stride == 1 and n_in == n_out
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        )

    def forward(self, x: Tensor, counts: Tensor) -> Tuple[Tensor, Tensor]:
        counts = (counts + self.stride - 1) // self.stride
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(_mask(y, counts)))
        return _mask(torch.relu(y + self.shortcut(x)), counts), counts


def _mask(x: Tensor, counts: Tensor) -> Tensor:
    """Zero the frames past each clip's end; `x` is `(batch, channel, freq, frames)`."""
    return x.masked_fill(~length_mask(counts, x.shape[-1])[:, None, None], 0.0)


def _pool(x: Tensor, counts: Tensor) -> Tensor:
    """Mean over frequency, then mean and maximum over each clip's own frames."""
    rows = x.mean(dim=2)
    mean = rows.sum(dim=-1) / counts.clamp(min=1).unsqueeze(-1).to(rows.dtype)
    outside = ~length_mask(counts, rows.shape[-1]).unsqueeze(1)
    return torch.cat([mean, rows.masked_fill(outside, float("-inf")).amax(dim=-1)], dim=1)


def _check_image(input_shape: Sequence[int], name: str) -> int:
    if len(input_shape) != 2:
        raise ParameterError(
            f"input_shape={list(input_shape)}: {name} reads images (channel, n_mels); choose image "
            "features such as features=mel_image, or a model for vectors such as model=mlp"
        )
    return int(input_shape[0])


class CNN(nn.Module):
    """A small residual CNN on spectrogram images of any length.

    A 3x3 stem, then one residual block a stage that halves both axes, then the mean over frequency
    and the mean and maximum over the clip's own frames, then one linear layer. The defaults make
    0.31 M parameters.

    Args:
        n_classes: number of answers.
        input_shape: `(channel, n_mels)` of the images: the front end's `output_shape`.
        channels: width of the stem and of each stage.
        stem_stride: step of the stem on both axes; 2 costs a quarter, for long or tall images.
        dropout: share of the pooled values dropped in training.

    Shape:
        - Input: `(batch, channel, n_mels, frames)` and frame counts `(batch,)`
        - Output: `(batch, n_classes)`, logits

    Raises:
        ParameterError: an `input_shape` that is not of images, or fewer than one class or stage.

    Reference:
        He et al. (2016), Deep residual learning for image recognition.

    Example:
        >>> CNN(3, (1, 40))(torch.zeros(2, 1, 40, 50), torch.tensor([50, 20])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: Sequence[int],
        *,
        channels: Sequence[int] = (16, 32, 64, 128),
        stem_stride: int = 1,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        n_in = _check_image(input_shape, "CNN")
        if n_classes < 1 or len(channels) < 2 or stem_stride < 1:
            raise ParameterError(
                f"n_classes={n_classes}, channels={list(channels)}, stem_stride={stem_stride}: "
                "need at least one class, a stem and one stage, and a step of at least 1"
            )
        self.stem_stride = stem_stride
        self.stem = nn.Sequential(
            nn.Conv2d(n_in, channels[0], 3, stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
        )
        self.stages = nn.ModuleList(_ResidualBlock(a, b, stride=2) for a, b in pairwise(channels))
        # torch.export takes an axis of length 1 for a special case: no stage may get there.
        self.min_frames = stem_stride * 2 ** len(self.stages) + 1
        # The stages before what `activation` gives, and its step in cells of the image.
        self.n_shown = max(0, len(self.stages) - 2)
        self.activation_stride = stem_stride * 2**self.n_shown
        self.embedding_size = 2 * channels[-1]
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.embedding_size, n_classes)

    def forward(self, image: Tensor, lengths: Tensor) -> Tensor:
        """Return logits; shapes as in the class docstring."""
        return self.head(self.dropout(self.embed(image, lengths)))

    @torch.jit.export
    def embed(self, image: Tensor, lengths: Tensor) -> Tensor:
        """Return what the last layer answers from, `(batch, embedding_size)`."""
        x, counts = self.activation(image, lengths)
        return self._pooled(x, counts)

    @torch.jit.export
    def activation(self, image: Tensor, lengths: Tensor) -> Tuple[Tensor, Tensor]:
        """Return what the last two stages get, and its frame counts: what explanations look at.

        It is fine enough in time and frequency to point at a sound, which what the last stage
        gives is not. Row and column `k` lie at `k * activation_stride` of the image.

        Shape:
            - Output: `(batch, channels, rows, frames)` and `(batch,)`
        """
        counts = lengths
        image = nn.functional.pad(image, [0, max(self.min_frames - image.shape[-1], 0)])
        image = _mask(image, counts)
        counts = (counts + self.stem_stride - 1) // self.stem_stride
        x = _mask(self.stem(image), counts)
        for k, stage in enumerate(self.stages):  # TorchScript has no slice of them
            if k < self.n_shown:
                x, counts = stage(x, counts)
        return x, counts

    @torch.jit.export
    def from_activation(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return the logits of what `activation` gave, `(batch, n_classes)`."""
        return self.head(self.dropout(self._pooled(x, counts)))

    def _pooled(self, x: Tensor, counts: Tensor) -> Tensor:
        for k, stage in enumerate(self.stages):
            if k >= self.n_shown:
                x, counts = stage(x, counts)
        return _pool(x, counts)


class TimmCNN(nn.Module):
    """Any backbone of timm on spectrogram images.

    Each clip's own frames are first stretched to `n_frames`: a backbone that does not know where a
    clip ends would let padding into its last frames.

    Args:
        n_classes: number of answers.
        input_shape: `(channel, n_mels)` of the images: the front end's `output_shape`.
        name: timm model name, such as `"resnet18"` or `"efficientnet_b0"`.
        pretrained: start from timm's published weights (a download).
        n_frames: width of the images that the backbone sees.
        options: further arguments of `timm.create_model`.

    Shape:
        - Input: `(batch, channel, n_mels, frames)` and frame counts `(batch,)`
        - Output: `(batch, n_classes)`, logits

    Raises:
        MissingDependencyError: timm is not installed.
        ParameterError: an unknown name, an `input_shape` that is not of images, or fewer than one
            class or frame.
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: Sequence[int],
        *,
        name: str = "resnet18",
        pretrained: bool = False,
        n_frames: int = 128,
        **options: Any,
    ) -> None:
        super().__init__()
        n_in = _check_image(input_shape, "TimmCNN")
        if n_classes < 1 or n_frames < 1:
            raise ParameterError(f"n_classes={n_classes}, n_frames={n_frames}: must be at least 1")
        try:
            import timm
        except ImportError as error:
            raise MissingDependencyError(
                "model=timm needs timm: pip install 'audiotorch[timm]'"
            ) from error
        if not timm.is_model(name):
            near = ", ".join(timm.list_models(f"*{name[:5]}*")[:5]) or "see timm.list_models()"
            raise ParameterError(f"name={name!r}: not a timm model; near names: {near}")
        self.n_frames = n_frames
        self.backbone = timm.create_model(
            name,
            pretrained=pretrained,
            in_chans=n_in,
            num_classes=n_classes,
            scriptable=True,
            exportable=True,
            **options,
        )
        size: Any = self.backbone.head_hidden_size
        self.embedding_size = int(size)

    def forward(self, image: Tensor, lengths: Tensor) -> Tensor:
        """Return logits; shapes as in the class docstring."""
        return self.backbone(self._stretched(image, lengths))

    def embed(self, image: Tensor, lengths: Tensor) -> Tensor:
        """Return what the last layer answers from, `(batch, embedding_size)`."""
        x = self.backbone.forward_features(self._stretched(image, lengths))  # type: ignore[operator]
        return self.backbone.forward_head(x, pre_logits=True)  # type: ignore[operator]

    def _stretched(self, image: Tensor, lengths: Tensor) -> Tensor:
        batch, channel, n_mels = image.shape[0], image.shape[1], image.shape[2]
        rows = image.reshape(batch, channel * n_mels, image.shape[3])
        rows = stretch_frames(rows, torch.zeros_like(lengths), lengths - 1, self.n_frames)
        return rows.reshape(batch, channel, n_mels, self.n_frames)
