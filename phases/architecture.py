"""Which models the phases can work on: Llama-, Qwen- and Mistral-style decoders of transformers."""

from typing import Any

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
