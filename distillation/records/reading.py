"""`read_records`: the records of the user's files; what is none is counted and set aside with the reason.

    read = read_records(Path("tickets.csv"), quarantine=Path("night/quarantine.jsonl"))
    read.records, read.rejected, read.schema

Rows are streamed, so a million rows need the memory of a million records. The quarantine is a JSONL file: file, line,
reason, and how the line begins.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from distillation.record import Record
from distillation.records.rows import Bad, Row, stream_rows
from distillation.records.schema import KNOWN, Columns, NotARecord, Schema, detect, to_record
from phases.data.sources import resolve
from phases.errors import DataError
from phases.storage import write_text
from phases.strict import StrictModel

_SHOWN = 300


class RecordSource(StrictModel):
    """Files of questions, with or without answers."""

    paths: tuple[str, ...] = Field(min_length=1)
    """Paths or patterns (`tickets/*.csv`) of .jsonl, .csv or .parquet files."""
    columns: Columns = Columns()
    """Own names of columns, when they are not the usual ones."""
    licence: str = "own"
    """The licence of records that do not bring their own."""
    group: str = "all"
    """The task or domain of records that do not bring their own."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is no record."""

    file: str
    line: int
    reason: str
    content: str


@dataclass(frozen=True, slots=True)
class ReadRecords:
    """What was read."""

    records: list[Record]
    rejected: list[Rejected]
    schema: str
    """`messages`, `instruction`, `prompt`, `question` or `own`; several, by file, joined by a comma."""

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were rejected for which reason, the most frequent first."""
        return dict(Counter(r.reason for r in self.rejected).most_common())


def read_source(source: RecordSource, quarantine: Path) -> ReadRecords:
    """The records of all files of a source, in the order of their names; see `read_records`."""
    rejected: list[Rejected] = []
    try:
        parts = [_read_file(path, source, rejected) for path in resolve(source.paths)]
    except DataError as error:
        _set_aside(rejected, quarantine)  # a file without a usable row is the one whose rows are to be looked at
        raise DataError(f"{error}; rejected rows are in {quarantine}" if rejected else str(error)) from None
    _set_aside(rejected, quarantine)
    schemas = sorted({part.schema for part in parts})
    return ReadRecords([r for part in parts for r in part.records], rejected, ",".join(schemas))


def read_records(path: Path, quarantine: Path, source: RecordSource | None = None) -> ReadRecords:
    """The records of one file, or of the files that a pattern names.

    Rejected rows are written to `quarantine`, which is removed when there are none. Raises `DataError` when a file is
    missing, has no known columns (the message names those it has), or holds no usable record; what was rejected until
    then is written too, and the message says where.
    """
    settings = {} if source is None else source.model_dump(exclude={"paths"})
    return read_source(RecordSource(paths=(str(path),), **settings), quarantine)


def records_of(rows: Iterable[Mapping[str, Any]], name: str, source: RecordSource | None = None) -> ReadRecords:
    """The records of rows that came some other way, such as over an API; `name` is written where a file's would be."""
    source = source or RecordSource(paths=(name,))
    return _collect(name, (Row(i, row) for i, row in enumerate(rows, start=1)), source, [])


def _read_file(path: Path, source: RecordSource, rejected: list[Rejected]) -> ReadRecords:
    read = _collect(path.name, stream_rows(path), source, rejected)
    if not read.records:
        why = f"; {len(read.rejected)} rejected, first: {_first(read.rejected)}" if read.rejected else ": it is empty"
        raise DataError(f"{path}: no usable record{why}; mend the rows or give another file")
    return read


def _first(rejected: list[Rejected]) -> str:
    return f"line {rejected[0].line}: {rejected[0].reason}"


def _collect(name: str, rows: Iterator[Row | Bad], source: RecordSource, rejected: list[Rejected]) -> ReadRecords:
    """One schema a file: that of its first row whose columns are known. What is no record is added to `rejected`."""
    records: list[Record] = []
    before = len(rejected)
    schema: Schema | None = None
    unknown: set[str] = set()
    for row in rows:
        if isinstance(row, Bad):
            rejected.append(Rejected(name, row.line, row.reason, row.content))
            continue
        schema = schema or detect(row.values, source.columns)
        try:
            if schema is None:
                unknown |= set(map(str, row.values))
                raise NotARecord("no known columns")
            where = f"{name}:{row.line}"
            records.append(to_record(row.values, schema, source=where, licence=source.licence, group=source.group))
        except NotARecord as error:
            rejected.append(Rejected(name, row.line, str(error), _shown(row.values)))
    if schema is None and unknown:
        raise DataError(_no_schema(name, unknown, source.columns))
    return ReadRecords(records, rejected[before:], schema.name if schema else "none")


def _no_schema(name: str, found: set[str], columns: Columns) -> str:
    listed = ", ".join(sorted(found)[:20])
    if columns.prompt:
        return f"{name}: no column '{columns.prompt}', which columns.prompt names; it has: {listed}"
    wanted = ", ".join(f"'{prompt}'" for prompt, _ in KNOWN.values())
    return f"{name}: no column of {wanted}; it has: {listed}; name the question's with columns.prompt"


def _shown(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), ensure_ascii=False, default=str)[:_SHOWN]


def _set_aside(rejected: list[Rejected], quarantine: Path) -> None:
    if not rejected:
        quarantine.unlink(missing_ok=True)
        return
    lines = (
        json.dumps({"file": r.file, "line": r.line, "reason": r.reason, "content": r.content}, ensure_ascii=False)
        for r in rejected
    )
    write_text(quarantine, "\n".join(lines).encode("utf-8", "replace").decode() + "\n")
