"""Readers of mixtures whose layers follow a pattern of their own: MiniMax-M3, MiMo-V2-Flash, Step-3.7, GLM-4.5.

Which layers are dense, which look back through a window and which through a sparse-attention indexer is a list in the
config; keys and values may have different sizes, and windowed layers heads of their own.
"""

from dataclasses import replace

from deployment.atlas.dense import LAYER_TYPES, Traits, gqa
from deployment.atlas.fields import Fields
from deployment.atlas.layers import Layer, assembled, check_heads, gated_mlp
from deployment.atlas.mixtures import routed
from deployment.model import LayerGroup, Model


def read_minimax_m3(fields: Fields) -> Model:
    """MiniMax-M3 (arXiv 2606.13392): grouped-query attention, sparse by blocks in most layers.

    Its indexer keeps one key of `sparse_index_dim` per token and layer, in the type of the model (vLLM's
    MiniMaxM3IndexerCache and SGLang's pool), on every accelerator.
    """
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    if fields.text("qk_norm_type", "per_head") != "per_head" or not fields.flag("use_qk_norm", True):
        raise fields.refuse("qk_norm_type", "is not per_head, as it is in the MiniMax-M3 that the physics knows")
    fields.flag("attention_output_gate", False)
    shared = fields.positive("n_shared_experts") * gated_mlp(hidden, fields.positive("shared_intermediate_size"))
    width = fields.positive("moe_intermediate_size", fields.positive("intermediate_size"))
    experts = routed(fields, "num_local_experts", hidden, width, shared=shared)
    dense = gated_mlp(hidden, fields.positive("dense_intermediate_size"))
    sparse = fields.nested("sparse_attention_config")
    indexed = sparse.items("sparse_attention_freq", count, allowed=(0, 1))
    without_values = sparse.items("sparse_disable_index_value", count, allowed=(0, 1))
    if without_values != indexed:
        raise sparse.refuse("sparse_disable_index_value", "keeps index values in some layer, which is not known")
    plain = gqa(fields, Traits(qk_norm="head"), None)
    index_dim, index_heads = sparse.positive("sparse_index_dim"), sparse.positive("sparse_num_index_heads")
    layers = []
    for is_indexed, is_mixture in zip(indexed, fields.items("moe_layer_freq", count, allowed=(0, 1)), strict=True):
        layer = _indexed(plain, hidden, index_dim, index_heads) if is_indexed else plain
        layers.append(layer.followed_by(experts if is_mixture else dense, 2 * hidden))
    fields.integer("first_k_dense_replace", 0)  # says once more what moe_layer_freq says
    return assembled(fields, layers)


def _indexed(plain: Layer, hidden: int, dim: int, heads: int) -> Layer:
    parameters = hidden * dim * (heads + 1)
    group = replace(
        plain.group,
        mixer_parameters=plain.group.mixer_parameters + parameters,
        replicated_parameters=hidden * dim,  # the key's projection; the queries' divide by heads
        index_dim=dim,
        index_bits=16.0,
    )
    return Layer(group, plain.small + 2 * dim)


def read_mimo_v2(fields: Fields) -> Model:
    """MiMo-V2-Flash: keys of 192 and values of 128; windowed layers have KV heads of their own, and sinks."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    if fields.flag("attention_bias", False):
        raise fields.refuse("attention_bias", "is true, which the physics does not know for MiMo-V2")
    if fields.integer("n_shared_experts", 0):
        raise fields.refuse("n_shared_experts", "is not 0, which the physics does not know for MiMo-V2")
    experts = routed(fields, "n_routed_experts", hidden, fields.positive("moe_intermediate_size"))
    dense = gated_mlp(hidden, fields.positive("intermediate_size"))
    window = fields.positive("sliding_window")
    for same in ("sliding_window_size", "attention_chunk_size"):
        if fields.positive(same, window) != window:
            raise fields.refuse(same, f"differs from sliding_window = {window}")
    sinks = fields.flag("add_swa_attention_sink_bias", True)
    everywhere, windowed = _mimo_attention(fields, "", None), _mimo_attention(fields, "swa_", window)
    windowed = Layer(windowed.group, windowed.group.heads * sinks)
    kinds = fields.items("hybrid_layer_pattern", count, allowed=(0, 1))
    layers = [
        (windowed if kind else everywhere).followed_by(experts if mixture else dense, 2 * hidden)
        for kind, mixture in zip(kinds, fields.items("moe_layer_freq", count, allowed=(0, 1)), strict=True)
    ]
    return assembled(fields, layers)


def _mimo_attention(fields: Fields, prefix: str, window: int | None) -> Layer:
    hidden, heads = fields.positive("hidden_size"), fields.positive(f"{prefix}num_attention_heads")
    kv_heads = fields.positive(f"{prefix}num_key_value_heads")
    dim, value_dim = fields.positive(f"{prefix}head_dim"), fields.positive(f"{prefix}v_head_dim")
    check_heads(fields, heads, kv_heads, f"{prefix}num_key_value_heads")
    group = LayerGroup(
        count=1,
        mixer="attention",
        mixer_parameters=hidden * (heads + kv_heads) * (dim + value_dim),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        value_dim=value_dim,
        window=window,
    )
    return Layer(group)


def read_step(fields: Fields) -> Model:
    """Step-3.5 and 3.7 Flash: one gate per head, three windowed layers to one that sees everything."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    shared = fields.positive("n_shared_experts", 1) * gated_mlp(hidden, fields.positive("share_expert_dim"))
    key = "n_routed_experts" if "n_routed_experts" in fields else "num_experts"
    experts = routed(fields, key, hidden, fields.positive("moe_intermediate_size"), shared=shared)
    dense, first = gated_mlp(hidden, fields.positive("intermediate_size")), fields.integer("first_k_dense_replace")
    if "num_sliding_attention_heads" in fields or "attention_other_setting" in fields:
        raise fields.refuse("num_sliding_attention_heads", "gives windowed layers heads of their own: not known")
    traits = Traits(bias_field="attention_bias", qk_norm="head")
    gate, window = fields.positive("num_attention_heads"), fields.positive("sliding_window")
    layers = []
    for index, kind in enumerate(fields.items("layer_types", count, allowed=LAYER_TYPES)):
        layer = gqa(fields, traits, window if kind == "sliding_attention" else None, gate)
        layers.append(layer.followed_by(dense if index < first else experts, 2 * hidden))
    return assembled(fields, layers)


def read_glm4_moe(fields: Fields) -> Model:
    """GLM-4.5 and 4.6 (arXiv 2508.06471): grouped-query attention, the first layers dense, one shared expert."""
    hidden, width = fields.positive("hidden_size"), fields.positive("moe_intermediate_size")
    shared = fields.positive("n_shared_experts") * gated_mlp(hidden, width)
    experts = routed(fields, "n_routed_experts", hidden, width, shared=shared)
    dense, first = gated_mlp(hidden, fields.positive("intermediate_size")), fields.integer("first_k_dense_replace")
    qk_norm = "head" if fields.flag("use_qk_norm", False) else ""
    bias = fields.flag("attention_bias", False)
    layer = gqa(fields, Traits(qkv_bias=bias, qk_norm="head" if qk_norm else ""), None)
    layers = [
        layer.followed_by(dense if index < first else experts, 2 * hidden)
        for index in range(fields.positive("num_hidden_layers"))
    ]
    return assembled(fields, layers)
