"""Cross-entropy against the true token and a teacher's distribution at once, straight from hidden states.

    Σ wᵢ · [ −(1 − κ) · log pᵢ(true token) + κ · KL(teacherᵢ ‖ pᵢ) ]            (Hinton et al., arXiv 1503.02531, τ = 1)

The gradient with respect to the logits is w · (p − (1 − κ) · onehot − κ · teacher): one softmax, whatever κ is.
Positions of weight 0 cost nothing.
"""

import torch

from phases.training.from_hidden import loss_from_hidden


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
    target_N, weight_N = target_BT.reshape(-1)[chosen], weight_BT.reshape(-1)[chosen]
    teacher_head = teacher_head_VE.detach().to(teacher_NE.dtype)
    kind = torch.promote_types(hidden_ND.dtype, torch.float32)
    nll, divergence = (torch.zeros((), dtype=kind, device=hidden_ND.device) for _ in range(2))

    def step(logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        target, weight = target_N[rows, None], weight_N[rows, None].to(kind)
        log_p = logits.log_softmax(1)
        log_q = (teacher_NE[rows] @ teacher_head.T).to(kind).log_softmax(1)
        q = log_q.exp()
        own_nll = -(weight * log_p.gather(1, target)).sum()
        own_divergence = (weight * (q * (log_q - log_p)).sum(1, keepdim=True)).sum()
        nll.add_(own_nll)
        divergence.add_(own_divergence)
        gradient = log_p.exp_().sub_(q, alpha=share).mul_(weight)
        gradient.scatter_add_(1, target, -(1 - share) * weight)
        return (1 - share) * own_nll + share * own_divergence, gradient

    return loss_from_hidden(hidden_ND, head_VD, step), nll, divergence


def hidden_distance(
    ours_LBTD: tuple[torch.Tensor, ...], teacher_LBTD: tuple[torch.Tensor, ...], weight_BT: torch.Tensor
) -> torch.Tensor:
    """Σ weight · ‖ours − teacher‖² / ‖teacher‖² of every position, mean over the L layers; shapes must agree."""
    total = torch.zeros((), device=weight_BT.device)
    for ours, teacher in zip(ours_LBTD, teacher_LBTD, strict=True):
        apart_BT = (ours.float() - teacher.detach().float()).square().sum(-1)
        total = total + (weight_BT * apart_BT / teacher.float().square().sum(-1).clamp(min=1e-12)).sum()
    return total / len(ours_LBTD)
