"""SIGKILL at any moment, then the same command: what is done is skipped, the rest continues, the bits are the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from evaluation.report import read_report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(out: Path) -> subprocess.Popen[str]:
    """`forge run --profile smoke` in a process group of its own."""
    sets = [f"--set=cognate.{part}.save_seconds=1" for part in ("trunk", "branch")]
    command = [sys.executable, "-m", "flows.cli", "run", "--profile", "smoke", *sets, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PREFECT_HOME": str(out / ".prefect-home")}
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def kill(process: subprocess.Popen[str]) -> None:
    """The run and its temporary server, without a chance to clean up."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    for child in children:
        child.kill()
    process.communicate()  # also closes the pipe


def finish(out: Path) -> tuple[list[str], str]:
    """Run to the end; the checkpoints' digests and what was said."""
    process = start(out)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    report = read_report(out / "smoke")
    families = [json.loads((out / "smoke" / p.phase / "forge.json").read_text())["siblings"] for p in report.phases]
    return [p.checkpoint.digest for p in report.phases] + [json.dumps(f, sort_keys=True) for f in families], said


def test_three_kills_end_in_the_same_bits(tmp_path: Path) -> None:
    began = time.monotonic()
    whole, _ = finish(tmp_path / "whole")
    seconds = time.monotonic() - began
    moments = random.Random(7)
    for number in range(3):
        out = tmp_path / f"killed{number}"
        process = start(out)
        time.sleep(moments.uniform(0.35, 0.95) * seconds)
        kill(process)
        assert not list(out.glob("smoke/report.*.tmp"))
        again, _ = finish(out)
        assert again == whole, f"kill number {number}"


def test_a_finished_phase_is_skipped_after_a_kill(tmp_path: Path) -> None:
    process = start(tmp_path)
    deadline = time.monotonic() + 300
    while not (tmp_path / "smoke" / "cognate" / "forge.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    kill(process)
    made = (tmp_path / "smoke" / "cognate" / "forge.json").stat().st_mtime_ns
    _, said = finish(tmp_path)
    assert "cognate: done before, skipped" in said
    assert (tmp_path / "smoke" / "cognate" / "forge.json").stat().st_mtime_ns == made
