"""A layer's states against the teacher's, through a learnt projection (FitNets, arXiv 1412.6550).

Shapes: N positions, S the student's width, T the teacher's.
"""

import torch


def hidden_error(
    student_NS: torch.Tensor, teacher_NT: torch.Tensor, projection_TS: torch.Tensor, weight_N: torch.Tensor
) -> torch.Tensor:
    """Σ weight · ‖W h_S − h_T‖² / T: the mean square. Positions of weight 0 count as nothing, whatever they hold.

    No gradient flows into the teacher.
    """
    chosen = weight_N > 0
    kind = torch.promote_types(student_NS.dtype, torch.float32)
    apart = (student_NS[chosen] @ projection_TS.T).to(kind) - teacher_NT[chosen].detach().to(kind)
    return (weight_N[chosen].to(kind) * apart.square().mean(-1)).sum()
