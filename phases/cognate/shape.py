"""Model shapes: standard Llama (RMSNorm, RoPE, SwiGLU, grouped-query attention, tied embeddings).

`embedded` is the default of a machine without a GPU, `25m` the hardware-friendly full size (every dimension a
multiple of 128), `25m-exact` has 25,083,528 parameters at a vocabulary of 32,000. The exact one needs biases and
dimensions (336, 733) that no kernel likes; it exists because the number was asked for, and is not the default.
"""

from typing import Any, Literal

from pydantic import Field
from transformers import LlamaConfig

from phases.errors import ConfigError
from phases.strict import StrictModel

Preset = Literal["embedded", "25m", "25m-exact"]


class Shape(StrictModel):
    """The dimensions of a Llama model, less its vocabulary."""

    hidden: int = Field(128, ge=8)
    """Width D."""
    layers: int = Field(4, ge=2)
    """Decoder layers L."""
    heads: int = Field(4, ge=1)
    """Query heads."""
    kv_heads: int = Field(2, ge=1)
    """Key and value heads; must divide the query heads."""
    intermediate: int = Field(352, ge=8)
    """Width of the SwiGLU feed-forward."""
    bias: bool = False
    """Biases on attention and feed-forward."""
    context: int = Field(1024, ge=32)
    """Longest sequence in tokens."""
    rope_theta: float = Field(10_000.0, gt=0)
    """Base of the rotary position frequencies."""


PRESETS: dict[Preset, Shape] = {
    "embedded": Shape(),
    "25m": Shape(hidden=384, layers=8, heads=6, kv_heads=2, intermediate=1024, context=2048),
    "25m-exact": Shape(hidden=336, layers=12, heads=7, kv_heads=7, intermediate=733, bias=True, context=2048),
}


def llama_config(shape: Shape, vocabulary: int, eos: int) -> LlamaConfig:
    """The HF config. Raises `ConfigError` when heads do not divide the width or KV heads the heads."""
    if shape.hidden % shape.heads or shape.heads % shape.kv_heads:
        raise ConfigError(
            f"cognate.shape: heads ({shape.heads}) must divide hidden ({shape.hidden}), "
            f"and kv_heads ({shape.kv_heads}) must divide heads"
        )
    arguments: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "intermediate_size": shape.intermediate,
        "attention_bias": shape.bias,
        "mlp_bias": shape.bias,
        "max_position_embeddings": shape.context,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "tie_word_embeddings": True,
        "bos_token_id": eos,
        "eos_token_id": eos,
        "pad_token_id": None,
    }
    return LlamaConfig(**arguments)
