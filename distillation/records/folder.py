"""Records that arrive over an API: one append-only file of JSON lines, each on the disk before the sender hears of it.

    append_records(Path("inbox"), records)    # how many were new
    read_folder(Path("inbox"))

A record that is there already is not added again, so a sender may repeat a push whose answer got lost. Writers in
several processes take turns (`flock`); one that is killed leaves at most a cut-off last line, which the next removes.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from distillation.record import Record
from phases.errors import DataError
from phases.json_lines import append_lines
from phases.storage import explain_os_errors, flocked, fsync_path, write_text

FILE = "records.jsonl"
_KEY = slice(len('{"key":"'), len('{"key":"') + 64)


def append_records(folder: Path, records: Sequence[Record]) -> int:
    """Add the records that the folder does not hold yet; how many those were."""
    with _locked(folder, fcntl.LOCK_EX):
        path = folder / FILE
        known = _known_keys(path)
        lines = []
        for record in records:
            key = record.key
            if key not in known:
                known.add(key)
                lines.append(line_of(record, key))
        if lines:
            is_new = not path.exists()
            append_lines(path, lines)
            if is_new:
                fsync_path(folder)
    return len(lines)


def read_folder(folder: Path) -> list[Record]:
    """The records of a folder in the order of their arrival, without a cut-off last line; none when there is no folder.

    Raises `DataError` that names a line which is none of ours.
    """
    if not (folder / FILE).exists():
        return []
    with _locked(folder, fcntl.LOCK_SH), (folder / FILE).open("rb") as file:
        return [
            parse_line(line, f"{folder / FILE}: line {i}") for i, line in enumerate(file, 1) if line.endswith(b"\n")
        ]


def remove_records(folder: Path, keys: set[str]) -> int:
    """Delete records by key, such as those whose retention is over; how many were there."""
    if not (folder / FILE).exists():
        return 0
    with _locked(folder, fcntl.LOCK_EX):
        lines = (folder / FILE).read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line[_KEY].decode("ascii", "replace") not in keys]
        if len(kept) < len(lines):
            write_text(folder / FILE, b"".join(kept).decode())
        return len(lines) - len(kept)


def line_of(record: Record, key: str) -> str:
    """A record as one line of JSON that begins with its key."""
    return json.dumps({"key": key, **record.as_json()}, ensure_ascii=False, separators=(",", ":"))


def parse_line(line: bytes | str, where: str) -> Record:
    """The inverse of `line_of`. Raises `DataError` when the line is not a record, or not the one that its key names."""
    try:
        values = json.loads(line)
        key = values.pop("key")
        record = Record.from_json(values)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{where} is not a record; remove the line, or push the records again") from None
    if record.key != key:
        raise DataError(f"{where}: altered (its content does not match its key); restore it or remove the line")
    return record


def _known_keys(path: Path) -> set[str]:
    """The keys of whole lines; what stands after the last one is cut off."""
    if not path.exists():
        return set()
    keys, end = set(), 0
    with explain_os_errors(path), path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(end)
                file.flush()
                os.fsync(file.fileno())
                break
            end += len(line)
            keys.add(line[_KEY].decode("ascii", "replace"))
    return keys


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with explain_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(flocked(folder / ".lock", how))
        yield
