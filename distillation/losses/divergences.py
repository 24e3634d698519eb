"""Divergences between a teacher's distribution p and a student's q, of logits, row by row, in nats times τ².

    forward KL       Σ p log(p/q)            covers all that the teacher says
    reverse KL       Σ q log(q/p)            says nothing that the teacher would not: on the student's own samples
    generalised JSD  β KL(p‖m) + (1−β) KL(q‖m), m = βp + (1−β)q                          (GKD, arXiv 2306.13649)

β = 0 and 1 are forward and reverse KL themselves: the JSD vanishes there, and JSD/β and JSD/(1−β) tend to them. Both
distributions are softmax(logits / τ); τ² keeps gradients' size (Hinton et al., arXiv 1503.02531). Differentiable by the
student's logits, and free of NaN whatever is finite or −inf: a log-probability below −10⁶ counts as that.

Shapes: N rows, V vocabulary.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(N,) nats of (N, V) logits of the student and (N, V) of the teacher."""
LOWEST = -1e6
"""Nats; where 0 · log 0 would be NaN, and an impossible token infinitely expensive."""


def forward_kl(student_NV: torch.Tensor, teacher_NV: torch.Tensor, tau: float = 1.0) -> torch.Tensor:
    """(N,) τ² · KL(p ‖ q)."""
    log_q, log_p = _log_softmax(student_NV, tau), _log_softmax(teacher_NV, tau)
    return tau**2 * _kl(log_p, log_q)


def reverse_kl(student_NV: torch.Tensor, teacher_NV: torch.Tensor, tau: float = 1.0) -> torch.Tensor:
    """(N,) τ² · KL(q ‖ p)."""
    log_q, log_p = _log_softmax(student_NV, tau), _log_softmax(teacher_NV, tau)
    return tau**2 * _kl(log_q, log_p)


def generalised_jsd(
    student_NV: torch.Tensor, teacher_NV: torch.Tensor, beta: float = 0.5, tau: float = 1.0
) -> torch.Tensor:
    """(N,) τ² · JSD_β; forward KL at β = 0, reverse KL at β = 1. Raises `ValueError` for a β outside of [0, 1]."""
    if not 0 <= beta <= 1:
        raise ValueError(f"beta={beta}: has to be 0 (forward KL) to 1 (reverse KL)")
    if beta == 0:
        return forward_kl(student_NV, teacher_NV, tau)
    if beta == 1:
        return reverse_kl(student_NV, teacher_NV, tau)
    log_q, log_p = _log_softmax(student_NV, tau), _log_softmax(teacher_NV, tau)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return tau**2 * (beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m))


def _log_softmax(logits_NV: torch.Tensor, tau: float) -> torch.Tensor:
    return functional.log_softmax(logits_NV / tau, -1).clamp(min=LOWEST)


def _kl(log_a_NV: torch.Tensor, log_b_NV: torch.Tensor) -> torch.Tensor:
    return (log_a_NV.exp() * (log_a_NV - log_b_NV)).sum(-1)
