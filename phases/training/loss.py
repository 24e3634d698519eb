"""Weighted cross-entropy straight from hidden states, without ever holding (B, T, V) logits.

The head's matmul, the softmax and both gradients are done chunk by chunk in the forward pass (the idea of
Liger-Kernel, arXiv 2410.10989, here in plain PyTorch): the logits buffer is chunk × V and is reused, which on a CPU
also saves the page faults of a fresh buffer a step. Positions of weight 0 are not computed at all.
"""

from typing import Any

import torch
import torch.nn.functional as F

CHUNK = 1024
"""Rows of logits held at a time: at V = 2,048 the buffer (8 MiB) stays in the cache of common CPUs."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Σ wᵢ · nllᵢ over rows, and every nllᵢ; the sum's gradients are computed with it and scaled in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        head_VD: torch.Tensor,
        target_N: torch.Tensor,
        weight_N: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        head = head_VD.to(hidden_ND.dtype)
        grad_hidden = torch.empty_like(hidden_ND)
        grad_head = torch.zeros(head_VD.shape, dtype=torch.float32, device=head_VD.device)
        nll_N = torch.empty(len(hidden_ND), dtype=torch.float32, device=hidden_ND.device)
        for start in range(0, hidden_ND.shape[0], CHUNK):
            rows = slice(start, start + CHUNK)
            hidden, target, weight = hidden_ND[rows], target_N[rows, None], weight_N[rows, None]
            logits = (hidden @ head.T).float()
            logits -= logits.amax(1, keepdim=True)  # so that exp cannot overflow
            gold = logits.gather(1, target)
            partition = logits.exp_().sum(1, keepdim=True)
            nll_N[rows] = (partition.log() - gold).squeeze(1)
            gradient = logits.mul_(weight / partition)  # softmax · w
            gradient.scatter_add_(1, target, -weight)  # − onehot · w
            gradient = gradient.to(hidden.dtype)
            grad_hidden[rows] = gradient @ head
            grad_head += gradient.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_head.to(head_VD.dtype))
        ctx.mark_non_differentiable(nll_N)
        return (nll_N * weight_N).sum(), nll_N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grads[0].to(grad_hidden.dtype), grad_head * grads[0].to(grad_head.dtype), None, None


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
    result: tuple[torch.Tensor, torch.Tensor]
    result = _LinearCrossEntropy.apply(hidden_ND, head_VD, target_N, weight_N.float())  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def row_nll(hidden_ND: torch.Tensor, head_VD: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """(N,) −log softmax(hidden · headᵀ)[target] in nats, chunk by chunk, without gradients."""
    head = head_VD.to(hidden_ND.dtype)
    parts = zip(torch.split(hidden_ND, CHUNK), torch.split(target_N, CHUNK), strict=True)
    return torch.cat([F.cross_entropy((h @ head.T).float(), t, reduction="none") for h, t in parts])
