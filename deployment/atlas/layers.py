"""Building blocks of readers: parameters of projections, and a model put together from one description per layer.

Counts follow the modules of the reference implementations (transformers 5), to the last bias and norm; a test builds
small models of each family there and compares.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from deployment.atlas.fields import Fields
from deployment.model import LayerGroup, Model


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer (a `LayerGroup` of count 1), and its small parameters: norms, sinks and the like, kept in bf16."""

    group: LayerGroup
    small: int = 0

    def followed_by(self, mlp: "int | Experts", small: int = 0) -> "Layer":
        """The same layer with an MLP of so many parameters, or with a mixture of experts."""
        if isinstance(mlp, int):
            return Layer(replace(self.group, dense_parameters=mlp), self.small + small)
        group = replace(
            self.group,
            dense_parameters=mlp.always,
            expert_parameters=mlp.each,
            experts=mlp.count,
            active_experts=mlp.active,
        )
        return Layer(group, self.small + small)


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts in one layer."""

    always: int
    """Parameters that every token uses: router, shared experts."""
    each: int
    """Parameters of one routed expert."""
    count: int
    active: int


def head_dim(fields: Fields, default: int | None = None) -> int:
    """Of keys and queries: as the config says, or hidden / heads where that is whole."""
    if "head_dim" in fields:
        return fields.positive("head_dim")
    if default is not None:
        return default
    hidden, heads = fields.positive("hidden_size"), fields.positive("num_attention_heads")
    if hidden % heads:
        raise fields.refuse("head_dim", f"is missing, and hidden_size {hidden} does not divide by {heads} heads")
    return hidden // heads


def attention(
    hidden: int, heads: int, kv_heads: int, dim: int, *, qkv_bias: bool = False, out_bias: bool = False, gate: int = 0
) -> int:
    """Parameters of grouped-query attention; `gate`: features of an output gate projected from the hidden state."""
    inward = (heads + 2 * kv_heads) * dim
    return hidden * (inward + heads * dim + gate) + inward * qkv_bias + hidden * out_bias


def gated_mlp(hidden: int, inner: int, *, bias: bool = False) -> int:
    """Gate, up and down projections (SwiGLU and its like)."""
    return 3 * hidden * inner + bias * (2 * inner + hidden)


def plain_mlp(hidden: int, inner: int, *, bias: bool = False) -> int:
    """Up and down projections."""
    return 2 * hidden * inner + bias * (inner + hidden)


def check_heads(fields: Fields, heads: int, kv_heads: int, key: str = "num_key_value_heads") -> None:
    """InputError unless heads divide evenly over KV heads."""
    if heads % kv_heads:
        raise fields.refuse(key, f"= {kv_heads} does not divide {heads} attention heads")


def grouped(layers: Iterable[Layer]) -> tuple[tuple[LayerGroup, ...], int]:
    """Like layers counted together, in order of first appearance; and the sum of the small parameters."""
    counts: dict[LayerGroup, int] = {}
    small = 0
    for layer in layers:
        counts[layer.group] = counts.get(layer.group, 0) + 1
        small += layer.small
    return tuple(replace(group, count=count) for group, count in counts.items()), small


def assembled(
    fields: Fields,
    layers: Iterable[Layer],
    *,
    final_norm: int | None = None,
    tied_by_default: bool = False,
    other: int = 0,
) -> Model:
    """The model of these layers; embeddings, head and final norm are read from the usual fields.

    `final_norm`: its parameters where they are not one per hidden element; `other`: loaded, not used by text tokens.
    """
    hidden, vocabulary = fields.positive("hidden_size"), fields.positive("vocab_size")
    groups, small = grouped(layers)
    tables = 1 if fields.flag("tie_word_embeddings", tied_by_default) else 2
    return Model(
        name=fields.name,
        family=fields.text("model_type"),
        layers=groups,
        hidden=hidden,
        vocabulary=vocabulary,
        context=fields.positive("max_position_embeddings"),
        embedding_parameters=tables * hidden * vocabulary + small + (hidden if final_norm is None else final_norm),
        other_parameters=other,
    )
