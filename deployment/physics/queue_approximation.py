"""The simulation's figures in closed form, for sweeps over thousands of systems: some 0.1 ms instead of 3 ms.

An arrival finds the engine within a cycle (a step, with the prefills that it holds), waits for its end, and is
prefilled in the next one, together with whoever else arrived meanwhile. In an open loop cycles are C = t + k · prefill
with k Poisson of mean rate · C, so that

    E[C] = t / (1 − u),   Var[C] = rate · prefill² · E[C] / (1 − u²),      u = rate · prefill

(the gated M/G/1 queue with vacations, Takagi 1991, Queueing Analysis I), and an arrival sees one of E[C²] / E[C]. In a
closed loop arrivals are departures, so that who is prefilled together are the sequences that ended in one step. Where
slots are short a request first waits for one, as in M/G/c: Erlang's C and the Pollaczek-Khinchine factor. The test
states how far all this is from the simulation (`tests/deployment/test_queueing.py`).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from deployment.physics.queue_simulation import Service
from deployment.physics.queueing import (
    PERCENTILES,
    VARIATION,
    Latencies,
    capacity,
    check_service,
    largest_batch,
    overloaded,
    steady_batch,
)
from phases.errors import InputError

_STANDARD = NormalDist()
_NORMAL = {p: _STANDARD.inv_cdf(p / 100) for p in PERCENTILES}


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Time to the first token from the moment that a slot is free: the prefill, and what a busy engine adds."""

    prefill: float
    busy: float
    """Probability that an arrival finds the engine at work."""
    certain: float
    """Added then in any case."""
    mean: float
    """Of the rest, which is random."""
    variance: float

    def average(self) -> float:
        """Mean, seconds."""
        return self.prefill + self.busy * (self.certain + self.mean)

    def percentile(self, percent: int) -> float:
        """What so many percent do not exceed; the random part as gamma distributed (Wilson & Hilferty 1931)."""
        idle = 1 - percent / 100
        if self.busy <= idle:
            return self.prefill
        if self.mean <= 0 or self.variance <= 0:
            return self.prefill + self.certain
        shape = self.mean**2 / self.variance
        z = _STANDARD.inv_cdf(1 - idle / self.busy)
        root = max(0.0, 1 - 1 / (9 * shape) + z / (3 * math.sqrt(shape)))
        return self.prefill + self.certain + self.mean * root**3


def approximate_open(service: Service, rate: float, output_tokens: float, *, variation: float = VARIATION) -> Latencies:
    """`open_loop` without simulating. Raises InputError for a rate that is not above 0."""
    check_service(service, output_tokens)
    if not 0 < rate < math.inf:
        raise InputError(f"rate = {rate}: requests per second are above 0")
    utilisation = rate / capacity(service, output_tokens)
    if utilisation >= 1:
        return overloaded(service, output_tokens, utilisation)
    batch = steady_batch(service, rate, output_tokens)
    tpot = _tpot(service, rate, batch)
    first = first_token(service.prefill, service.step(batch), batch, rate, service.chunks)
    life = (output_tokens - 1) * tpot + service.prefill + service.chunks * service.step(batch)
    slot = _slot_wait(service.slots, rate * life, utilisation, life, variation)
    spread = _tpot_spread(service, rate, batch, tpot, output_tokens)
    return Latencies(
        stable=True,
        utilisation=utilisation,
        batch=batch,
        throughput=rate * output_tokens,
        ttft=first.average() + slot[0] * slot[1],
        tpot=tpot,
        ttft_percentiles={p: first.percentile(p) + _slot_percentile(slot, p) for p in PERCENTILES},
        tpot_percentiles={p: max(tpot / 2, tpot + _NORMAL[p] * spread) for p in PERCENTILES},
    )


