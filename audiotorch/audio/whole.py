"""Files that appear under their name only when they are complete."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["written_whole"]


@contextmanager
def written_whole(path: Path, name: str | None = None) -> Iterator[Path]:
    """Give a temporary name beside a path; what is written there replaces the file at the end.

    What fails on the way leaves the file as it was, and nothing beside it.

    Args:
        path: the file.
        name: of the temporary file, where nobody else writes it; so what a killed process left
            of it is replaced.
    """
    # The same folder, so that the renaming stays on one file system. Without the file's name: a
    # longer one may be more than the file system takes.
    partial = path.with_name(name or f".{uuid.uuid4().hex}.part")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
