"""The simulated engine in real time: its steps last on the wall's clock what they last on its own.

The engine's clock is the reference: a step ends when the one before ended plus its time, so that sleeping a little too
long does not add up. A machine too busy to follow loses time, which is then lost to the engine as well.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress

from deployment.simulator.batching import Batch, Sequence
from deployment.simulator.metrics import Metrics, page
from deployment.simulator.timing import Timing

LAG_SECONDS = 0.02
"""What the clock catches up; more is given up."""
_STOP = 0
"""Instead of a number of tokens."""


class Stopped(Exception):
    """An answer ends before its time, as the server does."""


class Engine:
    """One replica."""

    def __init__(self, timing: Timing, model: str, number: int = 0) -> None:
        self.batch = Batch(timing)
        self.metrics = Metrics(model, number)
        self._wake = asyncio.Event()
        self._outlets: dict[Sequence, asyncio.Queue[int]] = {}

    @property
    def load(self) -> int:
        """Requests that are here."""
        return len(self._outlets)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            if self.batch.idle:
                self._wake.clear()
                await self._wake.wait()
                self.batch.now = time.monotonic()
            elif time.monotonic() - self.batch.now > LAG_SECONDS:
                self.batch.now = time.monotonic()
            _, emitted = self.batch.step()
            # Even without a pause: others have to be heard.
            await asyncio.sleep(max(0.0, self.batch.now - time.monotonic()))
            for one, tokens in emitted:
                self._deliver(one, tokens)

    def _deliver(self, one: Sequence, tokens: int) -> None:
        outlet = self._outlets.get(one)
        if outlet is None:  # its client went away during the step
            return
        outlet.put_nowait(tokens)
        if one.finished is not None:
            self.metrics.ended(one)

    async def answer(self, prompt_tokens: int, output_tokens: int) -> AsyncGenerator[int, None]:
        """Numbers of tokens, as they come; closing it takes the request back. Raises Stopped."""
        one = Sequence(max(1, prompt_tokens), output_tokens, time.monotonic())
        outlet = self._outlets.setdefault(one, asyncio.Queue())
        sent = 0
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(outlet.get(), self.batch.timing.overhead(one.prompt_tokens))
                raise Stopped  # nothing else comes before the engine has the request
            self.batch.add(one, time.monotonic())
            self._wake.set()
            while sent < output_tokens:
                tokens = await outlet.get()
                if tokens == _STOP:
                    raise Stopped
                sent += tokens
                yield tokens
        finally:
            del self._outlets[one]
            if one.finished is None:
                self.batch.remove(one)
                self.metrics.finished["abort"] += 1

    def stop(self) -> None:
        """End all answers."""
        for outlet in self._outlets.values():
            outlet.put_nowait(_STOP)


class Fleet:
    """All replicas behind one address; a request goes to the one with the fewest."""

    def __init__(
        self, timing: Timing, model: str, output_tokens: int, replicas: int = 1, max_context: int | None = None
    ) -> None:
        self.timing, self.model = timing, model
        self.max_context = max_context
        """Most tokens of a prompt and its answer; None: as many as the KV pool holds."""
        self.output_tokens = output_tokens
        """Of an answer whose request does not say."""
        self.engines = [Engine(timing, model, number) for number in range(replicas)]

    def answer(self, prompt_tokens: int, output_tokens: int) -> AsyncGenerator[int, None]:
        """Numbers of tokens, as they come."""
        return min(self.engines, key=lambda one: one.load).answer(prompt_tokens, output_tokens)

    def stop(self) -> None:
        """End all answers; whoever waits for one gets `Stopped`."""
        for one in self.engines:
            one.stop()

    async def run(self) -> None:
        """Work until cancelled."""
        await asyncio.gather(*(one.run() for one in self.engines))

    def page(self) -> str:
        """/metrics."""
        return page((one.metrics, one.batch) for one in self.engines)
