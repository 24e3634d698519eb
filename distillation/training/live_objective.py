"""Learning from a teacher in memory: any divergence, on any text, the student's own samples too, and hidden states.

    train(LiveObjective(model, teacher, divergence=partial(generalised_jsd, beta=0.5)), source, …)

It costs the teacher's memory and a reading of every row a step. A cache costs neither (`objective`), but cannot answer
for what the student has just written, nor give a whole distribution, which reverse KL and JSD need.
"""

from typing import Any

import torch

from distillation.losses.divergences import Divergence, forward_kl
from distillation.losses.hidden import hidden_error
from distillation.losses.sliced import sliced_loss
from phases.errors import ConfigError
from phases.training.objective import Objective


class Projected(torch.nn.Module):
    """A student and the projection of its states to its teacher's width, as one module to train and to save."""

    def __init__(self, model: Any, width: int, teacher_width: int) -> None:
        super().__init__()
        self.model = model
        self.projection = torch.nn.Linear(width, teacher_width, bias=False)
        # The identity, as far as both go: a student that was cut from its teacher reads much the same.
        torch.nn.init.eye_(self.projection.weight)

    @property
    def config(self) -> Any:
        """The student's."""
        return self.model.config


class LiveObjective(Objective):
    """(1 − α) · cross-entropy + α · divergence + `hidden` · error of the hidden states."""

    def __init__(
        self,
        model: Any,
        teacher: Any,
        divergence: Divergence = forward_kl,
        alpha: float = 1.0,
        hidden: float = 0.0,
        depth: float = 1.0,
    ) -> None:
        """`depth`: where states are compared, 0 (embeddings) … 1 (before the head), as a share of each one's layers.

        Raises `ConfigError` for values that mean nothing, and for vocabularies that are not one.
        """
        ours, theirs = (len(m.get_output_embeddings().weight) for m in (model, teacher))
        if ours != theirs:
            raise ConfigError(
                f"the student has {ours:,} outputs and its teacher {theirs:,}: their distributions cannot be compared "
                "token by token; use the cross-tokeniser strategy"
            )
        if not 0 <= alpha <= 1 or hidden < 0 or not 0 <= depth <= 1:
            raise ConfigError(f"alpha={alpha}, hidden={hidden}, depth={depth}: 0 to 1, 0 or more, 0 to 1 are allowed")
        widths = model.config.hidden_size, teacher.config.hidden_size
        super().__init__(Projected(model, *widths) if hidden else model)
        self.body, self.divergence, self.alpha, self.hidden, self.depth = model, divergence, alpha, hidden, depth
        # In a list, so that the teacher is no part of this module: it neither trains nor is saved.
        self.teachers = [teacher.eval().requires_grad_(False)]
        self.seen: dict[str, torch.Tensor] = {}

    def forward(
        self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float, marks_BTC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Σ weight · loss, nats."""
        teacher = self.teachers[0].to(tokens_BT.device)
        inputs_BT, chosen = tokens_BT[:, :-1], weight_BT > 0
        ours = self._read(self.body, inputs_BT)
        with torch.no_grad():
            theirs = self._read(teacher, inputs_BT)
        teacher_NE, teacher_head = theirs.last_hidden_state[chosen], teacher.get_output_embeddings().weight
        weight_N, total = weight_BT[chosen], weight_BT.sum()

        def apart(logits_NV: torch.Tensor, rows: slice) -> torch.Tensor:
            return self.divergence(logits_NV, (teacher_NE[rows] @ teacher_head.T).to(logits_NV.dtype))

        loss, nll, divergence = sliced_loss(
            ours.last_hidden_state[chosen],
            self.body.get_output_embeddings().weight,
            tokens_BT[:, 1:][chosen],
            weight_N,
            apart,
            1 - self.alpha,
            self.alpha,
        )
        self.seen = {"text_nll": nll / total, "from_teacher": divergence / total}
        if isinstance(self.model, Projected):
            ours_ND, theirs_NE = self._state(ours, chosen), self._state(theirs, chosen)
            error = hidden_error(ours_ND, theirs_NE, self.model.projection.weight, weight_N)
            self.seen["hidden_error"] = error.detach() / total
            loss = loss + self.hidden * error
        return loss

    def curves(self) -> dict[str, float]:
        """Nats a weighted token: the text's loss and the divergence; mean square of the states' difference."""
        return {name: float(value) for name, value in self.seen.items()}

    def _read(self, model: Any, inputs_BT: torch.Tensor) -> Any:
        return model.base_model(input_ids=inputs_BT, use_cache=False, output_hidden_states=bool(self.hidden))

    def _state(self, read: Any, chosen_BT: torch.Tensor) -> torch.Tensor:
        """(N, D) what there is at the depth; the last states are those after the final norm."""
        layers = len(read.hidden_states) - 1
        state: torch.Tensor = read.hidden_states[round(self.depth * layers)][chosen_BT]
        return state
