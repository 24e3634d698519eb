"""Which models the phases can work on, and where such a model keeps its parts.

Most need a Llama-, Qwen- or Mistral-style decoder of transformers (`check_decoder`). What only reads hidden states and
applies the head (language modelling, measuring, quantisation) takes any causal language model whose logits are the
head of its last hidden state (`check_head`).
"""

from typing import Any

import torch

from phases.dataset import Dataset
from phases.errors import CheckpointError


def check_decoder(model: Any, where: str) -> None:
    """Raise `CheckpointError` unless the model is a Llama-, Qwen- or Mistral-style decoder."""
    inner = getattr(model, "model", None)
    parts = [name for name in ("embed_tokens", "layers", "norm") if not hasattr(inner, name)]
    parts += [] if hasattr(model, "lm_head") else ["lm_head"]
    if parts:
        raise CheckpointError(
            f"{where}: {type(model).__name__} is not a Llama-, Qwen- or Mistral-style decoder (no {', '.join(parts)}); "
            "give one that is"
        )


def check_vocabulary(model: Any, tokenizer: Any, data: Dataset, where: str) -> None:
    """Raise `CheckpointError` unless the model and its tokenizer hold the tokens that the data was prepared with."""
    held = data.tokenizer.get_vocab().items() <= tokenizer.get_vocab().items()
    if data.vocabulary > model.config.vocab_size or not held:
        raise CheckpointError(
            f"{where}: its tokenizer is not the one that {data.path} was prepared with; prepare the data with "
            "this model as cognate.base, or give a checkpoint of the run that the data belongs to"
        )


def check_head(model: Any, where: str) -> None:
    """Raise `CheckpointError` unless the logits are `hidden · headᵀ` and nothing more, after a norm after the layers.

    Losses are computed straight from hidden states; a bias, a scale or a soft cap of the logits would be left out.
    """
    final_norm(model), decoder_layers(model)
    head = model.get_output_embeddings()
    tokens = torch.arange(4, device=model.device).unsqueeze(0)
    plain = isinstance(head, torch.nn.Linear) and head.bias is None
    # At the small logits of four tokens a cap would not show.
    plain = plain and not getattr(model.config, "final_logit_softcapping", None)
    with torch.no_grad():
        hidden_BTD = model.base_model(tokens).last_hidden_state
        # What is not a number is found, and named, by whoever trains or measures.
        same = plain and torch.allclose(
            model(tokens).logits, hidden_BTD @ head.weight.T, rtol=1e-3, atol=1e-3, equal_nan=True
        )
    if not same:
        raise CheckpointError(
            f"{where}: the logits of {type(model).__name__} are more than its head's (a bias, a scale or a soft cap); "
            "give a model without, such as a Llama, Qwen, Mistral or GPT-NeoX"
        )


def decoder_layers(model: Any) -> torch.nn.ModuleList:
    """The stack of decoder layers of a causal language model, in order."""
    count = model.config.num_hidden_layers
    stacks = [m for m in model.base_model.children() if isinstance(m, torch.nn.ModuleList) and len(m) >= count]
    if len(stacks) != 1:
        raise CheckpointError(f"{type(model).__name__}: no stack of {count} layers; give a plain decoder")
    return stacks[0]


def layer_output(output: Any) -> torch.Tensor:
    """(B, T, D) hidden states that a decoder layer returned, alone or at the head of a tuple."""
    hidden_BTD: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return hidden_BTD


def final_norm(model: Any) -> Any:
    """The norm between the last layer and the head."""
    body = model.base_model
    names = [name for name in ("norm", "final_layer_norm", "final_layernorm", "ln_f") if hasattr(body, name)]
    if not names:
        raise CheckpointError(f"{type(model).__name__}: no norm after its layers; give a plain decoder")
    return getattr(body, names[0])
