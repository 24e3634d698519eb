"""What the physics needs to know of a model: its layers, what each keeps per token, and how many weights each has.

A model is a list of groups of like layers, because recent ones mix kinds: full attention with sliding windows, latent
attention, state space. Everything that depends on the kind is a property of the group, so that no formula asks for a
model's name. Counts are of the whole model; sharding is the caller's (`deployment/physics/memory.py`).
"""

from dataclasses import dataclass
from typing import Literal

Mixer = Literal["attention", "latent", "state", "none"]
"""What mixes tokens in a layer: attention over keys and values (MHA, GQA, MQA), latent attention (MLA), a recurrence
with a constant state (Mamba, gated delta, RetNet), or nothing (a layer that is only an MLP)."""


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """`count` layers that are alike. Weights are numbers of parameters of one layer."""

    count: int
    mixer: Mixer
    mixer_parameters: int
    """Projections of attention or of the recurrence, one layer."""
    dense_parameters: int = 0
    """MLP weights that every token uses (dense MLP, shared experts, router), one layer."""
    expert_parameters: int = 0
    """Weights of ONE routed expert; 0 in a dense layer."""
    experts: int = 0
    """Routed experts in the layer."""
    active_experts: int = 0
    """Routed experts that a token uses."""
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    """Of keys; `value_dim` where values differ."""
    value_dim: int = 0
    latent_dim: int = 0
    """Latent attention: what is kept per token, `kv_lora_rank + qk_rope_head_dim` elements."""
    window: int | None = None
    """Tokens that the layer looks back at; None: all of them."""
    compression: int = 1
    """One entry is kept for so many tokens (compressed attention); 1: one each."""
    index_dim: int = 0
    """Elements per token that a sparse-attention indexer keeps besides (DeepSeek sparse attention); 0: none."""
    index_bits: float = 8.25
    """Bits per element of the indexer's keys: fp8 with a float32 scale per 128, as the engines keep them."""
    latent_fp8_bytes: int = 0
    """Latent attention: bytes of one entry in the engines' own 8-bit layout (scales, rotary part in bf16); 0: one
    byte per element."""
    state_elements: int = 0
    """Recurrence: elements kept per sequence whatever its length (state and convolution), one layer."""
    float32_state_elements: int = 0
    """Of `state_elements`, those kept in float32 whatever the type of the keys and values."""
    shared_cache: bool = False
    """Reads the keys and values that an earlier layer keeps, and keeps none itself."""
    replicated_parameters: int = 0
    """Of `mixer_parameters`, those that tensor parallelism does not divide (latent down-projections, the indexer)."""
    mixer_bits: float | None = None
    """Bits per weight of the mixer in the published checkpoint; None: the model's `stored_bits`. So for the others."""
    dense_bits: float | None = None
    expert_bits: float | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """One openly published score of a model."""

    benchmark: str
    score: float
    """In percent."""
    source: str


@dataclass(frozen=True, slots=True)
class Model:
    """An open-weight model (or a forge's agent) as the calculator sees it."""

    name: str
    """Hub id, or the path of a checkpoint."""
    family: str
    """`model_type` of its config.json."""
    layers: tuple[LayerGroup, ...]
    hidden: int
    vocabulary: int
    context: int
    """Tokens that it was made for."""
    embedding_parameters: int
    """Input embeddings, and the head where it is not tied; norms and other small things with them."""
    licence: str = "unknown"
    tasks: tuple[str, ...] = ()
    quality: tuple[Quality, ...] = ()
    source: str = ""
    """Where the figures come from."""
    stored_bits: float = 16.0
    """Bits per weight of the layers in its published checkpoint (fp8: 8, NVFP4: 4.5, …)."""
    embedding_bits: float = 16.0
    """Bits per weight of the embeddings and the head, on average."""
    other_parameters: int = 0
    """Vision towers, multi-token-prediction layers and the like: loaded, not used by a text token."""

    @property
    def parameters(self) -> int:
        """All weights, routed experts in full."""
        body = sum(
            g.count * (g.mixer_parameters + g.dense_parameters + g.experts * g.expert_parameters) for g in self.layers
        )
        return body + self.embedding_parameters + self.other_parameters

    @property
    def active_parameters(self) -> int:
        """Weights that one text token uses, with the head."""
        body = sum(
            g.count * (g.mixer_parameters + g.dense_parameters + g.active_experts * g.expert_parameters)
            for g in self.layers
        )
        return body + self.embedding_parameters

    @property
    def depth(self) -> int:
        """Number of layers."""
        return sum(g.count for g in self.layers)
