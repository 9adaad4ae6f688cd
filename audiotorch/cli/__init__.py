"""The `audiotorch` command."""

from audiotorch.cli.entry import main

__all__ = ["main"]
