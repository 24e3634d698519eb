"""A memory as JSON lines: to read, to keep, to carry to another file.

    {"format": "agent-forge memory", "version": 1}
    {"kind": "episode", "id": 1, "at": "2026-01-05T08:00:00.000000+00:00", "session": "monday", "role": …, "text": …}
    {"kind": "fact", "id": 1, "at": …, "session": …, "text": …, "episode": 1, "uses": 0, "last_used": null, …}

Reading adds what is not there yet, under new numbers, so that two memories may become one; twice is as good as once.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from phases.agent import wording
from phases.agent.memory_file import SCHEMA_VERSION
from phases.agent.memory_records import stamp
from phases.errors import DataError
from phases.storage import write_text
from phases.strict import StrictModel

_EPISODE = ("id", "at", "session", "role", "text")
_FACT = ("id", "at", "session", "text", "episode", "uses", "last_used", "superseded_by")


class _Head(StrictModel):
    format: Literal["agent-forge memory"]
    version: Literal[1]


class _Episode(StrictModel):
    kind: Literal["episode"]
    id: int
    at: AwareDatetime
    session: str
    role: str
    text: str


class _Fact(StrictModel):
    kind: Literal["fact"]
    id: int
    at: AwareDatetime
    session: str
    text: str = Field(min_length=1)
    episode: int | None
    uses: int = Field(ge=0)
    last_used: AwareDatetime | None
    superseded_by: int | None


def export(db: sqlite3.Connection, path: Path) -> int:
    """Replace the file `path` with everything in the memory; how many facts and episodes."""
    records = [{"format": "agent-forge memory", "version": SCHEMA_VERSION}, *_records(db)]
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return len(records) - 1


def _records(db: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    for kind, columns in (("episode", _EPISODE), ("fact", _FACT)):
        for row in db.execute(f"SELECT {', '.join(columns)} FROM {kind}s ORDER BY id"):
            yield {"kind": kind, **dict(zip(columns, row, strict=True))}


def import_(db: sqlite3.Connection, path: Path) -> int:
    """Add what is not there yet; how many. Raises `DataError` that names the first wrong line."""
    episodes: dict[int, int] = {}
    facts: dict[int, int] = {}
    replaced: list[tuple[int, int]] = []
    before = _count(db)
    for record in _read(path):
        if isinstance(record, _Episode):
            episodes[record.id] = _episode(db, record)
        else:
            facts[record.id] = _fact(db, record, episodes)
            if record.superseded_by is not None:
                replaced.append((record.id, record.superseded_by))
    for old, new in replaced:
        # A newer fact that has been forgotten since leaves the old one replaced, by nothing that can be named.
        db.execute("UPDATE facts SET superseded_by = ? WHERE id = ?", (facts.get(new, 0), facts[old]))
    _settle(db)
    return _count(db) - before


def _read(path: Path) -> Iterator[_Episode | _Fact]:
    """The records of an export, checked line by line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a file that `export` wrote") from None
    for number, line in enumerate(lines, 1):
        if not line and number == len(lines) > 1:
            return  # the end of the last line
        try:
            value = json.loads(line)
            record = _record(value) if number > 1 else _Head.model_validate(value)
        except (ValueError, KeyError, TypeError, ValidationError):
            raise DataError(
                f"{path}: line {number} is not of a memory's export; give a file that `export` wrote"
            ) from None
        if not isinstance(record, _Head):
            yield record


def _record(value: Any) -> _Episode | _Fact:
    return _Fact.model_validate(value) if value["kind"] == "fact" else _Episode.model_validate(value)


def _episode(db: sqlite3.Connection, record: _Episode) -> int:
    row = (stamp(record.at), *(wording.clean(text) for text in (record.session, record.role, record.text)))
    # The plus keeps SQLite from the index of sessions: one session may be all there is, a moment is not.
    known = "SELECT id FROM episodes WHERE at = ? AND +session = ? AND role = ? AND text = ?"
    return _once(db, known, row, "INSERT INTO episodes (at, session, role, text) VALUES (?, ?, ?, ?) RETURNING id", row)


def _fact(db: sqlite3.Connection, record: _Fact, episodes: Mapping[int, int]) -> int:
    text, key = wording.clean(record.text), wording.fact_key(wording.clean(record.text))
    told = (wording.statement(text) or key, stamp(record.at), wording.clean(record.session), text)
    last_used = stamp(record.last_used) if record.last_used else None
    row = (*told, key, episodes.get(record.episode or 0), record.uses, last_used)
    add = (
        "INSERT INTO facts (about, at, session, text, key, episode, uses, last_used) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id"
    )
    return _once(db, "SELECT id FROM facts WHERE about = ? AND at = ? AND session = ? AND text = ?", told, add, row)


def _once(db: sqlite3.Connection, known: str, told: tuple[Any, ...], add: str, row: tuple[Any, ...]) -> int:
    """The number of a row, which is added unless it is known."""
    found = db.execute(known, told).fetchone() or db.execute(add, row).fetchone()
    return int(found[0])


def _settle(db: sqlite3.Connection) -> None:
    """Of facts that give several values to one statement, the newest holds."""
    shared = "SELECT about FROM facts WHERE superseded_by IS NULL GROUP BY about HAVING count(*) > 1"
    for (about,) in db.execute(shared).fetchall():
        (newest, _), *older = db.execute(
            "SELECT id, at FROM facts WHERE about = ? AND superseded_by IS NULL ORDER BY at DESC, id DESC", (about,)
        ).fetchall()
        db.executemany("UPDATE facts SET superseded_by = ? WHERE id = ?", [(newest, number) for number, _ in older])


def _count(db: sqlite3.Connection) -> int:
    (count,) = db.execute("SELECT (SELECT count(*) FROM facts) + (SELECT count(*) FROM episodes)").fetchone()
    return int(count)
