"""One replica's times as plain numbers of its load: what is left of the formulas when only the load is open.

A step is `always + each · B + experts · (share of the experts that B sequences choose)`, TTFT without queues is linear
in the requests in flight. So the formulas are asked once (`decode.py`, `prefill.py`, `latency.py`), and every load
after that costs microseconds: what a sweep over thousands of systems and loads needs.
"""

import math
from dataclasses import dataclass

from deployment.physics import decode, latency, prefill
from deployment.physics.coefficients import Coefficients
from deployment.physics.latency import Case


@dataclass(frozen=True, slots=True)
class Replica:
    """Seconds, of one aggregated replica with prompts and answers of one length."""

    always: float
    each: float
    experts: float
    unchosen: float
    tokens_here: float
    """Tokens of one stage's step for each sequence of the batch."""
    yielded: float
    """Tokens that a step yields for each sequence."""
    prompt: float
    """What one prompt takes of the replica."""
    chunks: int
    """Steps over which it is read: as many as the engine's tokens a step ask for."""
    delay: float
    """What a running sequence waits for one prompt in all, of which each of its tokens gets a share."""
    alone: float
    """TTFT with nobody else there."""
    crowd: float
    """More for each other request in flight."""
    burst: float
    """Wait for each other request of a closed loop: the common start."""
    bunch: float
    """Wait for the root of their number: chance meetings."""
    output: float
    slots: float

    def step(self, batch: float) -> float:
        """One output token of each of `batch` sequences, no prompts in between."""
        tokens = max(1.0, batch * self.tokens_here)
        return self.always + self.each * batch + self.experts * (1 - math.pow(self.unchosen, tokens))

    def cycle(self, batch: float) -> float:
        """One step of the engine, seconds: as many tokens of each sequence as it yields."""
        return self.step(batch) * self.yielded

    @property
    def busy(self) -> float:
        """How long a prompt keeps the engine: no less than what running sequences are seen to wait for it."""
        return max(self.prompt, self.delay)

    def tpot(self, batch: float) -> float:
        """Time per output token with `batch` sequences running, prompts of as many newcomers in between."""
        return self.step(batch) + self.delay * batch / self.output

    def first(self, others: float) -> float:
        """TTFT with `others` in flight, before any queue."""
        return self.alone + self.crowd * others

    def queued(self, concurrency: float) -> float:
        """Mean wait in a closed loop for the prompts before one's own."""
        others = max(0.0, concurrency - 1)
        return self.burst * others + self.bunch * math.sqrt(others)


def replica(known: Coefficients, factors: decode.Factors, case: Case, chunks: int) -> Replica:
    """The numbers of a case of floats, whose prompts are read in so many steps."""
    terms, pool = known.terms, case.decode
    one, two = (decode.parts(terms, factors, pool, batch, case.checked) for batch in (1.0, 2.0))
    rest = [sum(float(value) for name, value in parts.items() if name != "weights") for parts in (one, two)]
    per_byte = float(one["weights"] / decode.weight_bytes(pool, case.checked / pool.stages))
    prompt = float(prefill.marginal_seconds(terms, factors, case.prefill))
    shared = prompt / float(case.prefill.stages)
    step = sum(one.values())
    alone, with_one = (float(latency.unhindered(terms, factors, case, prompt, others, step)) for others in (0.0, 1.0))
    each = (rest[1] - rest[0]) / case.yielded
    return Replica(
        always=(rest[0] + per_byte * float(pool.fixed_bytes)) / case.yielded - each,
        each=each,
        experts=per_byte * float(pool.expert_bytes) / case.yielded,
        unchosen=float(pool.unchosen),
        tokens_here=float(case.checked / pool.stages),
        yielded=float(case.yielded),
        prompt=shared,
        chunks=chunks,
        delay=float(latency.interleaved(terms, factors, shared, 1.0)),
        alone=alone,
        crowd=with_one - alone,
        burst=terms["burst"] * float(factors["burst"]) * shared,
        bunch=terms["bunch"] * float(factors["burst"]) * shared,
        output=float(case.output_tokens),
        slots=float(case.slots),
    )
