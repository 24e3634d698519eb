"""A disk that fills up in the middle of a run: one line, no half results, and the same bits once there is space."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.chain import CHAIN
from phases.dataset import open_dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STEPS = {"data": "run.json", **{phase: f"{phase}.work" for phase in CHAIN}}
"""What there is when a part of the run has begun."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of our own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def start(servers: Any, disk: Path) -> "subprocess.Popen[str]":
    """`forge run` of the smoke profile, with a training state saved every second."""
    sets = [f"--set=cognate.{part}.save_seconds=1" for part in ("trunk", "branch")]
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "run",
        "--profile",
        "smoke",
        *sets,
        "--set",
        "reuse=false",
        "--out",
        str(disk / "runs"),
    ]
    environment = {**os.environ, "PREFECT_API_URL": f"{servers.url}/api"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def fill(disk: Path) -> Path:
    """Take all the space that is left."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue
    return ballast


def test_a_disk_that_fills_up_in_every_part_of_a_run(servers: Any, undisturbed: Any, disk: Path) -> None:
    folder = disk / "runs" / "smoke"
    for number, (part, sign) in enumerate(STEPS.items()):
        process = start(servers, disk)
        servers.until(lambda file=folder / sign, run=process: file.exists() or run.poll() is not None, 400, 0.01)
        ballast = fill(disk)
        said = process.communicate(timeout=600)[1]
        assert process.returncode == 2 and "Traceback" not in said, (part, said)
        line = said.splitlines()[-1]
        assert line.startswith(f"forge: {disk}") and ": the disk is full: free some space" in line, (part, said)
        assert not list(folder.rglob("*.tmp")), part
        assert set(servers.digests(folder)) <= set(undisturbed.digests), part
        made = [open_dataset(folder / "data").path] if (folder / "data").exists() else []
        assert len([*made, *folder.glob("*/forge.json")]) == number, part
        ballast.unlink()
    process = start(servers, disk)
    said = process.communicate(timeout=900)[1]
    assert process.returncode == 0 and "cognate: done before, skipped" in said, said
    assert servers.digests(folder) == undisturbed.digests
