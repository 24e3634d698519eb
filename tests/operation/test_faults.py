"""Processes killed under `forge up`, two runs of one name: all recovers, and the bits are those of a calm run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.chain import CHAIN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ONE_PHASE = {"chain": ["cognate"]}
Reach = Callable[[str, str, str], None]


def reach(servers: Any, run: str, phase: str) -> Path:
    """Wait until the run is in the middle of a phase; its folder."""
    folder: Path = servers.runs / servers.run(run)["parameters"]["config"]["run"]
    if phase == "data":
        servers.until(lambda: servers.tracked(run), 120, 0.05)
        assert not (folder / "data").exists()
    else:
        servers.until((folder / f"{phase}.work").exists, 300, 0.02)
    return folder


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every result."""
    files = [folder / "data" / "data.json", *(folder / phase / "forge.json" for phase in CHAIN)]
    return {path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files if path.exists()}


def statuses(servers: Any, run: str) -> set[str]:
    """What MLflow says of a run and of its phases."""
    return {tracked.info.status for tracked in servers.tracked(run)}


@pytest.mark.parametrize("phase", CHAIN)
def test_a_run_outlives_its_worker(servers: Any, undisturbed: Any, phase: str) -> None:
    run = servers.smoke(f"outlives-{phase}")
    reach(servers, run, phase)
    engine = servers.engine()
    servers.kill_service("worker", "worker start")
    done = servers.wait(run, seconds=600)
    assert done["state_name"] == "RolledBack", done["state"]
    assert done["infrastructure_pid"] == str(engine.pid) and done["run_count"] == 1
    assert servers.digests(f"outlives-{phase}") == undisturbed.digests
    assert statuses(servers, run) == {"FINISHED"}


@pytest.mark.parametrize("phase", ["data", *CHAIN])
def test_worker_and_run_killed_together(servers: Any, undisturbed: Any, phase: str) -> None:
    run = servers.smoke(f"both-{phase}")
    folder = reach(servers, run, phase)
    servers.kill_service("worker", "worker start", servers.engine())
    before = finished(folder)
    assert len(before) == ["data", *CHAIN].index(phase)
    servers.wait(run, {"CRASHED"}, 20)
    # A phase that was finished before stays so.
    servers.until(lambda: statuses(servers, run) - {"FINISHED"} == {"KILLED"}, 120)
    servers.retry(run)
    done = servers.wait(run, seconds=600)
    assert done["state_name"] == "RolledBack", done["state"]
    assert finished(folder).items() >= before.items()
    assert servers.digests(f"both-{phase}") == undisturbed.digests
    assert statuses(servers, run) == {"FINISHED"}


@pytest.mark.parametrize(("name", "words"), [("Prefect server", "prefect server"), ("MLflow server", "mlflow server")])
def test_a_run_goes_on_while_a_server_is_away(servers: Any, name: str, words: str) -> None:
    run = servers.smoke(f"without-{name.split()[0]}", **ONE_PHASE)
    reach(servers, run, "cognate")
    servers.kill_service(name, words)
    done = servers.wait(run, seconds=600)
    assert done["state_name"] == "Completed" and done["run_count"] == 1, done["state"]
    assert statuses(servers, run) == {"FINISHED"} and len(servers.tracked(run)) == 2
    assert any(key.endswith("trunk/loss") for key in servers.tracked(run)[1].data.metrics)
    expected = {"data": "Completed", "cognate": "Completed", "cognate gate": "Passed", "report": "Completed"}
    servers.until(lambda: servers.tasks(run).items() >= expected.items(), 60)


def test_a_run_that_was_asked_for_while_the_worker_was_dead(servers: Any) -> None:
    servers.service("worker start").kill()
    run = servers.smoke("waited", **ONE_PHASE)
    done = servers.wait(run, seconds=600)
    assert done["state_name"] == "Completed" and done["run_count"] == 1, done["state"]


def test_two_runs_of_one_name_wait_for_each_other(servers: Any) -> None:
    first, second = servers.smoke("twice", **ONE_PHASE), servers.smoke("twice", **ONE_PHASE)
    folder = servers.runs / "twice"
    servers.until((folder / "cognate.judgement.json").exists, 400)
    made = finished(folder)
    ends = [servers.wait(run, seconds=600) for run in (first, second)]
    assert [end["state_name"] for end in ends] == ["Completed", "Completed"], ends
    early, late = sorted(ends, key=lambda end: str(end["start_time"]))
    assert late["start_time"] > early["end_time"]
    assert finished(folder) == made and set(made) == {"data", "cognate"}
    assert servers.tasks(late["id"])["cognate"] == "Cached"


def test_a_command_for_a_run_that_is_being_made_is_refused(servers: Any, undisturbed: Any) -> None:
    run = servers.smoke("held", **ONE_PHASE)
    folder = reach(servers, run, "cognate")
    command = [sys.executable, "-m", "flows.cli", "run", "--profile", "smoke", "--set", "run=held"]
    environment = {**os.environ, "PREFECT_API_URL": f"{servers.url}/api"}
    done = subprocess.run(
        [*command, "--out", str(servers.runs)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"forge: {folder}: another forge is writing to it")
    assert servers.wait(run, seconds=600)["state_name"] == "Completed"
    made = {name: digest for name, digest in undisturbed.digests.items() if name.partition("/")[0] == "cognate"}
    assert servers.digests("held") == made
