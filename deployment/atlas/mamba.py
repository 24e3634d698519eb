"""Readers of models with Mamba-2 layers: Nemotron-H and Nemotron 3, Falcon-H1, Granite 4, Mamba-2 itself.

Mamba-2 (arXiv 2405.21060) keeps `heads × head_dim × state` elements and the last `kernel − 1` inputs of its
convolution. Nemotron-H keeps the first part as `mamba_ssm_cache_dtype` says, in float32 where nothing does (vLLM's
`NemotronHForCausalLMConfig`); the others in the model's own type.
"""

from dataclasses import dataclass, replace

from deployment.atlas.dense import Traits, gqa
from deployment.atlas.fields import Fields
from deployment.atlas.layers import Experts, Layer, assembled, gated_mlp, plain_mlp
from deployment.model import LayerGroup, Model

_PATTERN = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Mamba:
    """Sizes of a Mamba-2 mixer."""

    heads: int
    head_dim: int
    groups: int
    state: int
    kernel: int
    conv_bias: bool
    bias: bool
    """Of the projections."""
    norm: bool
    """Whether a gated norm follows the recurrence."""
    float32: bool
    """Whether its state is kept in float32."""

    def layer(self, hidden: int) -> Layer:
        """The mixer alone."""
        inner = self.heads * self.head_dim
        convolved = inner + 2 * self.groups * self.state
        inward = inner + convolved + self.heads
        weights = hidden * (inward + inner) + self.bias * (inward + hidden) + convolved * (self.kernel + self.conv_bias)
        state = inner * self.state
        group = LayerGroup(
            count=1,
            mixer="state",
            mixer_parameters=weights,
            heads=self.heads,
            head_dim=self.head_dim,
            state_elements=state + convolved * (self.kernel - 1),
            float32_state_elements=state if self.float32 else 0,
        )
        return Layer(group, 3 * self.heads + inner * self.norm)


def read_nemotron_h(fields: Fields) -> Model:
    """Nemotron-H (arXiv 2504.03624) and Nemotron 3: each layer is one of Mamba, attention, MLP and mixture."""
    hidden = fields.positive("hidden_size")
    mamba = Mamba(
        heads=fields.positive("mamba_num_heads"),
        head_dim=fields.positive("mamba_head_dim"),
        groups=fields.positive("n_groups"),
        state=fields.positive("ssm_state_size"),
        kernel=fields.positive("conv_kernel"),
        conv_bias=fields.flag("use_conv_bias", True),
        bias=fields.flag("use_bias", False) or fields.flag("mamba_proj_bias", False),
        norm=True,
        float32=_in_float32(fields, "mamba_ssm_cache_dtype"),
    )
    if fields.flag("attention_bias", False) or "sliding_window" in fields:
        raise fields.refuse("attention_bias", "or sliding_window is set, which the physics does not know here")
    dim = fields.positive("attention_head_dim") if "attention_head_dim" in fields else None
    kinds = _nemotron_kinds(fields)
    made = {
        "mamba": mamba.layer(hidden),
        "attention": gqa(fields, Traits(head_dim=dim), None),
        "mlp": _only(plain_mlp(hidden, fields.positive("intermediate_size"), bias=fields.flag("mlp_bias", False))),
    }
    if "moe" in kinds:
        made["moe"] = _only(_nemotron_experts(fields, hidden))
    return assembled(fields, [Layer(made[kind].group, made[kind].small + hidden) for kind in kinds])


def _nemotron_kinds(fields: Fields) -> list[str]:
    if "layers_block_type" in fields:
        listed = fields.config["layers_block_type"]
        count = len(listed) if isinstance(listed, list) else 0
        names = fields.items("layers_block_type", count, allowed=tuple(_PATTERN.values()))
        return [str(name) for name in names]
    pattern = fields.text("hybrid_override_pattern")
    unknown = set(pattern) - set(_PATTERN)
    if unknown:
        known = ", ".join(_PATTERN)
        raise fields.refuse("hybrid_override_pattern", f"has {sorted(unknown)}; the physics knows {known}")
    if len(pattern) != fields.positive("num_hidden_layers"):
        raise fields.refuse("hybrid_override_pattern", f"has {len(pattern)} letters for the layers")
    return [_PATTERN[letter] for letter in pattern]


def _nemotron_experts(fields: Fields, hidden: int) -> Experts:
    """Experts without a gate; with `moe_latent_size` they work in a narrower space, projected down and up."""
    number, narrow = fields.positive("n_routed_experts"), fields.integer("moe_latent_size", 0)
    # the width is that of all shared experts together
    fields.integer("n_shared_experts", 1)
    shared = plain_mlp(hidden, fields.positive("moe_shared_expert_intermediate_size"))
    return Experts(
        always=hidden * number + shared + 2 * hidden * narrow,
        each=plain_mlp(narrow or hidden, fields.positive("moe_intermediate_size")),
        count=number,
        active=fields.positive("num_experts_per_tok"),
    )


