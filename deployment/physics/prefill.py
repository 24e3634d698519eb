"""Reading a prompt: the part that grows with it, and what every prompt pays once.

    marginal = 2·N_active·S / FLOPs + attention(S² − P²) / FLOPs + messages(S)        P: tokens in the prefix cache
    fixed    = launches + one reading of the weights

The marginal part is also what the others wait for: it adds `batch / output · marginal` to their time per token
(Sarathi-Serve, Agrawal et al. 2024, arXiv 2403.02310, on the interference of prefills).
"""

from collections.abc import Mapping

from deployment.physics import communication
from deployment.physics.decode import Factors, attained, weight_bytes
from deployment.physics.terms import Quantity, Work


def marginal_seconds(terms: Mapping[str, float], factors: Factors, pool: Work) -> Quantity:
    """One prompt's computation and messages, through all stages, seconds."""
    dense = pool.prompt_flops / (pool.accelerators * terms["prefill_utilisation"] * attained(terms, pool.peak))
    attention = pool.prompt_attention_flops / (pool.accelerators * terms["attention_utilisation"] * pool.peak_bf16)
    messages = communication.message_seconds(terms, pool, pool.prompt_tokens / pool.dp)
    hops = communication.hop_seconds(pool, pool.prompt_tokens)
    return (dense + attention + messages) * factors["prompt"] * pool.stages + hops


def fixed_seconds(terms: Mapping[str, float], factors: Factors, pool: Work) -> Quantity:
    """What a prompt costs whatever its length, all stages, seconds."""
    launches = pool.layers * terms["prompt_layer"] + pool.moe_layers * terms["prompt_moe_layer"]
    reading = weight_bytes(pool, pool.prompt_tokens) / pool.bandwidth / terms["weight_bandwidth"]
    return (launches * factors["launch"] + reading) * pool.stages