def approximate_closed(service: Service, concurrency: float, output_tokens: float) -> Latencies:
    """`closed_loop` without simulating. Raises InputError for a concurrency that is not above 0."""
    check_service(service, output_tokens)
    if not 0 < concurrency < math.inf:
        raise InputError(f"concurrency = {concurrency}: requests in flight are above 0")
    users, steps = math.ceil(concurrency), (output_tokens - 1) / service.tokens_per_step
    inside = min(float(users), max(1.0, largest_batch(service, output_tokens)))
    life = steps + service.chunks  # of a sequence, in steps of the engine
    beside, together = (inside - 1) * steps / life, service.chunks * (inside - 1) / life
    first = service.prefill * (1 + together) + (service.chunks * service.step(beside) if beside > 0 else 0.0)
    decoding = steps * (service.step(1 + beside) + service.prefill * (inside - 1) / life)
    rate = inside / (first + decoding)
    queued = (users - inside) / rate
    tpot = decoding / (output_tokens - 1) if output_tokens > 1 else 0.0
    certain = queued + first - service.prefill * together
    spread = _tpot_spread(service, rate, 0.0, tpot, output_tokens)
    return Latencies(
        stable=True,
        utilisation=1.0,
        batch=inside * steps / life,
        throughput=rate * output_tokens,
        ttft=queued + first,
        tpot=tpot,
        ttft_percentiles={p: certain + service.prefill * _poisson_percentile(together, p) for p in PERCENTILES},
        tpot_percentiles={p: max(tpot / 2, tpot + _NORMAL[p] * spread) for p in PERCENTILES},
    )


def _poisson_percentile(mean: float, percent: int) -> int:
    """The smallest number that so many percent do not exceed; normal beyond 100."""
    if mean > 100:
        return round(mean + _NORMAL[percent] * math.sqrt(mean))
    number, term = 0, math.exp(-mean)
    total = term
    while total < percent / 100:
        number += 1
        term *= mean / number
        total += term
    return number


def _tpot(service: Service, rate: float, batch: float) -> float:
    """A step, and the prefills that come between two: time is shared in the proportion of the loads."""
    busy = min(0.999, rate * service.prefill)
    return service.step(max(1.0, batch)) / service.tokens_per_step / (1 - busy)


def first_token(prefill: float, step: float, batch: float, rate: float, chunks: int = 1) -> FirstToken:
    """In an open loop where `batch` sequences run and a step of theirs takes `step` seconds; no wait for a slot.

    Prompts that share steps are prefilled in cycles; those in chunks are served one by one.
    """
    running = 1 - math.exp(-batch)
    if chunks > 1:  # M/D/1 behind the decoding step that is under way
        each = prefill + chunks * step * running
        load = min(0.999, rate * each)
        mean = rate * each**2 / (2 * (1 - load))
        variance = rate * each**3 / (3 * (1 - load)) + mean**2 + step**2 / 12
        return FirstToken(prefill, max(running, load), chunks * step, mean + step / 2, variance)
    load = min(0.999, rate * prefill)
    cycle, met = step / (1 - load), load / (1 - load**2)  # prompts in the cycle that an arrival sees beyond the usual
    seen = cycle + met * prefill
    others = rate * seen  # who arrived in the same cycle
    mean = seen / 2 + others * prefill
    variance = (seen**2 + met * prefill**2) / 12 + (others + (0.5 + load) ** 2 * met) * prefill**2
    return FirstToken(prefill, running, step, mean, variance)


def _slot_wait(slots: int, taken: float, utilisation: float, life: float, variation: float) -> tuple[float, float]:
    """Probability of waiting for a slot, and the mean of those waits; `taken`: slots in use on average."""
    share = min(taken / slots, 0.999)
    if slots <= 64:
        blocked = 1.0  # Erlang's B by its recursion
        for number in range(1, slots + 1):
            blocked = share * slots * blocked / (number + share * slots * blocked)
        waits = blocked / (1 - share * (1 - blocked))
    else:  # Halfin & Whitt 1981
        beta = (1 - share) * math.sqrt(slots)
        waits = 1 / (1 + beta * _STANDARD.cdf(beta) / _STANDARD.pdf(beta)) if beta < 8 else 0.0
    return waits, (1 + variation**2) / 2 * life / (slots * (1 - utilisation))


def _slot_percentile(slot: tuple[float, float], percent: int) -> float:
    waits, mean = slot
    return max(0.0, mean * math.log(waits / (1 - percent / 100))) if waits > 0 else 0.0


def _tpot_spread(service: Service, rate: float, batch: float, tpot: float, output_tokens: float) -> float:
    """Standard deviation over requests: how many ran beside it (Poisson, averaged over a life), and were prefilled."""
    life = max(1.0, output_tokens - 1) * tpot
    load = min(0.999, rate * service.prefill)
    beside = service.slope / service.tokens_per_step / (1 - load) * math.sqrt(2 / 3 * batch)
    between = service.prefill * math.sqrt(rate * life) / max(1.0, output_tokens - 1)
    return math.hypot(beside, between)
