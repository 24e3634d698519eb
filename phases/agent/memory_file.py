"""The file of a memory: one SQLite database with two tables, a full-text index of each, and transactions that last.

    file = MemoryFile(Path("memory.sqlite"))
    with file.writing() as db:                   # all of it or nothing; other processes wait
        db.execute("INSERT INTO episodes (at, session, role, text) VALUES (?, ?, ?, ?)", row)

Every commit is flushed to the disk before it returns (SQLite's default), so what was written survives a kill. Whatever
SQLite refuses becomes one `StorageError` line.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from phases.errors import StorageError

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x464D454D  # "FMEM": tells a memory from any other database
_WAIT_S = 20.0


def _index(table: str) -> list[str]:
    """A full-text index of `text` that reads the table itself. No text is ever changed, so two triggers will do."""
    into = f"INSERT INTO {table}_index ({table}_index, rowid, text) VALUES ('delete', old.id, old.text)"
    return [
        f"CREATE VIRTUAL TABLE {table}_index USING fts5(text, content='{table}', content_rowid='id', "
        "tokenize='porter unicode61 remove_diacritics 2')",
        f"CREATE TRIGGER {table}_added AFTER INSERT ON {table} BEGIN "
        f"INSERT INTO {table}_index (rowid, text) VALUES (new.id, new.text); END",
        f"CREATE TRIGGER {table}_removed AFTER DELETE ON {table} BEGIN {into}; END",
    ]


_SCHEMA = [
    # AUTOINCREMENT: the number of something forgotten never comes to mean something else.
    "CREATE TABLE episodes (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, session TEXT NOT NULL, "
    "role TEXT NOT NULL, text TEXT NOT NULL)",
    "CREATE INDEX episodes_session ON episodes (session)",
    "CREATE INDEX episodes_at ON episodes (at)",
    "CREATE TABLE facts (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, session TEXT NOT NULL, "
    "text TEXT NOT NULL, key TEXT NOT NULL, about TEXT NOT NULL, episode INTEGER, uses INTEGER NOT NULL DEFAULT 0, "
    "last_used TEXT, superseded_by INTEGER)",
    "CREATE INDEX facts_about ON facts (about)",
    "CREATE INDEX facts_superseded ON facts (superseded_by) WHERE superseded_by IS NOT NULL",
    *_index("facts"),
    *_index("episodes"),
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
]

_REASONS = {
    sqlite3.SQLITE_BUSY: "another process is writing to this memory; try again when it is done",
    sqlite3.SQLITE_LOCKED: "another process is writing to this memory; try again when it is done",
    sqlite3.SQLITE_READONLY: "the memory or its folder is read-only; give its user the right, or give another file",
    sqlite3.SQLITE_CANTOPEN: "the memory's folder cannot be written to; change its owner, or give another file",
    sqlite3.SQLITE_FULL: "the disk is full; free some space and try again",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written; free some space or give a file on another disk",
    sqlite3.SQLITE_CORRUPT: "the memory is damaged; restore it from a copy or an export, or give another file",
    sqlite3.SQLITE_NOTADB: "this is not the memory of an agent; give another file",
}


class MemoryFile:
    """An open memory; None as its path keeps it in this process alone. Threads may share it: one works at a time."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.closed = False
        self._lock = threading.RLock()
        if path is not None:
            _touch(path)
        with self._explained():
            # None: no transaction begins by itself; `reading` and `writing` say where they begin and end.
            self._db = sqlite3.connect(
                path.absolute() if path else ":memory:", timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        """Make the tables of a new file, or see that an old one has them."""
        with self._explained():
            self._db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
        with self.writing() as db:
            (version,), (application,) = (
                db.execute(f"PRAGMA {n}").fetchone() for n in ("user_version", "application_id")
            )
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not version and not application and not tables:
                for line in _SCHEMA:
                    db.execute(line)
            elif application != _APPLICATION_ID:
                raise StorageError(f"{self.path}: {_REASONS[sqlite3.SQLITE_NOTADB]}")
            elif version != SCHEMA_VERSION:
                raise StorageError(
                    f"{self.path}: a memory of version {version}, and this forge knows {SCHEMA_VERSION}; "
                    "use the forge that wrote it to export it"
                )

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees one state of the memory throughout."""
        with self._transaction("BEGIN") as db:
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other writer is in; it is on the disk when the block is left, or undone by an error."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained():
            self._db.execute(begin)
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(
                    sqlite3.Error, UnicodeDecodeError
                ):  # SQLite has undone it already where it could not go on
                    self._db.execute("ROLLBACK")
                raise

    def erase(self) -> None:
        """Empty every table and index and write the file anew, so that no byte of what it held is left in it."""
        with self.writing() as db:
            for table in ("facts_index", "episodes_index", "facts", "episodes"):
                db.execute(f"DROP TABLE {table}")
            for line in _SCHEMA:
                db.execute(line)
        with self._lock, self._explained():
            self._db.execute("VACUUM")

    def close(self) -> None:
        """Close it; a second time does nothing."""
        with self._lock:
            self.closed = True
            self._db.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what SQLite refuses into a `StorageError` that says what to do."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # Damaged text comes without a code; where it stands in the message of an error, that cannot be read either.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            reason = _REASONS.get(code, f"{_REASONS[sqlite3.SQLITE_CORRUPT]} ({error!r})")
            raise StorageError(f"{self.path or 'memory'}: {reason}") from error


def _touch(path: Path) -> None:
    """Make the file when it is new, for its owner's eyes alone, and see that it can be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written to ({error.strerror}); give another file for the memory"
        ) from None
