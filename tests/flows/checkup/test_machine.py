"""The machine: threads, memory, disk, ports."""

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from flows.checkup import machine
from flows.checkup.finding import Finding, Scope


def test_threads(expect: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    expect(machine.cores, "wrong", "OMP_NUM_THREADS=many is no number", "unset OMP_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert any(f.mend and "export OMP_NUM_THREADS=" in f.mend for f in machine.cores(Scope()) if f.level == "warning")


def test_little_memory(expect: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_memory_limit", lambda: (2**30, 2**30 - 2**20))
    expect(machine.memory, "wrong", "0.0 GiB free, limited to 1.0 GiB by the cgroup", "stop other programs")


def test_a_folder_that_cannot_be_written(
    expect: Callable[..., Finding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/proc/self").exists():  # refuses even root
        expect(machine.disk, "wrong", "/proc cannot be written", "forge run --out DIR", out=Path("/proc/runs"))
    tmp_path.chmod(0o555)
    if os.geteuid():
        expect(machine.disk, "wrong", "cannot be written", "forge run --out DIR", out=tmp_path / "a/b")
    tmp_path.chmod(0o755)
    (tmp_path / "file").touch()
    expect(machine.disk, "wrong", "is a file, not a folder", "forge run --out DIR", out=tmp_path / "file" / "runs")
    monkeypatch.setattr(machine, "filesystem", lambda folder: "nfs4")
    expect(machine.disk, "warning", "is on nfs4: sqlite and our locks", "forge run --out DIR", out=tmp_path)


def test_a_full_disk(expect: Callable[..., Finding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2**20}))
    expect(machine.disk, "wrong", "0.0 GiB free in ", f"delete runs in {tmp_path}", out=tmp_path)


def test_a_taken_port_and_our_own_server(
    expect: Callable[..., Finding],
    site: Callable[[dict[str, str]], AbstractContextManager[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken, site({"/api/health": "true"}) as ours:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port, our_port = taken.getsockname()[1], int(ours.rpartition(":")[2])
        ports = {"MLflow": (port, "/health", "--mlflow-port"), "Prefect": (our_port, "/api/health", "--port")}
        monkeypatch.setattr(machine, "PORTS", ports)
        wrong, right = machine.ports(Scope())
    expect(wrong, "warning", f"{port} (MLflow) is taken by ", f"stop it, or forge up --mlflow-port {port + 1}")
    assert f"(process {os.getpid()})" in wrong.found
    expect(right, "ok", f"{our_port}: a Prefect server answers", None)
