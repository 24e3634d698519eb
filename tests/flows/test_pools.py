"""Where a population is scored makes no difference to what comes out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task

from evaluation.report import Report, read_report
from flows.cli import main
from flows.parameters import ForgeConfig, Runner
from flows.pools import with_pool
from phases.errors import InputError, MissingDependency
from phases.phase import Pool, serial_pool


def square(number: int) -> tuple[int, int]:
    """A job: its result, and the process that it ran in."""
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number, os.getpid()


def squares(jobs: Sequence[int]) -> Any:
    def work(pool: Pool) -> list[tuple[int, int]]:
        return [*pool(square, jobs), *pool(square, jobs)]

    return work


def test_threads_are_the_serial_pool() -> None:
    assert with_pool("threads", lambda pool: pool is serial_pool)


@pytest.mark.slow
def test_processes_keep_the_order_and_are_others() -> None:
    results = with_pool("processes", squares(range(5)))
    assert [value for value, _ in results] == [0, 1, 4, 9, 16] * 2
    assert os.getpid() not in {process for _, process in results}


def test_an_error_in_a_process_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="-3 is negative"):
        with_pool("processes", squares([1, -3]))


@pytest.mark.slow
def test_an_error_does_not_wait_for_the_other_jobs() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="-3 is negative"):
        with_pool("processes", lambda pool: pool(slow_or_wrong, [600, -3]))
    assert time.monotonic() - began < 120


def slow_or_wrong(seconds: int) -> None:
    """Sleeps, or fails."""
    square(seconds)
    time.sleep(seconds)


def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^runner: processes: one of its processes was killed, .* resumes$"):
        with_pool("processes", lambda pool: pool(die, [1]))


@pytest.mark.slow
def test_processes_do_not_outlive_their_parent(tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from flows.processes import with_processes\n"
        "from tests.flows.test_pools import square\n"
        "if __name__ == '__main__':\n"
        "    def work(pool):\n"
        "        print(pool(square, [1])[0][1], flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    with_processes(work)\n"
    )
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    killed = subprocess.run(
        [sys.executable, tmp_path / "program.py"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    worker, deadline = int(killed.stdout), time.monotonic() + 20
    while time.monotonic() < deadline and _lives(worker):
        time.sleep(0.05)
    assert not _lives(worker)


def _lives(process: int) -> bool:
    """Whether it runs: a dead one may wait for somebody to ask after it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_missing_package_has_its_fix(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"prefect_{runner}", None)
    with pytest.raises(MissingDependency, match=rf"pip install 'agent-forge\[{runner}\]'"):
        with_pool(runner, lambda pool: None)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.filterwarnings("ignore")  # the clusters' own
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_clusters_keep_the_order_and_use_other_processes(runner: Runner) -> None:
    results = with_pool(runner, squares(range(5)))
    assert [value for value, _ in results] == [0, 1, 4, 9, 16] * 2
    assert os.getpid() not in {process for _, process in results}


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_error_of_a_job_reaches_the_caller(runner: Runner) -> None:
    with pytest.raises(ValueError, match="-3 is negative"):
        with_pool(runner, squares([1, -3]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("runner", ["processes", "dask", "ray"])
def test_runner_does_not_change_the_merge(runner: Runner, copy: ForgeConfig) -> None:
    from flows.forge_flow import forge

    done = read_report(copy.folder)
    shutil.rmtree(copy.folder / "evomerge")
    forge(copy.model_copy(update={"runner": runner}))
    after = read_report(copy.folder)
    assert [p.checkpoint and p.checkpoint.digest for p in after.phases] == [
        p.checkpoint and p.checkpoint.digest for p in done.phases
    ]


def die(number: int) -> int:
    """A job whose worker is killed, as by the system when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_once(mark: Path) -> str:
    """A job that kills its first worker."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_a_job_that_kills_its_workers_is_one_line(runner: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=rf"runner: {runner}: a job killed its worker four times .* resumes$"):
        with_pool(runner, lambda pool: pool(die, [1]))
    assert not capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_a_job_whose_worker_was_killed_goes_to_another(runner: Runner, tmp_path: Path) -> None:
    assert with_pool(runner, lambda pool: pool(die_once, [tmp_path / "a", tmp_path / "b"])) == ["a", "b"]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.filterwarnings("ignore")
def test_what_surrounds_a_population_need_not_be_picklable() -> None:
    """The parameters of the phase's task, the tracker's metrics among them."""

    @task(persist_result=False)
    def phase_like(metrics: object) -> Any:
        return with_pool("dask", lambda pool: (metrics, squares([3])(pool))[1])

    @flow(persist_result=False)
    def run_like() -> Any:
        return phase_like(threading.Lock())

    assert [value for value, _ in run_like()] == [9, 9]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "lenient")
@pytest.mark.filterwarnings("ignore")
def test_a_single_phase_uses_the_runner_too(
    done: Report, original: ForgeConfig, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {}
    for runner in ("threads", "dask"):
        command = ["phase", "evomerge", "--input", str(original.folder / "cognate"), "--out", str(tmp_path / runner)]
        main([*command, *settings, "--set", f"runner={runner}", "--json"])
        made[runner] = json.loads(capsys.readouterr().out)["checkpoint"]["digest"]
    assert made["dask"] == made["threads"]
