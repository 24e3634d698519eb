"""Pools: where the independent jobs of a phase run.

`threads` is this process, one job after the other: a small merge already keeps torch's threads busy. `dask` and `ray`
submit every job as a task to Prefect's task runner for them, inside a nested flow whose cluster lives as long as the
phase. Both start a local cluster of one worker a core.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import TaskRunner

from flows.parameters import Runner
from phases.errors import MissingDependency
from phases.phase import Pool, serial_pool

T = TypeVar("T")


def with_pool(runner: Runner, work: Callable[[Pool], T]) -> T:
    """Call `work` with the runner's pool. Raises `MissingDependency` when its package is not installed."""
    if runner == "threads":
        return work(serial_pool)

    @flow(name=f"population on {runner}", task_runner=_task_runner(runner), persist_result=False)
    def population() -> T:
        return work(cluster_pool)

    return population()


@task(name="job", cache_policy=NO_CACHE, persist_result=False)
def run_job(function: Callable[[Any], Any], job: Any) -> Any:
    """One job of a population, on whichever worker takes it."""
    return function(job)


def cluster_pool(function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
    """All jobs at once on the surrounding flow's task runner; results in the jobs' order."""
    futures = [run_job.submit(function, job) for job in jobs]
    return [future.result() for future in futures]


def _task_runner(runner: Runner) -> TaskRunner[Any]:
    cores = len(os.sched_getaffinity(0))
    try:
        if runner == "dask":
            from prefect_dask import DaskTaskRunner

            cluster = {"n_workers": cores, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
            return DaskTaskRunner(cluster_kwargs=cluster)  # type: ignore[no-any-return]
        from prefect_ray import RayTaskRunner

        init = {"num_cpus": cores, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        return RayTaskRunner(init_kwargs=init)  # type: ignore[no-any-return]
    except ImportError:
        fix = f"pip install 'agent-forge[{runner}]'"
        raise MissingDependency(f"runner: {runner} needs prefect-{runner}; install it with {fix}") from None
