"""Where a population is scored makes no difference to what comes out."""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from evaluation.report import Report, read_report
from flows.parameters import ForgeConfig, Runner
from flows.pools import with_pool
from phases.errors import MissingDependency
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
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_runner_does_not_change_the_merge(runner: Runner, done: Report, copy: ForgeConfig) -> None:
    from flows.forge_flow import forge

    shutil.rmtree(copy.folder / "evomerge")
    forge(copy.model_copy(update={"runner": runner}))
    after = read_report(copy.folder)
    assert [p.checkpoint and p.checkpoint.digest for p in after.phases] == [
        p.checkpoint and p.checkpoint.digest for p in done.phases
    ]
