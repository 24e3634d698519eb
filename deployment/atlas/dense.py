"""Readers of dense models with grouped-query attention: Llama, Mistral, Qwen, Phi, Olmo, Granite, Cohere and the like.

They differ in biases, norms, windows and defaults, so that a row of traits describes each; the traits are those of
the modules in transformers 5. Families whose layers differ among themselves have a reader of their own.
"""

from dataclasses import dataclass
from typing import Literal

from deployment.atlas.fields import Fields
from deployment.atlas.layers import Layer, assembled, attention, check_heads, gated_mlp, head_dim, plain_mlp
from deployment.model import LayerGroup, Model

LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True, slots=True)
class Traits:
    """What sets a family apart from Llama."""

    qkv_bias: bool = False
    out_bias: bool = False
    bias_field: str = ""
    """Field that switches the biases on, in place of the two above."""
    bias_field_is_for: Literal["all", "qkv"] = "all"
    mlp_bias_field: str = ""
    norms: int = 2
    """Norms of a layer, each of `hidden` parameters (or twice that, with a bias)."""
    norm_bias: bool = False
    qk_norm: Literal["", "head", "full"] = ""
    """Norms of queries and keys: one head's size, or all heads'."""
    tied: bool = False
    """Whether embeddings are tied where the config does not say."""
    head_dim: int | None = None
    """Where the config does not say; None: hidden / heads."""
    window: Literal["", "all", "late", "every"] = ""
    """Layers with `sliding_window`: none; all; those from `max_window_layers` on; all but every `period`-th."""
    period: int = 0
    gated: bool = True


FAMILIES = {
    "llama": Traits(bias_field="attention_bias", mlp_bias_field="mlp_bias"),
    "mistral": Traits(window="all"),
    "ministral3": Traits(window="all", head_dim=128),
    "qwen2": Traits(qkv_bias=True, window="late"),
    "qwen2_5_vl_text": Traits(qkv_bias=True, window="late"),
    "qwen3": Traits(bias_field="attention_bias", qk_norm="head", head_dim=128, window="late"),
    "qwen3_vl_text": Traits(bias_field="attention_bias", qk_norm="head", head_dim=128),
    "mimo": Traits(bias_field="attention_bias", bias_field_is_for="qkv", window="late"),
    "phi3": Traits(window="all"),
    "gemma": Traits(bias_field="attention_bias", tied=True, head_dim=256),
    "gemma2": Traits(bias_field="attention_bias", norms=4, tied=True, head_dim=256, window="every", period=2),
    "gemma3_text": Traits(
        bias_field="attention_bias", norms=4, qk_norm="head", tied=True, head_dim=256, window="every", period=6
    ),
    "olmo2": Traits(bias_field="attention_bias", qk_norm="full"),
    "olmo3": Traits(bias_field="attention_bias", qk_norm="full", window="every", period=4),
    "granite": Traits(bias_field="attention_bias", mlp_bias_field="mlp_bias"),
    "smollm3": Traits(bias_field="attention_bias", mlp_bias_field="mlp_bias", tied=True),
    "cohere": Traits(bias_field="attention_bias", norms=1, tied=True),
    "cohere2": Traits(bias_field="attention_bias", norms=1, tied=True, window="every", period=4),
    "glm4": Traits(bias_field="attention_bias", bias_field_is_for="qkv", norms=4, head_dim=128),
    "seed_oss": Traits(bias_field="attention_bias", bias_field_is_for="qkv", mlp_bias_field="mlp_bias", head_dim=128),
    "starcoder2": Traits(bias_field="use_bias", mlp_bias_field="use_bias", norm_bias=True, tied=True, gated=False),
}
# Families whose `bias_field` is on where the config does not say.
_BIAS_BY_DEFAULT = ("glm4", "seed_oss", "starcoder2")


def read_dense(fields: Fields) -> Model:
    """A dense model of one of the `FAMILIES`."""
    family = fields.text("model_type")
    traits = FAMILIES[family]
    layers = [
        _layer(fields, traits, window)
        for window in windows(fields, fields.positive("num_hidden_layers"), traits.window, traits.period)
    ]
    hidden = fields.positive("hidden_size")
    return assembled(fields, layers, final_norm=hidden * (1 + traits.norm_bias), tied_by_default=traits.tied)


def _layer(fields: Fields, traits: Traits, window: int | None) -> Layer:
    hidden, inner = fields.positive("hidden_size"), fields.positive("intermediate_size")
    bias = bool(traits.mlp_bias_field) and _bias(fields, traits.mlp_bias_field)
    mlp = (gated_mlp if traits.gated else plain_mlp)(hidden, inner, bias=bias)
    return gqa(fields, traits, window).followed_by(mlp, traits.norms * hidden * (1 + traits.norm_bias))


