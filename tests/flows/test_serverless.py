"""A run without a Prefect server of its own: Ctrl-C at the terminal, an address where nobody answers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from flows import serverless
from flows.parameters import ForgeConfig
from phases.errors import InputError


@pytest.mark.slow
def test_ctrl_c_at_the_terminal_stops_at_once(tiny_file: Path, tmp_path: Path) -> None:
    settings = ["--config", str(tiny_file), "--set", "cognate.trunk.steps=1000000"]
    command = [sys.executable, "-m", "flows.cli", "run", *settings, "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PREFECT_HOME": str(tmp_path / "home")}
    environment.pop("PREFECT_API_URL", None)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True) as run:
        assert run.stderr is not None
        said = [line for line in iter(run.stderr.readline, "cognate: running\n") if line]
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: Prefect's temporary server gets it too
        _, rest = run.communicate(timeout=60)
    assert run.returncode == 130 and len(said) == 1
    assert rest == "forge: stopped; the same command resumes\n"


def test_the_server_dies_with_a_run_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal; from flows.serverless import SparedServer\n"
        "print(SparedServer(port=1)._run_uvicorn_command().pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    # A server that lives on keeps the pipe open.
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    server = [psutil.Process(pid) for pid in [int(done.stdout)] if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(server, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_server_that_stops_answering_is_one_line(tiny: ForgeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: ForgeConfig) -> str:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(serverless, "forge", refuse)
    monkeypatch.setattr(serverless.SparedServer, "start", lambda server: None)
    with pytest.raises(InputError, match=r"stopped answering \(connection refused\); the same command resumes"):
        serverless.run_flow(tiny)


@pytest.mark.slow
def test_address_where_nobody_answers(tiny_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "run", "--config", str(tiny_file), "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("forge: Prefect: ") and len(done.stderr.splitlines()) == 1