def _only(mlp: int | Experts) -> Layer:
    return Layer(LayerGroup(count=1, mixer="none", mixer_parameters=0)).followed_by(mlp)


def _in_float32(fields: Fields, key: str) -> bool:
    kind = fields.text(key, "float32")
    if kind not in _DTYPES:
        raise fields.refuse(key, f"= {kind!r} is not known; the physics knows {', '.join(_DTYPES)}")
    return kind == "float32"


def _mamba_d(fields: Fields, inner: int, *, norm: bool) -> Mamba:
    """The mixer as Falcon and Granite name its fields; heads follow from the inner width."""
    dim = fields.positive("mamba_d_head")
    heads = fields.positive("mamba_n_heads")
    if heads * dim != inner:
        raise fields.refuse("mamba_n_heads", f"× mamba_d_head = {heads * dim} is not the inner width {inner}")
    return Mamba(
        heads=heads,
        head_dim=dim,
        groups=fields.positive("mamba_n_groups"),
        state=fields.positive("mamba_d_state"),
        kernel=fields.positive("mamba_d_conv"),
        conv_bias=fields.flag("mamba_conv_bias", True),
        bias=fields.flag("mamba_proj_bias", False),
        norm=norm,
        float32=False,
    )


def read_falcon_h1(fields: Fields) -> Model:
    """Falcon-H1 (arXiv 2507.22448): attention and Mamba side by side in every layer."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    expand = fields.positive("mamba_expand", 2)
    inner = fields.positive("mamba_d_ssm") if "mamba_d_ssm" in fields else expand * hidden
    if fields.flag("projectors_bias", False) != fields.flag("mamba_proj_bias", False):
        raise fields.refuse("projectors_bias", "differs from mamba_proj_bias, which the physics does not know")
    side = _mamba_d(fields, inner, norm=fields.flag("mamba_rms_norm", False)).layer(hidden)
    layer = gqa(fields, Traits(bias_field="attention_bias"), None)
    both = replace(
        layer.group,
        mixer_parameters=layer.group.mixer_parameters + side.group.mixer_parameters,
        state_elements=side.group.state_elements,
    )
    mlp = gated_mlp(hidden, fields.positive("intermediate_size"), bias=fields.flag("mlp_bias", False))
    fields.read.add("attn_layer_indices")
    return assembled(fields, [Layer(both, side.small).followed_by(mlp, 2 * hidden)] * count)


def read_granite_hybrid(fields: Fields) -> Model:
    """Granite 4: Mamba or attention, then a shared MLP and, in some of them, a mixture."""
    hidden, count = fields.positive("hidden_size"), fields.positive("num_hidden_layers")
    inner = fields.positive("mamba_expand", 2) * hidden
    made = {
        "mamba": _mamba_d(fields, inner, norm=True).layer(hidden),
        "attention": gqa(fields, Traits(bias_field="attention_bias"), None),
    }
    number, shared = (
        fields.integer("num_local_experts", 0),
        gated_mlp(hidden, fields.positive("shared_intermediate_size")),
    )
    each = gated_mlp(hidden, fields.positive("intermediate_size"))
    mlp: int | Experts = shared
    active = fields.integer("num_experts_per_tok", 0)
    if number:
        mlp = Experts(always=hidden * number + shared, each=each, count=number, active=active)
    kinds = fields.items("layer_types", count, allowed=tuple(made))
    layers = [made[str(kind)].followed_by(mlp, 2 * hidden) for kind in kinds]
    return assembled(fields, layers, tied_by_default=False)


def read_mamba2(fields: Fields) -> Model:
    """Mamba-2: nothing but the recurrence; its config has no longest sequence, so that it has to be told."""
    hidden, expand = fields.positive("hidden_size"), fields.positive("expand", 2)
    heads, dim = fields.positive("num_heads"), fields.positive("head_dim")
    if heads * dim != expand * hidden:
        raise fields.refuse("num_heads", f"× head_dim = {heads * dim} is not expand × hidden = {expand * hidden}")
    mixer = Mamba(
        heads=heads,
        head_dim=dim,
        groups=fields.positive("n_groups"),
        state=fields.positive("state_size"),
        kernel=fields.positive("conv_kernel"),
        conv_bias=fields.flag("use_conv_bias", True),
        bias=fields.flag("use_bias", False),
        norm=True,
        float32=False,
    ).layer(hidden)
    layers = [Layer(mixer.group, mixer.small + hidden)] * fields.positive("num_hidden_layers")
    return assembled(fields, layers)
