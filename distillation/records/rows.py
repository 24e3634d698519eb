"""Rows of `.jsonl`, `.csv` and `.parquet` files, streamed; what is none comes as a `Bad` and ends nothing.

`phases.data.rows` stops at the first mistake, as a corpus should be right. Records are collected from many hands: here
a broken line is counted, set aside, and the rest is read. Memory holds a line (JSONL, CSV) or a batch (Parquet).
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillation.records.normal import is_unicode
from phases.errors import DataError

LONGEST_CELL = 16_000_000
"""Characters of a CSV cell: more is taken for a quotation mark that was never closed."""
_SHOWN = 300
_PARQUET_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stands."""

    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """Something that is not a row: where it stands, why it is none, and how it begins."""

    line: int
    reason: str
    content: str


def stream_rows(path: Path) -> Iterator[Row | Bad]:
    """The rows of a file. Raises `DataError` for a missing file, an unknown kind, or a Parquet file that is damaged."""
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        kind = path.suffix or "(none)"
        raise DataError(f"{path}: unknown kind {kind}; records come from .jsonl, .csv or .parquet files")
    if not path.is_file():
        raise DataError(f"{path}: no such file; give an existing path")
    return readers[path.suffix](path)


def _jsonl(path: Path) -> Iterator[Row | Bad]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield _parsed(number, line)


def _parsed(number: int, line: bytes) -> Row | Bad:
    shown = line[:_SHOWN].decode("utf-8", "replace").rstrip("\n")
    try:
        text = line.decode("utf-8")
        row = json.loads(text)
    except UnicodeDecodeError as error:
        return Bad(number, f"not UTF-8 at byte {error.start} of the line", shown)
    except json.JSONDecodeError as error:
        return Bad(number, f"not JSON ({error.msg})", shown)
    except RecursionError:
        return Bad(number, "JSON that is nested too deeply", shown)
    if not isinstance(row, dict):
        return Bad(number, "not a JSON object", shown)
    if "\\u" in text and not is_unicode(json.dumps(row, ensure_ascii=False)):
        return Bad(number, "half of a surrogate pair stands alone", shown)
    return Row(number, row)


def _csv(path: Path) -> Iterator[Row | Bad]:
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from _csv_rows(csv.reader(file, strict=True))
    finally:
        csv.field_size_limit(limit)


def _csv_rows(reader: Any) -> Iterator[Row | Bad]:
    header: list[str] | None = None
    while True:
        first = reader.line_num + 1  # a quoted cell may span lines: name the one where its row begins
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield Bad(first, f"not CSV ({error}); lines {first} to {reader.line_num} are skipped", "")
            continue
        if cells is None:
            return
        if header is None:
            header = cells
        elif cells:
            yield _csv_row(first, header, cells)


def _csv_row(line: int, header: list[str], cells: list[str]) -> Row | Bad:
    shown = ",".join(cells)[:_SHOWN].encode("utf-8", "replace").decode()
    if len(cells) != len(header):
        return Bad(line, f"{len(cells)} cells where the header has {len(header)}", shown)
    if not all(map(is_unicode, cells)):
        return Bad(line, "not UTF-8", shown)
    return Row(line, dict(zip(header, cells, strict=True)))


def _parquet(path: Path) -> Iterator[Row | Bad]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{path}: not readable as Parquet after row {number} ({reason}); write it again") from None
