"""Reader of Gemma 4: windows with heads of their own, keys that are values too, layers that share a cache, mixtures.

In full-attention layers with `attention_k_eq_v` values come from the keys' projection; they are normed on their own
and without rotation, so that both are kept all the same. The last `num_kv_shared_layers` read what earlier layers
keep. Per-layer embeddings are tables that are looked up, not multiplied: loaded, but not used by a step.
"""

from deployment.atlas.dense import LAYER_TYPES
from deployment.atlas.fields import Fields
from deployment.atlas.layers import Experts, Layer, assembled, check_heads, gated_mlp
from deployment.model import LayerGroup, Model


def read_gemma4(fields: Fields) -> Model:
    """Gemma 4, dense (31B, E2B, E4B) or with a mixture beside the dense MLP (26B-A4B)."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    inner, shared = fields.positive("intermediate_size"), fields.integer("num_kv_shared_layers", 0)
    wide = fields.flag("use_double_wide_mlp", False)
    if fields.flag("attention_bias", False):
        raise fields.refuse("attention_bias", "is true, which the physics does not know for Gemma 4")
    per_layer = fields.integer("hidden_size_per_layer_input", 256)
    extra, small = 2 * hidden * per_layer, hidden * (5 if per_layer else 4)
    layers = []
    for index, kind in enumerate(fields.items("layer_types", count, allowed=LAYER_TYPES)):
        shares = index >= count - shared
        layer = _attention(fields, is_full=kind == "full_attention", shares=shares)
        dense = gated_mlp(hidden, inner * (2 if wide and shares else 1)) + extra
        layers.append(layer.followed_by(*_mlp(fields, hidden, dense, small)))
    table = fields.positive("vocab_size_per_layer_input", 262144) * count * per_layer
    projected = (hidden * count + 1) * per_layer
    return assembled(fields, layers, final_norm=hidden + projected, tied_by_default=True, other=table)


def _mlp(fields: Fields, hidden: int, dense: int, small: int) -> tuple[int | Experts, int]:
    """The dense MLP, and with `enable_moe_block` a mixture beside it with three norms and a router's scales."""
    for unused in ("num_experts", "top_k_experts", "moe_intermediate_size"):
        fields.read.add(unused)
    if not fields.flag("enable_moe_block", False):
        return dense, small
    number = fields.positive("num_experts")
    each = gated_mlp(hidden, fields.positive("moe_intermediate_size"))
    experts = Experts(dense + hidden * number, each, number, fields.positive("top_k_experts"))
    return experts, small + 3 * hidden + hidden + number


def _attention(fields: Fields, *, is_full: bool, shares: bool) -> Layer:
    hidden, heads = fields.positive("hidden_size"), fields.positive("num_attention_heads")
    kv_heads, dim = fields.positive("num_key_value_heads"), fields.positive("head_dim", 256)
    wide, few = fields.positive("global_head_dim", dim), fields.positive("num_global_key_value_heads", kv_heads)
    window: int | None = fields.positive("sliding_window")
    same = fields.flag("attention_k_eq_v", False) and is_full
    if is_full:
        dim, window = wide, None
    if same:
        kv_heads = few
    check_heads(fields, heads, kv_heads)
    projections = (2 * heads + (0 if shares else kv_heads * (1 if same else 2))) * dim
    group = LayerGroup(
        count=1,
        mixer="attention",
        mixer_parameters=hidden * projections,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        window=window,
        shared_cache=shares,
    )
    return Layer(group, dim * (1 if shares else 2))
