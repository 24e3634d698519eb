"""`forge up`: a Prefect server, an MLflow server and a worker on this machine's loopback, until Ctrl-C.

    make up            # http://127.0.0.1:4200 to start and watch runs, http://127.0.0.1:5000 for what they measured

Runs log straight to `checkpoints/mlflow.db`, so tracking does not depend on MLflow's server; that one only shows it.
With MLFLOW_TRACKING_URI set, runs log there and no MLflow server is started. Everything that Prefect keeps is in
`checkpoints/.prefect`, logs are in `checkpoints/.prefect/logs`.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from flows.console import say
from flows.runs_folder import hold
from flows.site import POOL, Site, check_ports
from flows.supervisor import STOP_SECONDS, Service, command_of, end_leftovers, end_processes, family, remember
from phases.errors import InputError, StorageError
from phases.storage import explain_os_errors

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

T = TypeVar("T")
DEPLOYMENTS = Path("prefect.yaml")
PROCESSES = "processes.json"
TEND_SECONDS = 5.0


def start(site: Site, webhook: str | None = None) -> None:
    """Start everything, deploy, and keep it running until Ctrl-C or SIGTERM; `webhook` is told of what fails.

    Raises `InputError` when a port is taken, when there is nothing to deploy, or when a server does not start.
    """
    if not DEPLOYMENTS.is_file():
        raise InputError(f"{DEPLOYMENTS}: not in this folder; run `forge up` in the project's folder")
    with explain_os_errors(site.home):
        site.home.mkdir(parents=True, exist_ok=True)
    with alone(site), stop_signals() as stopped:
        end_leftovers(site.home / PROCESSES)
        check_ports(site)
        services = site.services()
        *servers, worker = services
        watch = Watch(site, services)
        try:
            for service in servers:
                say(f"starting {service.name} …")
                service.start()
            prepare(site, webhook)
            worker.start()
            remember(site.home / PROCESSES, services)
            announce(site)
            while not stopped():
                watch.round()
                time.sleep(0.5)
        except Stopped:
            pass
        finally:
            stop(services, watch.orphans)


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


def prepare(site: Site, webhook: str | None) -> None:
    """The work pool, the deployments, the automations."""
    from flows import notifications, watchdog
    from flows.recovery import create_pool

    asked(site, lambda client: create_pool(client, POOL))
    deploy(site)
    api = f"{site.prefect_url}/api"
    watchdog.watch(api_url=api)
    if webhook:
        notifications.notify(webhook, api_url=api)


def asked(site: Site, question: Callable[["PrefectClient"], Awaitable[T]]) -> T:
    """The answer of our Prefect server."""
    from prefect.client.orchestration import PrefectClient

    async def ask() -> T:
        async with PrefectClient(f"{site.prefect_url}/api") as client:
            return await question(client)

    return asyncio.run(ask())


class Watch:
    """What is done while everything runs: dead services are started again, runs without a worker are tended."""

    def __init__(self, site: Site, services: Sequence[Service]) -> None:
        self.site, self.services = site, services
        self.orphans: set[int] = set()
        """Processes of runs that outlived their worker."""
        self._unsure, self._tended = True, 0.0

    def round(self) -> None:
        """One look around. A server that does not answer just now is asked again in a later round."""
        for service in self.services:
            if service.revive():
                say(f"{service.name}: had died, started again")
                remember(self.site.home / PROCESSES, self.services)
                self._unsure, self._tended = True, 0.0
        if (self._unsure or self.orphans) and time.monotonic() - self._tended > TEND_SECONDS:
            self._tended = time.monotonic()
            with contextlib.suppress(httpx.HTTPError):
                self._tend()

    def _tend(self) -> None:
        from flows.recovery import adopt, close_orphans

        if self._unsure:
            found = asked(self.site, lambda client: adopt(client, POOL))
            mine = {process.pid for service in self.services for process in family(service.process)}
            self.orphans, self._unsure = self.orphans | (found - mine), False
        since = self.services[-1].since
        for line in asked(self.site, lambda client: close_orphans(client, POOL, self.orphans, since)):
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


def stop(services: Sequence[Service], orphans: Iterable[int]) -> None:
    """Runs first, while there is still a server to tell; then the worker, MLflow, Prefect."""
    *servers, worker = services
    runs = [process for process in family(worker.process)[1:] if "prefect.engine" in command_of(process)]
    for pid in [*(run.pid for run in runs), *orphans]:
        end_processes(family(pid), STOP_SECONDS)
    for service in (worker, *reversed(servers)):
        service.stop()
    say("stopped; `forge up` brings everything back, unfinished runs resume with Retry in the Prefect UI")
