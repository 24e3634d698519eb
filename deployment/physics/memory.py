"""Memory of one accelerator while a model is served: weights, the warm-up's peak, and what is left for the cache.

    KV pool = utilisation · memory − weights − activation − non-torch          (every term of ONE accelerator)

The overheads are added, not multiplied: they do not grow with the weights. The activation is what the engine's warm-up
really allocates, so that one rule holds over versions and sizes (vLLM's `profile_run`, GPU model runner):

    sampler  = sequences · vocabulary · b + 2 · (tokens + sequences) · hidden + 46 MiB
    forward  = 2 · tokens · (4 · hidden + 3 · width)
    experts  = 2 · tokens · k · (max(N, hidden) + max(N / 2, hidden))          (N: gate and up of one rank)

with the engine's defaults for sequences and tokens (1,024 and 8,192 on an H100) and b = 38 bytes a logit while it
sorted them for top-k and top-p, 14.5 since 0.17. The larger peak counts; since 0.8 the experts' workspace adds to it.
Pools of measured runs (`python -m pytest tests/deployment/test_memory_measured.py`): mean error 0.1 % over ten of
0.19.0 and 1.7 % over eight of 0.11.0, one of which (Mistral-Small) is 10 % too careful: its sampler took less.
"""

import math
from functools import lru_cache

from deployment.hardware import Accelerator
from deployment.model import LayerGroup, Model
from deployment.physics.engines import GIB, GRAPH_BYTES, EngineFacts, facts, sglang_share
from deployment.physics.keys_values import bytes_per_sequence
from deployment.physics.weights import PRECISION_BITS, REMEMBERED, bytes_per_accelerator, check_precision
from deployment.serving import MemoryPlan, Serving
from phases.errors import InputError

FIXED_BYTES = 0.045 * GIB
"""Persistent input buffers: the intercept of 20 measured warm-ups."""
MXFP4_ALIGNMENT = 256
"""Elements that a row of an MXFP4 expert is padded to (Triton's layout for Hopper; gpt-oss: 2,880 → 3,072)."""


def memory_plan(model: Model, accelerator: Accelerator, serving: Serving) -> MemoryPlan:
    """What one accelerator of the replica holds; the pool is negative where the weights alone do not fit.

    Under pipeline parallelism: the fullest stage. Raises InputError for a share, a context or a split that cannot be.
    """
    _check(model, serving)
    known = facts(serving.engine, serving.version)
    weights = bytes_per_accelerator(model, serving) + expert_padding_bytes(model, serving)
    activation = activation_bytes(model, accelerator, serving, known)
    non_torch = known.non_torch[serving.tp * serving.dp > 1]
    graphs = GRAPH_BYTES * _stage_layers(model, serving.pp)
    if known.deducts_graphs:
        non_torch += graphs
    taken = weights + activation + non_torch
    if known.of_free:
        share = known.utilisation if serving.utilisation is None else serving.utilisation
        usable = taken + share * (accelerator.memory_bytes - taken)
    else:
        left = accelerator.memory_bytes - known.outside
        if known.outside and not known.deducts_graphs:
            left -= graphs  # captured after the pool is allotted: without room for them the start fails
        usable = min(_share(accelerator, serving, known) * accelerator.memory_bytes, left)
    return MemoryPlan(usable, weights, activation, non_torch, usable - taken, sequence_bytes(model, serving))


def sequence_bytes(model: Model, serving: Serving, tokens: int | None = None) -> float:
    """What a sequence of so many tokens keeps on the fullest accelerator; without a number: of the longest admitted."""
    longest = tokens if tokens is not None else serving.max_context or model.context
    whole = bytes_per_sequence(model, longest, serving.kv_bits, serving.tp)
    return whole * _stage_layers(model, serving.pp) / model.depth


