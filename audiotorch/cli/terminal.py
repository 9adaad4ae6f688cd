"""Exit statuses, complaints and progress: how commands speak to who runs them."""

import os
import sys
from collections.abc import Iterable

from audiotorch.errors import printable

__all__ = [
    "DONE",
    "INTERRUPTED",
    "PIPE_CLOSED",
    "SOME_FAILED",
    "WRONG_USE",
    "Progress",
    "complain",
    "file_width",
    "print_any_text",
    "silence_stdout",
]

DONE, SOME_FAILED, WRONG_USE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141


def complain(text: str) -> None:
    """Say what is wrong in one line."""
    print(f"audiotorch: {printable(' '.join(text.split()))}", file=sys.stderr)


def file_width(files: Iterable[str]) -> int:
    """Width of a table's column of files."""
    return max([len("file"), *(len(printable(file)) for file in files)])


def print_any_text() -> None:
    """Write out what the terminal's encoding lacks instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def silence_stdout() -> None:
    """Drop what is still to be written, once the reader went away."""
    # Python flushes stdout once more at its end, which would fail again and be reported.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


class Progress:
    """A bar on stderr if that is a terminal; wiped before results, which may go there too.

    Args:
        total: what it counts up to.
        unit: what is written behind the count.
    """

    def __init__(self, total: int, unit: str = "") -> None:
        self._total = total
        self._unit = unit
        self._done = 0
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        self.advance(0)
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Wipe the bar."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def advance(self, count: int, note: str = "") -> None:
        """Draw the bar, `count` further on, with a note behind it."""
        self._done += count
        if self._shown:
            bar = "#" * (30 * self._done // max(1, self._total))
            sys.stderr.write(f"\r[{bar:30}] {self._done}/{self._total}{self._unit}{note}\x1b[K")
            sys.stderr.flush()
