"""What TensorBoard shows of an autoencoder: clips as predicted, error maps, scores."""

from typing import TYPE_CHECKING, Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from audiotorch.explain import band_edges
from audiotorch.plot import mark_kilohertz, new_figure, score_histogram
from audiotorch.training.blocks import BlockLoaders, ClipImages
from audiotorch.training.board import board_writer, write_picture
from audiotorch.training.drawings import is_due
from audiotorch.training.stepping import PipelineTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AutoencoderDrawings", "draw_prediction"]

# Clips of a group whose scores are drawn: a histogram needs no more.
_SCORED = 200


class AutoencoderDrawings(Callback):
    """Draws into TensorBoard, a few times on the way to the last planned epoch.

    Clips beside what the autoencoder predicted of them, with the map of its errors, and the scores
    of training clips, of normal clips held back, and of normal and anomalous test clips.

    Args:
        loaders: give the images.
        n_clips: how many clips of a group are shown.
    """

    def __init__(self, loaders: BlockLoaders, n_clips: int = 2) -> None:
        self.loaders = loaders
        self.n_clips = n_clips

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, if it is time."""
        writer = board_writer(trainer)
        if writer is None or not is_due(trainer):
            return
        task, step = cast(PipelineTask, pl_module), trainer.global_step
        network = task.network
        was_training = network.training
        network.eval()
        groups = self._groups()
        scores = {n: self._scores(network, images, task.device) for n, images in groups.items()}
        if not all(np.isfinite(row).any() for row in scores.values()):
            return  # The task stops a training that has diverged.
        for name, images in groups.items():
            writer.add_histogram(f"scores/{name.replace(' ', '_')}", scores[name], step)
            if name == "training":
                continue
            for rank, image in enumerate(images[: self.n_clips], start=1):
                figure = self._prediction(task, image, f"{name} {rank}")
                tag = f"reconstruction/{name.replace(' ', '_')}_{rank}"
                write_picture(writer, tag, figure, step)
        finite = {name: row[np.isfinite(row)] for name, row in scores.items()}
        write_picture(writer, "scores", score_histogram(finite).figure, step)
        network.train(was_training)

    def _groups(self) -> dict[str, list[Tensor]]:
        """Images by what the clips are, groups with clips only."""
        data = self.loaders.data
        groups = {"training": self.loaders.train.images}
        if len(data.val_set):
            groups["held back"] = self.loaders.val.images
        if len(data.test_set):
            test = self.loaders.test
            pairs = list(zip(test.images, test.targets, strict=True))
            groups["test normal"] = [image for image, target in pairs if target == 0]
            groups["test anomaly"] = [image for image, target in pairs if target != 0]
        return {name: images for name, images in groups.items() if images}

    @staticmethod
    @torch.no_grad()
    def _scores(network: Any, images: list[Tensor], device: torch.device) -> np.ndarray:
        scores = []
        for start in range(0, min(len(images), _SCORED), 8):
            part = images[start : start + 8]
            batch = ClipImages.collate([(image, 0) for image in part])
            scores.append(network(batch.image.to(device), batch.counts.to(device)).cpu())
        return torch.cat(scores).float().numpy()

    @staticmethod
    @torch.no_grad()
    def _prediction(task: PipelineTask, image: Tensor, name: str) -> "Figure":
        network, features = task.network, cast(Any, task.pipeline.features)
        x = image[None].to(task.device)
        counts = torch.tensor([image.shape[-1]], device=task.device)
        shown = [x[0, 0], network.reconstruct(x, counts)[0, 0]]
        in_db = getattr(features, "normalize", None) == ["dataset"]
        if in_db:
            shown = [part * features.std + features.mean for part in shown]
        error = network.error_map(x, counts)[0]
        seconds = image.shape[-1] * features.mel.source.hop_length / features.sample_rate
        return draw_prediction(
            shown[0].cpu().numpy(),
            shown[1].cpu().numpy(),
            error.cpu().numpy(),
            edges=band_edges(features).numpy(),
            seconds=seconds,
            unit="dB" if in_db else "normalised",
            title=f"{name}, score {float(network(x, counts)):.3g}",
        )


def draw_prediction(
    image: np.ndarray,
    predicted: np.ndarray,
    error: np.ndarray,
    *,
    edges: np.ndarray,
    seconds: float,
    unit: str,
    title: str,
) -> "Figure":
    """Draw a clip above what was predicted of it, and the error by band and second.

    Args:
        image: of the clip, `(n_mels, frames)`.
        predicted: of the same shape, drawn in the same colours.
        error: squared error of the same shape, in squared standard deviations.
        edges: Hz between the bands and at the ends, `(n_mels + 1,)`.
        seconds: how long the clip lasts.
        unit: of image and prediction.
        title: stands above it.
    """
    figure = new_figure(5.0, 5.0)
    axes = figure.subplots(3, 1, sharex=True)
    low, high = np.percentile(image, [1, 99.8])
    top = max(float(np.percentile(error, 99.8)), 1e-6)
    place: Any = {"origin": "lower", "aspect": "auto", "extent": (0, seconds, 0, len(image))}
    for ax, part, name in ((axes[0], image, "clip"), (axes[1], predicted, "predicted")):
        drawn = ax.imshow(part, cmap="magma", vmin=low, vmax=high, **place)
        ax.set_ylabel(f"{name}\nkHz")
    figure.colorbar(drawn, ax=list(axes[:2]), label=unit)
    drawn = axes[2].imshow(error, cmap="inferno", vmin=0, vmax=top, **place)
    axes[2].set(ylabel="error\nkHz", xlabel="seconds")
    figure.colorbar(drawn, ax=axes[2], label="squared error")
    for ax in axes:
        mark_kilohertz(ax, edges)
    axes[0].set_title(title, fontsize=10)
    return figure
