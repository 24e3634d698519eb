"""Calling a flow from a program: its temporary server, and Prefect's failures in one line without tracebacks.

In a terminal Ctrl-C goes to every process of the foreground group, Prefect's temporary server among them. With the
server gone the flow would spend two minutes trying to report that it was stopped (measured: 154 s and a traceback).
So the server is started with SIGINT blocked; it ends with us all the same.
"""

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL

from phases.errors import GateFailed, InputError


class SparedServer(SubprocessASGIServer):
    """Prefect's temporary server, deaf to Ctrl-C. There is one a process: Prefect's own calls get this one too."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits the mask
        try:
            return super()._run_uvicorn_command()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def served() -> Iterator[None]:
    """The API that `PREFECT_API_URL` names, or a temporary server of our own, for the flows called inside.

    Raises `InputError` when the API cannot be reached.
    """
    try:
        if PREFECT_API_URL.value() is None:
            SparedServer().start()
        yield
    except httpx.TransportError as error:
        raise InputError(f"Prefect: its server stopped answering ({error}); the same command resumes") from None
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"Prefect: {reason}; start the server or unset PREFECT_API_URL") from None


def run_flow(call: Callable[[], object]) -> GateFailed | None:
    """Call a flow here; returns the failed gate that stopped it, if one did."""
    try:
        with served():
            call()
    except GateFailed as failed:
        return failed
    return None
