"""Long-running child processes: started in order, watched, started again when they die, stopped in reverse.

Every service gets a session of its own, so that Ctrl-C reaches the supervisor alone and it decides who goes first. The
kernel ends a service when the supervisor dies, however it dies. A service that does not end on SIGTERM is killed, its
descendants too.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from phases.errors import InputError
from phases.storage import write_json

GRACE_SECONDS = 20.0
STOP_SECONDS = 15.0
"""What a run gets to write down where it is and to say that it was stopped."""
START_SECONDS = 180.0
"""A busy machine needs a minute for Prefect's first start."""
QUICK_DEATH_SECONDS, MOST_QUICK_DEATHS = 30.0, 3
_PR_SET_PDEATHSIG = 1


@dataclass
class Service:
    """A child process and how to tell that it works."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    """Where its output goes."""
    health: str | None = None
    """An address that answers 200 when it is ready; without one it is ready as soon as it runs."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    since: float = field(default=0.0, init=False)
    """When the process was started, seconds since the epoch."""
    _deaths: int = field(default=0, init=False)
    _started: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Start the process and wait until it is ready. Raises `InputError` with its last words when it dies."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.command),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self._started, self.since = time.monotonic(), time.time()
        while not self._ready():
            if not self.alive:
                raise InputError(f"{self.name} did not start: {self.last_words()}; see {self.log}")
            if time.monotonic() - self._started > START_SECONDS:
                raise InputError(f"{self.name} did not answer within {START_SECONDS:.0f} s; see {self.log}")
            time.sleep(0.2)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def revive(self) -> bool:
        """Start it again if it died; whether it had. Raises `InputError` when it keeps dying young."""
        if self.alive:
            return False
        young = time.monotonic() - self._started < QUICK_DEATH_SECONDS
        self._deaths = self._deaths + 1 if young else 1
        if self._deaths > MOST_QUICK_DEATHS:
            raise InputError(f"{self.name} keeps dying: {self.last_words()}; see {self.log}")
        if self.process is not None:
            end_session(self.process.pid)
        self.start()
        return True

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """End it and all that it started: SIGTERM, then SIGKILL."""
        if self.process is not None:
            end_processes(family(self.process), grace)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)

    def last_words(self) -> str:
        """The last line of the log that says something."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
        return "it wrote nothing"

    def _ready(self) -> bool:
        if self.health is None:
            return self.alive
        try:
            return httpx.get(self.health, timeout=2).status_code == 200
        except httpx.HTTPError:
            return False


def _die_with_parent() -> None:
    """In the child, before it runs: have the kernel kill it when its parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def family(member: subprocess.Popen[bytes] | int | None) -> list[psutil.Process]:
    """A process and its descendants, the process first; empty when it is gone."""
    if member is None:
        return []
    try:
        process = psutil.Process(member if isinstance(member, int) else member.pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end_session(leader: int) -> None:
    """Kill what a dead service left: a child that still listens keeps its port. Runs have sessions of their own."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == leader:
                process.kill()
                process.wait(5)


def remember(path: Path, services: Sequence[Service]) -> None:
    """Write down which processes the services consist of."""
    members = [process for service in services for process in family(service.process)]
    write_json(path, {str(process.pid): process.create_time() for process in members})


def end_leftovers(path: Path) -> None:
    """End processes that were remembered there and still run: a SIGKILL to their supervisor spared grandchildren."""
    with contextlib.suppress(OSError, ValueError):
        for pid, created in json.loads(path.read_text(encoding="utf-8")).items():
            if any(process.create_time() == created for process in family(int(pid))[:1]):
                end_processes(family(int(pid)), GRACE_SECONDS)


def command_of(process: psutil.Process | int) -> str:
    """The command line of a process; empty when it is gone."""
    with contextlib.suppress(psutil.Error):
        return " ".join((psutil.Process(process) if isinstance(process, int) else process).cmdline())
    return ""


def end_processes(processes: Sequence[psutil.Process], grace: float) -> None:
    """SIGTERM to the first of them, which ends the others if it is well; after `grace` seconds SIGKILL to the rest."""
    for process in processes[:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)
