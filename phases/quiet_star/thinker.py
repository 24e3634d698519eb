"""Thinking: sample thoughts at many positions of a text at once, then read what they lead to.

    [text … anchor] <|startofthought|> t₁ … tₙ <|endofthought|> next₁ next₂ …

Sampling needs no gradients, so it runs step by step over a cache of each thread's own keys and computes the logits of
the newest tokens only. What was sampled is then read once more in a single pass with gradients: delimiters, thought
and the true tokens after it (teacher forcing) of all threads in parallel.
"""

from dataclasses import dataclass
from typing import Any

import torch

from phases.quiet_star.mixing import MixingHead, mix
from phases.quiet_star.threads import Text, Threads, continue_threads, enable_threads

LOGITS_BYTES = 32 * 2**20
"""Upper bound of the float32 logits that are held at a time while sampling."""


class Thinker(torch.nn.Module):
    """A language model, its mixing head and the ids of its two delimiters."""

    def __init__(self, model: Any, head: MixingHead, start: int, end: int) -> None:
        super().__init__()
        enable_threads(model)
        self.model, self.head, self.start, self.end = model, head, start, end

    @property
    def config(self) -> Any:
        """The language model's config."""
        return self.model.config


@dataclass(frozen=True)
class Sampled:
    """Thoughts and how sure the model was of them."""

    tokens_BRN: torch.Tensor
    """(B, R, n) tokens of the thoughts, delimiters left out."""
    entropy: float
    """Mean entropy of the distributions they were drawn from, nats a token; 0 when there are no tokens."""


@torch.no_grad()
def sample_thoughts(
    thinker: Thinker,
    text: Text,
    anchor_BR: torch.Tensor,
    length: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Sampled, Threads]:
    """Draw a thought of `length` tokens for each thread; the threads have read all but the last of them."""
    threads = Threads(text.detached(), anchor_BR)
    token_BR = torch.full_like(anchor_BR, thinker.start)
    tokens, entropies = [], []
    for _ in range(length):
        hidden_BRD = continue_threads(thinker.model.model, threads, token_BR[..., None])[:, :, 0]
        token_BR, entropy = _draw(thinker, hidden_BRD, temperature, generator)
        tokens.append(token_BR)
        entropies.append(entropy)
    drawn = torch.stack(tokens, -1) if tokens else anchor_BR.new_empty(*anchor_BR.shape, 0)
    return Sampled(drawn, float(torch.stack(entropies).mean()) if entropies else 0.0), threads


def _draw(
    thinker: Thinker, hidden_BRD: torch.Tensor, temperature: float, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a thread by inverting the cumulative distribution, and the mean entropy in nats."""
    hidden_ND = hidden_BRD.flatten(0, 1)
    matrix = thinker.model.lm_head.weight
    rows = max(1, LOGITS_BYTES // (4 * len(matrix)))
    uniform_N = torch.rand(len(hidden_ND), device=hidden_ND.device, generator=generator)
    tokens, entropy = [], hidden_ND.new_zeros((), dtype=torch.float32)
    for part, uniform in zip(torch.split(hidden_ND, rows), torch.split(uniform_N, rows), strict=True):
        logits = thinker.model.lm_head(part).float().div_(temperature)
        logits[:, [thinker.start, thinker.end]] = float("-inf")
        chance = logits.softmax(-1)
        entropy -= torch.special.xlogy(chance, chance).sum()
        summed = chance.cumsum(-1)
        # Scaled by the sum as it was rounded, and never past the last token that has a chance.
        drawn = torch.searchsorted(summed, (uniform * summed[:, -1])[:, None], right=True)
        tokens.append(drawn.squeeze(1).clamp(max=chance.shape[1] - 1))
    return torch.cat(tokens).view(hidden_BRD.shape[:2]), entropy / len(hidden_ND)


def read_thoughts(
    thinker: Thinker, text: Text, anchor_BR: torch.Tensor, thought_BRN: torch.Tensor, next_BRK: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One pass over whole threads, with gradients.

    `next_BRK` are the true tokens after the anchor that are read after the thought. Returns the hidden states (B, R, n,
    D) that each token of the thought was drawn from, and (B, R, 1 + K, D) of the end delimiter and the true tokens.
    """
    ends = [torch.full_like(anchor_BR, token)[..., None] for token in (thinker.start, thinker.end)]
    tokens_BRL = torch.cat([ends[0], thought_BRN, ends[1], next_BRK], -1)
    hidden_BRLD = continue_threads(thinker.model.model, Threads(text, anchor_BR, keep=False), tokens_BRL)
    length = thought_BRN.shape[-1]
    return hidden_BRLD[:, :, :length], hidden_BRLD[:, :, length + 1 :]


def pauses(thinker: Thinker, anchor_BR: torch.Tensor, length: int) -> Sampled:
    """The pause control's thoughts: start delimiters only, and nothing drawn."""
    return Sampled(anchor_BR.new_full((*anchor_BR.shape, length), thinker.start), 0.0)


def mixed_states(
    thinker: Thinker, text: Text, plain_BPD: torch.Tensor, anchor_BR: torch.Tensor, thought_BRN: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """((B, P, D) hidden states mixed with those after a thought, (B, S, P) mixing weights).

    The R threads are S samples of P places, sample by sample; the predictions' logits are averaged over the samples.
    """
    rows, places = plain_BPD.shape[:2]
    _, after_BRKD = read_thoughts(thinker, text, anchor_BR, thought_BRN, thought_BRN[..., :0])
    after = after_BRKD.view(rows, -1, places, after_BRKD.shape[-1])
    plain = plain_BPD[:, None].expand_as(after)
    weight = thinker.head(plain, after)
    return mix(plain, after, weight).mean(1), weight.squeeze(-1)
