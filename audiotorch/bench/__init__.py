"""Measurements: are the numbers librosa's, and how fast do they come."""

# Nothing is imported here: librosa is optional, and timing a model does without it.
__all__: list[str] = []
