"""One thread that answers one request at a time, and a queue before it that is no longer than it may be.

    engine = Engine(waiting=8)
    agent = engine.open(lambda held: ServedAgent.open(checkpoint, (), None, held))
    job = engine.submit(lambda meter: agent.chat(asked, meter), Meter…)
    async for piece in job.pieces(): …
    job.answer, job.meter.completion_tokens

The model is opened, used and closed in that thread; the event loop only waits. A job that is stopped ends within a
token, or before it begins.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from flows.serving.agent import Answer
from flows.serving.metering import Meter
from flows.serving.problems import busy

T = TypeVar("T")
Work = Callable[[Meter], Answer]
_WORD = re.compile(r"\s*\S+|\s+")


class Job:
    """A request that is answered."""

    def __init__(self, work: Work, stops: tuple[str, ...]) -> None:
        self.answer: Answer | None = None
        self.future: Future[None] | None = None
        self._work, self._stopped, self._loop = work, threading.Event(), asyncio.get_running_loop()
        self._events: asyncio.Queue[str | Answer | BaseException] = asyncio.Queue()
        self.meter = Meter(self._put, self._stopped.is_set, stops)

    def run(self) -> None:
        """Do the work, in the engine's thread."""
        try:
            self._put(self._work(self.meter))
        except BaseException as error:  # whatever it is, somebody waits for it
            self._put(error)

    def stop(self) -> None:
        """Nobody waits any more. Stopping what is over changes nothing."""
        self._stopped.set()
        if self.future is not None:
            self.future.cancel()

    async def begun(self) -> None:
        """Wait until it is this job's turn and the request is known to be one that can be answered.

        Raises what was raised where it is not.
        """
        await self._next()

    async def pieces(self) -> AsyncIterator[str]:
        """The text: as it is written where that is certain to be the answer, else in pieces when it is whole.

        Votes, beams, calls and second thoughts need the whole text first.
        """
        sent = 0
        while not isinstance(event := await self._next(), Answer):
            sent += len(event)
            yield event
        self.answer = event
        for piece in _WORD.findall(event.text[sent:]):
            yield piece

    async def text(self) -> str:
        """The whole text."""
        return "".join([piece async for piece in self.pieces()])

    async def _next(self) -> str | Answer:
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    def _put(self, event: str | Answer | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class Engine:
    """The thread and its queue."""

    def __init__(self, waiting: int) -> None:
        """`waiting`: requests that may wait while one is answered."""
        self.waiting = waiting
        self._jobs: set[Job] = set()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent")
        self._held = contextlib.ExitStack()

    @property
    def pending(self) -> int:
        """Requests that are answered or wait."""
        with self._lock:
            return len(self._jobs)

    def open(self, opening: Callable[[contextlib.ExitStack], T]) -> T:
        """What `opening` makes in the thread. What it holds is let go in the thread, when the engine is closed."""
        return self._thread.submit(opening, self._held).result()

    def submit(self, work: Work, stops: tuple[str, ...]) -> Job:
        """Answer a request when it is its turn. Raises `Problem` when too many wait."""
        job = Job(work, stops)
        with self._lock:
            if len(self._jobs) > self.waiting:
                raise busy(self.waiting)
            self._jobs.add(job)
        job.future = self._thread.submit(job.run)
        job.future.add_done_callback(lambda _: self._forget(job))
        return job

    def close(self) -> None:
        """Stop what is answered, drop what waits, and close the agent."""
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            job.stop()
        self._thread.submit(self._held.close).result()
        self._thread.shutdown()

    def _forget(self, job: Job) -> None:
        with self._lock:
            self._jobs.discard(job)
