"""A pool of processes on this machine, one a core: small models do not keep several threads busy.

    with_processes(lambda pool: pool(score_job, jobs))

They start with the first job, so a phase without independent jobs pays nothing, and end with the phase. One that is
killed ends the pool, as do Ctrl-C and the first error of any job: the others are not waited for, and the run that
resumes does again what they had worked on.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

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
    context = multiprocessing.get_context("spawn")
    told, end = context.Pipe(duplex=False)
    workers = ProcessPoolExecutor(cores(), mp_context=context, initializer=_start, initargs=(told,))

    def pool(function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        futures = [workers.submit(function, job) for job in jobs]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()
        return [future.result() for future in futures]

    try:
        return work(pool)
    except BrokenProcessPool as error:
        raise lost("processes", "one of its processes was killed") from error
    except BaseException:
        end.close()  # the workers end themselves, whatever they are doing
        raise
    finally:
        workers.shutdown(cancel_futures=True)
        end.close()
        told.close()


def lost(runner: str, what: str) -> InputError:
    """The error for a runner whose workers died."""
    return InputError(
        f"runner: {runner}: {what}, most likely for want of memory; use runner=threads or a smaller model; the same "
        "command resumes"
    )


def _start(told: multiprocessing.connection.Connection) -> None:
    """A worker leaves Ctrl-C to its parent, and outlives neither it nor the pool: it would wait for jobs for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=([parent.sentinel, told],), daemon=True).start()


def _end_after(ends: list[Any]) -> None:
    multiprocessing.connection.wait(ends)
    os._exit(1)
