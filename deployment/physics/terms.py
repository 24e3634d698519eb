"""What one replica has to do: bytes to read, operations to carry out, messages to send. Counted, nothing is fitted.

A `Work` holds the counts of one pool of accelerators. Its fields are floats for one point, or arrays (N,) for many
(`stack`): the formulas of `decode.py` and `prefill.py` use only arithmetic, so that what was fitted on measured points
is, to the letter, what an estimate computes.

Sources: FLOPs 2·N·S and causal attention 2·S²·heads·head_dim (Kaplan et al. 2020, arXiv 2001.08361; Korthikanti et al.
2022, arXiv 2205.05198); latent attention decodes in the compressed space (DeepSeek-V2, arXiv 2405.04434).
"""

import math
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, TypeAlias

from deployment.hardware import Accelerator
from deployment.model import LayerGroup, Model
from deployment.physics.keys_values import bytes_per_sequence
from deployment.physics.precision import compute_format, peak_flops
from deployment.physics.weights import REMEMBERED, touched_bytes
from deployment.serving import Serving

Quantity: TypeAlias = Any
"""A float, or an array (N,) of them; arithmetic is the same."""
STATE_FLOPS_PER_ELEMENT = 6.0
"""A recurrence multiplies and adds decay, input and output once for each element of its state."""
MANY = 1e9
"""So many sequences read all the experts."""


@dataclass(frozen=True, slots=True)
class Work:
    """Counts of one pool: `accelerators` = tp · dp (of one pipeline stage), `stages` of them one after the other."""

    accelerators: Quantity
    tp: Quantity
    dp: Quantity
    stages: Quantity
    bandwidth: Quantity
    peak: Quantity
    """FLOP/s of the precision that the layers are multiplied in."""
    peak_bf16: Quantity
    link: Quantity
    """Bytes per second and direction between neighbours: the network's where the pool is wider than a node."""
    crosses: Quantity
    """1: the pool is wider than a node."""
    layers: Quantity
    moe_layers: Quantity
    latent_layers: Quantity
    state_layers: Quantity
    hidden: Quantity
    routed: Quantity
    """Accelerators that a token's hidden state is sent to: min(active experts, expert parallelism); 0 without it."""
    ep_hops: Quantity
    """log2 of expert parallelism."""
    tp_hops: Quantity
    """log2 of tensor parallelism."""
    fixed_bytes: Quantity
    """Weights that every step reads, one accelerator and stage; of the input embeddings it reads a few rows."""
    table_bytes: Quantity
    """Input embeddings that are a table of their own: the usual floor counts them, a step does not read them."""
    expert_bytes: Quantity
    """Weights of routed experts, one accelerator and stage."""
    unchosen: Quantity
    """Probability that a token does not choose a given expert: 1 − k/E; 0 where there are none."""
    linear_flops: Quantity
    """Per token that is sampled, whole stage: 2 · active weights, the head among them."""
    sequence_bytes: Quantity
    """Keys, values and states that one step reads of one sequence, one accelerator and stage."""
    sequence_flops: Quantity
    """Attention of one step for one sequence, whole stage."""
    prompt_flops: Quantity
    """Weights' part of one prompt, whole stage; the head sees its last token only."""
    prompt_attention_flops: Quantity
    prompt_tokens: Quantity
    """Tokens of a prompt that are not in the prefix cache."""


def work(model: Model, accelerator: Accelerator, serving: Serving, prompt: float, output: float) -> Work:
    """Counts for prompts of `prompt` tokens and answers of `output`, decoded at their mean context."""
    crosses = serving.tp * serving.dp > accelerator.link_domain
    return replace(
        _counts(model, serving, prompt, output),
        bandwidth=accelerator.bandwidth,
        peak=peak_flops(accelerator, compute_format(model, accelerator, serving)),
        peak_bf16=peak_flops(accelerator, accelerator.half),
        link=accelerator.network_bandwidth if crosses else accelerator.link_bandwidth,
        crosses=float(crosses),
    )


