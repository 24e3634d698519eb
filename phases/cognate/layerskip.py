"""LayerSkip (arXiv 2404.16710): train so that early layers can already speak.

Two parts. Layer dropout: a row skips layer l with chance p_l = p_max · (exp(l · ln 2 / (L − 1)) − 1), so that no layer
relies on all later ones. Early-exit loss: each step adds the loss of one early exit, through the model's own norm
and head; the exits take turns, later ones more heavily. The result is a plain Llama checkpoint that
`generate(assistant_early_exit=k)` of transformers speeds up without changing what it writes.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch

from phases.exits import exit_hidden_states
from phases.training.loss import linear_cross_entropy
from phases.training.objective import Objective
from phases.training.processes import rand_rows


def dropout_rate(layer: int, layers: int, p_max: float) -> float:
    """p_l of layer 0 … L − 1: 0 at the first, p_max at the last."""
    return p_max * (math.exp(layer * math.log(2) / max(1, layers - 1)) - 1)


def exit_weight(depth: int, layers: int) -> float:
    """Relative weight of the exit after `depth` layers (1 … L − 1): depth / (L − 1), so that the first has some."""
    return depth / max(1, layers - 1)


@contextlib.contextmanager
def layer_dropout(model: Any, p_max: float) -> Iterator[None]:
    """While open, each row of a batch skips each layer at random; no rescaling, as in the paper."""

    def skip(rate: float) -> Any:
        def hook(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
            before: torch.Tensor = arguments[0]
            keep = (rand_rows(before.shape[0]) >= rate).to(before.device)
            return torch.where(keep, output, before.to(output.dtype))

        return hook

    layers = model.model.layers
    rates = [dropout_rate(i, len(layers), p_max) for i in range(len(layers))]
    handles = [layer.register_forward_hook(skip(r)) for layer, r in zip(layers, rates, strict=True) if r > 0]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class EarlyExit(Objective):
    """Next-token loss at full depth and at one early exit a step, with layer dropout."""

    def __init__(self, model: Any, p_max: float, exit_scale: float) -> None:
        super().__init__(model)
        self.p_max, self.exit_scale = p_max, exit_scale

    def forward(self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float) -> torch.Tensor:
        """Σ weight · (nll_full + s · nll_exit) / (1 + s), nats; s = exit_scale · depth / (L − 1)."""
        layers = len(self.model.model.layers)
        depth = 1 + int(torch.randint(layers - 1, ()))
        with layer_dropout(self.model, self.p_max):
            early, full = exit_hidden_states(self.model, tokens_BT[:, :-1], (depth, layers))
        head, target = self.model.lm_head.weight, tokens_BT[:, 1:]
        scale = self.exit_scale * exit_weight(depth, layers)
        loss = linear_cross_entropy(full, head, target, weight_BT)
        return (loss + scale * linear_cross_entropy(early, head, target, weight_BT)) / (1 + scale)
