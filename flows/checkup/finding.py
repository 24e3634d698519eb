"""`Finding`: one line of `forge doctor`; `Scope`: what it was asked to look at."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

Level = Literal["ok", "warning", "wrong"]
ROOT = Path(__file__).resolve().parents[2]
"""The checkout, when this is one."""
INSTALL = f"{sys.executable} -m pip install -r {ROOT / 'requirements.lock'}"


@dataclass(frozen=True)
class Finding:
    """What a check found, and the command that mends it."""

    check: str
    level: Level
    found: str
    mend: str | None = None

    def __str__(self) -> str:
        line = f"{self.level:<8} {self.check:<12} {self.found}"
        return f"{line}; mend: {self.mend}" if self.mend else line


@dataclass(frozen=True)
class Scope:
    """Where to look and how far."""

    out: Path = Path("checkpoints")
    """Folder of all runs."""
    online: bool = False
    """Whether the hub may be asked."""
    deep: bool = False
    """Whether checkpoints are hashed, and databases checked however long it takes."""


def ok(check: str, found: str, mend: str | None = None) -> Finding:
    """All is well; `mend` may say how to get what is merely optional."""
    return Finding(check, "ok", found, mend)


def warning(check: str, found: str, mend: str | None = None) -> Finding:
    """Works, but not as well as it could, or not in every case."""
    return Finding(check, "warning", found, mend)


def wrong(check: str, found: str, mend: str | None = None) -> Finding:
    """Something will fail."""
    return Finding(check, "wrong", found, mend)


def run_python(code: str, seconds: float) -> tuple[int, str]:
    """Run code in a fresh interpreter that leaves nothing behind; its exit code and the last line that it printed.

    Raises `subprocess.TimeoutExpired`. A broken package may take its whole process down; here it is not ours.
    """
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        done = subprocess.run(
            [sys.executable, "-B", "-c", code],
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=home,
            env=environment,
        )
    lines = [line for line in (done.stderr if done.returncode else done.stdout).splitlines() if line.strip()]
    return done.returncode, lines[-1].strip() if lines else ""


def ask(url: str, seconds: float = 1.5, loopback: bool = False) -> str | None:
    """What the address answers (with 200); None when it does not. `loopback`: whatever proxy is set."""
    handlers = [urllib.request.ProxyHandler({})] if loopback else []
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=seconds) as answer:
            return str(answer.read(100_000).decode("utf-8", "replace"))
    except (OSError, ValueError, http.client.HTTPException):  # the last: something answers that is no web server
        return None


def unquoted(answer: str | None) -> str:
    """A JSON string or plain text as text."""
    with contextlib.suppress(ValueError):
        value: Any = json.loads(answer or "")
        return str(value)
    return (answer or "").strip()


def without_password(address: str) -> str:
    """The address as it may be shown."""
    try:
        parts = urlsplit(address)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
    except ValueError:
        return "(an address that cannot be read)"
