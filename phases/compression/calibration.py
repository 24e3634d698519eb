"""How far a compressed model is from its parent on held-out rows: the divergence that codecs are chosen by.

    calibration = Calibration(parent_model, held_out(data, lessons, rows=16, pad=0))
    calibration.divergence(model)

Rows are of the validation split: text, tasks, and for an agent its conversations. The divergence KL(parent ‖ ours) is
the mean over streams of nats a token that counts: never negative, it hears far smaller changes than the loss itself.

Shapes: B rows, T positions, N tokens that count, D hidden, V vocabulary, I inputs of a layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from phases.baking.rows import pack_conversations
from phases.compression.lessons import Lessons
from phases.compression.reading import Reading
from phases.dataset import Dataset

CONVERSATIONS = "conversations"
ANSWER = 1
"""Mask of tokens that are answers, and of all of text."""
DECIMALS = 5
"""Of a divergence, in nats."""
SLICE = 1024
"""Tokens whose logits are held at a time."""


@dataclass(frozen=True)
class HeldOut:
    """Rows of one stream, and what counts of them."""

    tokens_BT: torch.Tensor
    """(B, T+1) int64."""
    counts_BT: torch.Tensor
    """(B, T) bool: of predicting tokens[:, 1:]."""


def held_out(data: Dataset, lessons: Lessons, rows: int, pad: int) -> dict[str, HeldOut]:
    """The first `rows` rows of every stream of the validation split, and of conversations as many."""
    found = {}
    for stream in data.streams("validation"):
        tokens = torch.from_numpy(data.blocks("validation", stream)[:rows].astype(np.int64))
        mask = torch.from_numpy(data.mask("validation", stream)[:rows].astype(np.int64))[:, 1:]
        if len(tokens) and bool((mask == ANSWER).any()):
            found[stream] = HeldOut(tokens, mask == ANSWER)
    if lessons.held_out:
        packed = pack_conversations(lessons.in_turn, lessons.row_tokens, pad, "compression")
        tokens = torch.from_numpy(packed.tokens_NT[:rows])
        found[CONVERSATIONS] = HeldOut(tokens, torch.from_numpy(packed.weight_NT[:rows] > 0))
    return found


class Calibration:
    """The parent's distributions on held-out rows, against which others are held."""

    def __init__(self, parent: Any, streams: Mapping[str, HeldOut]) -> None:
        """`parent`: in evaluation mode, on the device where all is computed. Its last hidden states are kept."""
        self.head_VD = parent.get_output_embeddings().weight.detach().clone()
        self._reading = {name: Reading(stream.tokens_BT, stream.counts_BT) for name, stream in streams.items()}
        self._hidden = {name: reading.hidden(parent) for name, reading in self._reading.items()}

    @torch.no_grad()
    def divergence(self, model: Any, changed: str | None = None) -> float:
        """Mean over streams of KL(parent ‖ model), nats a token that counts, to the fifth decimal.

        What is below depends on how many threads add up, and would choose other codecs for equal models. `changed`: the
        only parameter that is not the parent's, before whose layer nothing is read anew.
        """
        head_VD, found = model.get_output_embeddings().weight, []
        for name, reading in self._reading.items():
            hidden_ND, theirs_ND = reading.hidden(model, changed), self._hidden[name]
            total = torch.zeros((), device=hidden_ND.device)
            for ours, theirs in zip(torch.split(hidden_ND, SLICE), torch.split(theirs_ND, SLICE), strict=True):
                log_p, log_q = (ours @ head_VD.T).log_softmax(1), (theirs @ self.head_VD.T).log_softmax(1)
                total += (log_q.exp() * (log_q - log_p)).sum()
            found.append(float(total) / len(hidden_ND))
        return round(max(0.0, float(np.mean(found))), DECIMALS)


@torch.no_grad()
def importances(model: Any, streams: Mapping[str, HeldOut]) -> dict[str, torch.Tensor]:
    """(I,) mean square of every input of each linear layer, by the name of its weight: the Hessian's diagonal.

    A head's inputs are the last hidden states; a tied embedding has the head's.
    """
    total: dict[int, Any] = {}

    def see(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        square_I = args[0].detach().double().square().flatten(0, -2).sum(0)
        total[id(weight)] = square_I + total.get(id(weight), 0)

    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    hooks = [layer.register_forward_pre_hook(see) for layer in layers]
    count = 0
    for stream in streams.values():
        hidden_ND = Reading(stream.tokens_BT, stream.counts_BT).hidden(model)
        see(head, (hidden_ND,))
        count += len(hidden_ND)
    for hook in hooks:
        hook.remove()
    return {name: (total[id(p)] / count).float().cpu() for name, p in model.named_parameters() if id(p) in total}
