"""The exceptions audiotorch raises: one base class, one subclass per kind of fault."""

__all__ = ["AudioTorchError", "DecodeError", "MissingDependencyError", "ParameterError"]


class AudioTorchError(Exception):
    """Base class of every error that audiotorch raises on purpose."""


class ParameterError(AudioTorchError, ValueError):
    """An argument, setting or data set is not admissible; the text names it and the remedy."""


class DecodeError(AudioTorchError, RuntimeError):
    """A file cannot be read as what it claims to be; the text names the file and the reason."""


class MissingDependencyError(AudioTorchError, ImportError):
    """An optional package is needed here; the text names the extra that installs it."""
