"""A run without a Prefect server of its own: Ctrl-C at the terminal, an address where nobody answers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flows import serverless
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


def test_server_that_stops_answering_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(serverless.SparedServer, "start", lambda server: None)
    with pytest.raises(InputError, match=r"stopped answering \(connection refused\); the same command resumes"):
        serverless.run_flow(refuse)


@pytest.mark.slow
def test_address_where_nobody_answers(tiny_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "run", "--config", str(tiny_file), "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("forge: Prefect: ") and len(done.stderr.splitlines()) == 1
