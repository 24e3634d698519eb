"""Pools: where the independent jobs of a phase run.

`threads` is this process, one job after the other, with all of torch's threads; `processes` are one a core
(`flows.processes`), with one thread each for a population's members (a student and its baseline have half of the cores
each, wherever they are trained). `dask` and `ray` submit every job as a task to Prefect's task runner for them, inside
a nested flow whose cluster lives as long as the phase. They start a local cluster of one worker a core, and give a job
whose worker dies to another worker, three times; then it is an error. (Prefect shows such a task as Pending with Dask
and as Crashed with Ray; the flow fails.)
"""

import contextlib
import contextvars
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.task_runners import TaskRunner

from flows.parameters import Runner
from flows.processes import cores, lost, with_processes
from phases.errors import MissingDependency
from phases.phase import Pool, serial_pool

T = TypeVar("T")
LOST = {"distributed.KilledWorker", "ray.OutOfMemoryError", "ray.WorkerCrashedError"}
"""What the clusters raise for a job whose workers died; by name, as prefect-ray may load a second copy of Ray's."""


def with_pool(runner: Runner, work: Callable[[Pool], T]) -> T:
    """Call `work` with the runner's pool.

    Raises `MissingDependency` when its package is not installed, `InputError` when a job kills every worker it is on.
    """
    if runner == "threads":
        return work(serial_pool)
    if runner == "processes":
        return with_processes(work)
    here = Here(work)

    @flow(name=f"population on {runner}", task_runner=_task_runner(runner), persist_result=False)
    def population() -> T:
        return here.work(cluster_pool)

    try:
        with contextlib.redirect_stdout(sys.stderr):  # Ray reports dead workers on stdout, where results belong
            return _outside_the_task().run(population)
    except Exception as error:
        if f"{type(error).__module__.partition('.')[0]}.{type(error).__name__}" not in LOST:
            raise
        raise lost(runner, f"a job killed its worker four times ({type(error).__name__})") from error


class Here(Generic[T]):
    """What stays in this process: Prefect pickles the flow of a job, with all that it closes over, to its worker."""

    def __init__(self, work: Callable[[Pool], T]) -> None:
        self.work = work

    def __reduce__(self) -> tuple[type["Here[None]"], tuple[None]]:
        return Here, (None,)


@task(name="job", cache_policy=NO_CACHE, persist_result=False)
def run_job(function: Callable[[Any], Any], job: Any) -> Any:
    """One job of a population, on whichever worker takes it."""
    return function(job)


def cluster_pool(function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
    """All jobs at once on the surrounding flow's task runner; results in the jobs' order."""
    futures = [run_job.submit(function, job) for job in jobs]
    return [future.result() for future in futures]


def _outside_the_task() -> contextvars.Context:
    """Our context less the surrounding task, which Prefect would pickle too, with all that it was given."""
    outside = contextvars.Context()
    for variable, value in contextvars.copy_context().items():
        if not isinstance(value, TaskRunContext):
            outside.run(variable.set, value)
    return outside


def _task_runner(runner: Runner) -> TaskRunner[Any]:
    workers = cores()
    try:
        if runner == "dask":
            from prefect_dask import DaskTaskRunner

            cluster = {"n_workers": workers, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
            return DaskTaskRunner(cluster_kwargs=cluster)  # type: ignore[no-any-return]
        from prefect_ray import RayTaskRunner

        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        init = {"num_cpus": workers, "_node_ip_address": "127.0.0.1", **quiet}
        return RayTaskRunner(init_kwargs=init)  # type: ignore[no-any-return]
    except ImportError:
        fix = f"pip install 'agent-forge[{runner}]'"
        raise MissingDependency(f"runner: {runner} needs prefect-{runner}; install it with {fix}") from None
