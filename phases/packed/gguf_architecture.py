"""What llama.cpp has to know of a model's architecture, in its own terms: names, row order, hyperparameters.

llama.cpp turns neighbouring rows of a head together for Llama and Mistral (arch "llama"), transformers the two
halves (rotary embedding, arXiv 2104.09864): rows of q and k are interleaved on the way out. Qwen's are left alone.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, RopeScalingType, get_tensor_name_map

from phases.errors import CheckpointError

log = logging.getLogger(__name__)

ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
}
_BIASES = {
    MODEL_ARCH.LLAMA: ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    MODEL_ARCH.QWEN2: ("q_proj", "k_proj", "v_proj"),
    MODEL_ARCH.QWEN3: (),
}
"""Biases that llama.cpp adds."""


@dataclass(frozen=True)
class Architecture:
    """A model as llama.cpp sees it."""

    kind: MODEL_ARCH
    config: Any
    """The transformers config."""
    head_dim: int

    @property
    def name(self) -> str:
        """llama.cpp's name."""
        return MODEL_ARCH_NAMES[self.kind]

    def tensor_name(self, name: str, where: str) -> str:
        """GGUF's name of a parameter. Raises `CheckpointError` when llama.cpp would not read it."""
        names = get_tensor_name_map(self.kind, self.config.num_hidden_layers)
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        odd_bias = name.endswith(".bias") and name.split(".")[-2] not in _BIASES[self.kind]
        if found is None or odd_bias:
            raise CheckpointError(
                f"{where}: llama.cpp's {self.name} architecture has no {name}; export a plain model of "
                f"{', '.join(ARCHITECTURES)}"
            )
        return found

    def in_row_order(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A parameter with its rows in llama.cpp's order."""
        heads = {"q_proj": self.config.num_attention_heads, "k_proj": self.config.num_key_value_heads}
        layer = name.split(".")[-2]
        if self.kind is not MODEL_ARCH.LLAMA or layer not in heads:
            return tensor
        halves = tensor.reshape(heads[layer], 2, self.head_dim // 2, *tensor.shape[1:])
        return halves.transpose(1, 2).reshape(tensor.shape)


def architecture_of(model: Any, where: str) -> Architecture:
    """The architecture of a transformers model. Raises `CheckpointError` for one that llama.cpp computes otherwise."""
    config = model.config
    kind = ARCHITECTURES.get(config.model_type)
    if kind is None:
        raise CheckpointError(
            f"{where}: model type {config.model_type!r} has no GGUF export; give one of {', '.join(ARCHITECTURES)}"
        )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if config.hidden_act != "silu":
        raise CheckpointError(f"{where}: llama.cpp computes SiLU in {kind.name.lower()}, not {config.hidden_act}")
    if kind is MODEL_ARCH.QWEN2 and head_dim * config.num_attention_heads != config.hidden_size:
        raise CheckpointError(f"{where}: llama.cpp's qwen2 has heads of hidden size ÷ heads, not {head_dim}")
    rope = config.rope_parameters["rope_type"]
    known = ("default", "linear", "llama3") if kind is MODEL_ARCH.LLAMA else ("default", "linear")
    if rope not in known or config.rope_parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(
            f"{where}: rope_type {rope!r} (or a partial rotation) has no exact GGUF export; "
            f"{kind.name.lower()} can have {', '.join(known)}"
        )
    return Architecture(kind, config, int(head_dim))


def write_hyperparameters(writer: GGUFWriter, architecture: Architecture, where: str) -> None:
    """Add sizes, norms, context and rotary embedding."""
    config, head_dim = architecture.config, architecture.head_dim
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_context_length(context_tokens(config, where))
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])


def context_tokens(config: Any, where: str) -> int:
    """The longest context in which llama.cpp computes what transformers does.

    It has no sliding window in these architectures, so that the window, where there is one, is the end.
    """
    longest = int(config.max_position_embeddings)
    layers = getattr(config, "layer_types", None)
    slides = "sliding_attention" in layers if layers else config.model_type == "mistral"
    window = getattr(config, "sliding_window", None) if slides else None
    if window is None or window >= longest:
        return longest
    log.warning(
        "%s: llama.cpp has no sliding window for %s; the context ends with the window, at %d tokens instead of %d",
        where, config.model_type, window, longest,
    )  # fmt: skip
    return int(window)


def rotary_factors(model: Any) -> npt.NDArray[np.float32] | None:
    """(head_dim / 2,) by which Llama 3's scaling divides every frequency; None for rotary embeddings without it."""
    parameters = model.config.rope_parameters
    if parameters["rope_type"] != "llama3":
        return None
    inverse = model.model.rotary_emb.inv_freq.double()
    exponents = torch.arange(len(inverse), dtype=torch.float64) / len(inverse)
    factors: npt.NDArray[np.float32] = (parameters["rope_theta"] ** -exponents / inverse).float().numpy()
    return factors
