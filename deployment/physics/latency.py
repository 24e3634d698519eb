"""Time to first token and time per output token of a replica in a closed loop: the formulas that are fitted.

    TPOT = step(B) + interleave · B / output · prompt              B = min(concurrency, slots)
    TTFT = prompt + queue · prompt + request + crowd · concurrency + first step + wait for a slot
    queue = burst · others + bunch · √others                       others = concurrency − 1
    wait = (concurrency − B) / X,     X = B / (output · TPOT)       (Little's law)

A closed loop starts with all its requests at once, and mean TTFT keeps a trace of that: `burst`; later prompts meet by
chance: `bunch`. Disaggregated, the decode pool is free of prompts, holds as many sequences as the prefill pool feeds
it, and TTFT adds the handover.

Fields of a `Case` are floats, or arrays (N,) (`stacked`), like those of `terms.Work`. Seconds throughout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from deployment.physics import decode, prefill
from deployment.physics.decode import Factors
from deployment.physics.terms import Quantity, Work, larger, smaller, stack

LENGTH_SHARE = 0.95
"""Benchmarks draw lengths between 80 or 90 % and 100 % of the nominal one."""
ROUNDS = 2
"""Of the fixed point of a decode pool that its prefill pool feeds, from where it is on a straight line."""
WAITS_SHARPNESS = 4.0
"""How sharply TTFT turns from its own time to a saturated pool's queue: a 4-norm is within 19 % of the maximum."""


@dataclass(frozen=True, slots=True)
class Case:
    """One system under one closed-loop load."""

    prefill: Work
    decode: Work
    output_tokens: Quantity
    concurrency: Quantity
    slots: Quantity
    """Sequences that one decode worker holds."""
    prefill_workers: Quantity
    """0: not known."""
    decode_workers: Quantity
    """0: not known."""
    disaggregated: Quantity
    """1: prompts and answers are computed on pools of their own."""
    features: Mapping[str, Quantity]
    """Kind of system, 0 or 1 each: `coefficients.FEATURES`."""
    checked: Quantity = 1.0
    """Tokens of each sequence that a step works on: 1 + drafts."""
    yielded: Quantity = 1.0
    """Tokens that a step yields for each sequence (`speculation.tokens_per_step`)."""


def stacked(cases: Sequence[Case]) -> Case:
    """Many cases as one of arrays (N,)."""
    import numpy as np

    def column(name: str) -> Any:
        values = [getattr(case, name) for case in cases]
        if name in ("prefill", "decode"):
            return stack(values)
        if name == "features":
            return {key: np.array([value[key] for value in values], float) for key in values[0]}
        return np.array(values, float)

    return Case(**{field.name: column(field.name) for field in fields(Case)})


@dataclass(frozen=True, slots=True)
class Times:
    """What the formulas say, seconds."""

    ttft: Quantity
    tpot: Quantity
    batch: Quantity
    """Sequences that a decode worker runs."""


def closed_loop(terms: Mapping[str, float], factors: Factors, case: Case) -> Times:
    """Mean TTFT and TPOT of a case, aggregated or disaggregated."""
    workers = _decode_workers(terms, case)
    batch = smaller(case.concurrency / workers, case.slots)
    step = token_seconds(terms, factors, case, batch)
    prompt = prefill.marginal_seconds(terms, factors, case.prefill)
    shared = prompt / case.prefill.stages
    pools = _prefill_workers(terms, case, batch * workers / (case.output_tokens * step) * shared)
    tpot_together = step + interleaved(terms, factors, shared, batch / case.output_tokens)
    apart = _disaggregated(terms, factors, case, batch, workers, pools / shared)
    tpot = tpot_together + case.disaggregated * (apart.tpot - tpot_together)
    spread = 1 + case.disaggregated * (10 * pools - 1)
    queued = waiting_prompts(terms, factors, case.concurrency / pools) * shared
    one = decode.step_seconds(terms, factors, case.decode, 1.0, case.checked)
    ttft = unhindered(terms, factors, case, prompt, case.concurrency / spread, one) + queued
    waiting = slot_wait(case.concurrency / workers, batch, case.output_tokens * tpot)
    moved = case.prefill.prompt_tokens * _token_bytes(case.decode) / case.decode.link
    handed = ttft + terms["handover"] + terms["transfer"] * moved
    handed = (handed**WAITS_SHARPNESS + apart.ttft**WAITS_SHARPNESS) ** (1 / WAITS_SHARPNESS)
    ttft = ttft + waiting + case.disaggregated * (handed - ttft - waiting)
    return Times(ttft, tpot, batch + case.disaggregated * (apart.batch - batch))


