"""Markdown tables of results, what they were measured on, and their place in a document."""

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from audiotorch.errors import ParameterError

__all__ = ["hardware", "markdown", "versions", "write_section"]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table.

    Args:
        header: names of the columns.
        rows: cells.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def versions(names: Sequence[str]) -> str:
    """Return names and versions of packages, those that are installed.

    Args:
        names: distributions.
    """
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}"])


def hardware() -> str:
    """Return the processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        found = re.search(r"^model name\s*: (.+)$", listing.read_text(), re.MULTILINE)
        name = found[1] if found else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def write_section(path: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- benchmark: NAME -->` and `<!-- /benchmark: NAME -->`.

    Args:
        path: the document; it is replaced whole, or not at all.
        name: which of its sections.
        text: what stands there from now on.

    Raises:
        ParameterError: the document lacks one of the marks.
    """
    start, end = f"<!-- benchmark: {name} -->", f"<!-- /benchmark: {name} -->"
    document = path.read_text(encoding="utf-8")
    before, found_start, rest = document.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise ParameterError(f"{os.fspath(path)!r}: needs the lines {start} and {end}, in order")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(
            f"{before}{start}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8", newline=""
        )
        partial.chmod(path.stat().st_mode)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
