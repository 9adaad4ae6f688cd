"""What is written into TensorBoard: pictures, sounds, texts, and the settings that it compares."""

import io
import shutil
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from audiotorch.errors import printable
from audiotorch.plot import pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "board",
    "board_writer",
    "excerpt",
    "flatten",
    "settings_of",
    "write_picture",
    "write_settings",
    "write_sound",
    "write_text_card",
]

_NO_SETTINGS = ("ckpt_path", "objective", "report")  # of the run, not of what it trains


def board(run_dir: Path) -> TensorBoardLogger:
    """Return the logger of a run, which writes into its folder `tb`.

    Args:
        run_dir: the run directory.
    """
    return TensorBoardLogger(run_dir, name="tb", version="", default_hp_metric=False)


def board_writer(trainer: L.Trainer) -> Any:
    """TensorBoard's writer on the process that writes, else None.

    Args:
        trainer: of the run.
    """
    if not trainer.is_global_zero or trainer.sanity_checking:
        return None
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None


def write_picture(writer: Any, tag: str, figure: "Figure | SubFigure", step: int = 0) -> None:
    """Show a figure, in 256 colours and with the pixels of its pictures as they are.

    Nobody sees it, and it takes a sixth of the room.

    Args:
        writer: TensorBoard's.
        tag: where it stands there.
        figure: is drawn.
        step: of the training.
    """
    from matplotlib.image import AxesImage
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    for shown in figure.findobj(AxesImage):
        shown.set_interpolation("nearest")
    picture = Image.fromarray(pixels(figure)).quantize(256, dither=Image.Dither.NONE)
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    image = Summary.Image(
        height=picture.height,
        width=picture.width,
        colorspace=3,
        encoded_image_string=file.getvalue(),
    )
    _write(writer, Summary(value=[Summary.Value(tag=printable(tag), image=image)]), step)


def write_sound(writer: Any, tag: str, clip: Tensor, sample_rate: int, step: int = 0) -> None:
    """Let a clip be played, as loud as it can be.

    In the form that TensorBoard itself has: of torch's `add_audio` it shows a second, empty player.

    Args:
        writer: TensorBoard's.
        tag: where it stands there.
        clip: `(time,)`.
        sample_rate: Hz.
        step: of the training.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.audio import metadata
    from tensorboard.util import tensor_util

    sound = clip.detach().cpu() / clip.abs().max().clamp(min=1e-6)
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, 2, sample_rate, 0, "NONE", ""))
        wav.writeframes((sound * 32767).round().numpy().astype("<i2").tobytes())
    told = metadata.create_summary_metadata(
        display_name=printable(tag),
        description="",
        encoding=metadata.Encoding.Value("WAV"),
        converted_to_tensor=True,
    )
    blobs = tensor_util.make_tensor_proto(np.array([file.getvalue()], dtype=object))
    value = Summary.Value(tag=printable(tag), metadata=told, tensor=blobs)
    _write(writer, Summary(value=[value]), step)


def write_text_card(writer: Any, tag: str, text: str, step: int = 0) -> None:
    """Show text as it is: TensorBoard reads Markdown, which a label is not.

    Args:
        writer: TensorBoard's.
        tag: where it stands there.
        text: one line or several.
        step: of the training.
    """
    lines = "\n".join(f"    {printable(line)}" for line in text.split("\n"))
    writer.add_text(printable(tag), lines, step)


def excerpt(clip: Tensor, n_samples: int) -> tuple[int, Tensor]:
    """Return the loudest part of a clip that is longer, and the sample where it starts.

    Args:
        clip: `(time,)`.
        n_samples: of the part.
    """
    if len(clip) <= n_samples:
        return 0, clip
    energy = np.cumsum(np.square(clip.cpu().double().numpy()))
    energy = np.concatenate([[0.0], energy])
    start = int(np.argmax(energy[n_samples:] - energy[:-n_samples]))
    return start, clip[start : start + n_samples]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level with dotted names, lists and nothing as text.

    Example:
        >>> flatten({"data": {"seed": 1, "root": None}})
        {'data.seed': 1, 'data.root': 'None'}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            plain = isinstance(value, bool | int | float | str)
            flat[f"{prefix}{key}"] = value if plain else str(value)
    return flat


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a table shows them: a class by its name alone, under what it is.

    Example:
        >>> settings_of({"model": {"_target_": "audiotorch.models.CNN", "dropout": 0.2}})
        {'model': 'CNN', 'model.dropout': 0.2}
    """
    found = {}
    flat = flatten(config)
    for name, value in flat.items():
        section, _, key = name.rpartition(".")
        # What the data take over from elsewhere is told there.
        copied = name.startswith("data.") and value in (flat.get(f"features.{key}"), flat.get(key))
        plain = key == "_target_" and section.partition(".")[0] in ("data", "pipeline", "trainer")
        if copied or plain or key == "_partial_" or name in _NO_SETTINGS:
            continue
        if key == "_target_":
            name, value = section, str(value).rpartition(".")[2]
        found[printable(name)] = printable(value) if isinstance(value, str) else value
    return found


def write_settings(
    logger: TensorBoardLogger, config: Mapping[Any, Any], metrics: Mapping[str, float]
) -> None:
    """Put a run with its settings and final figures into TensorBoard's table of runs.

    They lie in a folder of their own, `final`, so that the table's figures are these alone. What
    torch and Lightning write would have the first run's settings stand for those of all runs.

    Args:
        logger: of the run.
        config: the resolved configuration.
        metrics: the figures by name.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2
    from tensorboard.plugins.hparams.api_pb2 import Status

    start = plugin_data_pb2.SessionStartInfo()
    for name, value in settings_of(config).items():
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else None
        setattr(start.hparams[name], f"{kind or 'number'}_value", value)
    end = plugin_data_pb2.SessionEndInfo(status=Status.Value("STATUS_SUCCESS"))
    version = metadata.PLUGIN_DATA_VERSION
    folder = Path(logger.log_dir) / "final"
    # TensorBoard would show the settings of an earlier run in the same directory.
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for tag, told in (
            (metadata.SESSION_START_INFO_TAG, {"session_start_info": start}),
            (metadata.SESSION_END_INFO_TAG, {"session_end_info": end}),
        ):
            content = plugin_data_pb2.HParamsPluginData(version=version, **told)
            plugin = SummaryMetadata.PluginData(
                plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString()
            )
            value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))
            _write(writer, Summary(value=[value]), 0)
        for name, figure in metrics.items():
            writer.add_scalar(f"final/{name}", figure, 0)


def _write(writer: Any, summary: Any, step: int) -> None:
    writer._get_file_writer().add_summary(summary, step)
