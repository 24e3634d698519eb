"""The steady state of one replica under a load: how many run, what a token takes, who waits. Plain numbers.

Both loops are answered in some microseconds, which is what a search for the smallest fleet asks by the thousand;
`estimate.py` makes figures with intervals of them. Seconds; nothing here is corrected by what was observed.
"""

import math
from dataclasses import dataclass

from deployment.physics import batching
from deployment.physics.latency import slot_wait
from deployment.physics.replica import Replica
from deployment.serving import Load


@dataclass(frozen=True, slots=True)
class Steady:
    """One replica in a steady state, or (`wait` infinite) one that more reaches than it serves."""

    batch: float
    """Sequences decoded together."""
    first: float
    """TTFT before any queue."""
    tpot: float
    wait: batching.Wait
    """Before the first token."""
    rate: float | None
    """Requests that arrive a second; None: a closed loop."""
    waiting: float = 0.0
    """Requests of a closed loop that find no room."""

    @property
    def overloaded(self) -> bool:
        """The queue grows without end."""
        return not math.isfinite(self.wait.mean)


def steady(server: Replica, load: Load) -> Steady:
    """The steady state under a load of the lengths that the replica was made for."""
    if load.concurrency is not None:
        return closed_loop(server, load.concurrency)
    assert load.rate is not None
    return open_loop(server, load.rate)


def closed_loop(server: Replica, concurrency: float) -> Steady:
    """So many requests always in flight."""
    batch = min(concurrency, server.slots)
    tpot = server.tpot(batch)
    waiting = float(slot_wait(concurrency, batch, server.output * tpot))
    wait = batching.Wait(server.queued(concurrency) + waiting, 1.0)
    return Steady(batch, server.first(concurrency), tpot, wait, None, concurrency - batch)


def open_loop(server: Replica, rate: float) -> Steady:
    """Requests that arrive at random."""
    batch = batching.steady_batch(rate, server.output, server.slots, server.tpot)
    prompts = batching.prompt_wait(rate, server.prompt)
    if not math.isfinite(batch + prompts.mean):
        full = server.slots
        return Steady(full, server.first(full), server.tpot(full), batching.Wait(math.inf, 1.0), rate)
    tpot = server.tpot(batch)
    slots = batching.slot_wait(batch, server.slots, server.output * tpot)
    return Steady(batch, server.first(batch), tpot, batching.together((prompts, slots)), rate)
