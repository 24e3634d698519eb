"""Any row-by-row loss of logits beside cross-entropy, straight from hidden states, a slice at a time.

    loss, nll, apart = sliced_loss(hidden_ND, head_VD, target_N, weight_N, lambda logits_NV, rows: …, 1 - alpha, alpha)

For teachers in memory and losses that have no short gradient of their own; `stored` is the faster one for caches. A
slice's logits are made, its loss and the gradient by its logits computed at once, and nothing of it is kept but the
gradients by hidden states and head: there is never a (B, T, V) tensor.

Shapes: N positions, V vocabulary, D width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from phases.training.loss import CHUNK

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
    result: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _SlicedLoss.apply(  # type: ignore[no-untyped-call]
        hidden_ND, head_VD, target_N, weight_N, row_loss, text, share
    )
    return result


class _SlicedLoss(torch.autograd.Function):
    """The sums, with their gradients computed at once and scaled in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        head_VD: torch.Tensor,
        target_N: torch.Tensor,
        weight_N: torch.Tensor,
        row_loss: RowLoss,
        text: float,
        share: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        kind = torch.promote_types(hidden_ND.dtype, torch.float32)
        head = head_VD.to(hidden_ND.dtype)
        grad_hidden = torch.empty_like(hidden_ND)
        grad_head = torch.zeros(head_VD.shape, dtype=kind, device=head_VD.device)
        nll, apart = (torch.zeros((), dtype=kind, device=hidden_ND.device) for _ in range(2))
        for start in range(0, len(hidden_ND), CHUNK):
            rows = slice(start, start + CHUNK)
            hidden, weight = hidden_ND[rows], weight_N[rows].to(kind)
            with torch.enable_grad():
                logits = (hidden.detach() @ head.detach().T).to(kind).requires_grad_()
                own_nll = (weight * functional.cross_entropy(logits, target_N[rows], reduction="none")).sum()
                own = (weight * row_loss(logits, rows)).sum()
                (gradient,) = torch.autograd.grad(text * own_nll + share * own, logits)
            nll += own_nll.detach()
            apart += own.detach()
            gradient = gradient.to(hidden.dtype)
            grad_hidden[rows] = gradient @ head
            grad_head += gradient.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_head.to(head_VD.dtype))
        ctx.mark_non_differentiable(nll, apart)
        return text * nll + share * apart, nll, apart

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        scale = grads[0]
        return grad_hidden * scale.to(grad_hidden.dtype), grad_head * scale.to(grad_head.dtype), *[None] * 5
