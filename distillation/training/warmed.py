"""A divergence that is eased into: forward KL first, then JSD or reverse KL, with the teacher in memory.

Reverse KL on given texts lets a student that knows nothing yet give up most of what its teacher says; after some steps
of forward KL it has something to sharpen (GKD, arXiv 2306.13649, starts from a supervised student as well).
"""

from functools import partial
from typing import Any

import torch

from distillation.losses.divergences import forward_kl, generalised_jsd
from distillation.training.live_objective import LiveObjective
from distillation.training.strategy_config import Logits


class Warmed(LiveObjective):
    """(1 − α) · cross-entropy + α · a divergence that changes once."""

    def __init__(self, model: Any, teacher: Any, strategy: Logits) -> None:
        tau, beta = strategy.cache.tau, {"forward": 0.0, "jsd": strategy.beta, "reverse": 1.0}[strategy.loss]
        self.first, self.then = partial(forward_kl, tau=tau), partial(generalised_jsd, beta=beta, tau=tau)
        self.warmup = strategy.warmup
        super().__init__(model, teacher, self.first, strategy.alpha, strategy.hidden)

    def forward(
        self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float, marks_BTC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Σ weight · loss, nats."""
        self.divergence = self.first if progress < self.warmup else self.then
        return super().forward(tokens_BT, weight_BT, progress, marks_BTC)