def max_sequences(
    model: Model, accelerator: Accelerator, serving: Serving, tokens: int, plan: MemoryPlan | None = None
) -> int:
    """Sequences of `tokens` tokens that are decoded at once: as many as the pool holds, at most the engine's limit.

    Of the whole replica: each of the `dp` copies has its own. 0 where not even one fits. `plan`: the system's, where
    it is known already.
    """
    pool = (plan or memory_plan(model, accelerator, serving)).kv_pool
    each = sequence_bytes(model, serving, tokens)
    limit = facts(serving.engine, serving.version).max_sequences(accelerator)
    held = limit if each == 0 else min(limit, int(max(0.0, pool) // each))
    return serving.dp * (held if pool > 0 else 0)


def activation_bytes(model: Model, accelerator: Accelerator, serving: Serving, known: EngineFacts) -> float:
    """Peak of the warm-up on one accelerator; 0 for SGLang, whose activations lie outside of the share it takes."""
    if serving.engine == "sglang":
        return 0.0
    tokens = known.max_batched_tokens(accelerator)
    return _warm_up(model, serving, known, tokens, min(tokens, known.max_sequences(accelerator)))


@lru_cache(REMEMBERED)
def _warm_up(model: Model, serving: Serving, known: EngineFacts, tokens: int, sequences: int) -> float:
    """Bytes that a step of so many tokens, of so many sequences at most, allocates."""
    if serving.engine == "llama.cpp":  # all tokens of a micro-batch have logits, in float32
        return tokens * (model.vocabulary + model.hidden) * known.sampler_bytes
    sampler = sequences * model.vocabulary * known.sampler_bytes + 2 * (tokens + sequences) * model.hidden
    width = 4 + (2 if serving.pp > 1 else 0)  # a stage receives hidden states and residual besides
    forward = 2 * tokens * (width * model.hidden + 3 * _mlp_width(model, serving.tp))
    experts = 0.0 if _mxfp4(model, serving) else 2 * tokens * _expert_width(model, serving)
    images = 2 * tokens * model.hidden if model.other_parameters else 0  # the encoder's outputs for one step
    if known.keeps_workspace:
        return max(sampler, forward) + experts + images + FIXED_BYTES
    return max(sampler, forward + experts) + images + FIXED_BYTES


def expert_padding_bytes(model: Model, serving: Serving) -> float:
    """What MXFP4 experts take beyond their weights: the 4-bit values of padded rows (the scales are not padded)."""
    if not _mxfp4(model, serving):
        return 0.0
    padded = math.ceil(model.hidden / MXFP4_ALIGNMENT) * MXFP4_ALIGNMENT
    experts = sum(group.count * group.experts * group.expert_parameters for group in model.layers)
    return experts / 2 * (padded / model.hidden - 1) / (serving.tp * serving.pp * serving.dp)


def _mxfp4(model: Model, serving: Serving) -> bool:
    groups = [group for group in model.layers if group.experts]
    if not groups or serving.precision not in ("mxfp4", "stored"):
        return False
    if serving.precision == "mxfp4":
        return True
    bits = {model.stored_bits if group.expert_bits is None else group.expert_bits for group in groups}
    return bits == {PRECISION_BITS["mxfp4"]}


def _mlp_width(model: Model, tp: int) -> float:
    """Widest dense MLP (gate, up and product: three of these) of one rank."""
    return max((group.dense_parameters / (3 * model.hidden * tp) for group in model.layers), default=0.0)


def _expert_width(model: Model, serving: Serving) -> float:
    """Elements a token of the fused experts' two workspaces, in the widest layer."""

    def of(group: LayerGroup) -> float:
        gate_and_up = 2 * group.expert_parameters / (3 * model.hidden) / (1 if serving.ep > 1 else serving.tp)
        wide, narrow = max(gate_and_up, model.hidden), max(gate_and_up / 2, model.hidden)
        return group.active_experts * (wide + narrow)

    return max((of(group) for group in model.layers if group.experts), default=0.0)


def _stage_layers(model: Model, pp: int) -> int:
    return math.ceil(model.depth / pp)


def _share(accelerator: Accelerator, serving: Serving, known: EngineFacts) -> float:
    if serving.utilisation is not None:
        return serving.utilisation
    if serving.engine == "sglang":
        return sglang_share(accelerator.memory_bytes, serving.tp, serving.pp)
    return known.utilisation


def _check(model: Model, serving: Serving) -> None:
    if serving.utilisation is not None and not 0 < serving.utilisation <= 1:
        raise InputError(f"utilisation = {serving.utilisation}: the engine takes a share above 0, at most 1")
    if serving.max_context is not None and serving.max_context < 1:
        raise InputError(f"max_context = {serving.max_context}: a sequence has at least 1 token")
    for name in ("tp", "pp", "dp", "ep"):
        if getattr(serving, name) < 1:
            raise InputError(f"{name} = {getattr(serving, name)}: at least 1")
    if serving.pp > model.depth:
        raise InputError(f"pp = {serving.pp}: {model.name} has {model.depth} layers, so at most as many stages")
    check_precision(serving.precision)
