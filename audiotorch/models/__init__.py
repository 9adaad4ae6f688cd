"""Features to answers."""

from audiotorch.models.autoencoder import (
    ConvAutoencoder,
    DenseAutoencoder,
    InterpolatingAutoencoder,
)
from audiotorch.models.cnn import CNN, TimmCNN
from audiotorch.models.ensemble import Ensemble
from audiotorch.models.mlp import MLP, Linear
from audiotorch.models.tensorize import ClassicModel, steady, tensorize

__all__ = [
    "CNN",
    "MLP",
    "ClassicModel",
    "ConvAutoencoder",
    "DenseAutoencoder",
    "Ensemble",
    "InterpolatingAutoencoder",
    "Linear",
    "TimmCNN",
    "steady",
    "tensorize",
]
