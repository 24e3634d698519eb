"""`forge up` as its user starts it: in a project folder of its own, on free ports, stopped by process id."""

import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Servers:
    """A running `forge up` and Prefect's REST API, as the UI uses it."""

    project: Path
    port: int = field(default_factory=free_port)
    mlflow_port: int = field(default_factory=free_port)
    process: psutil.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def runs(self) -> Path:
        return self.project / "checkpoints"

    def start(self, *arguments: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for name in ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI"):
            environment.pop(name, None)
        ports = ("--port", str(self.port), "--mlflow-port", str(self.mlflow_port))
        with (self.project / "up.log").open("wb") as log:
            command = [sys.executable, "-m", "flows.cli", "up", *ports, *arguments]
            self.process = psutil.Popen(command, cwd=self.project, env=environment, stdout=log, stderr=log)
        self.until(lambda: "Ctrl-C stops" in self.said or self.process.poll() is not None, 240)
        assert self.process.poll() is None, self.said

    def stop(self) -> None:
        """Ctrl-C; then nothing may be left of it."""
        assert self.process is not None
        below = self.process.children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(90) == 0
        _, left = psutil.wait_procs(below, timeout=5)
        assert not left, left

    def kill(self) -> None:
        """Whatever is still there, without mercy."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [*self.process.children(recursive=True), self.process]:
                process.kill()

    @property
    def said(self) -> str:
        return (self.project / "up.log").read_text()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        for _ in range(10):
            answer = httpx.request(method, f"{self.url}/api{path}", json=body, timeout=30)
            if answer.status_code != 503:  # sqlite was busy; Prefect's own clients ask again too
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/deployments/name/forge/{name}")
        return found

    def create(self, deployment: str, **changes: Any) -> str:
        """Start a run as the UI does, with these settings of the config changed."""
        found = self.deployment(deployment)
        body = {"parameters": {"config": {**found["parameters"]["config"], **changes}}, "state": {"type": "SCHEDULED"}}
        return str(self.call("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/flow_runs/{run}")
        return found

    def wait(self, run: str, states: set[str] = FINAL, seconds: float = 600) -> dict[str, Any]:
        """The run once it is in one of these states, by type or by name."""
        seen = lambda: {self.run(run)["state_type"], self.run(run)["state_name"]} & states  # noqa: E731
        self.until(seen, seconds)
        return self.run(run)

    def retry(self, run: str) -> None:
        """What the UI's Retry button does."""
        state = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
        self.call("POST", f"/flow_runs/{run}/set_state", state)

    def until(self, condition: Any, seconds: float) -> None:
        """Wait for it."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain\n{self.said}"
            time.sleep(0.3)

    def engine(self) -> psutil.Process:
        """The process that executes a run."""
        found: list[psutil.Process] = []

        def look() -> bool:
            assert self.process is not None
            below = self.process.children(recursive=True)
            found[:] = [p for p in below if p.is_running() and "prefect.engine" in " ".join(p.cmdline())]
            return bool(found)

        self.until(look, 60)
        return found[0]


def make_project(folder: Path) -> Path:
    """A folder to run `forge up` in."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "prefect.yaml", folder)
    return folder


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One `forge up` for the session."""
    made = Servers(make_project(tmp_path_factory.mktemp("operation") / "project"))
    made.start()
    try:
        yield made
        made.stop()
    finally:
        made.kill()
