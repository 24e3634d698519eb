"""A pool of processes on this machine, one a core: small models do not keep several threads busy.

    with_processes(lambda pool: pool(score_job, jobs))

They start with the first job, so a phase without independent jobs pays nothing, and end with the phase. One that is
killed ends the pool; what it had worked on is done again by the run that resumes.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from phases.errors import InputError
from phases.phase import Pool

T = TypeVar("T")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def with_processes(work: Callable[[Pool], T]) -> T:
    """Call `work` with the pool; results come in the jobs' order.

    Raises `InputError` when one of the processes was killed.
    """
    # Spawned: torch's threads do not survive a fork.
    workers = ProcessPoolExecutor(cores(), mp_context=multiprocessing.get_context("spawn"), initializer=_start)
    try:
        return work(lambda function, jobs: list(workers.map(function, jobs)))
    except BrokenProcessPool as error:
        raise lost("processes", "one of its processes was killed") from error
    finally:
        workers.shutdown(cancel_futures=True)


def lost(runner: str, what: str) -> InputError:
    """The error for a runner whose workers died."""
    return InputError(
        f"runner: {runner}: {what}, most likely for want of memory; use runner=threads or a smaller model; the same "
        "command resumes"
    )


def _start() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it: it would wait for jobs for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
