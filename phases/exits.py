"""Early exits of any HF decoder: the hidden states after chosen layers, through the final norm.

An exit after layer k is the first k decoder layers, then the model's own final norm (the shared head follows):
the same computation as `generate(assistant_early_exit=k)` of transformers (LayerSkip, arXiv 2404.16710).
"""

from collections.abc import Sequence
from typing import Any

import torch

from phases.architecture import decoder_layers, final_norm, layer_output


def exit_hidden_states(model: Any, tokens_BT: torch.Tensor, depths: Sequence[int]) -> list[torch.Tensor]:
    """[(B, T, D)] normalised hidden states after each depth in `depths` (1 … L), in one pass of the deepest.

    Gradients flow. Raises `ValueError` for a depth outside the model.
    """
    layers = decoder_layers(model)
    if not all(1 <= depth <= len(layers) for depth in depths):
        raise ValueError(f"exit depths {list(depths)} must lie between 1 and {len(layers)}")
    caught: dict[int, torch.Tensor] = {}
    hooks = [
        layers[depth - 1].register_forward_hook(
            lambda module, args, output, depth=depth: caught.__setitem__(depth, layer_output(output))
        )
        for depth in set(depths)
    ]
    config, full = model.config, model.config.num_hidden_layers
    try:
        config.num_hidden_layers = max(depths)
        model.base_model(input_ids=tokens_BT, use_cache=False)
    finally:
        config.num_hidden_layers = full
        for hook in hooks:
            hook.remove()
    return [final_norm(model)(caught[depth]) for depth in depths]
