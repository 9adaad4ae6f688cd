"""Measurements: are the numbers librosa's, and how fast do they come."""

from audiotorch.bench.command import add_bench, main

__all__ = ["add_bench", "main"]
