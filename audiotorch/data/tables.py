"""Tables of recordings as rows of text: CSV, TSV and JSON lines."""

import csv
import difflib
import io
import json
from pathlib import Path

from audiotorch.errors import ParameterError

__all__ = ["Row", "missing_column", "read_rows"]

Row = tuple[int, dict[str, str]]
"""A table row: its line number in the file, and its cells by column name."""


def read_rows(
    table: Path, argument: str = "manifest", strict: bool = False
) -> tuple[list[str], list[Row]]:
    """Read a table: its columns, and its rows as text.

    Args:
        table: `.csv`, `.tsv` or `.jsonl`, UTF-8.
        argument: the setting that names it.
        strict: refuse rows with more cells than the header has, and quotes that do not end: text
            that should be quoted and is not. Otherwise such cells are dropped.

    Raises:
        ParameterError: another suffix, no UTF-8, no rows, or a line that is none.
    """
    suffix = table.suffix.lower()
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ParameterError(
            f"{argument}='{table}', line {line}: must be UTF-8 text, save it as such; {error}"
        ) from error
    if suffix in (".jsonl", ".ndjson"):
        columns, rows = _json_rows(table, text)
    elif suffix in (".csv", ".tsv"):
        columns, rows = _csv_rows(table, text, suffix == ".tsv", strict)
    else:
        raise ParameterError(f"{argument}='{table}': must end in .csv, .tsv or .jsonl; rename it")
    if not rows:
        raise ParameterError(f"{argument}='{table}': it has no rows; list one recording per row")
    return columns, rows


def _csv_rows(table: Path, text: str, tabs: bool, strict: bool) -> tuple[list[str], list[Row]]:
    header = text.split("\n", 1)[0]
    # Spreadsheets write semicolons where the comma is the decimal sign, and some tabs.
    others = [sign for sign in ";\t" if sign in header and "," not in header]
    delimiter = "\t" if tabs else (others or [","])[0]
    lines = io.StringIO(text, newline="")
    # A blank before a quote would make it a letter.
    reader = csv.reader(lines, delimiter=delimiter, strict=strict, skipinitialspace=strict)
    columns: list[str] = []
    rows: list[Row] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = [cell.strip() for cell in cells]
                continue
            if strict and any(cells[len(columns) :]):
                raise ParameterError(
                    f"{table}, line {reader.line_num}: has {len(cells)} cells, the header "
                    f'{len(columns)}; put text that holds "{delimiter}" in quotes'
                )
            # A short row has empty cells; what goes beyond the header has no name.
            rows.append((reader.line_num, dict(zip(columns, cells, strict=False))))
    except csv.Error as error:
        raise ParameterError(f"{table}, line {reader.line_num}: not a table; {error}") from error
    return columns, rows


def _json_rows(table: Path, text: str) -> tuple[list[str], list[Row]]:
    columns: dict[str, None] = {}
    rows: list[Row] = []
    # split, not splitlines: JSON strings may hold other line separators.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ParameterError(f"{table}, line {number}: must be JSON; {error}") from error
        if not isinstance(record, dict):
            raise ParameterError(f"{table}, line {number}: must be one object, as in {{...}}")
        cells = {str(k): "" if v is None else str(v) for k, v in record.items()}
        columns.update(dict.fromkeys(cells))
        rows.append((number, cells))
    return list(columns), rows


def missing_column(argument: str, column: str, columns: list[str], path: str | Path) -> str:
    """Say that a table has no such column, and which one may be meant.

    Args:
        argument: the setting that names it.
        column: what it names.
        columns: what the table has.
        path: the table.
    """
    lower = {name.casefold(): name for name in columns}
    close = difflib.get_close_matches(column.casefold(), lower, n=1, cutoff=0.5)
    hint = f"did you mean '{lower[close[0]]}'? " if close else ""
    return (
        f"{argument}='{column}': must be a column of '{path}', which has {columns}; "
        f"{hint}set data.{argument}, or --{argument.replace('_', '-')} of audiotorch check"
    )
