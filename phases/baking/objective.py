"""What a step of baking minimises: the divergence from the prompted model, and the loss on rehearsal.

    θᵤ = argmin_θ  E_{y ~ P_prompted(·|x₀)} Σ_t KL( P_prompted(·|y_<t) ‖ P_θ(·|y_<t) )       (Prompt Baking, 2409.13697)

The trajectories y were drawn from the prompted model once, and its last hidden states at their tokens are kept
(`trajectories`): the teacher is read once, not once an epoch. The gradient of a KL with respect to the student's logits
is softmax less the teacher's softmax (`phases.bitnet.distil`).
"""

from typing import Any

import torch

from phases.bitnet.distil import distillation_loss
from phases.training.loss import linear_cross_entropy
from phases.training.objective import Objective


class Baking(Objective):
    """KL where a row has marks, cross-entropy where it has none."""

    def __init__(self, model: Any, hidden_ME: torch.Tensor, head_VE: torch.Tensor) -> None:
        """`hidden_ME`: the teacher's last hidden states of every marked token; `head_VE`: its output head."""
        super().__init__(model)
        # In a tuple, so that the teacher is no part of this module: it neither trains nor is saved.
        self.teacher = (hidden_ME, head_VE)
        self.seen: dict[str, torch.Tensor] = {}

    def forward(
        self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float, marks_BTC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Σ weight · loss, nats."""
        hidden_BTD = self.model.base_model(input_ids=tokens_BT[:, :-1], use_cache=False).last_hidden_state
        head_VD, target_BT = self.model.get_output_embeddings().weight, tokens_BT[:, 1:]
        assert marks_BTC is not None
        marked_BT = marks_BTC[..., 0] >= 0
        rehearsed = linear_cross_entropy(hidden_BTD, head_VD, target_BT, weight_BT * ~marked_BT)
        weight_N = weight_BT[marked_BT]
        hidden_ME, teacher_head_VE = (tensor.to(hidden_BTD.device) for tensor in self.teacher)
        baked, _, divergence = distillation_loss(
            hidden_BTD[marked_BT][None],
            head_VD,
            hidden_ME[marks_BTC[..., 0][marked_BT]][None],
            teacher_head_VE,
            target_BT[marked_BT][None],
            weight_N[None],
            1.0,
        )
        self.seen = {
            "kl_to_prompted": divergence / weight_N.sum().clamp(min=1e-9),
            "rehearsal_nll": rehearsed.detach() / (weight_BT * ~marked_BT).sum().clamp(min=1e-9),
        }
        return baked + rehearsed

    def curves(self) -> dict[str, float]:
        """Mean nats a token of both parts."""
        return {name: float(value) for name, value in self.seen.items()}
