"""Messages between the accelerators of a replica: all-reduces of tensor parallelism, all-to-alls of experts.

An all-reduce of m bytes over t accelerators takes `latency + 2 · (t − 1) / t · m / bandwidth` (ring: Patarasuk & Yuan
2009; the latency grows with the group, Thakur et al. 2005), twice a layer (Shoeybi et al. 2019, Megatron-LM, arXiv
1909.08053). Experts are reached by one all-to-all before and one after (Lepikhin et al. 2020, arXiv 2006.16668).
"""

from collections.abc import Mapping

from deployment.physics.terms import Quantity, Work, larger, smaller

ACTIVATION_BYTES = 2.0
"""Hidden states are sent in bf16."""


def step_seconds(terms: Mapping[str, float], pool: Work, batch: Quantity) -> Quantity:
    """Messages of one decoding step of `batch` sequences, one stage, seconds."""
    split, spread, several = _present(pool.tp_hops), _present(pool.ep_hops), _present(pool.dp - 1)
    latency = terms["all_reduce"] + terms["all_reduce_hop"] * pool.tp_hops
    reduces = 2 * pool.layers * (split * latency + pool.crosses * terms["network_hop"])
    routes = 2 * pool.moe_layers * spread * (terms["expert_hop"] * pool.ep_hops + several * terms["dispatch"])
    return reduces + routes + message_seconds(terms, pool, batch / pool.dp)


def message_seconds(terms: Mapping[str, float], pool: Work, tokens: Quantity) -> Quantity:
    """Time of the bytes alone, for `tokens` tokens of each rank, one stage, seconds."""
    sent = tokens * pool.hidden * ACTIVATION_BYTES
    reduces = 2 * pool.layers * 2 * (pool.tp - 1) / pool.tp * sent
    routes = 2 * pool.moe_layers * pool.routed * 0.75 * sent  # dispatched in 8 bits, combined in 16
    return terms["message"] * (reduces + routes) / pool.link


def hop_seconds(pool: Work, tokens: Quantity) -> Quantity:
    """From one pipeline stage to the next, for `tokens` tokens, seconds."""
    return (pool.stages - 1) * tokens * pool.hidden * ACTIVATION_BYTES / pool.link


def _present(amount: Quantity) -> Quantity:
    """1 where a whole number is above 0, else 0."""
    return smaller(larger(amount, 0.0), 1.0)
