"""The file of a capture store: SQLite with a write-ahead log, safe against kills and between processes.

Durable commits are on the disk before they return, others with the next durable one; what is deleted is overwritten.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from phases.errors import DataError, StorageError
from phases.storage import explain_os_errors

BUSY_SECONDS = 60.0
"""How long a process waits for another that writes."""
_APPLICATION, _VERSION = 0x46434150, 1
_SCHEMA = """
CREATE TABLE answers (key TEXT PRIMARY KEY, identity TEXT NOT NULL, teacher TEXT NOT NULL, licence TEXT NOT NULL,
                      ask TEXT NOT NULL, answer TEXT NOT NULL, captured REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, claimed REAL NOT NULL, ends REAL NOT NULL)
                     WITHOUT ROWID;
CREATE TABLE attempts (key TEXT NOT NULL, teacher TEXT NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL,
                       lasting INTEGER NOT NULL, wasted INTEGER NOT NULL);
"""


def open_database(path: Path) -> sqlite3.Connection:
    """Open or create it. Raises StorageError, and DataError for a file that is something else."""
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        db.execute("PRAGMA secure_delete = ON")
        with transaction(db):
            _prepare(db, path)
        db.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        raise StorageError(f"{path}: cannot be opened ({error}); name a file in a folder you may write to") from None
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: not a capture store ({error}); name another file") from None
    return db


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, durable: bool = True) -> Iterator[None]:
    """One writer at a time; all or nothing. A kill undoes no commit; `durable`: no loss of power either."""
    db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application == _APPLICATION and version == _VERSION:
        return
    if application == _APPLICATION:
        raise DataError(
            f"{path}: a capture store of version {version}, and this program reads {_VERSION}; name another file"
        )
    if db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        raise DataError(f"{path}: another program's database; name another file")
    for statement in _SCHEMA.split(";")[:-1]:
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {_APPLICATION}")
    db.execute(f"PRAGMA user_version = {_VERSION}")


def process_started(pid: int) -> str:
    """When a process began, so that a number that was given again is told apart; empty for none, or one that ended."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return "" if after_name[0] == "Z" else after_name[19]
    except OSError:
        return ""
