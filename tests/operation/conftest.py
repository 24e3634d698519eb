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
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.supervisor import command_of
from phases.checkpoint import open_checkpoint

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
            answer = httpx.request(method, f"{self.url}/api{path}", json=body, timeout=60)
            if answer.status_code != 503:  # its database was locked; Prefect's own clients try again, too
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, name: str, flow: str = "forge") -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/deployments/name/{flow}/{name}")
        return found

    def create(self, deployment: str, flow: str = "forge", **changes: Any) -> str:
        """Start a run as the UI does, with these settings of the config changed."""
        found = self.deployment(deployment, flow)
        body = {"parameters": {"config": {**found["parameters"]["config"], **changes}}, "state": {"type": "SCHEDULED"}}
        return str(self.call("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/flow_runs/{run}")
        return found

    def wait(self, run: str, states: set[str] = FINAL, seconds: float = 1500) -> dict[str, Any]:
        """The run once it is in one of these states, by type or by name."""
        seen = lambda: {self.run(run)["state_type"], self.run(run)["state_name"]} & states  # noqa: E731
        self.until(seen, seconds)
        return self.run(run)

    def retry(self, run: str) -> None:
        """What the UI's Retry button does."""
        state = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
        self.call("POST", f"/flow_runs/{run}/set_state", state)

    def until(self, condition: Any, seconds: float, pause: float = 0.3) -> None:
        """Wait for it."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain\n{self.said}"
            time.sleep(pause)

    def engines(self) -> list[psutil.Process]:
        """The processes that execute runs, less those that outlived their worker."""
        assert self.process is not None
        return [p for p in self.process.children(recursive=True) if "prefect.engine" in command_of(p)]

    def engine(self) -> psutil.Process:
        """The process that executes a run, once there is one."""
        self.until(self.engines, 240, 0.05)
        return self.engines()[0]

    def service(self, words: str) -> psutil.Process:
        """The service that was started with these words."""
        assert self.process is not None
        return next(p for p in self.process.children() if words in command_of(p))

    def kill_service(self, name: str, words: str, *others: psutil.Process) -> None:
        """SIGKILL to a service, and to others within microseconds; wait until `forge up` has started it again."""
        line = f"{name}: had died, started again"
        before = self.said.count(line)
        for process in (self.service(words), *others):
            process.kill()
        self.until(lambda: self.said.count(line) > before, 300)

    def smoke(self, run: str, **changes: Any) -> str:
        """Start the smoke profile, with a training state saved every second."""
        cognate = self.deployment("forge-smoke")["parameters"]["config"]["cognate"]
        often = {part: {**cognate[part], "save_seconds": 1} for part in ("trunk", "branch")}
        return self.create("forge-smoke", run=run, reuse=False, cognate={**cognate, **often}, **changes)

    def digests(self, run: str | Path) -> dict[str, str]:
        """Every checkpoint of a run (its name, or its folder), siblings too, verified."""
        made = [open_checkpoint(path.parent) for path in (self.runs / run).glob("*/forge.json")]
        siblings = {f"{c.path.name}/{name}": s.digest for c in made for name, s in c.siblings.items()}
        return siblings | {checkpoint.path.name: checkpoint.digest for checkpoint in made}

    def tasks(self, run: str) -> dict[str, str]:
        """The state of every task, by name; Prefect adds a suffix to some."""
        found = self.call("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return {task["name"].partition("-")[0]: task["state_name"] for task in found}

    def tracked(self, run: str) -> list[Run]:
        """What MLflow has of a flow run: the run itself first, then its phases."""
        client = MlflowClient(self.mlflow_url)
        experiment = client.get_experiment_by_name("agent-forge")
        where = [] if experiment is None else [experiment.experiment_id]
        parents = client.search_runs(where, f"tags.`prefect.flow_run_id` = '{run}'") if where else []
        nested = [client.search_runs(where, f"tags.`mlflow.parentRunId` = '{p.info.run_id}'") for p in parents]
        return [*parents, *(phase for runs in nested for phase in runs)]


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


@dataclass
class Undisturbed:
    """What a smoke run comes to when nothing happens to it."""

    digests: dict[str, str]
    seconds: float
    """From the start of its process to its end."""
    startup: float
    """From the start of its process to its first file."""


@pytest.fixture(scope="session")
def undisturbed(servers: Servers) -> Undisturbed:
    """A smoke run to compare with."""
    run = servers.smoke("undisturbed")
    servers.engine()
    began = time.monotonic()
    servers.until((servers.runs / "undisturbed" / "run.json").exists, 120, 0.05)
    startup = time.monotonic() - began
    done = servers.wait(run)
    assert done["state_name"] == "RolledBack", done["state"]
    seconds = time.monotonic() - began
    servers.until(lambda: not servers.engines(), 60)  # the next run's process must not be taken for this one's
    return Undisturbed(servers.digests("undisturbed"), seconds, startup)
