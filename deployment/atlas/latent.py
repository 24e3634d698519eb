"""Readers of latent attention: DeepSeek V2, V3, V3.2 and V4, Kimi K2, GLM-5.

MLA keeps one latent and one rotary key per token for all heads (DeepSeek-V2, arXiv 2405.04434). V3.2 and GLM-5 add an
indexer with keys of its own (DeepSeek sparse attention). V4 keeps one vector that is key and value at once: a window
of them, and one for every 4 or 128 tokens behind; each ratio has a state in float32 that the next entry is made from.
"""

from dataclasses import replace

from deployment.atlas.fields import Fields
from deployment.atlas.layers import Layer, assembled, gated_mlp
from deployment.atlas.mixtures import routed
from deployment.model import LayerGroup, Model


def read_deepseek(fields: Fields) -> Model:
    """DeepSeek V2, V3 and V3.2, Kimi K2, GLM-5: the first layers dense, the others mixtures. MTP is left out."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    width = fields.positive("moe_intermediate_size")
    shared = gated_mlp(hidden, fields.integer("n_shared_experts", 0) * width)
    experts = routed(fields, "n_routed_experts", hidden, width, shared=shared)
    if fields.positive("num_experts", experts.count) != experts.count:
        raise fields.refuse("num_experts", f"is not n_routed_experts = {experts.count}")
    if fields.positive("moe_layer_freq", 1) != 1:
        raise fields.refuse("moe_layer_freq", "is not 1, which the physics does not know")
    dense, first = gated_mlp(hidden, fields.positive("intermediate_size")), fields.integer("first_k_dense_replace")
    if "mlp_layer_types" in fields:
        kinds = fields.items("mlp_layer_types", count, allowed=("dense", "sparse"))
        if kinds != ["dense"] * first + ["sparse"] * (count - first):
            raise fields.refuse("mlp_layer_types", f"disagrees with first_k_dense_replace = {first}")
    if "layer_types" in fields:
        fields.items("layer_types", count, allowed=("deepseek_sparse_attention",))
    plain, indexed = latent_attention(fields), _with_indexer(fields)
    layers = [
        (plain if kind == "shared" else indexed).followed_by(dense if index < first else experts, 2 * hidden)
        for index, kind in enumerate(_indexers(fields, count))
    ]
    return assembled(fields, layers)


def latent_attention(fields: Fields) -> Layer:
    """Multi-head latent attention with the norms of its latents."""
    hidden, heads = fields.positive("hidden_size"), fields.positive("num_attention_heads")
    latent, rotary = fields.positive("kv_lora_rank"), fields.integer("qk_rope_head_dim")
    plain, value = fields.positive("qk_nope_head_dim"), fields.positive("v_head_dim")
    if "qk_head_dim" in fields and fields.positive("qk_head_dim") != plain + rotary:
        raise fields.refuse("qk_head_dim", f"is not qk_nope_head_dim + qk_rope_head_dim = {plain + rotary}")
    fields.read.update(("head_dim", "num_key_value_heads"))  # of no effect here; GLM-5 writes 64 or 192 there
    if fields.flag("attention_bias", False):
        raise fields.refuse("attention_bias", "is true, which the physics does not know for latent attention")
    query_rank = fields.integer("q_lora_rank", 0)
    queries = heads * (plain + rotary)
    query = hidden * query_rank + query_rank * queries if query_rank else hidden * queries
    down = hidden * (latent + rotary)
    group = LayerGroup(
        count=1,
        mixer="latent",
        mixer_parameters=query + down + latent * heads * (plain + value) + heads * value * hidden,
        heads=heads,
        kv_heads=1,
        head_dim=plain + rotary,
        value_dim=value,
        latent_dim=latent + rotary,
        replicated_parameters=down + hidden * query_rank,
    )
    return Layer(group, query_rank + latent)


def _with_indexer(fields: Fields) -> Layer:
    """The same with an indexer of sparse attention, where the config has one; the engines hold it whole."""
    layer = latent_attention(fields)
    if "index_head_dim" not in fields:
        return layer
    hidden, dim, heads = (
        fields.positive("hidden_size"),
        fields.positive("index_head_dim"),
        fields.positive("index_n_heads"),
    )
    parameters = fields.positive("q_lora_rank") * heads * dim + hidden * dim + hidden * heads
    latent, rotary = fields.positive("kv_lora_rank"), fields.integer("qk_rope_head_dim")
    group = replace(
        layer.group,
        mixer_parameters=layer.group.mixer_parameters + parameters,
        replicated_parameters=layer.group.replicated_parameters + parameters,
        index_dim=dim,
        latent_fp8_bytes=latent + 4 * (latent // 128) + 2 * rotary,  # vLLM's fp8_ds_mla: 512 + 16 + 128 = 656
    )
    return Layer(group, layer.small + 2 * dim)


def _indexers(fields: Fields, count: int) -> list[object]:
    """For each layer "full" (its own indexer, if there is any) or "shared" (that of an earlier layer)."""
    for field in ("index_topk_pattern", "index_topk_freq"):
        fields.read.add(field)  # `indexer_types` says the same in full
    if "indexer_types" in fields:
        return fields.items("indexer_types", count, allowed=("full", "shared"))
    if "index_topk_pattern" in fields or fields.integer("index_topk_freq", 1) != 1:
        raise fields.refuse("indexer_types", "is missing, though not every layer has an indexer of its own")
    return ["full"] * count


def read_deepseek_v4(fields: Fields) -> Model:
    """DeepSeek-V4: compressed attention and hyper-connections (`deepseek_v4` of transformers, DeepSeek's own code)."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    width, streams = fields.positive("moe_intermediate_size"), fields.positive("hc_mult")
    shared = gated_mlp(hidden, fields.positive("n_shared_experts") * width)
    experts = routed(fields, "n_routed_experts", hidden, width, shared=shared)
    mixing = (2 + streams) * streams
    connection = 2 * (mixing * (streams * hidden + 1) + 3)
    fields.integer("num_hash_layers", 0)  # routed by the token's hash; their experts are like the others
    layers = [
        _compressed(fields, ratio).followed_by(experts, 2 * hidden + connection)
        for ratio in fields.items("compress_ratios", count, allowed=(0, 4, 128))
        if isinstance(ratio, int)
    ]
    head = streams * streams * hidden + streams + 1
    return assembled(fields, layers, final_norm=hidden + head)


def _compressed(fields: Fields, ratio: int) -> Layer:
    hidden, heads, dim = (
        fields.positive("hidden_size"),
        fields.positive("num_attention_heads"),
        fields.positive("head_dim"),
    )
    query_rank, out_rank = fields.positive("q_lora_rank"), fields.positive("o_lora_rank")
    if fields.positive("num_key_value_heads", 1) != 1 or fields.flag("attention_bias", False):
        raise fields.refuse("num_key_value_heads", "is not 1, which the physics does not know for DeepSeek-V4")
    replicated = hidden * (query_rank + dim)
    sharded = heads * dim * (query_rank + out_rank) + fields.positive("o_groups") * out_rank * hidden
    compressor, state, small = _compressor(hidden, dim, ratio)
    index_dim = fields.positive("index_head_dim") if ratio == 4 else 0
    if index_dim:
        index_heads = fields.positive("index_n_heads")
        own, own_state, own_small = _compressor(hidden, index_dim, ratio)
        compressor += own + query_rank * index_heads * index_dim + hidden * index_heads
        state, small = state + own_state, small + own_small
    rotary = fields.positive("qk_rope_head_dim")
    group = LayerGroup(
        count=1,
        mixer="latent",
        mixer_parameters=replicated + sharded + compressor,
        heads=heads,
        kv_heads=1,
        head_dim=dim,
        latent_dim=dim,
        window=fields.positive("sliding_window"),
        compression=ratio or 1,
        index_dim=index_dim,
        # 448 fp8, 64 in bf16 and 8 bytes of scales: 584, as vLLM and SGLang lay it out
        latent_fp8_bytes=dim - rotary + 2 * rotary + (dim - rotary) // 64 + 1,
        state_elements=state,
        float32_state_elements=state,
        replicated_parameters=replicated + compressor,
    )
    return Layer(group, query_rank + dim + heads + small)


def _compressor(hidden: int, dim: int, ratio: int) -> tuple[int, int, int]:
    """Parameters, elements of its state, and small parameters of what makes one entry of `ratio` tokens.

    At ratio 4 windows overlap, so that projections are twice as wide and the state holds two windows.
    """
    if ratio == 0:
        return 0, 0, 0
    overlap = 2 if ratio == 4 else 1
    width = overlap * dim
    return 2 * hidden * width, 2 * overlap * ratio * width, ratio * width + dim
