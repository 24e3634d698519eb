"""What a step of training in a coarser form minimises: the text's loss and the divergence from the parent."""

from collections.abc import Callable
from typing import Any

import torch

from phases.bitnet.config import Distillation
from phases.bitnet.distil import distillation_loss, hidden_distance
from phases.bitnet.estimator import Quantised
from phases.training.loss import linear_cross_entropy
from phases.training.objective import Objective

Codes = dict[str, torch.Tensor]


class Taught(Objective):
    """Language modelling in a form whose strength rises, with or without the parent as a teacher."""

    def __init__(
        self,
        model: Any,
        set_strength: Callable[[float], None],
        warmup: float,
        distillation: Distillation,
        teacher: Any = None,
    ) -> None:
        """`teacher`: the parent, or None to learn from the text alone."""
        super().__init__(model)
        self.set_strength, self.warmup, self.distillation = set_strength, warmup, distillation
        # In a list, so that the teacher is no part of this module: it neither trains nor is saved.
        self.teachers = [] if teacher is None else [teacher.eval().requires_grad_(False)]
        self.seen: dict[str, torch.Tensor] = {}

    def forward(self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float) -> torch.Tensor:
        """Σ weight · loss, nats."""
        self.set_strength(min(1.0, progress / self.warmup) if self.warmup else 1.0)
        inputs_BT, target_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
        deep = bool(self.teachers and self.distillation.hidden)
        ours = self._read(self.model, inputs_BT, deep)
        head = self.model.get_output_embeddings().weight
        if not self.teachers:
            return linear_cross_entropy(ours.last_hidden_state, head, target_BT, weight_BT)
        teacher = self.teachers[0].to(inputs_BT.device)
        with torch.no_grad():
            theirs = self._read(teacher, inputs_BT, deep)
        loss, nll, divergence = distillation_loss(
            ours.last_hidden_state,
            head,
            theirs.last_hidden_state,
            teacher.get_output_embeddings().weight,
            target_BT,
            weight_BT,
            self.distillation.logits,
        )
        # What compares with the losses of models that learn from the text alone.
        self.seen = {"plain_nll": nll / len(tokens_BT), "kl_from_parent": divergence / len(tokens_BT)}
        if deep:
            apart = hidden_distance(ours.hidden_states, theirs.hidden_states, weight_BT)
            self.seen["hidden_distance"] = apart.detach() / len(tokens_BT)
            loss = loss + self.distillation.hidden * apart
        return loss

    def curves(self) -> dict[str, float]:
        """The text's own loss and the divergence from the parent, nats a weighted token."""
        return {name: float(value) for name, value in self.seen.items()}

    @staticmethod
    def _read(model: Any, inputs_BT: torch.Tensor, deep: bool) -> Any:
        return model.base_model(input_ids=inputs_BT, use_cache=False, output_hidden_states=deep)


class QuantisationAware(Taught):
    """Training through the lattice."""

    def __init__(self, quantised: Quantised, warmup: float, distillation: Distillation, teacher: Any = None) -> None:
        super().__init__(quantised.model, quantised.set_strength, warmup, distillation, teacher)
        self.quantised = quantised
        # Before a saved state is restored: where the whole training, not this session, began.
        self.first = _codes(quantised)
        self.last: Codes = {}

    def curves(self) -> dict[str, float]:
        """Strength, divergence from the parent, share of zeros, and how many codes and signs changed."""
        now = _codes(self.quantised)
        count = sum(codes.numel() for codes in now.values())
        share = {
            "zeros": sum(int((codes == 0).sum()) for codes in now.values()) / count,
            "codes_changed_since_start": _changed(self.first, now) / count,
            "signs_flipped_since_start": _flipped(self.first, now) / count,
        }
        if self.last:  # not at the first point of a session
            share["codes_changed_since_last"] = _changed(self.last, now) / count
        self.last = now
        return {"strength": self.quantised.strength, **super().curves(), **share}


def _codes(quantised: Quantised) -> Codes:
    """int8 codes of the ternary tensors by name."""
    lattices = quantised.lattices()
    return {name: lattices[name].codes_OI for name in quantised.ternary}


def _changed(before: Codes, after: Codes) -> int:
    """Codes that are not what they were."""
    return sum(int((before[name].to(codes.device) != codes).sum()) for name, codes in after.items())


def _flipped(before: Codes, after: Codes) -> int:
    """Codes that went from −1 to 1 or from 1 to −1."""
    return sum(int((before[name].to(codes.device) * codes == -1).sum()) for name, codes in after.items())
