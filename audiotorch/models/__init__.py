"""Features to answers."""

from audiotorch.models.cnn import CNN, TimmCNN
from audiotorch.models.ensemble import Ensemble
from audiotorch.models.mlp import MLP, Linear

__all__ = ["CNN", "MLP", "Ensemble", "Linear", "TimmCNN"]
