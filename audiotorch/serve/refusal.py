"""Requests that are not answered, and the one sentence that says why."""

from typing import Any

from audiotorch.errors import AudioTorchError, MissingDependencyError, printable

__all__ = ["Gone", "Refused", "need_serve", "sentence"]


class Refused(AudioTorchError):
    """A request is refused.

    Args:
        status: HTTP's number.
        text: one sentence: what is wrong and what to do.
        headers: for the response.
    """

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}


class Gone(AudioTorchError):
    """Who asked went away; nobody reads an answer."""


def sentence(error: BaseException) -> dict[str, str]:
    """Return the body of an answer that is an error.

    Args:
        error: its text may name an upload, whose name may hold anything.
    """
    return {"error": printable(" ".join(str(error).split()))}


def need_serve(name: str) -> Any:
    """Import a module of the extra `serve`.

    Args:
        name: of the module.

    Raises:
        MissingDependencyError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f'the server needs {name.split(".")[0]}: pip install "audiotorch[serve]"'
        ) from error
