"""Latency percentiles of one replica whose requests arrive at random (Poisson).

The figures come from a simulation of the engine (`queue_simulation.py`): a mean cannot say what the slowest twentieth
sees. The closed forms that it must agree with are in the tests: M/M/1, M/D/1 and M/M/c (Kleinrock 1975, Queueing
Systems I). Prompts are alike; output lengths vary.

Beyond its capacity an open queue has no percentiles: `stable` is False and the figures are infinite, never a number
that depends on how long one happened to look.
"""

import math
import random
from dataclasses import dataclass, field

from deployment.physics.queue_simulation import Lengths, Service, Simulation
from phases.errors import InputError

PERCENTILES = (50, 95, 99)
REQUESTS = 200
"""Simulated by default: some 3 ms. The 99th percentile then rests on 2 of them; ask for more where it matters."""
VARIATION = 0.2
"""Output lengths' coefficient of variation by default. Alike ones that start together would end together, which
happens in no service."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """What the requests of one replica see. Seconds; infinite where the queue grows without end."""

    stable: bool
    utilisation: float
    """Arriving work / what the replica can do."""
    batch: float
    """Sequences decoded together, mean over time."""
    throughput: float
    """Output tokens per second."""
    ttft: float
    """Mean."""
    tpot: float
    """Mean of (end-to-end − TTFT) / (tokens − 1) over requests of more than one token; 0 where there are none."""
    ttft_percentiles: dict[int, float] = field(default_factory=dict)
    tpot_percentiles: dict[int, float] = field(default_factory=dict)


def capacity(service: Service, output_tokens: float) -> float:
    """Requests per second that the replica serves at most: every step prefills what it may hold, or all slots are full.

    A request takes `prefill` and its share of the decoding steps, (tokens − 1) · step(b) / b.
    """
    check_service(service, output_tokens)
    batch, steps = largest_batch(service, output_tokens), (output_tokens - 1) / service.tokens_per_step
    seconds = service.prefill + (steps * service.step(batch) / batch if batch > 0 else 0.0)
    return 1 / seconds if seconds > 0 else math.inf


def largest_batch(service: Service, output_tokens: float) -> float:
    """Sequences that decode together at most: all slots, or as many as prompts come in while one of them decodes."""
    if service.prompt_share == 0:
        return service.slots
    return min(float(service.slots), (output_tokens - 1) / service.tokens_per_step / service.steps_per_prompt)


def open_loop(
    service: Service,
    rate: float,
    output_tokens: float,
    *,
    variation: float = VARIATION,
    requests: int = REQUESTS,
    seed: int = 0,
) -> Latencies:
    """`rate` requests per second arrive at random. The same seed gives the same figures.

    Raises InputError for a rate that is not above 0.
    """
    check_service(service, output_tokens)
    if not 0 < rate < math.inf:
        raise InputError(f"rate = {rate}: requests per second are above 0")
    utilisation = rate / capacity(service, output_tokens)
    if utilisation >= 1:
        return overloaded(service, output_tokens, utilisation)
    draw, warm_up = random.Random(seed), requests // 4
    simulation = Simulation(service, _lengths(output_tokens, variation, draw), warm_up, warm_up + requests)
    simulation.start_running(round(steady_batch(service, rate, output_tokens)))
    now = 0.0
    for _ in range(2 * warm_up + requests + service.slots):
        now += draw.expovariate(rate)
        simulation.arrivals.append(now)
    return _measure(simulation, utilisation)


def steady_batch(service: Service, rate: float, output_tokens: float) -> float:
    """Sequences that run on average in an open loop: B = rate · tokens · (base + slope · B) / (1 − rate · prefill).

    Linear in B, so in closed form; at most all slots.
    """
    steps = rate * max(0.0, output_tokens - 1) / service.tokens_per_step
    left = 1 - rate * service.prefill - steps * service.slope
    return service.slots if left <= 0 else min(float(service.slots), steps * service.base / left)


def _measure(simulation: Simulation, utilisation: float) -> Latencies:
    simulation.run()
    ttft, tpot = sorted(simulation.ttft), sorted(simulation.tpot) or [0.0]
    seconds = simulation.now - simulation.since
    return Latencies(
        stable=True,
        utilisation=utilisation,
        batch=simulation.occupied / seconds if seconds > 0 else 0.0,
        throughput=simulation.tokens / seconds if seconds > 0 else math.inf,
        ttft=sum(ttft) / len(ttft),
        tpot=sum(tpot) / len(tpot),
        ttft_percentiles={p: percentile(ttft, p) for p in PERCENTILES},
        tpot_percentiles={p: percentile(tpot, p) for p in PERCENTILES},
    )


def percentile(ordered: list[float], percent: float) -> float:
    """Of values in ascending order, linear between neighbours (numpy's default)."""
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def overloaded(service: Service, output_tokens: float, utilisation: float) -> Latencies:
    """What an open loop beyond capacity gives: a full replica and waits without end."""
    endless = dict.fromkeys(PERCENTILES, math.inf)
    at_most = capacity(service, output_tokens) * output_tokens
    return Latencies(False, utilisation, service.slots, at_most, math.inf, math.inf, endless, dict(endless))


def _lengths(mean: float, variation: float, draw: random.Random) -> Lengths:
    if not 0 <= variation < math.inf:
        raise InputError(f"variation = {variation}: a coefficient of variation is 0 or more")
    return Lengths(mean, variation, draw)


def check_service(service: Service, output_tokens: float) -> None:
    """Raises InputError for a service or an answer that cannot be."""
    if not 1 <= output_tokens < math.inf:
        raise InputError(f"output_tokens = {output_tokens}: an answer has at least 1 token")
    if service.slots < 1:
        raise InputError(f"slots = {service.slots}: not one sequence fits, so nothing is served")
    for name in ("prefill", "base", "slope", "prompt_share"):
        if not 0 <= getattr(service, name) < math.inf:
            raise InputError(f"{name} = {getattr(service, name)}: 0 or more")
    if service.base + service.slope <= 0:
        raise InputError("base and slope are 0: a decoding step takes time")
    if not 1 <= service.tokens_per_step < math.inf:
        raise InputError(f"tokens_per_step = {service.tokens_per_step}: a step yields at least 1 token")