@lru_cache(REMEMBERED)
def _counts(model: Model, serving: Serving, prompt: float, output: float) -> Work:
    """What is the same on every accelerator; what is an accelerator's own is 0."""
    context = prompt + output / 2
    cached = prompt * serving.prefix_cached
    pp = serving.pp
    least = touched_bytes(model, serving, 1.0)
    most = touched_bytes(model, serving, MANY)
    group = _experts(model)
    unchosen = 1 - group.active_experts / group.experts if group else 0.0
    expert_bytes = (most - least) / unchosen if unchosen else 0.0
    ep = serving.ep if group else 1
    body = 2.0 * (model.active_parameters - model.embedding_parameters) / pp
    return Work(
        accelerators=float(serving.tp * serving.dp),
        tp=float(serving.tp),
        dp=float(serving.dp),
        stages=float(pp),
        bandwidth=0.0,
        peak=0.0,
        peak_bf16=0.0,
        link=0.0,
        crosses=0.0,
        layers=model.depth / pp,
        moe_layers=sum(g.count for g in model.layers if g.experts) / pp,
        latent_layers=sum(g.count for g in model.layers if g.mixer == "latent") / pp,
        state_layers=sum(g.count for g in model.layers if g.mixer == "state") / pp,
        hidden=float(model.hidden),
        routed=float(min(group.active_experts, ep)) if group and ep > 1 else 0.0,
        ep_hops=math.log2(ep),
        tp_hops=math.log2(serving.tp),
        fixed_bytes=most - expert_bytes - (table := table_bytes(model, serving)),
        table_bytes=table,
        expert_bytes=expert_bytes,
        unchosen=unchosen,
        linear_flops=body + 2.0 * model.vocabulary * model.hidden / pp,
        sequence_bytes=bytes_per_sequence(model, round(context), serving.kv_bits, serving.tp) / pp,
        sequence_flops=sum(g.count * _step_flops(g, context) for g in model.layers) / pp,
        prompt_flops=body * (prompt - cached),
        prompt_attention_flops=sum(g.count * _prompt_flops(g, prompt, cached) for g in model.layers) / pp,
        prompt_tokens=prompt - cached,
    )


def stack(items: list[Any]) -> Any:
    """Many points as one: every field an array (N,). For any dataclass of floats."""
    import numpy as np

    kind = type(items[0])
    return kind(**{f.name: np.array([getattr(item, f.name) for item in items], float) for f in fields(kind)})


def larger(a: Quantity, b: Quantity) -> Quantity:
    """Element-wise maximum of floats or arrays."""
    return (a + b + abs(a - b)) / 2


def smaller(a: Quantity, b: Quantity) -> Quantity:
    """Element-wise minimum of floats or arrays; exact while they differ by less than ten powers of ten."""
    return (a + b - abs(a - b)) / 2


def table_bytes(model: Model, serving: Serving) -> float:
    """The input embeddings where they are a table of their own, one accelerator and stage."""
    table = model.vocabulary * model.hidden
    if model.embedding_parameters < 2 * table:
        return 0.0
    bits = model.embedding_bits if serving.precision == "stored" else 16.0
    return table * bits / 8 / serving.tp / serving.pp


def _experts(model: Model) -> LayerGroup | None:
    return next((group for group in model.layers if group.experts), None)


def _seen(group: LayerGroup, context: float) -> float:
    """Entries that a token of this layer attends to."""
    kept = context / group.compression
    return kept if group.window is None else min(context, group.window) + (kept if group.compression > 1 else 0.0)


def _step_flops(group: LayerGroup, context: float) -> float:
    """One layer, one sequence, one new token."""
    if group.mixer == "latent":
        return 2.0 * group.heads * 2 * group.latent_dim * _seen(group, context)
    if group.mixer == "attention":
        return 2.0 * group.heads * (group.head_dim + (group.value_dim or group.head_dim)) * _seen(group, context)
    return STATE_FLOPS_PER_ELEMENT * group.state_elements


def _prompt_flops(group: LayerGroup, prompt: float, cached: float) -> float:
    """One layer, one prompt of which `cached` tokens are known: S² becomes S² − P², each pair seen once."""
    if group.mixer not in ("attention", "latent"):
        return STATE_FLOPS_PER_ELEMENT * group.state_elements * (prompt - cached)
    width = 2.0 * group.heads * (group.head_dim + (group.value_dim or group.head_dim))
    if group.window is None:
        return width * (prompt**2 - cached**2) / 2 / group.compression
    pairs = _windowed(prompt, group.window) - _windowed(cached, group.window)
    far = (prompt**2 - cached**2) / 2 / group.compression if group.compression > 1 else 0.0
    return width * (pairs + far)


def _windowed(tokens: float, window: float) -> float:
    """Pairs of a token and one before it within the window."""
    inside = min(tokens, window)
    return inside**2 / 2 + (tokens - inside) * window
