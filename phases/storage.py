"""Writing that cannot leave half a result behind: temporary name, fsync, rename, SHA-256.

A directory appears under its final name only when every byte of it is on the disk. What the operating system
refuses (full disk, read-only folder) becomes one `StorageError` line.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phases.errors import StorageError

_REASONS = {
    errno.ENOSPC: "the disk is full: free some space or choose another --out, then run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space, then run the same command again",
    errno.EROFS: "the file system is read-only: choose another --out",
    errno.EACCES: "no permission to write here: choose another --out or change the folder's owner",
    errno.EPERM: "no permission to write here: choose another --out or change the folder's owner",
    errno.ENAMETOOLONG: "the name is too long: choose another --out",
    errno.EEXIST: "a part of this path is a file, not a folder: choose another --out",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another --out",
}


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals about `path` into a `StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _REASONS:
            raise StorageError(f"{path}: {_REASONS[error.errno]}") from error
        raise
    except Exception as error:
        # safetensors and the Rust tokenizer wrap an OSError's number in their own exception's text.
        for number, reason in _REASONS.items():
            if f"os error {number}" in str(error):
                raise StorageError(f"{path}: {reason}") from error
        raise


def sha256_file(path: Path) -> str:
    """SHA-256 of one file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def fsync_path(path: Path) -> None:
    """Flush a file's or a directory's entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def flocked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock file, made when missing; the system frees it when the process dies, however it dies.

    Raises `OSError`; `BlockingIOError` where another process has it and `how` says not to wait.
    """
    with path.open("a+") as lock:
        fcntl.flock(lock, how)
        yield


def replace_text(path: Path, text: str) -> None:
    """Replace a text file atomically: a reader sees the old bytes or the new, never a mixture. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def write_text(path: Path, text: str) -> None:
    """`replace_text` with its errors in the user's words."""
    with explain_os_errors(path):
        replace_text(path, text)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically, readable by people."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def atomic_directory(out: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `out`; when the block ends well it is fsynced and renamed to `out`.

    An `out` that exists is replaced. When the block fails nothing is left under either name (an old `out` stays).
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with explain_os_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            for path in sorted(temporary.rglob("*")):
                fsync_path(path)
            fsync_path(temporary)
            replace_directory(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_directory(source: Path, target: Path) -> None:
    """Rename `source` to `target`; a `target` that exists is moved aside first and then removed."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    source.rename(target)
    fsync_path(target.parent)
    shutil.rmtree(old, ignore_errors=True)
