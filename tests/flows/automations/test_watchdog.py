"""The watchdog: it crashes a run that lost its process and its worker, and nothing else."""

import time
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect import flow
from prefect.states import Completed, Paused, Running

from flows import watchdog
from flows.notifications import notify


@pytest.mark.slow
def test_the_watchdog_crashes_what_lost_its_process_and_nothing_else(site: Any, receiver: Any) -> None:
    notify(receiver.url, site.api)
    watchdog.watch(10, site.api)
    beating, suspended, foreign = (running(site, *given) for given in (("forge",), ("forge",), ()))
    with site.start(str(site.folder / "script.py"), "waits", "forge", log="waits.log") as lost:
        killed = site.started("waits.log")
        time.sleep(2)  # its first heartbeat is on its way
        for run, given in ((beating, "forge"), (suspended, "forge"), (foreign, "other")):
            beat(site, run, given)
        with site.client() as client:
            client.set_flow_run_state(suspended, Paused(name="Suspended"))
        lost.kill()
        began = time.monotonic()
        while site.state(killed) != "Crashed":
            assert time.monotonic() - began < 60
            beat(site, beating, "forge")
            time.sleep(2)
    assert 7 < time.monotonic() - began < 30
    assert [site.state(run) for run in (beating, suspended, foreign)] == ["Running", "Suspended", "Running"]
    site.wait_for(lambda: receiver.posts, 15)
    (post,) = receiver.posts
    assert (post["what"], post["run"], post["state"]) == ("run crashed", "waits", "Crashed")
    assert "No heartbeat for 10 s" in post["message"]
    notify(None, site.api)
    watchdog.unwatch(site.api)


def running(site: Any, *given: str) -> UUID:
    """A run that says that it is running."""

    @flow(name="elsewhere")
    def elsewhere() -> None: ...

    with site.client() as client:
        return client.create_flow_run(elsewhere, tags=list(given), state=Running()).id


def beat(site: Any, run: UUID, tag: str) -> None:
    """What the flow engine sends every 30 s."""
    event = {
        "id": str(uuid4()),
        "event": watchdog.HEARTBEAT,
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "related": [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}],
        "payload": {},
    }
    httpx.post(f"{site.api}/events", json=[event]).raise_for_status()


@pytest.mark.slow
def test_a_deployed_run_whose_worker_died_with_it(site: Any) -> None:
    watchdog.watch(10, site.api)
    with site.start("-m", "prefect", "worker", "start", "--pool", "p", "--type", "process", log="worker.log") as worker:
        site.wait_for(lambda: "started!" in (site.folder / "worker.log").read_text(), 60)
        deployed(site)
        killed = site.started("worker.log")
        time.sleep(2)
        assert site.state(killed) == "Running"
        for process in (worker, *worker.children(recursive=True)):
            process.kill()
        began = time.monotonic()
        site.wait_for(lambda: site.state(killed) == "Crashed", 60)
    assert 7 < time.monotonic() - began < 30
    with site.client() as client:  # it was a false alarm: the run itself comes back and says how it ended
        client.set_flow_run_state(killed, Completed())
    assert site.state(killed) == "Completed"
    watchdog.unwatch(site.api)


def deployed(site: Any) -> None:
    """A deployment with our tag, and a run of it."""
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(site.folder)}}
    with site.client() as client:
        deployment = client.create_deployment(
            client.create_flow_from_name("waits"),
            "local",
            entrypoint="script.py:waits",
            work_pool_name="p",
            tags=["forge"],
            pull_steps=[step],
        )
        client.create_flow_run_from_deployment(deployment, parameters={"config": {"run": "deployed"}})