def gqa(fields: Fields, traits: Traits, window: int | None, gate: int = 0) -> Layer:
    """A layer of grouped-query attention, still without its MLP and the layer's own norms."""
    hidden, heads = fields.positive("hidden_size"), fields.positive("num_attention_heads")
    kv_heads, dim = fields.positive("num_key_value_heads", heads), head_dim(fields, traits.head_dim)
    check_heads(fields, heads, kv_heads)
    qkv_bias, out_bias = _biases(fields, traits)
    group = LayerGroup(
        count=1,
        mixer="attention",
        mixer_parameters=attention(hidden, heads, kv_heads, dim, qkv_bias=qkv_bias, out_bias=out_bias, gate=gate),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        window=window,
    )
    return Layer(group, {"": 0, "head": 2 * dim, "full": (heads + kv_heads) * dim}[traits.qk_norm])


def _biases(fields: Fields, traits: Traits) -> tuple[bool, bool]:
    """Whether queries, keys and values have a bias, and whether the output projection has."""
    if not traits.bias_field:
        return traits.qkv_bias, traits.out_bias
    on = _bias(fields, traits.bias_field)
    return on, (on and traits.bias_field_is_for == "all") or fields.flag("attention_out_bias", False)


def _bias(fields: Fields, key: str) -> bool:
    return fields.flag(key, key != "mlp_bias" and fields.text("model_type") in _BIAS_BY_DEFAULT)


def windows(fields: Fields, count: int, rule: str, period: int = 0) -> list[int | None]:
    """The window of each layer, None for none: `layer_types` where the config has them, else the family's rule."""
    if "layer_types" in fields:
        kinds = fields.items("layer_types", count, allowed=LAYER_TYPES)
        fields.read.update(("sliding_window", "sliding_window_pattern", "_sliding_window_pattern"))  # said in full
        return [fields.positive("sliding_window") if kind == "sliding_attention" else None for kind in kinds]
    if rule == "late" and not fields.flag("use_sliding_window", False):
        fields.read.add("sliding_window")
        return [None] * count
    if rule and "sliding_window" not in fields.config:
        raise fields.refuse("sliding_window", "is missing; null says that there is none")
    if not rule or "sliding_window" not in fields:
        return [None] * count
    window = fields.positive("sliding_window")
    if rule == "late":
        first = fields.integer("max_window_layers")
        return [window if layer >= first else None for layer in range(count)]
    if rule == "every":
        written = "_sliding_window_pattern" if "_sliding_window_pattern" in fields else "sliding_window_pattern"
        every = fields.positive(written, period)
        return [window if (layer + 1) % every else None for layer in range(count)]
    return [window] * count


def read_block_configs(fields: Fields) -> Model:
    """Nemotron-NAS (DeciLM): each layer has its own KV heads and MLP width, or neither (Puzzle, arXiv 2411.19146)."""
    hidden, heads = fields.positive("hidden_size"), fields.positive("num_attention_heads")
    for field in ("intermediate_size", "num_key_value_heads"):
        if field in fields:
            raise fields.refuse(field, "is given for the whole model, where block_configs say it for each layer")
    layers = []
    for index, block in enumerate(fields.items("block_configs", fields.positive("num_hidden_layers"))):
        one = Fields({f"block_configs[{index}]": block}, fields.name).nested(f"block_configs[{index}]")
        layers.append(_nas_layer(one, hidden, heads, head_dim(fields)))
    return assembled(fields, layers)


def _nas_layer(block: Fields, hidden: int, heads: int, dim: int) -> Layer:
    mixer, feed = block.nested("attention"), block.nested("ffn")
    for part in (mixer, feed):
        if part.flag("replace_with_linear", False):
            raise part.refuse("replace_with_linear", "is true, which the physics does not know")
    dense = small = 0
    if not feed.flag("no_op", False):
        multiple = feed.config.get("ffn_mult")
        if not isinstance(multiple, int | float) or multiple <= 0:
            raise feed.refuse("ffn_mult", f"= {multiple!r} is not a positive number")
        inner = -(-int(2 * multiple * hidden / 3) // 256) * 256  # rounded up, as its own code does
        dense, small = gated_mlp(hidden, inner), hidden
    if mixer.flag("no_op", False):
        return Layer(LayerGroup(count=1, mixer="none", mixer_parameters=0, dense_parameters=dense), small)
    kv_heads = heads // mixer.positive("n_heads_in_group")
    window = mixer.positive("window_length") if "window_length" in mixer else None
    group = LayerGroup(
        count=1,
        mixer="attention",
        mixer_parameters=attention(hidden, heads, kv_heads, dim),
        dense_parameters=dense,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        window=window,
    )
    return Layer(group, small + hidden)
