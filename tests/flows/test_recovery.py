"""Runs whose process is gone get a state that says so; those that live, here or elsewhere, are left alone."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Pending, Running

from flows.aftermath import end_runs_of, end_tracking
from flows.recovery import adopt, close_orphans, create_pool
from flows.tracking import connect, find_experiment, tracking_uri

pytestmark = pytest.mark.usefixtures("prefect_server")
LATER = 4e9
"""A worker that started after everything was handed out."""
GONE = str(2**22 + 7)  # above the largest process id


def ask(question: Callable[[PrefectClient], Coroutine[Any, Any, Any]]) -> Any:
    async def answer() -> Any:
        async with get_client() as client:
            return await question(client)

    return asyncio.run(answer())


@pytest.fixture
def pool() -> str:
    name = f"pool-{uuid4().hex[:8]}"
    ask(lambda client: create_pool(client, name))
    return name


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like one that executes a run."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "prefect.engine"]) as process:
        yield process
        process.kill()


def start(pool: str, state: State[Any], pid: str | None) -> UUID:
    """A run of a deployment of that pool, in that state, executed by that process."""

    async def make(client: PrefectClient) -> UUID:
        flow = await client.create_flow_from_name("forge")
        deployment = await client.create_deployment(flow, f"d-{uuid4().hex[:8]}", work_pool_name=pool)
        run = await client.create_flow_run_from_deployment(deployment)
        await client.set_flow_run_state(run.id, Pending() if state.is_pending() else Running(), force=True)
        if pid:
            await client.update_flow_run(run.id, infrastructure_pid=pid)
        if state.is_cancelling():
            await client.set_flow_run_state(run.id, state)
        return run.id

    made: UUID = ask(make)
    return made


def read(run: UUID) -> FlowRun:
    found: FlowRun = ask(lambda client: client.read_flow_run(run))
    return found


def test_pool_runs_one_thing_at_a_time_and_may_exist(pool: str) -> None:
    ask(lambda client: create_pool(client, pool))
    found = ask(lambda client: client.read_work_pool(pool))
    assert (found.type, found.concurrency_limit) == ("process", 1)


@pytest.mark.parametrize(
    ("before", "pid", "after"),
    [
        (Running(), GONE, "Crashed"),
        (Running(), None, "Crashed"),
        (Cancelling(), GONE, "Cancelled"),
        (Pending(), None, "Scheduled"),
        (Running(), "cluster:namespace:job-1", "Running"),
    ],
    ids=["running", "no process known", "cancelling", "never started", "a pod elsewhere"],
)
def test_run_without_a_process(pool: str, before: State[Any], pid: str | None, after: str) -> None:
    run = start(pool, before, pid)
    lines = ask(lambda client: close_orphans(client, pool, set(), LATER))
    assert read(run).state_name == after
    assert len(lines) == (0 if after == "Running" else 1)
    assert ask(lambda client: close_orphans(client, pool, set(), LATER)) == []


@pytest.mark.parametrize("pid", [None, GONE], ids=["first attempt", "retry, with the last attempt's process"])
def test_run_that_the_living_worker_is_just_starting(pool: str, pid: str | None) -> None:
    run = start(pool, Pending(), pid)
    assert ask(lambda client: close_orphans(client, pool, set(), worker_since=0.0)) == []
    assert read(run).state_name == "Pending"


def test_process_of_that_number_that_is_something_else(pool: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        run = start(pool, Running(), str(other.pid))
        ask(lambda client: close_orphans(client, pool, set(), LATER))
        assert read(run).state_name == "Crashed" and other.poll() is None
        other.kill()


def test_living_run_is_adopted_and_left_alone(pool: str, engine: subprocess.Popen[bytes]) -> None:
    run = start(pool, Running(), str(engine.pid))
    adopted = ask(lambda client: adopt(client, pool))
    assert adopted == {engine.pid}
    assert ask(lambda client: close_orphans(client, pool, adopted, LATER)) == []
    assert read(run).state_name == "Running" and engine.poll() is None and adopted == {engine.pid}


def test_adopted_run_can_be_cancelled(pool: str, engine: subprocess.Popen[bytes]) -> None:
    run = start(pool, Cancelling(), str(engine.pid))
    adopted = {engine.pid}
    assert len(ask(lambda client: close_orphans(client, pool, adopted, LATER))) == 1
    assert read(run).state_name == "Cancelled" and engine.poll() is not None and adopted == set()


def test_run_that_a_worker_cancels_is_left_to_it(pool: str, engine: subprocess.Popen[bytes]) -> None:
    run = start(pool, Cancelling(), str(engine.pid))
    assert ask(lambda client: close_orphans(client, pool, set(), LATER)) == []
    assert read(run).state_name == "Cancelling" and engine.poll() is None


def test_runs_of_other_pools_are_not_ours(pool: str) -> None:
    run = start(pool, Running(), GONE)
    assert ask(lambda client: close_orphans(client, f"{pool}-other", set(), LATER)) == []
    assert read(run).state_name == "Running"


@pytest.fixture
def tracked(runs: Any) -> tuple[Any, str, dict[str, str]]:
    """A client, a flow run's id, and the ids of its parent and nested MLflow runs, all RUNNING."""
    client, flow_run = connect(tracking_uri(runs)), str(uuid4())
    experiment = find_experiment(client, tracking_uri(runs))
    parent = client.create_run(experiment, tags={"prefect.flow_run_id": flow_run}).info.run_id
    nested = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    done = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    client.set_terminated(done, "FINISHED")
    stranger = client.create_run(experiment, tags={"prefect.flow_run_id": "another"}).info.run_id
    return client, flow_run, {"parent": parent, "nested": nested, "done": done, "stranger": stranger}


def test_tracking_of_a_killed_run_is_ended(tracked: Any, runs: Any) -> None:
    client, flow_run, ids = tracked
    run = FlowRun(id=UUID(flow_run), flow_id=uuid4(), parameters={"config": {"out": str(runs)}})
    end_tracking(flow=None, flow_run=run, state=None)
    found = {name: client.get_run(number).info.status for name, number in ids.items()}
    assert found == {"parent": "KILLED", "nested": "KILLED", "done": "FINISHED", "stranger": "RUNNING"}


def test_no_tracking_to_end(tmp_path: Any) -> None:
    end_runs_of(str(uuid4()), {"config": {"out": str(tmp_path)}})
    assert list(tmp_path.iterdir()) == []
