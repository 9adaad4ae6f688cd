"""Features to answers."""

from audiotorch.models.cnn import CNN, TimmCNN
from audiotorch.models.mlp import MLP, Linear

__all__ = ["CNN", "MLP", "Linear", "TimmCNN"]
