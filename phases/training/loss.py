"""Weighted cross-entropy straight from hidden states (`from_hidden`). Positions of weight 0 are not computed at all."""

import torch
import torch.nn.functional as F

from phases.training.from_hidden import CHUNK, loss_from_hidden


def linear_cross_entropy(
    hidden_BTD: torch.Tensor, head_VD: torch.Tensor, target_BT: torch.Tensor, weight_BT: torch.Tensor
) -> torch.Tensor:
    """Σ weight · −log softmax(hidden · headᵀ)[target], in nats, as a float32 scalar.

    The caller divides by the weights' sum of the *whole* batch, so that gradient accumulation and several processes
    give the gradient of one large batch. Rows of weight 0 cost nothing.
    """
    chosen = weight_BT.reshape(-1).nonzero().squeeze(1)
    hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
    target_N, weight_N = target_BT.reshape(-1), weight_BT.reshape(-1)
    if len(chosen) < len(hidden_ND):
        hidden_ND, target_N, weight_N = hidden_ND[chosen], target_N[chosen], weight_N[chosen]
    return linear_nll(hidden_ND, head_VD, target_N, weight_N)[0]


def linear_nll(
    hidden_ND: torch.Tensor, head_VD: torch.Tensor, target_N: torch.Tensor, weight_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Σ weight · nll, which carries gradients; (N,) nll of every row in nats, which does not)."""
    nll_N = torch.empty(
        len(hidden_ND), dtype=torch.promote_types(hidden_ND.dtype, torch.float32), device=hidden_ND.device
    )

    def step(logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        target, weight = target_N[rows, None], weight_N[rows, None].to(logits.dtype)
        logits -= logits.amax(1, keepdim=True)  # so that exp cannot overflow
        gold = logits.gather(1, target)
        partition = logits.exp_().sum(1, keepdim=True)
        nll = partition.log() - gold
        nll_N[rows] = nll.squeeze(1)
        gradient = logits.mul_(weight / partition)  # softmax · w
        gradient.scatter_add_(1, target, -weight)  # − onehot · w
        return (weight * nll).sum(), gradient

    return loss_from_hidden(hidden_ND, head_VD, step), nll_N


@torch.no_grad()
def row_nll(hidden_ND: torch.Tensor, head_VD: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """(N,) −log softmax(hidden · headᵀ)[target] in nats, chunk by chunk, without gradients."""
    head = head_VD.to(hidden_ND.dtype)
    parts = zip(torch.split(hidden_ND, CHUNK), torch.split(target_N, CHUNK), strict=True)
    return torch.cat([F.cross_entropy((h @ head.T).float(), t, reduction="none") for h, t in parts])
