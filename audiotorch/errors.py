"""The exceptions audiotorch raises, one subclass per kind of fault, and how text is told safely."""

__all__ = [
    "AudioTorchError",
    "DecodeError",
    "MissingDependencyError",
    "ParameterError",
    "TruncationWarning",
    "printable",
]


class AudioTorchError(Exception):
    """Base class of every error that audiotorch raises on purpose."""


class ParameterError(AudioTorchError, ValueError):
    """An argument, setting or data set is not admissible; the text names it and the remedy."""


class DecodeError(AudioTorchError, RuntimeError):
    """A file cannot be read as what it claims to be; the text names the file and the reason."""


class TruncationWarning(DecodeError, UserWarning):
    """A recording is cut off or damaged at an end; what can be decoded is used.

    A warning that is a `DecodeError` once it is raised: `warnings.simplefilter("error",
    audiotorch.TruncationWarning)` refuses such recordings.
    """


class MissingDependencyError(AudioTorchError, ImportError):
    """An optional package is needed here; the text names the extra that installs it."""


def printable(text: str) -> str:
    r"""Write out what a terminal would obey rather than show, `\x1b` for the escape character.

    Args:
        text: from a file's name or content.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
