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
    """One replica in a steady state, or one that is `overloaded`."""

    batch: float
    """Sequences decoded together."""
    first: float
    """TTFT before any queue."""
    tpot: float
    waits: tuple[batching.Wait | batching.EngineWait, ...]
    """Before the first token, one after the other."""
    rate: float | None
    """Requests that arrive a second; None: a closed loop."""
    waiting: float = 0.0
    """Requests of a closed loop that find no room."""
    most: float = math.inf
    """Requests a second of a replica that is overloaded: the queue grows without end. Infinite: it is not."""

    @property
    def overloaded(self) -> bool:
        """More arrives than is served."""
        return math.isfinite(self.most)

    def ttft(self, percent: int | None) -> float:
        """Time to the first token, mean or percentile; percentiles of waits are added as if all were long at once."""
        if percent is None:
            return self.first + sum(wait.mean for wait in self.waits)
        return self.first + sum(wait.percentile(percent) for wait in self.waits)


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
    return Steady(batch, server.first(concurrency), tpot, (wait,), None, concurrency - batch)


def open_loop(server: Replica, rate: float) -> Steady:
    """Requests that arrive at random."""
    batch = batching.steady_batch(rate, server.output, server.slots, server.tpot)
    running = min(batch, server.slots)
    cycles = server.cycle(running), server.cycle(1.0)
    engine = batching.engine_wait(rate, server.busy, *cycles, running, server.chunks)
    if not math.isfinite(batch + engine.mean):
        return _overloaded(server, rate)
    tpot = server.tpot(batch)
    slots = batching.slot_wait(batch, server.slots, server.output * tpot)
    return Steady(batch, server.first(batch), tpot, (engine, slots), rate)


def _overloaded(server: Replica, rate: float) -> Steady:
    """A full replica, and a first token that never comes."""
    full, tpot = server.slots, server.tpot(server.slots)
    most = min(full / (server.output * tpot), 1 / (server.busy + (server.chunks - 1) * server.cycle(full)))
    return Steady(full, server.first(full), tpot, (), rate, most=most)
