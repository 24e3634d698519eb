"""What a way costs and how fast it is, from the physics: no figure here is a constant of the way itself.

Serving: as many replicas as the peak needs, each at 70 % of what its accelerators can do, for 730 hours a month. A
replica has as few accelerators as hold the model, in instances that are paid for whole, as in a recommendation
(`deployment/planning/fleet.py`). So the cost grows with the volume in steps, and never falls.
"""

import math
from dataclasses import dataclass, replace

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.memory import max_sequences
from deployment.planning.fleet import rented
from deployment.serving import Load, Serving
from deployment.triage.need import Means, Need
from phases.errors import InputError

HOURS_PER_MONTH = 730.0
SECONDS_PER_DAY = 86_400
HEADROOM = 0.7
"""Share of a replica's best throughput that is planned with: beyond it the queue's tail grows fast (M/M/1: mean wait
2.3 services at 0.7, 9 at 0.9)."""
DEGREES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Running:
    """One model under the need's traffic."""

    serving: Serving
    replicas: int
    monthly: float
    """USD."""
    seconds: float
    """A request's, from its arrival to the last token, on average at the planned load."""
    tokens_per_s: float
    """Of one replica at its best, output."""
    rented: str = ""
    """The instances; empty where the price is that of any number of accelerators."""


def usd(amount: float) -> str:
    """Money as it is shown."""
    return f"{amount:,.0f} USD"


def running(model: Model, means: Means, need: Need, *, more_prompt: int = 0) -> Running:
    """Serve the need's traffic on this model, with a prompt that is longer by so many tokens.

    Raises InputError where the model does not fit on 8 accelerators, or into no instance on offer.
    """
    from deployment.physics.estimate import estimate

    prompt, output = need.prompt_tokens + more_prompt, need.output_tokens
    serving, slots = smallest(model, means.accelerator, means.serving, prompt + output)
    best = estimate(model, means.accelerator, serving, Load(prompt, output, concurrency=slots)).throughput.value
    rate = need.requests_per_day / SECONDS_PER_DAY * need.peak
    replicas = max(1, math.ceil(rate * output / (HEADROOM * best)))
    at_load = estimate(model, means.accelerator, serving, Load(prompt, output, rate=rate / replicas))
    seconds = at_load.ttft.value + (output - 1) * at_load.tpot.value
    hourly, instances = rent(model, means, serving, replicas)
    return Running(serving, replicas, hourly * HOURS_PER_MONTH, seconds, best, instances)


def rent(model: Model, means: Means, serving: Serving, replicas: int) -> tuple[float, str]:
    """USD an hour for so many replicas, and the instances for it. Raises InputError where none has room for one."""
    if not means.offers:
        return replicas * serving.accelerators * means.price_per_hour, ""
    found = rented(serving, replicas, means.offers)
    if found is None:
        count = f"{replicas} × {serving.accelerators} × {means.accelerator.name}"
        raise InputError(f"{model.name}: no instance on offer has room for {count}; give a --price")
    offer, number, hourly = found
    return hourly, f"{number} × {offer.cloud} {offer.instance} {offer.region}"


def smallest(model: Model, accelerator: Accelerator, serving: Serving, tokens: int) -> tuple[Serving, int]:
    """The lowest tensor parallelism that holds the model and a sequence of so many tokens, and how many it holds."""
    if tokens > model.context:
        raise InputError(f"{model.name}: a request has {tokens} tokens, the model was made for {model.context}")
    heads = math.gcd(*(group.heads for group in model.layers if group.heads), model.vocabulary)
    for tp in DEGREES:
        if (tp > 1 and heads % tp) or tp < serving.tp:
            continue
        tried = replace(serving, tp=tp, max_context=tokens)
        slots = max_sequences(model, accelerator, tried, tokens)
        if slots >= 1:
            return tried, slots
    raise InputError(f"{model.name}: it does not fit on {DEGREES[-1]} × {accelerator.name}")
