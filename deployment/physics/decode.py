"""One decoding step: what is read, what is computed, what is sent, and what the host takes for it.

    step = weights + cache + compute + attention + launches + messages + host · sequences

Sums, not maxima: kernels of a step follow each other, and a sum bounds the roofline's maximum (Williams et al. 2009)
from above. No reading is faster than bytes / bandwidth, whatever was fitted, so that no step is below the floor.
"""

from collections.abc import Mapping
from typing import Any

from deployment.physics import communication
from deployment.physics.terms import Quantity, Work, larger

Factors = Mapping[str, Any]


def parts(terms: Mapping[str, float], factors: Factors, pool: Work, batch: Quantity, checked: float = 1.0) -> Factors:
    """Seconds of one step of `batch` sequences by term, all stages; their sum is the step.

    `checked`: tokens of each sequence that a step works on, above 1 with speculation. A pipeline works on its stages'
    shares of the batch at once, so that each stage sees `batch / stages`.
    """
    here = batch / pool.stages
    rank = here / pool.dp
    peak = attained(terms, pool.peak)
    launches = pool.layers * terms["layer"] + pool.moe_layers * terms["moe_layer"]
    launches = launches + pool.latent_layers * terms["latent_layer"] + pool.state_layers * terms["state_layer"]
    attention = pool.peak_bf16 * terms["attention_utilisation"] * pool.tp
    scale = factors["step"] * pool.stages
    weights = weight_bytes(pool, here * checked) / pool.bandwidth
    cache = rank * pool.sequence_bytes / pool.bandwidth
    compute = here * checked * pool.linear_flops / (pool.accelerators * terms["decode_utilisation"] * peak)
    return {
        "weights": weights * larger(pool.stages, factors["weights"] * scale / terms["weight_bandwidth"]),
        "kv": cache * larger(pool.stages, scale / terms["cache_bandwidth"]),
        "compute": compute * scale,
        "attention": rank * checked * pool.sequence_flops / attention * scale,
        "launch": (launches + terms["step"]) * factors["launch"] * scale,
        "communication": communication.step_seconds(terms, pool, here * checked) * scale
        + communication.hop_seconds(pool, rank * checked),
        "host": terms["sequence"] * rank * factors["sequence"] * scale,
    }


def step_seconds(
    terms: Mapping[str, float], factors: Factors, pool: Work, batch: Quantity, checked: float = 1.0
) -> Quantity:
    """One decoding step of `batch` sequences of the replica, seconds."""
    return sum(parts(terms, factors, pool, batch, checked).values())


def floor_seconds(pool: Work, batch: Quantity) -> Quantity:
    """Bytes that one step has to read / bandwidth, all stages: what no prediction is allowed to be below.

    Weights as usual in such a floor, all of a dense checkpoint: input embeddings too, though a step looks up few rows.
    """
    here = batch / pool.stages
    rank_bytes = weight_bytes(pool, here) + pool.table_bytes + here / pool.dp * pool.sequence_bytes
    return pool.stages * rank_bytes / pool.bandwidth


def weight_bytes(pool: Work, tokens: Quantity) -> Quantity:
    """Weights that one accelerator reads for a step of so many tokens: 1 − (1 − k/E)^tokens of the experts."""
    at_least_one = (tokens + 1 + abs(tokens - 1)) / 2
    return pool.fixed_bytes + pool.expert_bytes * (1 - pool.unchosen**at_least_one)


def attained(terms: Mapping[str, float], peak: Quantity) -> Quantity:
    """FLOP/s that are reached at full use, up to the fitted share: 1 PFLOP/s · (peak / 1 PFLOP/s)^exponent."""
    return 1e15 * (peak / 1e15) ** terms["peak_exponent"]
