"""What a step minimises. An objective is a module whose forward gives the summed loss of a batch in nats.

It is a module, and holds the model, so that `accelerate` can wrap it: autocast, and gradients averaged over
processes. The loop divides by the weight of the whole batch.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from phases.training.loss import linear_cross_entropy


class Objective(torch.nn.Module):
    """Base: `forward(tokens_BT+1, weight_BT, progress) -> Σ weight · nll`; `progress` is the share of steps done.

    Rows with marks hand them on as a fourth argument.
    """

    rate: float = 1.0
    """Factor on the schedule's learning rate."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float) -> torch.Tensor:
        raise NotImplementedError

    def filter_gradients(self) -> None:
        """Called when a step's gradients are whole, before they are clipped."""

    def stepping(self) -> AbstractContextManager[None]:
        """Open while the optimizers step, for objectives that have a say in where parameters go."""
        return nullcontext()

    def memory(self) -> dict[str, torch.Tensor]:
        """What the objective, or where its rows come from, remembers from step to step; saved with the model."""
        return {}

    def remember(self, memory: dict[str, torch.Tensor]) -> None:
        """Take up what `memory` gave."""

    def curves(self) -> dict[str, float]:
        """What else there was to see at the last forward pass of this process, by name; logged with the loss."""
        return {}


class LanguageModelling(Objective):
    """Plain next-token prediction."""

    def forward(self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float) -> torch.Tensor:
        """Σ weight · −log p(next token), nats."""
        hidden = self.model.base_model(input_ids=tokens_BT[:, :-1], use_cache=False).last_hidden_state
        return linear_cross_entropy(hidden, self.model.get_output_embeddings().weight, tokens_BT[:, 1:], weight_BT)
