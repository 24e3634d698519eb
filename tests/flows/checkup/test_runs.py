"""The folder of all runs: a damaged database, what killed processes left, damaged checkpoints."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from flows.checkup import runs
from flows.checkup.finding import Finding, Scope
from flows.doctor import examine

PIP = "-m pip install -r "


def make_database(path: Path, version: str | None) -> None:
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("CREATE TABLE alembic_version (version_num)")
        made.execute("INSERT INTO alembic_version VALUES (?)", [version])
        made.execute("CREATE TABLE t (x)")
        made.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 500)


def test_the_tracking_database(expect: Callable[..., Finding], tmp_path: Path) -> None:
    known, head = runs._migrations()
    path, older = tmp_path / "mlflow.db", sorted(known - {head})[0]
    make_database(path, head)
    expect(runs.database, "ok", f"whole, schema {head}", None, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"not a database " * 100, whole[:8192] + os.urandom(len(whole) - 8192)):
        path.write_bytes(broken)
        expect(runs.database, "wrong", f"{path} is damaged (", f"mv {path} {path}.broken", out=tmp_path)
    for version, mend in ((older, f"mlflow db upgrade sqlite:///{path}"), ("0123456789ab", PIP)):
        path.unlink()
        make_database(path, version)
        expect(runs.database, "wrong", f"schema {version} is of ", mend, out=tmp_path)


def test_leftovers(expect: Callable[..., Finding], tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    orphan, own = (tmp_path / "r" / f".cognate.{pid}.tmp" for pid in (gone.pid, os.getpid()))
    done, unfinished = tmp_path / "r/cognate.work", tmp_path / "r/evomerge.work"
    for folder in (orphan, own, done, unfinished, tmp_path / "r/cognate"):
        folder.mkdir(parents=True)
    (tmp_path / "r/cognate/forge.json").touch()
    before = sorted(tmp_path.rglob("*"))
    found = {finding.mend or finding.found: finding for finding in runs.leftovers(Scope(out=tmp_path))}
    expect(found.pop(f"rm -r {orphan}"), "warning", "half-written by a process that is gone", "rm -r")
    expect(found.pop(f"rm -r {done}"), "warning", "work of a phase that is done", "rm -r")
    (rest,) = found.values()
    expect(rest, "ok", f"{unfinished}: unfinished work, the same `forge run` goes on", None)
    assert sorted(tmp_path.rglob("*")) == before


def test_work_of_a_live_run_is_no_leftover(expect: Callable[..., Finding], tmp_path: Path) -> None:
    from flows.run_directory import locked

    (tmp_path / "r/cognate.work").mkdir(parents=True)
    with locked(tmp_path / "r"):
        (found,) = runs.leftovers(Scope(out=tmp_path))
    expect(found, "ok", "being written now: r", None)


def test_damaged_checkpoints_are_found_when_asked(expect: Callable[..., Finding], tmp_path: Path) -> None:
    (made := tmp_path / "r/cognate/siblings/memory").mkdir(parents=True)
    for name in ("config.json", "forge.json"):
        (made / name).write_text("{")
    assert examine(Scope(out=tmp_path), (runs.checkpoints,)) == []
    expect(runs.checkpoints, "wrong", "forge.json: truncated or altered", f"rm -r {made}", out=tmp_path, deep=True)
