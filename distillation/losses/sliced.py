"""Any row-by-row loss of logits beside cross-entropy, straight from hidden states, a slice at a time.

    loss, nll, apart = sliced_loss(hidden_ND, head_VD, target_N, weight_N, lambda logits_NV, rows: …, 1 - alpha, alpha)

For teachers in memory and losses that have no short gradient of their own; `stored` is the faster one for caches.
There is never a (B, T, V) tensor (`phases.training.from_hidden`).

Shapes: N positions, V vocabulary, D width.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from phases.training.from_hidden import loss_from_hidden

RowLoss = Callable[[torch.Tensor, slice], torch.Tensor]
"""(n,) nats of the (n, V) logits of some of the positions; the slice says which."""


def sliced_loss(
    hidden_ND: torch.Tensor,
    head_VD: torch.Tensor,
    target_N: torch.Tensor,
    weight_N: torch.Tensor,
    row_loss: RowLoss,
    text: float,
    share: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(Σ weight · (text · nll + share · loss), which carries gradients; Σ weight · nll, Σ weight · loss, which do not).

    Every position counts: leave out those of weight 0 before.
    """
    kind = torch.promote_types(hidden_ND.dtype, torch.float32)
    nll, apart = (torch.zeros((), dtype=kind, device=hidden_ND.device) for _ in range(2))

    def step(logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        weight = weight_N[rows].to(kind)
        with torch.enable_grad():
            logits.requires_grad_()
            own_nll = (weight * functional.cross_entropy(logits, target_N[rows], reduction="none")).sum()
            own = (weight * row_loss(logits, rows)).sum()
            loss = text * own_nll + share * own
            (gradient,) = torch.autograd.grad(loss, logits)
        nll.add_(own_nll.detach())
        apart.add_(own.detach())
        return loss.detach(), gradient

    return loss_from_hidden(hidden_ND, head_VD, step), nll, apart
