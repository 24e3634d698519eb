"""Which positions think, what comes after them, and which thoughts are reinforced (arXiv 2403.09629, section 4.4)."""

import torch

from phases.lookup import rows_at


def sample_anchors(weight_BT: torch.Tensor, count: int | None, ahead: int) -> torch.Tensor:
    """(B, P) sorted places whose thoughts are followed by `ahead` known tokens; all of them when `count` is None.

    `weight_BT` is the loss weight of predicting the token after each place; places are drawn without replacement in
    proportion to it, so that thoughts are spent where the loss is. Every row gets as many places as the others.
    """
    chance = weight_BT[:, : weight_BT.shape[1] - ahead + 1]
    places = chance.shape[1]
    if count is None or count >= places:
        return torch.arange(places, device=chance.device).expand(len(chance), places)
    # A row may have fewer places of any weight than are wanted: the rest is drawn from those of none.
    return torch.multinomial(chance + 1e-6 * chance.amax(1, keepdim=True).clamp(min=1e-6), count).sort(1).values


def following(values_BT: torch.Tensor, anchor_BP: torch.Tensor, ahead: int) -> torch.Tensor:
    """(B, P, ahead, …) what stands at the anchor's place and at the `ahead − 1` places after it."""
    place = anchor_BP[..., None] + torch.arange(ahead, device=anchor_BP.device)
    row = torch.arange(len(values_BT), device=anchor_BP.device)[:, None, None]
    return rows_at(values_BT.flatten(0, 1), row * values_BT.shape[1] + place)


def reward(nll_BSPK: torch.Tensor, plain_BPK: torch.Tensor, weight_BPK: torch.Tensor) -> torch.Tensor:
    """(B, S, P) nats that each of S thoughts saves over the `ahead` true tokens, against no thought."""
    return ((plain_BPK[:, None] - nll_BSPK) * weight_BPK[:, None]).sum(-1)


def advantage(reward_BSP: torch.Tensor, positive_only: bool) -> torch.Tensor:
    """(B, S, P) reward less the mean over the S thoughts of the same place; without the negative ones if asked."""
    relative = reward_BSP - reward_BSP.mean(1, keepdim=True)
    return relative.clamp(min=0) if positive_only else relative