def token_seconds(terms: Mapping[str, float], factors: Factors, case: Case, batch: Quantity) -> Quantity:
    """One output token of each of `batch` sequences, without prompts in between, seconds."""
    return decode.step_seconds(terms, factors, case.decode, batch, case.checked) / case.yielded


def unhindered(
    terms: Mapping[str, float], factors: Factors, case: Case, prompt: Quantity, others: Quantity, one: Quantity
) -> Quantity:
    """TTFT with no prompt before one's own and `others` requests in flight, seconds.

    `prompt`: its marginal part; `one`: a decoding step of one sequence.
    """
    before = (terms["request"] + terms["crowd"] * others) * factors["request"]
    return prompt + prefill.fixed_seconds(terms, factors, case.prefill) + before + terms["first_step"] * one


def waiting_prompts(terms: Mapping[str, float], factors: Factors, concurrency: Quantity) -> Quantity:
    """Prompts before one's own, on average: what is left of the common start, and chance meetings (√n of n)."""
    others = larger(concurrency - 1, 0.0)
    return (terms["burst"] * others + terms["bunch"] * others**0.5) * factors["burst"]


def interleaved(terms: Mapping[str, float], factors: Factors, prompt: Quantity, per_token: Quantity) -> Quantity:
    """What a running sequence waits per token for the prompts of `per_token` arrivals a token, seconds."""
    return terms["interleave"] * factors["interleave"] * per_token * prompt


def slot_wait(wanted: Quantity, slots: Quantity, answer: Quantity) -> Quantity:
    """Mean wait of `wanted` requests in flight for `slots` places that each answer holds for `answer` seconds."""
    return larger(wanted - slots, 0.0) / slots * answer


def _disaggregated(
    terms: Mapping[str, float], factors: Factors, case: Case, most: Quantity, workers: Quantity, rate: Quantity
) -> Times:
    """The decode pool, fed with `rate` prompts per second, and the queue before a prefill pool that is full."""
    batch = _on_a_line(terms, factors, case, most, rate / workers * case.output_tokens)
    for _ in range(ROUNDS):
        step = token_seconds(terms, factors, case, larger(batch, 1.0))
        batch = smaller(most, larger(rate / workers * case.output_tokens * step, 0.5))
    tpot = token_seconds(terms, factors, case, larger(batch, 1.0))
    queue = larger(case.concurrency / rate - case.output_tokens * tpot, 1e-6)
    return Times(queue, tpot, batch)


def _on_a_line(terms: Mapping[str, float], factors: Factors, case: Case, most: Quantity, tokens: Quantity) -> Quantity:
    """The fixed point B = tokens per second · step(B) if the step were a straight line from 1 to `most` sequences."""
    one, all_of_them = (token_seconds(terms, factors, case, batch) for batch in (1.0, larger(most, 1.0)))
    slope = (all_of_them - one) / (larger(most, 1.0) - 1 + 1e-9)
    return smaller(most, tokens * (one - slope) / larger(1 - tokens * slope, 1e-6))


def _decode_workers(terms: Mapping[str, float], case: Case) -> Quantity:
    """As the row says; else more at low load, where latency is what such a deployment is for."""
    trtllm = case.features["trtllm"]
    more = terms["sglang_workers"] + trtllm * (terms["trtllm_workers"] - terms["sglang_workers"])
    guess = 1 + more / (1 + case.concurrency / terms["crowded_workers"])
    return _known(case.decode_workers, guess)


def _prefill_workers(terms: Mapping[str, float], case: Case, needed: Quantity) -> Quantity:
    """As the row says; else what the load needs, with some reserve."""
    return _known(case.prefill_workers, larger(terms["provision"] * needed, 1.0))


def _known(given: Quantity, guess: Quantity) -> Quantity:
    """`given` where it is above 0 (a count, so at least 1)."""
    said = smaller(given, 1.0)
    return given + (1 - said) * guess


def _token_bytes(pool: Work) -> Quantity:
    """Bytes of one token's keys and values, at the mean context."""
    return pool.sequence_bytes / larger(pool.prompt_tokens, 1.0)
