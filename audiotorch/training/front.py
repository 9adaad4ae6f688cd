"""The part of a Pipeline before its model, made ready for training."""

from typing import Any

from omegaconf import DictConfig

from audiotorch.data.datamodule import AudioDataModule
from audiotorch.errors import ParameterError
from audiotorch.pipeline import Pipeline
from audiotorch.training.settings import accelerator

__all__ = ["fit_features", "learns_from_clips", "place_features", "scales"]


def learns_from_clips(pipeline: Pipeline) -> bool:
    """Say whether the features are normalised by statistics of the training clips.

    Args:
        pipeline: its features are asked.
    """
    return "dataset" in getattr(pipeline.features, "normalize", ())


def fit_features(pipeline: Pipeline, data: AudioDataModule) -> None:
    """Measure the statistics that the features are normalised by, where there are some.

    Args:
        pipeline: its features are changed in place.
        data: gives the training clips.
    """
    features: Any = pipeline.features
    if learns_from_clips(pipeline):
        features.fit(pipeline.prepare(b.waveform, b.lengths) for b in data.train_dataloader())


def place_features(pipeline: Pipeline, trainer: DictConfig) -> None:
    """Move a Pipeline to where its features are to be computed, in evaluation mode.

    Args:
        pipeline: moved in place.
        trainer: the section of the configuration, whose `accelerator` names the device.

    Raises:
        ParameterError: torch cannot compute there.
    """
    try:
        pipeline.to(accelerator(trainer).replace("gpu", "cuda")).eval()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ParameterError(
            f"trainer.accelerator={trainer.accelerator!r}: torch cannot compute features there "
            f"({str(error).splitlines()[0]}); take auto or cpu"
        ) from error


def scales(model: DictConfig, pipeline: Pipeline) -> bool:
    """Say whether a scaler comes first: as set, or where the features are not normalised.

    Args:
        model: the section of the configuration.
        pipeline: its features are asked.

    Raises:
        ParameterError: `model.scale` is neither true, false nor null.
    """
    scale = model.get("scale")
    if not isinstance(scale, bool | None):
        raise ParameterError(f"model.scale={scale!r}: must be true, false or null")
    return not getattr(pipeline.features, "normalised", False) if scale is None else scale
