"""Readers of models with a recurrence: gated delta nets (Qwen3-Next, 3.5, 3.6), Kimi delta attention (Kimi Linear, K3).

A gated delta net (arXiv 2412.06464) keeps one matrix per value head, and the last `kernel − 1` inputs of its short
convolution, whatever the length of the sequence. Kimi's variant (arXiv 2510.26692) has a decay per channel; its state
is kept in float32 by vLLM and by its reference. Qwen's follows `mamba_ssm_dtype` of its config.
"""

from dataclasses import replace

from deployment.atlas.dense import Traits, gqa
from deployment.atlas.fields import Fields
from deployment.atlas.latent import latent_attention
from deployment.atlas.layers import Experts, Layer, assembled, gated_mlp
from deployment.atlas.mixtures import routed
from deployment.model import LayerGroup, Model

KINDS = ("linear_attention", "full_attention")


def read_qwen_delta(fields: Fields) -> Model:
    """Qwen3-Next, Qwen3.5 and Qwen3.6, dense or mixtures: three gated delta nets to one gated full attention."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    gate = fields.positive("num_attention_heads") * fields.positive("head_dim", 256)
    if not fields.flag("attn_output_gate", True):
        raise fields.refuse("attn_output_gate", "is false, which the physics does not know")
    full = gqa(fields, Traits(bias_field="attention_bias", qk_norm="head", head_dim=256), None, gate)
    delta, mlp = _gated_delta(fields), _mlp_of_qwen(fields, hidden)
    if "layer_types" in fields:
        kinds = fields.items("layer_types", count, allowed=KINDS)
        fields.read.add("full_attention_interval")
    else:
        every = fields.positive("full_attention_interval", 4)
        kinds = [KINDS[number % every == 0] for number in range(1, count + 1)]
    layers = [(full if kind == "full_attention" else delta).followed_by(mlp, 2 * hidden) for kind in kinds]
    return assembled(fields, layers)


def _mlp_of_qwen(fields: Fields, hidden: int) -> int | Experts:
    if fields.config.get("mlp_only_layers"):
        raise fields.refuse("mlp_only_layers", "is not empty, which the physics does not know for this family")
    fields.read.add("mlp_only_layers")
    if "num_experts" not in fields:
        return gated_mlp(hidden, fields.positive("intermediate_size"))
    fields.read.add("intermediate_size")  # of dense layers, and there are none
    if fields.positive("decoder_sparse_step", 1) != 1:
        raise fields.refuse("decoder_sparse_step", "is not 1, which the physics does not know for this family")
    shared = gated_mlp(hidden, fields.positive("shared_expert_intermediate_size")) + hidden
    return routed(fields, "num_experts", hidden, fields.positive("moe_intermediate_size"), shared=shared)


def _gated_delta(fields: Fields) -> Layer:
    hidden, kernel = fields.positive("hidden_size"), fields.positive("linear_conv_kernel_dim")
    key_dim, value_dim = fields.positive("linear_key_head_dim"), fields.positive("linear_value_head_dim")
    keys = fields.positive("linear_num_key_heads") * key_dim
    value_heads = fields.positive("linear_num_value_heads")
    values = value_heads * value_dim
    convolved = 2 * keys + values
    state = value_heads * key_dim * value_dim
    wide = fields.text("mamba_ssm_dtype", "bfloat16")
    if wide not in ("float32", "bfloat16", "float16"):
        raise fields.refuse("mamba_ssm_dtype", f"= {wide!r} is not known; it knows float32, bfloat16, float16")
    group = LayerGroup(
        count=1,
        mixer="state",
        mixer_parameters=hidden * (convolved + values + 2 * value_heads) + convolved * kernel + values * hidden,
        heads=value_heads,
        head_dim=key_dim,
        value_dim=value_dim,
        state_elements=state + convolved * (kernel - 1),
        float32_state_elements=state if wide == "float32" else 0,
    )
    return Layer(group, 2 * value_heads + value_dim)


def read_kimi_linear(fields: Fields) -> Model:
    """Kimi Linear and Kimi K3: three Kimi delta attentions to one latent attention without positions."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    linear = fields.nested("linear_attn_config")
    heads, dim = linear.positive("num_heads"), linear.positive("head_dim")
    delta = _kimi_delta(hidden, heads, dim, linear)
    full = latent_attention(fields)
    if fields.flag("mla_use_output_gate", False):
        gate = hidden * fields.positive("num_attention_heads") * fields.positive("v_head_dim")
        group = replace(full.group, mixer_parameters=full.group.mixer_parameters + gate)
        full = Layer(group, full.small)
    kinds = _kinds_of_kimi(fields, linear, count)
    experts, small = _latent_experts(fields, hidden)
    dense, first = gated_mlp(hidden, fields.positive("intermediate_size")), fields.integer("first_k_dense_replace")
    # Attention residuals: two queries and two norms of `hidden` per layer, and one of each at the end.
    residual = 4 * hidden if "attn_res_block_size" in fields else 0
    layers = []
    for index, kind in enumerate(kinds):
        mlp, own = (dense, 0) if index < first else (experts, small)
        layers.append((full if kind else delta).followed_by(mlp, 2 * hidden + residual + own))
    return assembled(fields, layers, final_norm=hidden + residual // 2)


def _kinds_of_kimi(fields: Fields, linear: Fields, count: int) -> list[bool]:
    """For each layer whether it is full attention; the config numbers layers from 1."""
    full, delta = linear.config.get("full_attn_layers"), linear.config.get("kda_layers")
    if not isinstance(full, list) or not isinstance(delta, list):
        raise linear.refuse("full_attn_layers", "and kda_layers have to be lists of layers")
    if sorted(full + delta) != list(range(1, count + 1)):
        raise linear.refuse("full_attn_layers", f"and kda_layers do not name each of {count} layers once")
    fields.read.add("num_key_value_heads")
    return [number in full for number in range(1, count + 1)]


def _kimi_delta(hidden: int, heads: int, dim: int, linear: Fields) -> Layer:
    wide, kernel = heads * dim, linear.positive("short_conv_kernel_size")
    forget = hidden * dim + dim * wide
    gate = hidden * wide if linear.flag("use_full_rank_gate", False) else forget
    state = heads * dim * dim
    group = LayerGroup(
        count=1,
        mixer="state",
        mixer_parameters=hidden * (3 * wide + heads) + 3 * wide * kernel + forget + gate + wide * hidden,
        heads=heads,
        head_dim=dim,
        value_dim=dim,
        state_elements=state + 3 * wide * (kernel - 1),
        float32_state_elements=state,
    )
    return Layer(group, wide + heads + dim)


def _latent_experts(fields: Fields, hidden: int) -> tuple[Experts, int]:
    """K3's experts work in a narrower space, with a projection down and one up; and the norm between."""
    width, narrow = fields.positive("moe_intermediate_size"), fields.integer("routed_expert_hidden_size", 0)
    if fields.positive("moe_layer_freq", 1) != 1:
        raise fields.refuse("moe_layer_freq", "is not 1, which the physics does not know")
    shared = gated_mlp(hidden, fields.integer("num_shared_experts", 0) * width)
    experts = routed(fields, "num_experts", hidden, width, shared=shared, active_key="num_experts_per_token")
    if not narrow:
        return experts, 0
    norm = narrow if fields.flag("latent_moe_use_norm", False) else 0
    both_ways = 2 * hidden * narrow
    return Experts(experts.always + both_ways, gated_mlp(narrow, width), experts.count, experts.active), norm
