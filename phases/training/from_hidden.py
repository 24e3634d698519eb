"""A loss straight from hidden states, without ever holding (B, T, V) logits.

The head's matmul, the loss and both gradients are done slice by slice in the forward pass (the idea of Liger-Kernel,
arXiv 2410.10989, here in plain PyTorch): the logits buffer is CHUNK × V and is reused, which on a CPU also saves the
page faults of a fresh buffer a step.

    loss = loss_from_hidden(hidden_ND, head_VD, step)      # step(logits_nV, rows) -> (its loss, gradient_nV)
"""

from collections.abc import Callable
from typing import Any

import torch

CHUNK = 1024
"""Rows of logits held at a time: at V = 2,048 the buffer (8 MiB) stays in the cache of common CPUs."""
Step = Callable[[torch.Tensor, slice], tuple[torch.Tensor, torch.Tensor]]
"""(n, V) logits of some of the rows, at least float32, which it may overwrite, and which rows they are: the sum of
their weighted losses, and its gradient by these logits."""


def loss_from_hidden(hidden_ND: torch.Tensor, head_VD: torch.Tensor, step: Step) -> torch.Tensor:
    """The sum of all steps' losses, a scalar that carries gradients to hidden states and head, in float32 or wider."""
    loss: torch.Tensor = _FromHidden.apply(hidden_ND, head_VD, step)  # type: ignore[no-untyped-call]
    return loss


class _FromHidden(torch.autograd.Function):
    """The sum's gradients are computed with it and scaled in backward."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: torch.Tensor, head_VD: torch.Tensor, step: Step) -> torch.Tensor:
        kind = torch.promote_types(hidden_ND.dtype, torch.float32)
        head = head_VD.to(hidden_ND.dtype)
        grad_hidden = torch.empty_like(hidden_ND)
        grad_head = torch.zeros(head_VD.shape, dtype=kind, device=head_VD.device)
        total = torch.zeros((), dtype=kind, device=hidden_ND.device)
        for start in range(0, len(hidden_ND), CHUNK):
            rows = slice(start, start + CHUNK)
            hidden = hidden_ND[rows]
            loss, gradient = step((hidden @ head.T).to(kind), rows)
            total += loss
            gradient = gradient.to(hidden.dtype)
            grad_hidden[rows] = gradient @ head
            grad_head += gradient.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_head.to(head_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        (scale,) = grads
        return grad_hidden * scale.to(grad_hidden.dtype), grad_head * scale.to(grad_head.dtype), None
