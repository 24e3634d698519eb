"""What a Quiet-STaR step minimises (arXiv 2403.09629, algorithm 1).

    ½ NLL without thoughts + ½ mean NLL of the mixture over the true tokens ahead + c · mean(−A · log π(thought))

A is the reward of a thought (nats saved over the true tokens) relative to its siblings at the same position. The pause
control is the same without sampling: the thought's tokens are all the start delimiter, and nothing is reinforced.
"""

import torch

from phases.quiet_star.config import QuietStarConfig
from phases.quiet_star.mixing import mix
from phases.quiet_star.reward import advantage, following, reward, sample_anchors
from phases.quiet_star.thinker import Sampled, Thinker, read_thoughts, sample_thoughts
from phases.quiet_star.threads import Text, read_text
from phases.training.loss import linear_cross_entropy, linear_nll, row_nll
from phases.training.objective import Objective


class QuietStar(Objective):
    """Thoughts at sampled positions of a batch, mixed in and reinforced."""

    def __init__(self, thinker: Thinker, config: QuietStarConfig, sampled: bool = True) -> None:
        super().__init__(thinker)
        self.settings, self.sampled = config, sampled
        self.seen: dict[str, torch.Tensor] = {}

    def forward(self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float) -> torch.Tensor:
        """The loss summed over rows whose weights sum to one each, nats."""
        thinker, thoughts = self.model, self.settings.thoughts
        inputs_BT, target_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
        place_BT = torch.arange(inputs_BT.shape[1], device=inputs_BT.device).expand_as(inputs_BT)
        plain_BTD, text, _ = read_text(thinker.model.model, place_BT, input_ids=inputs_BT, use_cache=False)
        head_VD = thinker.model.lm_head.weight
        plain = linear_cross_entropy(plain_BTD, head_VD, target_BT, weight_BT)
        anchor_BP = sample_anchors(weight_BT, thoughts.positions, thoughts.ahead)
        rows, places = anchor_BP.shape
        shape = (rows, thoughts.samples if self.sampled else 1, places)
        anchor_BR = anchor_BP.repeat(1, shape[1])
        drawn = self._thoughts(text, anchor_BR)
        target_BPK = following(target_BT, anchor_BP, thoughts.ahead)
        said_BRND, after_BRKD = read_thoughts(
            thinker, text, anchor_BR, drawn.tokens_BRN, target_BPK[..., :-1].repeat(1, shape[1], 1)
        )
        plain_BPKD = following(plain_BTD, anchor_BP, thoughts.ahead)
        after_BSPKD = after_BRKD.view(*shape, *after_BRKD.shape[2:])
        mixing = thinker.head(plain_BPKD[:, None, :, 0].expand_as(after_BSPKD[..., 0, :]), after_BSPKD[..., 0, :])
        mixed_BSPKD = mix(plain_BPKD[:, None], after_BSPKD, mixing[..., None])
        # What is learnt of a position weighs as much as in plain training, relative to its row.
        relative_BPK = following(weight_BT, anchor_BP, thoughts.ahead)
        relative_BPK = relative_BPK / weight_BT.amax(1)[:, None, None]
        share_BPK = relative_BPK / relative_BPK.sum((1, 2), keepdim=True) / shape[1]
        target_N = target_BPK[:, None].expand(mixed_BSPKD.shape[:-1]).flatten()
        share_N = share_BPK[:, None].expand(mixed_BSPKD.shape[:-1]).flatten()
        helped, nll_N = linear_nll(mixed_BSPKD.flatten(0, -2), head_VD, target_N, share_N)
        without_N = row_nll(plain_BPKD.flatten(0, -2), head_VD, target_BPK.flatten())
        gain_BSP = reward(nll_N.view(*shape, -1), without_N.view_as(target_BPK), relative_BPK)
        self._see(drawn, gain_BSP, mixing, plain, helped, rows)
        total = 0.5 * plain + 0.5 * helped
        if self.sampled and self.settings.reinforce.weight and thoughts.tokens:
            total = total + self.settings.reinforce.weight * self._policy(said_BRND, drawn, gain_BSP)
        return total

    def _thoughts(self, text: Text, anchor_BR: torch.Tensor) -> Sampled:
        thoughts = self.settings.thoughts
        if self.sampled:
            return sample_thoughts(self.model, text, anchor_BR, thoughts.tokens, thoughts.temperature)[0]
        pauses = anchor_BR[..., None].expand(-1, -1, thoughts.tokens)
        return Sampled(torch.full_like(pauses, self.model.start), 0.0)

    def _policy(self, said_BRND: torch.Tensor, drawn: Sampled, gain_BSP: torch.Tensor) -> torch.Tensor:
        """Σ over rows of the mean over their thoughts' tokens of −A · log π."""
        settings = self.settings.reinforce
        worth_BR = advantage(gain_BSP, settings.positive_only).flatten(1)
        weight_BRN = (worth_BR / drawn.tokens_BRN[0].numel())[..., None].expand(drawn.tokens_BRN.shape)
        # The delimiters could not be drawn: the policy is over the other tokens.
        start, end = self.model.start, self.model.end
        matrix_VD = self.model.model.lm_head.weight
        allowed = torch.ones(len(matrix_VD), dtype=torch.bool, device=matrix_VD.device)
        allowed[[start, end]] = False
        ids = allowed.cumsum(0) - 1
        return linear_cross_entropy(
            said_BRND / settings.temperature, matrix_VD[allowed], ids[drawn.tokens_BRN], weight_BRN
        )

    @torch.no_grad()
    def _see(
        self,
        drawn: Sampled,
        gain_BSP: torch.Tensor,
        mixing: torch.Tensor,
        plain: torch.Tensor,
        helped: torch.Tensor,
        rows: int,
    ) -> None:
        self.seen = {
            "reward": gain_BSP,
            "spread": gain_BSP.std(1) if gain_BSP.shape[1] > 1 else torch.zeros(()),
            "mixing_weight": mixing,
            "plain_nll": plain / rows,
            "mixed_nll": helped / rows,
            "thought_entropy": torch.tensor(drawn.entropy),
        }

    def curves(self) -> dict[str, float]:
        """Reward, mixing weight, entropy of the thoughts and both losses at the last step."""
        return {name: float(value.mean()) for name, value in self.seen.items()}
