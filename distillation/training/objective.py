"""What a step of distillation minimises: α · divergence from the teacher + (1 − α) · cross-entropy on the text.

    train(DistilObjective(model, alpha=0.5), CachedRows([Part(rows, [(cache, 1.0)])], seed), config, work, …)

The teacher is on the disk (`distillation.cache`), not in memory: rows carry what it thought of each position in their
marks. Whoever reads `linear.weight` gets a ternary student's lattice, so nothing here knows of it.
"""

from typing import Any

import torch

from distillation.losses.stored import Stored, stored_loss
from distillation.training.cached_rows import read_marks
from phases.errors import ConfigError
from phases.training.loss import linear_cross_entropy
from phases.training.objective import Objective


class DistilObjective(Objective):
    """Learning from a cache where rows have marks, from the text alone where they have none (sequence distillation)."""

    def __init__(self, model: Any, alpha: float = 0.5, tau: float = 1.0, ghost: bool = False) -> None:
        """`alpha`: the teacher's share, 0 … 1; `tau`: `Cache.tau`; `ghost`: `CachedRows.ghost`.

        Raises `ConfigError` for values that mean nothing.
        """
        super().__init__(model)
        if not 0 <= alpha <= 1 or not tau > 0:
            raise ConfigError(f"alpha={alpha}, tau={tau}: alpha has to be 0 to 1, and tau above 0")
        self.alpha, self.tau, self.ghost = alpha, tau, ghost
        self.seen: dict[str, torch.Tensor] = {}

    def forward(
        self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float, marks_BTC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Σ weight · loss, nats."""
        hidden_BTD = self.model.base_model(input_ids=tokens_BT[:, :-1], use_cache=False).last_hidden_state
        head_VD, target_BT = self.model.get_output_embeddings().weight, tokens_BT[:, 1:]
        if marks_BTC is None or not self.alpha:
            return linear_cross_entropy(hidden_BTD, head_VD, target_BT, weight_BT)
        chosen = weight_BT > 0
        ids_NK, share_NK = read_marks(marks_BTC[chosen])
        weight_N = weight_BT[chosen]
        stored = Stored(ids_NK, share_NK, self.ghost)
        loss, nll, divergence = stored_loss(
            hidden_BTD[chosen], head_VD, target_BT[chosen], weight_N, stored, self.alpha, self.tau
        )
        taught = (weight_N * stored.known_N1.squeeze(1)).sum()
        self.seen = {"text_nll": nll / weight_N.sum(), "from_teacher": divergence / taught.clamp(min=1e-9)}
        return loss

    def curves(self) -> dict[str, float]:
        """Nats a weighted token: the text's loss, and the divergence from (sampled: cross-entropy to) the teacher."""
        return {name: float(value) for name, value in self.seen.items()}
