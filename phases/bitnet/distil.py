"""Cross-entropy against the true token and a teacher's distribution at once, straight from hidden states.

    Σ wᵢ · [ −(1 − κ) · log pᵢ(true token) + κ · KL(teacherᵢ ‖ pᵢ) ]            (Hinton et al., arXiv 1503.02531, τ = 1)

The gradient with respect to the logits is w · (p − (1 − κ) · onehot − κ · teacher): one softmax, whatever κ is. As in
`phases.training.loss` everything is done in the forward pass on a slice of positions at a time, and positions of
weight 0 cost nothing.
"""

from typing import Any

import torch

from phases.training.loss import CHUNK


class _Distillation(torch.autograd.Function):
    """(loss, Σ w · nll, Σ w · KL); only the first carries gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        head_VD: torch.Tensor,
        teacher_NE: torch.Tensor,
        teacher_head_VE: torch.Tensor,
        target_N: torch.Tensor,
        weight_N: torch.Tensor,
        share: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        head, teacher_head = head_VD.to(hidden_ND.dtype), teacher_head_VE.to(teacher_NE.dtype)
        grad_hidden = torch.empty_like(hidden_ND)
        grad_head = torch.zeros(head_VD.shape, dtype=torch.float32, device=head_VD.device)
        nll, divergence = (torch.zeros((), device=hidden_ND.device) for _ in range(2))
        for start in range(0, len(hidden_ND), CHUNK):
            rows = slice(start, start + CHUNK)
            hidden, target, weight = hidden_ND[rows], target_N[rows, None], weight_N[rows, None]
            log_p = (hidden @ head.T).float().log_softmax(1)
            log_q = (teacher_NE[rows] @ teacher_head.T).float().log_softmax(1)
            q = log_q.exp()
            nll -= (weight * log_p.gather(1, target)).sum()
            divergence += (weight * (q * (log_q - log_p)).sum(1, keepdim=True)).sum()
            gradient = log_p.exp_().sub_(q, alpha=share).mul_(weight)
            gradient.scatter_add_(1, target, -(1 - share) * weight)
            gradient = gradient.to(hidden.dtype)
            grad_hidden[rows] = gradient @ head
            grad_head += gradient.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_head.to(head_VD.dtype))
        ctx.mark_non_differentiable(nll, divergence)
        return (1 - share) * nll + share * divergence, nll, divergence

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        scale = grads[0]
        return grad_hidden * scale.to(grad_hidden.dtype), grad_head * scale.to(grad_head.dtype), *[None] * 5


def distillation_loss(
    hidden_BTD: torch.Tensor,
    head_VD: torch.Tensor,
    teacher_BTE: torch.Tensor,
    teacher_head_VE: torch.Tensor,
    target_BT: torch.Tensor,
    weight_BT: torch.Tensor,
    share: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(Σ weight · loss, which carries gradients; Σ weight · nll and Σ weight · KL(teacher ‖ ours), which do not); nats.

    `share` is κ, 0 … 1. Nothing flows into the teacher.
    """
    chosen = weight_BT.reshape(-1).nonzero().squeeze(1)
    hidden_ND, teacher_NE = (h.reshape(-1, h.shape[-1])[chosen] for h in (hidden_BTD, teacher_BTE.detach()))
    result: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _Distillation.apply(  # type: ignore[no-untyped-call]
        hidden_ND,
        head_VD,
        teacher_NE,
        teacher_head_VE.detach(),
        target_BT.reshape(-1)[chosen],
        weight_BT.reshape(-1)[chosen].float(),
        share,
    )
    return result


def hidden_distance(
    ours_LBTD: tuple[torch.Tensor, ...], teacher_LBTD: tuple[torch.Tensor, ...], weight_BT: torch.Tensor
) -> torch.Tensor:
    """Σ weight · ‖ours − teacher‖² / ‖teacher‖² of every position, mean over the L layers; shapes must agree."""
    total = torch.zeros((), device=weight_BT.device)
    for ours, teacher in zip(ours_LBTD, teacher_LBTD, strict=True):
        apart_BT = (ours.float() - teacher.detach().float()).square().sum(-1)
        total = total + (weight_BT * apart_BT / teacher.float().square().sum(-1).clamp(min=1e-12)).sum()
    return total / len(ours_LBTD)
