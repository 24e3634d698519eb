"""What thoughts are worth, position by position: the next token's loss without, with and with another's thought.

    losses = thought_losses(thinker, tokens_NT, anchor_NP, Thinking(tokens=8))

Positions are drawn once and shared by every model and every mode, so that all differences are paired. The shuffled
mode gives a position a thought that was sampled at another text; it is read in the position's own context, so only the
thought's content changes, not its form.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from phases.quiet_star.decoder import Thinking, shuffle
from phases.quiet_star.mixing import mix
from phases.quiet_star.thinker import Thinker, read_thoughts, sample_thoughts
from phases.quiet_star.threads import Text, read_text
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


def positions(weight_NT: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """(N, P) sorted positions of each row, drawn without replacement among those of positive weight."""
    generator = torch.Generator().manual_seed(seed)
    fewest = int((weight_NT > 0).sum(1).min())
    return torch.multinomial(weight_NT, min(count, fewest), generator=generator).sort(1).values


@torch.no_grad()
def thought_losses(
    thinker: Thinker,
    tokens_NT: torch.Tensor,
    anchor_NP: torch.Tensor,
    thinking: Thinking,
    batch: int = 16,
    pause: bool = False,
) -> ThoughtLosses:
    """Losses of predicting `tokens_NT[:, p + 1]` at each position p. `pause`: the thought is start delimiters only."""
    generator = torch.Generator().manual_seed(thinking.seed)
    parts = [
        _batch(thinker, rows, anchors, thinking, generator, pause)
        for rows, anchors in zip(tokens_NT.split(batch), anchor_NP.split(batch), strict=True)
    ]
    off, on, shuffled, mixing, tokens, entropy = zip(*parts, strict=True)
    joined = [torch.cat(part).double().numpy() for part in (off, on, shuffled, mixing)]
    return ThoughtLosses(*joined, torch.cat(tokens).numpy(), float(np.mean(entropy)))


def _batch(
    thinker: Thinker,
    tokens_BT: torch.Tensor,
    anchor_BP: torch.Tensor,
    thinking: Thinking,
    generator: torch.Generator,
    pause: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    inputs_BT = tokens_BT[:, :-1]
    place_BT = torch.arange(inputs_BT.shape[1]).expand_as(inputs_BT)
    hidden_BTD, text, _ = read_text(thinker.model.model, place_BT, input_ids=inputs_BT, use_cache=False)
    row = torch.arange(len(inputs_BT))[:, None]
    plain_BPD, target_BP = hidden_BTD[row, anchor_BP], tokens_BT[row, anchor_BP + 1]
    anchor_BR = anchor_BP.repeat(1, thinking.samples)
    if pause:
        thought_BRN, entropy = torch.full((*anchor_BR.shape, thinking.tokens), thinker.start), 0.0
    else:
        drawn, _ = sample_thoughts(thinker, text, anchor_BR, thinking.tokens, thinking.temperature, generator)
        thought_BRN, entropy = drawn.tokens_BRN, drawn.entropy
    on, mixing = _mixed(thinker, text, plain_BPD, anchor_BR, thought_BRN, target_BP)
    shuffled, _ = _mixed(thinker, text, plain_BPD, anchor_BR, shuffle(thought_BRN), target_BP)
    off = row_nll(plain_BPD.flatten(0, 1), thinker.model.lm_head.weight, target_BP.flatten()).view_as(target_BP)
    first = thought_BRN[:, : anchor_BP.shape[1]]
    return off, on, shuffled, mixing, first, entropy


def _mixed(
    thinker: Thinker,
    text: Text,
    plain_BPD: torch.Tensor,
    anchor_BR: torch.Tensor,
    thought_BRN: torch.Tensor,
    target_BP: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """((B, P) nats, (B, P) mixing weight) with the mean over the samples of a position's mixed logits."""
    rows, places = target_BP.shape
    _, after_BRKD = read_thoughts(thinker, text, anchor_BR, thought_BRN, thought_BRN[..., :0])
    after = after_BRKD.view(rows, -1, places, after_BRKD.shape[-1])
    plain = plain_BPD[:, None].expand_as(after)
    weight = thinker.head(plain, after)
    mixed_BPD = mix(plain, after, weight).mean(1)
    nll = row_nll(mixed_BPD.flatten(0, 1), thinker.model.lm_head.weight, target_BP.flatten())
    return nll.view_as(target_BP), weight.mean(1).squeeze(-1)
