"""The folder of all runs: the tracking database, leftovers of killed processes, damaged checkpoints."""

import contextlib
import fcntl
import importlib.util
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from flows.checkup.finding import INSTALL, Finding, Scope, ok, warning, wrong

QUICK_SECONDS = 3.0
DEPTH = 4
"""Folders deep: <out>/<run>/<phase>/siblings/<name>."""
LEFTOVER = re.compile(r"^\..+\.(\d+)\.(tmp|old)$")
"""What an atomic write of that process had not yet renamed (`phases.storage`)."""


def database(scope: Scope) -> Iterator[Finding]:
    """The tracking database is whole and of a schema that the installed MLflow knows."""
    path = scope.out / "mlflow.db"
    if not path.is_file():
        yield ok("mlflow.db", "none yet, the first run makes it")
        return
    aside = (
        f"mv {path} {path}.broken && rm -f {path}-wal {path}-shm (runs keep their reports; the next makes a new one)"
    )
    try:
        with contextlib.closing(_open(path)) as connection:
            deadline = time.monotonic() + (3600 if scope.deep else QUICK_SECONDS)
            connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").fetchall()
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall() if tables else []
    except sqlite3.DatabaseError as error:
        if "interrupted" in str(error):
            size = path.stat().st_size / 2**20
            yield warning(
                "mlflow.db", f"{size:.0f} MiB, too large to check in {QUICK_SECONDS:.0f} s", "forge doctor --deep"
            )
        elif "locked" in str(error):
            yield ok("mlflow.db", "in use, not checked")
        elif "unable to open" in str(error):
            yield wrong("mlflow.db", f"{path} cannot be opened", f"chown $USER {path}*")
        else:
            yield wrong("mlflow.db", f"{path} is damaged ({error})", aside)
        return
    if verdict != "ok":
        yield wrong("mlflow.db", f"{path} is damaged ({verdict.splitlines()[-1]})", aside)
    else:
        yield _schema(path, rows[0][0] if rows else None)


def _open(path: Path) -> sqlite3.Connection:
    """Read-only and without a trace: reading a database in WAL mode would otherwise make two files beside it."""
    live = path.with_name(f"{path.name}-wal").exists()
    mode = "mode=ro" if live else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=1)


def _schema(path: Path, version: str | None) -> Finding:
    known, head = _migrations()
    if version is None:
        return ok("mlflow.db", "whole, without tables yet")
    if not known:
        return warning("mlflow.db", f"whole, schema {version}; MLflow is not installed to compare it", INSTALL)
    if version not in known:
        return wrong("mlflow.db", f"schema {version} is of another, newer MLflow", INSTALL)
    if version != head:
        upgrade = f"mlflow db upgrade sqlite:///{path.absolute()}"
        return wrong("mlflow.db", f"schema {version} is of an older MLflow, this one wants {head}", upgrade)
    return ok("mlflow.db", f"whole, schema {version}")


def _migrations() -> tuple[set[str], str | None]:
    """The schema versions that the installed MLflow knows, and its newest; read, because importing it takes seconds."""
    found = importlib.util.find_spec("mlflow")
    folder = Path(found.origin or "").parent / "store/db_migrations/versions" if found else Path("/nonexistent")
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    known = set(re.findall(r"^revision\s*=\s*[\"'](\w+)", text, re.M))
    heads = known - set(re.findall(r"^down_revision\s*=\s*[\"'](\w+)", text, re.M))
    return known, next(iter(heads), None)


def leftovers(scope: Scope) -> Iterator[Finding]:
    """What killed processes left: unfinished work (kept on purpose) and half-written copies (of no use)."""
    busy, work, orphans = [], [], []
    for path in _walk(scope.out, DEPTH):
        if path.name == ".lock" and _held(path):
            busy.append(path.parent.name)
        elif path.name.endswith(".work") and path.is_dir():
            work.append(path)
        elif (match := LEFTOVER.match(path.name)) and not _runs(int(match[1])):
            orphans.append(path)
    if busy:
        yield ok("runs", f"being written now: {', '.join(sorted(busy))}")
    for path in sorted(work):
        run = path.parent.name
        if run in busy:
            continue
        if _finished(path):
            yield warning("leftovers", f"{path}: work of a phase that is done", f"rm -r {path}")
        else:
            yield ok("leftovers", f"{path}: unfinished work, the same `forge run` goes on from it")
    for path in sorted(orphans):
        yield warning("leftovers", f"{path}: half-written by a process that is gone", f"rm -r {path}")
    if not work and not orphans:
        yield ok("leftovers", "none")


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            yield Path(entry.path)
            if depth > 1 and entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), depth - 1)


def _held(lock: Path) -> bool:
    """Whether a process holds the lock. The system frees one whose process is gone, so none is ever stale."""
    with contextlib.suppress(OSError), lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _finished(work: Path) -> bool:
    """Whether the phase of this work directory has its checkpoint."""
    result = work.with_name(work.name.removesuffix(".work"))
    return (result / "forge.json").is_file()


def checkpoints(scope: Scope) -> Iterator[Finding]:
    """Every checkpoint has the bytes that it was written with; only with --deep, it reads them all."""
    if not scope.deep:
        return
    from phases.checkpoint import open_checkpoint
    from phases.errors import CheckpointError

    found = sorted(path.parent for path in _walk(scope.out, DEPTH + 1) if path.name == "forge.json")
    for path in found:
        try:
            open_checkpoint(path)
        except CheckpointError as error:
            yield wrong("checkpoints", str(error).split(";")[0], f"rm -r {path}, then the same `forge run`")
    if found:
        yield ok("checkpoints", f"{len(found)} hashed")
