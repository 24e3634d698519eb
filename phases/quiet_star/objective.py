"""What a Quiet-STaR step minimises (arXiv 2403.09629, algorithm 1).

    ½ NLL without thoughts + ½ mean NLL of the mixture over the true tokens ahead + c · mean(−A · log π(thought))

A is the reward of a thought (nats saved over the true tokens) relative to its siblings at the same position. The pause
control is the same without sampling: the thought's tokens are all the start delimiter, and nothing is reinforced.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from phases.quiet_star.config import QuietStarConfig
from phases.quiet_star.mixing import mix
from phases.quiet_star.parts import sum_parts
from phases.quiet_star.reward import advantage, following, reward, sample_anchors
from phases.quiet_star.thinker import Sampled, Thinker, pauses, read_thoughts, sample_thoughts
from phases.quiet_star.threads import Text, Threads, continue_threads, read_text
from phases.training.loss import linear_cross_entropy, linear_nll, row_nll
from phases.training.objective import Objective

PART_TOKENS = {"cpu": 4096, "cuda": 131072}
"""Tokens of threads whose activations are held at a time."""


@dataclass(frozen=True)
class Places:
    """P positions of every row, and what comes after them."""

    anchor_BP: torch.Tensor
    target_BPK: torch.Tensor
    """The K true tokens after each position."""
    worth_BPK: torch.Tensor
    """Loss weight of each of them, 1 for the heaviest of a row."""
    share_BPK: torch.Tensor
    """The same as shares of a row's whole weight."""

    def parts(self, size: int) -> Iterator["Places"]:
        """The same in pieces of `size` positions."""
        every = (self.anchor_BP, self.target_BPK, self.worth_BPK, self.share_BPK)
        for piece in zip(*(torch.split(tensor, size, 1) for tensor in every), strict=True):
            yield Places(*piece)


