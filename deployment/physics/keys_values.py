"""Bytes that a sequence keeps in memory while it is decoded: keys and values, latents, index keys, recurrent states.

A model is `fixed per sequence + slope × context`, layer by layer (`deployment/model.py`):

- attention keeps `max(1, kv_heads / tp) · (head_dim + value_dim)` elements per token (GQA, Ainslie et al. 2023,
  arXiv 2305.13245); a layer with a window keeps no more than the window;
- latent attention keeps one vector of `kv_lora_rank + qk_rope_head_dim` on every accelerator (DeepSeek-V2, arXiv
  2405.04434), or one for every `compression` tokens beside its window (DeepSeek-V4);
- an indexer of sparse attention keeps its own keys, in the engines' own layout whatever the type of the rest:
  128 fp8 elements and one float32 scale, 132 bytes (DeepSeek-V3.2's reference code, vLLM, SGLang);
- a recurrence keeps a state that does not grow.

The PRDs' `tokens × layers × 2 × d_model / kv_groups × bytes` is the first case alone, and only where
`head_dim = d_model / heads`; `as_in_the_prd` is that formula, so that the difference can be shown.
"""

from functools import lru_cache

from deployment.model import LayerGroup, Model
from phases.errors import InputError

KV_BITS = (4, 8, 16, 32)
REMEMBERED = 1 << 14


def bytes_per_token(model: Model, kv_bits: int = 16, tp: int = 1) -> float:
    """What one more token costs in a long sequence, all layers, one accelerator; windows and states have stopped."""
    _check(kv_bits, tp)
    return sum(
        group.count * (_entry_bytes(group, kv_bits, tp) + _index_bytes(group)) / group.compression
        for group in model.layers
        if _grows(group)
    )


@lru_cache(REMEMBERED)
def bytes_per_sequence(model: Model, context: int, kv_bits: int = 16, tp: int = 1) -> float:
    """What one sequence of `context` tokens keeps on one accelerator, bytes; exact to the token.

    Engines allot blocks of some 16 tokens, so that a sequence takes up to a block more; that is theirs.
    """
    _check(kv_bits, tp)
    if context < 0:
        raise InputError(f"context = {context}: a sequence has at least 0 tokens")
    return sum(group.count * _layer_bytes(group, context, kv_bits, tp) for group in model.layers)


def state_bytes(model: Model, kv_bits: int = 16, tp: int = 1) -> float:
    """The part of a sequence that does not depend on its length, bytes on one accelerator."""
    _check(kv_bits, tp)
    return sum(group.count * _state_bytes(group, kv_bits, tp) for group in model.layers)


def as_in_the_prd(model: Model, kv_bits: int = 16) -> float:
    """The PRDs' bytes per token: `layers × 2 × d_model / kv_groups × bytes`, kv_groups = heads / kv_heads.

    Kept to show where it is wrong (a lesson); nothing is computed with it. Latent attention has as many KV heads as
    heads by its config, so that the formula takes kv_groups = 1. Layers without attention count, as the PRD says.
    """
    first = next((group for group in model.layers if group.mixer in ("attention", "latent")), None)
    if first is None:
        raise InputError(f"{model.name}: it has no attention, so the PRDs' formula does not apply")
    kv_groups = first.heads / first.kv_heads if first.mixer == "attention" else 1.0
    return model.depth * 2 * model.hidden / kv_groups * kv_bits / 8


def _layer_bytes(group: LayerGroup, context: int, kv_bits: int, tp: int) -> float:
    entry = _entry_bytes(group, kv_bits, tp)
    total = _state_bytes(group, kv_bits, tp)
    if group.window is not None:
        total += min(context, group.window) * entry
    if _grows(group):
        total += context // group.compression * (entry + _index_bytes(group))
    return total


def _grows(group: LayerGroup) -> bool:
    """Whether a token far behind is still kept, if only within a compressed entry."""
    return group.window is None or group.compression > 1


def _entry_bytes(group: LayerGroup, kv_bits: int, tp: int) -> float:
    """One kept entry of one layer on one accelerator."""
    if group.shared_cache:
        return 0.0
    if group.mixer == "latent":
        if kv_bits == 8 and group.latent_fp8_bytes:
            return group.latent_fp8_bytes
        return group.latent_dim * kv_bits / 8
    if group.mixer == "attention":
        return max(1.0, group.kv_heads / tp) * (group.head_dim + (group.value_dim or group.head_dim)) * kv_bits / 8
    return 0.0


def _index_bytes(group: LayerGroup) -> float:
    return group.index_dim * group.index_bits / 8


def _state_bytes(group: LayerGroup, kv_bits: int, tp: int) -> float:
    """Recurrences divide by heads; what latent attention keeps besides is the same on every accelerator."""
    narrow = group.state_elements - group.float32_state_elements
    bits = max(16, kv_bits)  # engines do not quantise states when they quantise keys and values
    shards = 1 if group.mixer == "latent" else tp
    return (narrow * bits / 8 + group.float32_state_elements * 4) / shards


def _check(kv_bits: int, tp: int) -> None:
    if kv_bits not in KV_BITS:
        raise InputError(f"kv_bits = {kv_bits}: keys and values are kept in {', '.join(map(str, KV_BITS))} bits")
    if tp < 1:
        raise InputError(f"tp = {tp}: a model is on at least 1 accelerator")
