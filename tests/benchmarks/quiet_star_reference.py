"""Quiet-STaR as its authors compute it (arXiv 2403.09629, algorithm 1 and appendix B): what ours is measured against.

Every position of a text thinks at the same time, and each token of the thoughts is one pass of the model over all
positions, with gradients, over one cache that holds the text and the thoughts so far of all positions:

    text       t₀ t₁ t₂ …      sees the keys of        [causal]
    pass 1     <start> × T                             [causal, diagonal]
    pass 2     a token of each thought                 [causal, diagonal, diagonal]
    …          <end> × T, then the true tokens, shifted by one more each time

The text is repeated for the S thoughts of a position, and every loss is taken from logits of the whole vocabulary. What
the published code computes and throws away (mixed logits inside a thought, one-hot products with the embedding, a mask
for each row) is left out, and attention is PyTorch's fused one: the comparison is with the algorithm at its best.

    B rows, S thoughts a position, N = B·S, T tokens, n tokens of a thought, K true tokens ahead of it,
    P = T − K + 1 positions that have as many
"""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from phases.quiet_star.config import QuietStarConfig
from phases.quiet_star.mixing import mix
from phases.quiet_star.thinker import Thinker
from phases.training.objective import Objective

Drawn = list[tuple[torch.Tensor, torch.Tensor]]
"""(N, T, V) logits and the (N, T) tokens drawn from them, for each token of the thoughts."""


class ParallelThoughts:
    """A text that is continued at all its positions at once: the cache, the mask and the places that grow with it."""

    def __init__(self, decoder: Any, text_NT: torch.Tensor) -> None:
        self.decoder, self.cache = decoder, DynamicCache()
        size, device = text_NT.shape[1], text_NT.device
        unseen = torch.full((size, size), float("-inf"), device=device)
        self.mask = unseen.triu(1)
        self.diagonal = unseen.fill_diagonal_(0.0)
        self.place_1T = torch.arange(size, device=device)[None]
        self.text_NTD = self._pass(text_NT)
        """Hidden states of the text itself."""

    def read(self, token_NT: torch.Tensor) -> torch.Tensor:
        """(N, T, D) hidden states after one more token at each position, which no other position sees."""
        self.mask = torch.cat([self.mask, self.diagonal], 1)
        self.place_1T = self.place_1T + 1
        return self._pass(token_NT)

    def _pass(self, token_NT: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.decoder(
            input_ids=token_NT,
            attention_mask=self.mask[None, None],
            position_ids=self.place_1T,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return hidden


class QuietStarReference(Objective):
    """The loss of `phases.quiet_star.objective.QuietStar` with thoughts at all positions, of any Llama-like model."""

    def __init__(self, thinker: Thinker, config: QuietStarConfig) -> None:
        super().__init__(thinker)
        assert config.thoughts.positions is None and not config.fluency, "the paper's loss, at all positions"
        self.settings = config

    def forward(self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float) -> torch.Tensor:
        """The loss summed over rows whose weights sum to one each, nats."""
        thoughts, reinforce = self.settings.thoughts, self.settings.reinforce
        tokens_NT = tokens_BT.repeat_interleave(thoughts.samples, 0)
        weight_NT = weight_BT.repeat_interleave(thoughts.samples, 0)
        target_NT = tokens_NT[:, 1:]
        thinking = ParallelThoughts(self.model.model.model, tokens_NT[:, :-1])
        plain_NT = self._nll(thinking.text_NTD, target_NT)
        drawn = self._think(thinking)
        # The last positions lack true tokens: what they thought counts for nothing.
        plain_NPK = plain_NT.unfold(1, thoughts.ahead, 1)
        mixed_NPK = self._predict(thinking, target_NT)[:, : plain_NPK.shape[1]]
        relative_NPK = (weight_NT / weight_NT.amax(1, keepdim=True)).unfold(1, thoughts.ahead, 1)
        share_NPK = relative_NPK / relative_NPK.sum((1, 2), keepdim=True)
        total = 0.5 * (weight_NT * plain_NT).sum() + 0.5 * (share_NPK * mixed_NPK).sum()
        if drawn and reinforce.weight:
            gain_NP = ((plain_NPK - mixed_NPK) * relative_NPK).sum(-1).detach()
            total = total + reinforce.weight * self._policy(drawn, gain_NP)
        return total / thoughts.samples

    def draw(self, logits_NTV: torch.Tensor) -> torch.Tensor:
        """(N, T) one token a position: the largest logit after Gumbel noise, which is a sample of the softmax."""
        noise = torch.empty_like(logits_NTV).exponential_().log_()
        return (logits_NTV / self.settings.thoughts.temperature - noise).argmax(-1)

    def _think(self, thinking: ParallelThoughts) -> Drawn:
        """Read the start delimiter and the n tokens that are drawn after it."""
        thinker, drawn = self.model, []
        token_NT = torch.full(thinking.text_NTD.shape[:2], thinker.start, device=thinking.text_NTD.device)
        hidden_NTD = thinking.read(token_NT)
        for _ in range(self.settings.thoughts.tokens):
            logits_NTV = thinker.model.lm_head(hidden_NTD).float()
            logits_NTV[..., [thinker.start, thinker.end]] = float("-inf")
            token_NT = self.draw(logits_NTV.detach())
            drawn.append((logits_NTV, token_NT))
            hidden_NTD = thinking.read(token_NT)
        return drawn

    def _predict(self, thinking: ParallelThoughts, target_NT: torch.Tensor) -> torch.Tensor:
        """(N, T, K) NLL of the true tokens after the end delimiter, with the thought mixed in; wrong past P."""
        nll, token_NT, weight_NT1 = [], torch.full_like(target_NT, self.model.end), None
        for shift in range(self.settings.thoughts.ahead):
            after_NTD, plain_NTD = thinking.read(token_NT), thinking.text_NTD.roll(-shift, 1)
            if weight_NT1 is None:
                weight_NT1 = self.model.head(plain_NTD, after_NTD)
            token_NT = target_NT.roll(-shift, 1)
            nll.append(self._nll(mix(plain_NTD, after_NTD, weight_NT1), token_NT))
        return torch.stack(nll, -1)

    def _nll(self, hidden_NTD: torch.Tensor, target_NT: torch.Tensor) -> torch.Tensor:
        logits_NTV = self.model.model.lm_head(hidden_NTD).float()
        return F.cross_entropy(logits_NTV.flatten(0, 1), target_NT.flatten(), reduction="none").view_as(target_NT)

    def _policy(self, drawn: Drawn, gain_NP: torch.Tensor) -> torch.Tensor:
        """Σ over N of the mean over places and tokens of −A · log π, from the logits that were stored."""
        settings, (count, places) = self.settings.reinforce, gain_NP.shape
        gain_BSP = gain_NP.view(-1, self.settings.thoughts.samples, places)
        worth_NP = (gain_BSP - gain_BSP.mean(1, keepdim=True)).view(count, places)
        if settings.positive_only:
            worth_NP = worth_NP.relu()
        total = gain_NP.new_zeros(())
        for logits_NTV, token_NT in drawn:
            chance_NTV = (logits_NTV / settings.temperature).log_softmax(-1)
            total = total - (worth_NP * chance_NTV.gather(2, token_NT[..., None])[:, :places, 0]).sum()
        return total / (places * len(drawn))