class QuietStar(Objective):
    """Thoughts at sampled positions of a batch, mixed in and reinforced."""

    def __init__(self, thinker: Thinker, config: QuietStarConfig, sampled: bool = True) -> None:
        super().__init__(thinker)
        self.settings, self.sampled = config, sampled
        self.samples = config.thoughts.samples if sampled else 1
        self.count = 0
        self.seen: dict[str, list[torch.Tensor]] = {}

    def forward(self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float) -> torch.Tensor:
        """The loss summed over rows whose weights sum to one each, nats."""
        thinker, thoughts = self.model, self.settings.thoughts
        inputs_BT, target_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
        place_BT = torch.arange(inputs_BT.shape[1], device=inputs_BT.device).expand_as(inputs_BT)
        plain_BTD, text, _ = read_text(thinker.model.model, place_BT, input_ids=inputs_BT, use_cache=False)
        plain = linear_cross_entropy(plain_BTD, thinker.model.lm_head.weight, target_BT, weight_BT)
        places = self._places(target_BT, weight_BT)
        self.seen = {"plain_nll": [plain.detach() / len(tokens_BT)]}
        size = len(inputs_BT) * self.samples * (thoughts.tokens + 1 + thoughts.ahead)
        step = max(1, PART_TOKENS.get(inputs_BT.device.type, PART_TOKENS["cuda"]) // size)
        keys = [tensor for layer in sorted(text.layers) for tensor in text.layers[layer]]
        compute = partial(self._part, place_BT=place_BT, layers=sorted(text.layers), progress=progress)
        self.count = places.anchor_BP.shape[1]
        wanted = [p for p in thinker.parameters() if p.requires_grad]
        return 0.5 * plain + sum_parts(compute, places.parts(step), (plain_BTD, *keys), wanted)

    def _places(self, target_BT: torch.Tensor, weight_BT: torch.Tensor) -> Places:
        ahead = self.settings.thoughts.ahead
        anchor_BP = sample_anchors(weight_BT, self.settings.thoughts.positions, ahead)
        # Places are drawn by their weight; the tokens after them are weighed by their own.
        worth_BPK = following(weight_BT / weight_BT.amax(1, keepdim=True).clamp(min=1e-12), anchor_BP, ahead)
        share_BPK = worth_BPK / worth_BPK.sum((1, 2), keepdim=True).clamp(min=1e-12)
        return Places(anchor_BP, following(target_BT, anchor_BP, ahead), worth_BPK, share_BPK)

    def _part(
        self,
        places: Places,
        plain_BTD: torch.Tensor,
        *keys: torch.Tensor,
        place_BT: torch.Tensor,
        layers: list[int],
        progress: float,
    ) -> torch.Tensor:
        """The loss of the thoughts at some positions: ½ mixture + fluency + policy, nats."""
        text = Text(place_BT, dict(zip(layers, zip(keys[::2], keys[1::2], strict=True), strict=True)))
        thinker, samples, ahead = self.model, self.samples, self.settings.thoughts.ahead
        head_VD = thinker.model.lm_head.weight
        anchor_BR = places.anchor_BP.repeat(1, samples)
        drawn = self._thoughts(text, anchor_BR)
        said_BRND, after_BRKD = read_thoughts(
            thinker, text, anchor_BR, drawn.tokens_BRN, places.target_BPK[..., :-1].repeat(1, samples, 1)
        )
        plain_BPKD = following(plain_BTD, places.anchor_BP, ahead)
        after_BSPKD = after_BRKD.view(len(after_BRKD), samples, -1, *after_BRKD.shape[2:])
        first_BSPD = after_BSPKD[..., 0, :]
        weight = thinker.head(plain_BPKD[:, None, :, 0].expand_as(first_BSPD), first_BSPD)
        held = progress < self.settings.mixing_warmup
        if held:
            # Times zero: the head keeps a gradient, for which data parallelism waits.
            weight = 0 * weight + self.settings.mixing_start
        mixed_BSPKD = mix(plain_BPKD[:, None], after_BSPKD, weight[..., None])
        shape = mixed_BSPKD.shape[:-1]
        target_N = places.target_BPK[:, None].expand(shape).flatten()
        share_N = (places.share_BPK / samples)[:, None].expand(shape).flatten()
        mixed, nll_N = linear_nll(mixed_BSPKD.flatten(0, -2), head_VD, target_N, share_N)
        without_N = row_nll(plain_BPKD.flatten(0, -2), head_VD, places.target_BPK.flatten())
        gain_BSP = reward(nll_N.view(shape), without_N.view_as(places.target_BPK), places.worth_BPK)
        total = 0.5 * mixed
        support = self.settings.alone if held else self.settings.alone_after
        if support:
            alone = linear_cross_entropy(
                after_BSPKD, head_VD, places.target_BPK[:, None].expand(shape), share_N.view(shape)
            )
            total = total + support * alone
        if self.settings.fluency:
            total = total + self.settings.fluency * self._fluency(text, places)
        self._see(drawn, gain_BSP, weight, mixed / len(plain_BTD))
        if self.sampled and self.settings.reinforce.weight and drawn.tokens_BRN.numel():
            total = total + self.settings.reinforce.weight * self._policy(said_BRND, drawn, gain_BSP)
        return total

    def _thoughts(self, text: Text, anchor_BR: torch.Tensor) -> Sampled:
        thoughts = self.settings.thoughts
        if self.sampled:
            return sample_thoughts(self.model, text, anchor_BR, thoughts.tokens, thoughts.temperature)[0]
        return pauses(self.model, anchor_BR, thoughts.tokens)

    def _fluency(self, text: Text, places: Places) -> torch.Tensor:
        """Σ over rows of the mean NLL of the true continuation after the start delimiter, as if it were the thought.

        The mixture is never trained on such a thought: it would hold the answer.
        """
        start_BP1 = torch.full_like(places.anchor_BP, self.model.start)[..., None]
        tokens_BPK = torch.cat([start_BP1, places.target_BPK[..., :-1]], -1)
        threads = Threads(text, places.anchor_BP, keep=False)
        said_BPKD = continue_threads(self.model.model.model, threads, tokens_BPK)
        return linear_cross_entropy(said_BPKD, self.model.model.lm_head.weight, places.target_BPK, places.share_BPK)

    def _policy(self, said_BRND: torch.Tensor, drawn: Sampled, gain_BSP: torch.Tensor) -> torch.Tensor:
        """Σ over rows of −A · log π, as the mean over all tokens of all thoughts of a row."""
        settings = self.settings.reinforce
        worth_BR = advantage(gain_BSP, settings.positive_only).flatten(1)
        tokens = self.samples * self.count * drawn.tokens_BRN.shape[-1]
        weight_BRN = (worth_BR / tokens)[..., None].expand(drawn.tokens_BRN.shape)
        # The delimiters could not be drawn: the policy is over the other tokens.
        start, end = self.model.start, self.model.end
        matrix_VD = self.model.model.lm_head.weight
        allowed = torch.ones(len(matrix_VD), dtype=torch.bool, device=matrix_VD.device)
        allowed[[start, end]] = False
        ids = allowed.cumsum(0) - 1
        return linear_cross_entropy(
            said_BRND / settings.temperature, matrix_VD[allowed], ids[drawn.tokens_BRN], weight_BRN
        )

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """The delimiters' embeddings move farther than the optimizer says, the mixing head less far.

        The authors scale these embeddings, and so their gradients, by a hundred. Adam's step does not depend on the
        gradient's scale, so what that does is to lengthen the step; that is done here, without the scale.
        """
        matrix, head = self.model.model.get_input_embeddings().weight, list(self.model.head.parameters())
        ids, longer = [self.model.start, self.model.end], self.settings.thoughts.embedding_step
        rows, before = matrix.detach()[ids].clone(), [p.detach().clone() for p in head]
        yield
        with torch.no_grad():
            matrix[ids] = rows + longer * (matrix[ids] - rows)
            for parameter, old in zip(head, before, strict=True):
                parameter.copy_(old + self.settings.mixing_step * (parameter - old))

    @torch.no_grad()
    def _see(self, drawn: Sampled, gain_BSP: torch.Tensor, weight: torch.Tensor, mixed: torch.Tensor) -> None:
        share = gain_BSP.shape[2] / self.count
        seen = {
            "reward": share * gain_BSP.mean(),
            "reward_spread": share * (gain_BSP.std(1).mean() if gain_BSP.shape[1] > 1 else gain_BSP.new_zeros(())),
            "mixing_weight": share * weight.mean(),
            "mixed_nll": mixed.detach(),
            "thought_entropy": gain_BSP.new_tensor(share * drawn.entropy),
        }
        for name, value in seen.items():
            self.seen.setdefault(name, []).append(value)

    def curves(self) -> dict[str, float]:
        """Reward, its spread over siblings, mixing weight, entropy of the thoughts, both losses, at the last step."""
        return {name: float(torch.stack(values).sum()) for name, values in self.seen.items()}
