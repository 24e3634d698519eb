"""`forge run` with the servers of others: four at once in the same databases, and a server that goes away for good."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
TINY = {
    "chain": "[cognate]",
    "data.sources": "[{kind: embedded, max_bytes: 200000}]",
    "data.tasks.reasoning_train_items": 100,
    "data.tasks.memory_train_items": 100,
    "cognate.trunk.steps": 30,
    "cognate.branch.steps": 30,
    "cognate.shape.layers": 2,
    "evaluation.blocks": 4,
    "reuse": "false",
}
"""Too little to learn anything: its gates fail."""
Process = subprocess.Popen[str]


def forge_run(out: Path, run: str, url: str) -> Process:
    """A tiny run as a command of its own that talks to this Prefect server."""
    sets = [f"--set={key}={value}" for key, value in (TINY | {"run": run}).items()]
    command = [sys.executable, "-m", "flows.cli", "run", "--profile", "smoke", *sets, "--out", str(out)]
    environment = {**os.environ, "PREFECT_API_URL": f"{url}/api", "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def flow_run(servers: Any, name: str) -> dict[str, Any]:
    """The one flow run of this name of a forge run."""
    found = servers.call("POST", "/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 50})
    (only,) = [run for run in found if run["parameters"]["config"]["run"] == name]
    return dict(only)


def test_four_runs_at_once_are_recorded_whole(servers: Any) -> None:
    names = [f"writer-{number}" for number in range(4)]
    processes = [forge_run(servers.runs, name, servers.url) for name in names]
    said = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [1] * 4, said  # gates
    assert not any("Traceback" in text or "locked" in text for text in said), said
    client = MlflowClient(servers.mlflow_url)
    measured = []
    for name in names:
        run = flow_run(servers, name)
        assert run["state_name"] == "GateFailed"
        done = dict.fromkeys(("data", "cognate", "report", "register"), "Completed")
        assert servers.tasks(run["id"]) == {**done, "cognate gate": "GateFailed"}
        parent, phase = servers.tracked(run["id"])
        assert (parent.info.status, phase.info.status) == ("FAILED", "FINISHED")
        assert {"report.md"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
        pictures = {file.path for file in client.list_artifacts(phase.info.run_id)}
        assert {"judgement.json", "loss.png", "matrix.png"} <= pictures
        keys = sorted(phase.data.metrics)
        points = {key: len(client.get_metric_history(phase.info.run_id, key)) for key in keys}
        measured.append((points, sorted(phase.data.params), sorted(parent.data.params)))
    assert measured[0] == measured[1] == measured[2] == measured[3]
    assert {"trunk/loss", "control/loss"} <= set(measured[0][0]) and measured[0][1] and measured[0][2]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(home: Path, port: int) -> Process:
    """A Prefect server that is not ours."""
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    with (home.parent / "server.log").open("a") as log:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True, start_new_session=True)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).status_code == 200:
                return server
        except httpx.HTTPError:
            time.sleep(0.3)
    server.kill()
    raise AssertionError((home.parent / "server.log").read_text())


def end(process: Process) -> None:
    """SIGKILL."""
    process.kill()
    process.wait()


def test_a_server_that_goes_away_for_good_is_one_line(tmp_path: Path) -> None:
    out, home, port = tmp_path / "runs", tmp_path / "home", free_port()
    server = serve(home, port)
    run = forge_run(out, "lost", f"http://127.0.0.1:{port}")
    assert run.stderr is not None
    said = [line for line in iter(run.stderr.readline, "cognate: running\n") if line]
    end(server)
    rest = run.communicate(timeout=600)[1].splitlines()
    assert run.returncode == 2 and len(said) == 1 and len(rest) == 1, rest
    assert rest[-1].startswith("forge: Prefect: its server stopped answering"), rest
    assert rest[-1].endswith("; the same command resumes"), rest
    card = (out / "lost" / "data" / "data.json").stat().st_mtime_ns
    server = serve(home, port)
    try:
        again = forge_run(out, "lost", f"http://127.0.0.1:{port}")
        said_again = again.communicate(timeout=600)[1]
    finally:
        end(server)
    assert again.returncode == 1 and "gates not met" in said_again, said_again
    assert (out / "lost" / "data" / "data.json").stat().st_mtime_ns == card
