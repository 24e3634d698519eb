"""What thoughts are worth, position by position: the next token's loss without, with and with another's thought.

    losses = thought_losses(thinker, places, Thinking(tokens=8))

Positions are drawn once and shared by every model and every mode, so that all differences are paired. The shuffled
mode gives a position a thought that was sampled at another text; it is read in the position's own context, so only the
thought's content changes, not its form.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from evaluation.thought_units import Places
from phases.quiet_star.decoder import Thinking, shuffle
from phases.quiet_star.thinker import Thinker, mixed_states, pauses, sample_thoughts
from phases.quiet_star.threads import read_text
from phases.training.loss import row_nll

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ThoughtLosses:
    """Nats of the next token at N × P positions, and the thoughts that were thought there."""

    off_NP: Floats
    on_NP: Floats
    shuffled_NP: Floats
    mixing_NP: Floats
    """Weight of the thought."""
    tokens_NPn: npt.NDArray[np.int64]
    entropy: float
    """Mean entropy of the thoughts' tokens, nats."""

    @property
    def distinct(self) -> float:
        """Share of the thoughts that are distinct; 1 when they have no tokens to differ in."""
        every = self.tokens_NPn.reshape(-1, self.tokens_NPn.shape[-1])
        return len(np.unique(every, axis=0)) / len(every) if every.shape[1] else 1.0


@torch.no_grad()
def plain_losses(model: Any, where: Places, batch: int = 16) -> Floats:
    """(N, P) nats of a model that does not think."""
    parts = []
    for tokens_BT, anchor_BP in _batches(where, batch):
        hidden_BTD = model.base_model(input_ids=tokens_BT[:, :-1], use_cache=False).last_hidden_state
        row = torch.arange(len(tokens_BT))[:, None]
        parts.append(_nats(model, hidden_BTD[row, anchor_BP], tokens_BT[row, anchor_BP + 1]))
    return torch.cat(parts).double().numpy()


@torch.no_grad()
def thought_losses(thinker: Thinker, where: Places, thinking: Thinking, batch: int = 16) -> ThoughtLosses:
    """Losses of predicting the token after each position."""
    generator = torch.Generator().manual_seed(thinking.seed)
    parts = [_batch(thinker, rows, anchors, thinking, generator) for rows, anchors in _batches(where, batch)]
    off, on, shuffled, mixing, tokens, entropy = zip(*parts, strict=True)
    return ThoughtLosses(
        off_NP=_joined(off),
        on_NP=_joined(on),
        shuffled_NP=_joined(shuffled),
        mixing_NP=_joined(mixing),
        tokens_NPn=torch.cat(tokens).numpy(),
        entropy=float(np.mean(entropy)),
    )


def _batches(where: Places, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(torch.split(where.tokens_NT, batch), torch.split(where.anchor_NP, batch), strict=True)


def _joined(parts: Sequence[torch.Tensor]) -> Floats:
    return torch.cat(list(parts)).double().numpy()


def _batch(
    thinker: Thinker,
    tokens_BT: torch.Tensor,
    anchor_BP: torch.Tensor,
    thinking: Thinking,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    inputs_BT = tokens_BT[:, :-1]
    place_BT = torch.arange(inputs_BT.shape[1]).expand_as(inputs_BT)
    hidden_BTD, text, _ = read_text(thinker.model.model, place_BT, input_ids=inputs_BT, use_cache=False)
    row = torch.arange(len(inputs_BT))[:, None]
    plain_BPD, target_BP = hidden_BTD[row, anchor_BP], tokens_BT[row, anchor_BP + 1]
    anchor_BR = anchor_BP.repeat(1, thinking.samples)
    if thinking.pause:
        drawn = pauses(thinker, anchor_BR, thinking.tokens)
    else:
        drawn, _ = sample_thoughts(thinker, text, anchor_BR, thinking.tokens, thinking.temperature, generator)
    thought_BRN = drawn.tokens_BRN
    states_BPD, weight_BSP = mixed_states(thinker, text, plain_BPD, anchor_BR, thought_BRN)
    others_BPD, _ = mixed_states(thinker, text, plain_BPD, anchor_BR, _of_other_rows(thought_BRN))
    off, on, shuffled = (_nats(thinker.model, x, target_BP) for x in (plain_BPD, states_BPD, others_BPD))
    return off, on, shuffled, weight_BSP.mean(1), thought_BRN[:, : anchor_BP.shape[1]], drawn.entropy


def _of_other_rows(thought_BRN: torch.Tensor) -> torch.Tensor:
    """(B, R, n) the thought of the same place in the row before: rows are different texts, places play a role."""
    return thought_BRN.roll(1, 0) if len(thought_BRN) > 1 else shuffle(thought_BRN)


def _nats(model: Any, hidden_BPD: torch.Tensor, target_BP: torch.Tensor) -> torch.Tensor:
    """(B, P) nats of the targets."""
    return row_nll(hidden_BPD.flatten(0, 1), model.get_output_embeddings().weight, target_BP.flatten()).view_as(
        target_BP
    )
