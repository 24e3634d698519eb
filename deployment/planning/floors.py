"""What no engine can beat: bytes that have to be read / bandwidth, operations that have to be done / peak.

A floor takes the most favourable view of everything (the fastest precision, no communication, no overhead), so that an
objective below it is refused for certain, whatever is fitted or calibrated; and so that a system whose floor is
already worse than what another really does need not be looked at any further (`sweep.py`).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics import decode
from deployment.physics.calibration_store import observations
from deployment.physics.coefficients import shipped, shipped_factors
from deployment.physics.keys_values import bytes_per_sequence
from deployment.physics.systems import features
from deployment.physics.terms import table_bytes, work
from deployment.physics.weights import bytes_per_accelerator, touched_bytes
from deployment.planning.traffic import Workload
from deployment.serving import Serving


@dataclass(frozen=True, slots=True)
class Demand:
    """What a workload demands of any accelerator, for one model served in one way."""

    weights: float
    """Bytes that each accelerator holds."""
    read: float
    """Bytes that each accelerator reads for one token: its stage's weights, and the cache of a mean sequence."""
    step: float
    """Of these what the fitted physics has a step read with next to no sequence there: no cache, no input table."""
    stages: int
    prompt: float
    """Operations of each accelerator for a prompt of the 95th percentile."""
    request: float
    """Operations of each accelerator for a mean request, prompt and answer."""


def demand(model: Model, serving: Serving, workload: Workload) -> Demand:
    """2 operations per active weight and token that is not cached (Kaplan et al. 2020, arXiv 2001.08361).

    Embeddings are looked up, and the head is applied to one token of the prompt, so neither counts there; attention
    does not count at all.
    """
    body = 2 * (model.active_parameters - model.embedding_parameters) / (serving.tp * serving.pp)
    fresh = 1 - serving.prefix_cached
    context = workload.prompt.mean + workload.output.mean // 2
    cache_bytes = bytes_per_sequence(model, context, serving.kv_bits, serving.tp)
    tokens = workload.prompt.mean * fresh + workload.output.mean
    touched = touched_bytes(model, serving, 1)
    return Demand(
        weights=bytes_per_accelerator(model, serving),
        read=touched + cache_bytes / serving.pp,
        step=touched - table_bytes(model, serving),
        stages=serving.pp,
        prompt=body * serving.pp * max(1.0, workload.prompt.p95 * fresh),
        request=body * tokens,
    )


def tpot_floor(asked: Demand, accelerator: Accelerator) -> float:
    """Seconds: the weights and the cache that one token needs, read by one stage after the other."""
    return asked.stages * asked.read / accelerator.bandwidth


def ttft_floor(asked: Demand, accelerator: Accelerator) -> float:
    """Seconds: the prompt's operations at the peak of the fastest precision, the weights read once at least."""
    return max(asked.prompt / max(accelerator.flops.values()), tpot_floor(asked, accelerator))


def replicas_floor(asked: Demand, accelerator: Accelerator, rate: float) -> int:
    """Replicas without which the requests' operations do not get done, at the peak of the fastest precision."""
    return max(1, math.ceil(rate * asked.request / max(accelerator.flops.values())))


@dataclass(frozen=True, slots=True)
class Overhead:
    """What the fitted physics adds on every accelerator: nothing where something was calibrated (see `overhead`)."""

    request: float = 0.0
    """Seconds to each first token."""
    token: float = 0.0
    """Seconds to each token: launches."""
    prompt: float = 0.0
    """Operations of a prompt of the 95th percentile, over the share of the attainable FLOP/s that is reached."""

    def e2e(self, asked: Demand, accelerator: Accelerator, output_tokens: int) -> float:
        """Seconds that an answer of so many tokens takes at least."""
        reading = self.prompt / float(decode.attained(shipped().terms, max(accelerator.flops.values())))
        step = asked.stages * asked.step / accelerator.bandwidth + self.token
        return self.request + reading + (output_tokens - 1) * max(tpot_floor(asked, accelerator), step)


def overhead(model: Model, serving: Serving, workload: Workload, accelerators: Iterable[Accelerator]) -> Overhead:
    """The least of it over the accelerators. Of them only the precisions that they compute in count here.

    Not physical, so no objective is refused by it: it only tells early that a system is outdone. A calibrated system
    may be faster than the shipped fit says, so that where there is any calibration nothing is told early.
    """
    kinds = {tuple(a.flops): a for a in accelerators}.values()
    if observations() or not kinds:
        return Overhead()
    known, found = shipped().terms, []
    counts = work(model, next(iter(kinds)), serving, workload.prompt.mean, workload.output.mean)
    longest = counts.prompt_flops * workload.prompt.p95 / workload.prompt.mean
    for one in kinds:
        factors = shipped_factors(tuple(features(model, one, serving).items()))
        launch = float(decode.parts(known, factors, counts, 1.0)["launch"])
        utilisation = counts.accelerators * known["prefill_utilisation"]
        found.append((known["request"] * factors["request"], launch, longest * factors["prompt"] / utilisation))
    return Overhead(*(min(column) for column in zip(*found, strict=True)))
