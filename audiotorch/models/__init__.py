"""Features to answers."""

from audiotorch.models.cnn import CNN, TimmCNN
from audiotorch.models.ensemble import Ensemble
from audiotorch.models.mlp import MLP, Linear
from audiotorch.models.tensorize import ClassicModel, steady, tensorize

__all__ = ["CNN", "MLP", "ClassicModel", "Ensemble", "Linear", "TimmCNN", "steady", "tensorize"]
