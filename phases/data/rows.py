"""Rows of the user's .jsonl, .csv and .parquet files, for texts and for tasks. A mistake is named by its line."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phases.errors import DataError

Row = tuple[str, dict[str, Any]]
"""Where a row stands, in words (`line 3`), and its columns."""


def read_text(path: Path) -> str:
    """A UTF-8 file's text. Raises `DataError` with the byte where it stops being UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert it, e.g. iconv -t UTF-8") from None


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a table, each with where it stands. Raises `DataError` that names the file, the line and the fix."""
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        kind = path.suffix or "(none)"
        raise DataError(f"{path}: unknown kind {kind}; rows come from .jsonl, .csv or .parquet, running text from .txt")
    if not path.is_file():
        raise DataError(f"{path}: no such file; give an existing path")
    return readers[path.suffix](path)


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: line {number} is not JSON ({error.msg}); mend or remove it") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is not a JSON object; write one {{…}} a line")
        yield f"line {number}", row


def _csv(path: Path) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    first = 1
    try:
        while reader.fieldnames:
            first = reader.line_num + 1  # a quoted cell may span lines: name the one where its row begins
            row = next(reader, None)
            if row is None:
                return
            yield f"line {first}", row
    except csv.Error as error:
        raise DataError(f"{path}: line {first} is not CSV ({error}); mend or remove it") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{path}: not readable as Parquet ({reason}); write it again") from None
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", row
