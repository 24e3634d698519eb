"""A Prefect server of its own, flows in processes of their own, and a receiver of posts, all on loopback."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

import flows

TOKEN = "T0KEN/sesame"
SCRIPT = """
import sys, time
from prefect import flow, tags
from prefect.runtime import flow_run
from prefect.states import Failed
from flows.notifications import announce_failed_gate

@flow
def completes(config): ...

@flow
def fails(config):
    raise ValueError('no <such> "thing"\\nas this')

@flow(timeout_seconds=0.2)
def times_out(config):
    time.sleep(5)

@flow
def misses(config):
    announce_failed_gate(config["run"], "cognate", "margin 0.1 < 0.2", "stop", flow_run.get_id())
    return Failed(name="GateFailed", message="cognate: gates not met: margin 0.1 < 0.2")

@flow
def waits(config):
    print("started", flow_run.get_id(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    names, *given = sys.argv[1:]
    for name in names.split(","):
        with tags(*given):
            globals()[name]({"run": name}, return_state=True)
"""


@dataclass
class Receiver:
    """What was posted."""

    url: str
    token: str = TOKEN
    posts: list[dict[str, Any]] = field(default_factory=list)

    def about(self, what: str) -> list[dict[str, Any]]:
        return [post for post in self.posts if post["what"] == what]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json" and self.path == f"/{TOKEN}"
            made.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        made = Receiver(f"http://127.0.0.1:{listening.server_port}/{TOKEN}")
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield made
        listening.shutdown()
        thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*command: str, log: Path, **environment: str) -> Iterator[psutil.Popen]:
    """A program and all that it starts, gone when the block ends: TERM, then KILL."""
    with log.open("ab") as output:
        env = {**os.environ, **environment}
        made = psutil.Popen(command, env=env, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield made
    finally:
        family = [made, *(made.children(recursive=True) if made.is_running() else [])]
        if made.poll() is None:
            made.terminate()
        for left in psutil.wait_procs(family, timeout=10)[1]:
            left.kill()
        made.wait()


def wait_for(happened: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := happened()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.2)
    return result


@dataclass
class Site:
    """A Prefect server of its own and how to run flows there."""

    api: str
    folder: Path
    environment: dict[str, str]

    def run(self, names: str, *given: str) -> None:
        """Flows of the script with these tags, in a process of their own; they need not end well."""
        command = [sys.executable, "script.py", names, *given]
        env = {**os.environ, **self.environment}
        subprocess.run(command, cwd=self.folder, env=env, capture_output=True, timeout=120)

    def state(self, run: UUID) -> str:
        with self.client() as client:
            found = client.read_flow_run(run).state
            assert found is not None
            return found.name or ""

    def start(self, *command: str, log: str) -> AbstractContextManager[psutil.Popen]:
        """A program that goes on by itself; its output is in the file `log` of the folder."""
        environment = {**self.environment, "PYTHONUNBUFFERED": "1"}
        return process(sys.executable, *command, log=self.folder / log, **environment)

    def started(self, log: str) -> UUID:
        """The run that says in this file that it started."""
        path = self.folder / log
        return UUID(wait_for(lambda: re.findall(r"started ([0-9a-f-]{36})", path.read_text()), 90)[0])

    @staticmethod
    def wait_for(happened: Callable[[], Any], seconds: float) -> Any:
        """`wait_for` for test modules, which cannot import from here."""
        return wait_for(happened, seconds)

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        with temporary_settings({PREFECT_API_URL: self.api}), get_client(sync_client=True) as client:
            yield client


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        "PREFECT_HOME": str(folder / "home"),
        "TMPDIR": str(folder),  # a worker that is killed leaves things there
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_UI_API_URL": api,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(Path(flows.__file__).parent.parent),
    }
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    with process(*command, log=folder / "server.log", **environment):
        wait_for(lambda: answers(f"{api}/health"), 120)
        yield Site(api, folder, environment)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False
