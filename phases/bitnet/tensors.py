"""Which tensors of a causal language model become ternary, and which are its embeddings.

Ternary is every linear layer of the body; the output head counts as an embedding, tied to the input's or not. Both have
to be torch's own classes: a subclass (Gemma's scaled embedding) computes something that a packed layer would not.
"""

from typing import Any

from torch import nn

from phases.errors import CheckpointError


def ternary_names(model: Any) -> tuple[str, ...]:
    """State-dict names of the weights of all linear layers but the head.

    Raises `CheckpointError` when the layers hold other matrices (Conv1D, stacked experts): they would stay as they
    are and be counted as if they were not there.
    """
    body = {id(p) for p in model.base_model.parameters()}
    ends = [m for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None]
    special, linear = {id(m.weight) for m in ends}, {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    special |= {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}  # of positions
    named = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) or any(m is end for end in ends)]
    if other := [(name, type(m).__name__) for name, m in named if type(m) not in (nn.Linear, nn.Embedding)]:
        raise CheckpointError(
            f"{type(model).__name__}: {other[0][0]} is a {other[0][1]} and no plain linear layer or embedding; give a "
            "model that has only those (Llama, Qwen, Mistral, Phi-3, GPT-NeoX)"
        )
    matrices = [(n, p) for n, p in model.named_parameters() if p.ndim >= 2 and id(p) not in special]
    unknown = [name for name, p in matrices if id(p) not in linear or id(p) not in body]
    if unknown:
        raise CheckpointError(
            f"{type(model).__name__}: {len(unknown)} of its matrices are not linear layers ({unknown[0]}); "
            "give a model whose layers are (Llama, Qwen, Mistral, Phi-3, GPT-NeoX)"
        )
    return tuple(name for name, _ in matrices)


def embedding_names(model: Any) -> tuple[str, ...]:
    """State-dict names of the input embedding and, where it is not tied to it, the head."""
    special = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None}
    return tuple(name for name, p in model.named_parameters() if id(p) in special)
