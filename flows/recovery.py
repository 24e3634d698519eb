"""What is left of runs whose process is gone: an honest state in Prefect, from which Retry resumes them.

A worker that is killed takes nothing with it: its run goes on. If the run is killed too, the heartbeat automation calls
it Crashed after 90 s. When worker, server and run died together nobody is left to say so, and `forge up` asks the
process table before it starts its worker.
"""

import contextlib

import anyio.to_thread
import psutil
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Cancelled, Crashed, Scheduled

from flows.supervisor import STOP_SECONDS, command_of, end_processes, family

UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
PAGE = 200


async def create_pool(client: PrefectClient, name: str) -> None:
    """A process work pool that runs one thing at a time: two trainings on one machine only slow each other down."""
    pool = WorkPoolCreate(
        name=name, type="process", description="This machine, one run at a time.", concurrency_limit=1
    )
    with contextlib.suppress(ObjectAlreadyExists):
        await client.create_work_pool(pool)


async def adopt(client: PrefectClient, pool: str) -> set[int]:
    """Processes of unfinished runs that outlived their worker. To be called when no worker of this machine runs."""
    return {int(run.infrastructure_pid or 0) for run in await unfinished(client, pool) if executed_here(run)}


async def close_orphans(client: PrefectClient, pool: str, adopted: set[int], worker_since: float) -> list[str]:
    """What a worker would do for the runs that have none; one line for each.

    A run whose process is gone gets a state that says so. What was handed out after `worker_since` (seconds since the
    epoch) is the living worker's: it has no process for some seconds. A run that is being cancelled and whose process
    is `adopted` is stopped: a new worker would not touch it. Processes that ended are removed from `adopted`.
    """
    lines = []
    for run in await unfinished(client, pool):
        pid = int(run.infrastructure_pid) if executed_here(run) and run.infrastructure_pid else 0
        if pid in adopted and run.state_type == StateType.CANCELLING:
            await anyio.to_thread.run_sync(end_processes, family(pid), STOP_SECONDS)
        handed_out = 0.0 if run.state is None else run.state.timestamp.timestamp()
        starting = run.state_type == StateType.PENDING and handed_out > worker_since
        state = None if starting or executed_elsewhere(run) or executed_here(run) else _afterwards(run)
        if state is not None:
            await client.set_flow_run_state(run.id, state, force=True)
            await anyio.to_thread.run_sync(_end_tracking, run)
            lines.append(f"run {run.name}: its process is gone, {run.state_name} → {state.name}")
    adopted -= {pid for pid in adopted if not psutil.pid_exists(pid)}
    return lines


def _end_tracking(run: FlowRun) -> None:
    from flows.aftermath import end_runs_of  # imports torch: not in a supervisor that has no need of it

    end_runs_of(str(run.id), run.parameters)


async def unfinished(client: PrefectClient, pool: str) -> list[FlowRun]:
    """Runs of the pool that say that they are being worked on."""
    states = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=states),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            limit=PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < PAGE:
            return found


def executed_here(run: FlowRun) -> bool:
    """Whether a process of this machine executes the run."""
    pid = run.infrastructure_pid or ""
    return pid.isdigit() and "prefect" in command_of(int(pid))


def executed_elsewhere(run: FlowRun) -> bool:
    """Whether something other than a process executes it (a container, a pod): that cannot be seen from here."""
    return bool(run.infrastructure_pid) and not str(run.infrastructure_pid).isdigit()


def _afterwards(run: FlowRun) -> State[object]:
    message = "The process that executed this run is gone. Retry continues where it stopped."
    if run.state_type == StateType.PENDING:  # handed to a worker that never started it: nothing was lost
        return Scheduled()
    return Cancelled(message=message) if run.state_type == StateType.CANCELLING else Crashed(message=message)
