"""Which process runs a night, and whether it still does: a killed one leaves no other trace than that it is gone."""

import os
import socket
from dataclasses import dataclass
from typing import Literal

import psutil

_SAME_SECONDS = 1.0
"""Start times of one process agree this closely; a number that was given to another process differs by more."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told from later ones of the same number by when it started."""

    host: str
    pid: int
    started: float
    """Seconds since 1970."""

    def state(self) -> Literal["alive", "dead", "elsewhere"]:
        """Whether it still runs, as far as this machine can see."""
        if self.host != socket.gethostname():
            return "elsewhere"
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _SAME_SECONDS
            return "alive" if same and process.status() != psutil.STATUS_ZOMBIE else "dead"
        except psutil.NoSuchProcess:
            return "dead"


def this_process() -> Owner:
    """The one that asks."""
    return Owner(socket.gethostname(), os.getpid(), psutil.Process().create_time())
