"""The simulated engine on its own clock: a load played as fast as the arithmetic goes, in milliseconds.

    played(timing, {"prompt_tokens": 1024, "output_tokens": 256, "concurrency": 16, "rate": None})

It says what `forge simulate` will serve, without waiting for it. Arrivals of an open loop are Poisson with a fixed
seed; a closed loop keeps so many requests in flight. Answers' lengths vary about their mean, as in the load test: alike
ones of a closed loop would end together and start together for ever, and nobody's prompt would delay anybody. The first
requests, which meet an empty engine, are not counted.
"""

import heapq
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deployment.physics.queueing import VARIATION
from deployment.simulator.batching import Batch, Sequence
from deployment.simulator.timing import Timing
from phases.errors import InputError

REQUESTS = 400
"""That are counted."""
_PERCENTILES = (50, 95, 99)


def played(timing: Timing, load: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Mean and percentiles of TTFT and TPOT in seconds. Raises `InputError` for a load that is none."""
    prompt, output = int(load["prompt_tokens"]), int(load["output_tokens"])
    rate, concurrency = load.get("rate"), load.get("concurrency")
    draw, now = random.Random(0), 0.0
    lengths = (max(1, round(draw.gauss(output, VARIATION * output))) for _ in itertools.count())
    if rate:
        arrivals = []
        for _ in range(2 * REQUESTS):
            now += draw.expovariate(rate)
            arrivals.append((now, prompt, next(lengths)))
        done = play(timing, arrivals)
    elif concurrency:
        users = max(1, round(concurrency))
        done = in_flight(timing, users, REQUESTS + 2 * users, prompt, lengths)
    else:
        raise InputError("the load has neither a rate nor requests in flight; write the plan anew")
    return _summary(done[-REQUESTS:])


def _summary(done: Iterable[Sequence]) -> dict[str, dict[str, float]]:
    ended = list(done)
    values = {"ttft": [one.ttft for one in ended], "tpot": [one.tpot or 0.0 for one in ended]}
    return {name: {"mean": sum(row) / len(row), **_percentiles(row)} for name, row in values.items()}


def _percentiles(row: list[float]) -> dict[str, float]:
    ordered = sorted(row)
    return {f"p{p}": ordered[min(len(row) - 1, int(len(row) * p / 100))] for p in _PERCENTILES}


def play(timing: Timing, arrivals: Iterable[tuple[float, int, int]]) -> list[Sequence]:
    """Run (arrival, prompt tokens, output tokens) through the engine on its own clock; the sequences, as they came."""
    coming = _Arrivals(timing)
    made = [coming.enter(at, prompt, output) for at, prompt, output in sorted(arrivals)]
    batch = Batch(timing)
    while coming or not batch.idle:
        coming.reach(batch)
        batch.step()
    return made


def in_flight(timing: Timing, concurrency: int, requests: int, prompt: int, outputs: Iterator[int]) -> list[Sequence]:
    """A closed loop: so many requests in flight, each followed by the next, until `requests` have been finished."""
    batch, coming = Batch(timing), _Arrivals(timing)
    done: list[Sequence] = []
    inside = [coming.enter(0.0, prompt, next(outputs)) for _ in range(concurrency)]
    while len(done) < requests:
        coming.reach(batch)
        batch.step()
        ended = [one for one in inside if one.finished is not None]
        done += ended
        inside = [one for one in inside if one.finished is None]
        inside += [coming.enter(batch.now, prompt, next(outputs)) for _ in ended]
    return done


class _Arrivals:
    """Requests on their way to the engine, by the time at which it has them."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._heap: list[tuple[float, int, Sequence]] = []
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._heap)

    def enter(self, at: float, prompt: int, output: int) -> Sequence:
        """One request, sent at `at`."""
        one = Sequence(prompt, output, at)
        self._count += 1
        heapq.heappush(self._heap, (at + self._timing.overhead(prompt), self._count, one))
        return one

    def reach(self, batch: Batch) -> None:
        """Hand over whoever is there; an idle engine waits for the next."""
        if batch.idle and self._heap:
            batch.now = max(batch.now, self._heap[0][0])
        while self._heap and self._heap[0][0] <= batch.now:
            at, _, one = heapq.heappop(self._heap)
            batch.add(one, at)
