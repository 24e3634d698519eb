"""`forge up`: a Prefect server, an MLflow server and a worker on this machine's loopback, until Ctrl-C.

    make up            # http://127.0.0.1:4200 to start and watch runs, http://127.0.0.1:5000 for what they measured

Runs log straight to `<out>/mlflow.db`, so tracking does not depend on MLflow's server; that one only shows it. With
MLFLOW_TRACKING_URI set, runs log there and no MLflow server is started. Everything that Prefect keeps is in
`<out>/.prefect`, logs are in `<out>/.prefect/logs`. Cost: about 1.2 GB of memory and 2 % of a core while idle.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from flows.console import say
from flows.run_directory import hold
from flows.site import POOL, Site, check_ports
from flows.supervisor import Service, end_processes, family, watch
from phases.errors import InputError, StorageError
from phases.storage import explain_os_errors

DEPLOYMENTS = Path("prefect.yaml")
STOP_SECONDS = 15.0
"""What a run gets to write down where it is and to say that it was stopped."""


def start(site: Site, notify: str | None = None) -> None:
    """Start everything, deploy, and keep it running until Ctrl-C or SIGTERM.

    Raises `InputError` when a port is taken, when there is nothing to deploy, or when a server does not start.
    """
    if not DEPLOYMENTS.is_file():
        raise InputError(f"{DEPLOYMENTS}: not in this folder; run `forge up` in the project's folder")
    with explain_os_errors(site.home):
        site.home.mkdir(parents=True, exist_ok=True)
    with alone(site), stop_signals() as stopped:
        check_ports(site)
        services = site.services()
        *servers, worker = services
        try:
            for service in servers:
                say(f"starting {service.name} …")
                service.start()
            prepare(site, notify)
            worker.start()
            announce(site)
            watch(services, say, stopped)
        except Stopped:
            pass
        finally:
            stop(services)


class Stopped(BaseException):
    """Ctrl-C or SIGTERM while something was being started."""


@contextlib.contextmanager
def stop_signals() -> Iterator[Any]:
    """SIGINT and SIGTERM raise `Stopped` at once; a second one changes nothing about an orderly stop."""
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        if len(received) == 1:
            raise Stopped

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def alone(site: Site) -> Iterator[None]:
    """Hold this folder's lock against a second `forge up`."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(site.home / ".lock"))
        except StorageError:
            raise InputError(
                f"{site.out}: `forge up` is running here already; stop it, or choose another --out"
            ) from None
        yield


def prepare(site: Site, notify: str | None) -> None:
    """The work pool, the deployments, the automations; and an end for runs that nothing runs any more."""
    asyncio.run(_pool_and_orphans(site))
    deploy(site)


async def _pool_and_orphans(site: Site) -> None:
    from prefect.client.orchestration import PrefectClient

    from flows.recovery import close_orphans, create_pool

    async with PrefectClient(f"{site.prefect_url}/api") as client:
        await create_pool(client, POOL)
        for line in await close_orphans(client, POOL):
            say(line)


def deploy(site: Site) -> None:
    """`prefect deploy --all`, quietly. Raises `InputError` with what it complained about."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    say(f"deploying {DEPLOYMENTS} …")
    done = subprocess.run(command, env=site.environment, capture_output=True, text=True, timeout=300)
    (site.home / "logs" / "deploy.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise InputError(f"{DEPLOYMENTS}: not deployed: {lines[-1] if lines else 'no reason given'}")


def announce(site: Site) -> None:
    """Where to go."""
    print(f"Prefect  {site.prefect_url}   start, watch, cancel and approve runs")
    print(f"MLflow   {site.mlflow_url}/#/experiments   what they measured, pictures, registered agents")
    print("Ctrl-C stops all of it.", flush=True)


def stop(services: list[Service]) -> None:
    """Runs first, while there is still a server to tell; then the worker, MLflow, Prefect."""
    *servers, worker = services
    if worker.process is not None:
        for run in [process for process in family(worker.process.pid)[1:] if _is_run(process)]:
            end_processes(family(run.pid), STOP_SECONDS)
    for service in (worker, *reversed(servers)):
        service.stop()
    say("stopped; `forge up` brings everything back, unfinished runs resume with Retry in the Prefect UI")


def _is_run(process: psutil.Process) -> bool:
    """Whether this process executes a flow run."""
    with contextlib.suppress(psutil.Error):
        return "prefect.engine" in " ".join(process.cmdline())
    return False
