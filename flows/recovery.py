"""What is left of runs whose process is gone: an honest state in Prefect, from which Retry resumes them.

A worker that is killed takes nothing with it: its run goes on. If the run is killed too, the heartbeat automation calls
it Crashed after 90 s. When worker, server and run died together nobody is left to say so, and `forge up` asks the
process table before it starts its worker.
"""

import contextlib

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

UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
PAGE = 200


async def create_pool(client: PrefectClient, name: str) -> None:
    """A process work pool that runs one thing at a time: two trainings on one machine only slow each other down."""
    pool = WorkPoolCreate(
        name=name, type="process", description="This machine, one run at a time.", concurrency_limit=1
    )
    with contextlib.suppress(ObjectAlreadyExists):
        await client.create_work_pool(pool)


async def close_orphans(client: PrefectClient, pool: str) -> list[str]:
    """Give every unfinished run of the pool whose process is gone a state that says so; one line for each."""
    lines = []
    for run in await unfinished(client, pool):
        state = None if alive(run) else _afterwards(run)
        if state is not None:
            await client.set_flow_run_state(run.id, state, force=True)
            lines.append(f"run {run.name}: its process is gone, {run.state_name} → {state.name}")
    return lines


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


def alive(run: FlowRun) -> bool:
    """Whether the process that executes the run exists on this machine; another machine's cannot be seen from here."""
    if not run.infrastructure_pid:
        return False
    if not run.infrastructure_pid.isdigit():
        return True
    with contextlib.suppress(psutil.Error):
        return "prefect" in " ".join(psutil.Process(int(run.infrastructure_pid)).cmdline())
    return False


def _afterwards(run: FlowRun) -> State[object]:
    message = "The process that executed this run is gone. Retry continues where it stopped."
    if run.state_type == StateType.PENDING:  # handed to a worker that never started it: nothing was lost
        return Scheduled()
    return Cancelled(message=message) if run.state_type == StateType.CANCELLING else Crashed(message=message)
