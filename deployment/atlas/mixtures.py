"""Readers of mixtures of experts with grouped-query attention: Mixtral, Qwen, OLMoE, gpt-oss, Llama 4, MiniMax-M2.

Every reader says where the experts are, how wide they are and what runs beside them; attention is `dense.gqa`. The
router counts with what every token uses.
"""

from deployment.atlas.dense import Traits, gqa, windows
from deployment.atlas.fields import Fields
from deployment.atlas.layers import Experts, Layer, assembled, gated_mlp
from deployment.model import Model


def read_mixtral(fields: Fields) -> Model:
    """Mixtral (arXiv 2401.04088): every layer is a mixture."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    experts = routed(fields, "num_local_experts", hidden, fields.positive("intermediate_size"))
    return assembled(fields, [mixed(fields, Traits(), window, experts) for window in windows(fields, count, "all")])


def read_qwen_moe(fields: Fields) -> Model:
    """Qwen2-MoE, Qwen3-MoE and OLMoE (arXiv 2409.02060); some layers may be dense."""
    family = fields.text("model_type")
    traits = Traits(bias_field="attention_bias", qk_norm="full" if family == "olmoe" else "head")
    if family == "qwen2_moe":
        traits = Traits(qkv_bias=fields.flag("qkv_bias", True))
    else:
        fields.flag("qkv_bias", False)
    hidden, inner = fields.positive("hidden_size"), fields.positive("intermediate_size")
    experts = routed(
        fields,
        "num_experts",
        hidden,
        inner if family == "olmoe" else fields.positive("moe_intermediate_size"),
        shared=_shared_of_qwen(fields, family, hidden),
    )
    layers = []
    for index, window in enumerate(windows(fields, fields.positive("num_hidden_layers"), "late")):
        mlp = experts if _is_sparse(fields, index) else gated_mlp(hidden, inner)
        layers.append(mixed(fields, traits, window, mlp))
    return assembled(fields, layers)


def _shared_of_qwen(fields: Fields, family: str, hidden: int) -> int:
    """The shared expert with its gate: Qwen2-MoE has one."""
    width = fields.integer("shared_expert_intermediate_size", 0)
    if width and family != "qwen2_moe":
        raise fields.refuse("shared_expert_intermediate_size", f"= {width} is not known for {family}")
    return gated_mlp(hidden, width) + hidden if width else 0


def _is_sparse(fields: Fields, index: int) -> bool:
    dense = fields.config.get("mlp_only_layers") or []
    fields.read.add("mlp_only_layers")
    if not isinstance(dense, list):
        raise fields.refuse("mlp_only_layers", "is not a list")
    return index not in dense and (index + 1) % fields.positive("decoder_sparse_step", 1) == 0


def read_gpt_oss(fields: Fields) -> Model:
    """gpt-oss (arXiv 2508.10925): biases everywhere, attention sinks, every other layer with a window."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    inner, number = fields.positive("intermediate_size"), fields.positive("num_local_experts")
    experts = Experts(
        always=(hidden + 1) * number,
        each=gated_mlp(hidden, inner, bias=True),
        count=number,
        active=fields.positive("num_experts_per_tok"),
    )
    fields.read.add("experts_per_token")  # the same under another name
    bias = fields.flag("attention_bias", True)
    traits = Traits(qkv_bias=bias, out_bias=bias, head_dim=64)
    sinks = fields.positive("num_attention_heads")
    return assembled(fields, [mixed(fields, traits, w, experts, sinks) for w in windows(fields, count, "every", 2)])


def read_llama4(fields: Fields) -> Model:
    """Llama 4: attention in chunks but in every fourth layer; a mixture in every layer or in every other one."""
    hidden, inner = fields.positive("hidden_size"), fields.positive("intermediate_size")
    count, step = fields.positive("num_hidden_layers"), fields.positive("interleave_moe_layer_step")
    experts = routed(fields, "num_local_experts", hidden, inner, shared=gated_mlp(hidden, inner))
    dense = gated_mlp(hidden, fields.positive("intermediate_size_mlp"))
    fields.flag("use_qk_norm", True)  # that norm has no weights
    if fields.config.get("moe_layers") not in (None, [], [*range(step - 1, count, step)]):
        raise fields.refuse("moe_layers", f"disagrees with interleave_moe_layer_step = {step}")
    fields.read.add("moe_layers")
    layers = [
        mixed(fields, Traits(bias_field="attention_bias"), window, experts if number % step == 0 else dense)
        for number, window in enumerate(_chunks(fields, count), 1)
    ]
    return assembled(fields, layers)


def _chunks(fields: Fields, count: int) -> list[int | None]:
    """The chunk that each layer attends within; None: to all, as every fourth in both released models."""
    chunk = fields.positive("attention_chunk_size")
    if "layer_types" in fields:
        kinds = fields.items("layer_types", count, allowed=("chunked_attention", "full_attention"))
        return [chunk if kind == "chunked_attention" else None for kind in kinds]
    every = fields.positive("no_rope_layer_interval", 4)
    return [chunk if number % every else None for number in range(1, count + 1)]


def read_minimax_m2(fields: Fields) -> Model:
    """MiniMax-M2: full attention with norms over all heads, every layer a mixture. Its MTP modules are left out."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    if "attn_type_list" in fields:
        fields.items("attn_type_list", count, allowed=(1,))
    if fields.integer("shared_intermediate_size", 0):
        raise fields.refuse("shared_intermediate_size", "is not known for MiniMax-M2")
    if fields.text("qk_norm_type", "per_layer") != "per_layer" or not fields.flag("use_qk_norm", True):
        raise fields.refuse("qk_norm_type", "is not per_layer, as it is in every MiniMax-M2 that the physics knows")
    experts = routed(fields, "num_local_experts", hidden, fields.positive("intermediate_size"))
    return assembled(
        fields, [mixed(fields, Traits(qk_norm="full"), window, experts) for window in windows(fields, count, "")]
    )


def routed(fields: Fields, key: str, hidden: int, inner: int, *, shared: int = 0, active_key: str = "") -> Experts:
    """The usual mixture: a linear router, gated experts of width `inner`, and `shared` parameters beside them.

    `key`: the field with the number of experts.
    """
    number, active = fields.positive(key), fields.positive(active_key or "num_experts_per_tok")
    if active > number:
        raise fields.refuse(active_key or "num_experts_per_tok", f"= {active} is more than {key} = {number}")
    return Experts(always=hidden * number + shared, each=gated_mlp(hidden, inner), count=number, active=active)


def mixed(fields: Fields, traits: Traits, window: int | None, mlp: int | Experts, small: int = 0) -> Layer:
    """A layer of grouped-query attention with two norms, and a mixture or a dense MLP."""
    return gqa(fields, traits, window).followed_by(mlp, 2 * fields.positive("hidden_size") + small)
