"""A teacher with another tokenizer: only the shapes of both distributions can be compared, not who has which token.

    Σᵢ |sort(p)ᵢ − sort(q)ᵢ|                  (Universal Logit Distillation, arXiv 2402.12030)

The shorter one is filled up with zeros; of a stored teacher the k likeliest tokens are known, and the others count as
zeros as well. The i-th token of an answer is compared with the i-th of the same answer in the teacher's tokens.

Shapes: N rows, V student's vocabulary, K teacher's probabilities.
"""

import torch
from torch.nn import functional


def sorted_distance(student_NV: torch.Tensor, probability_NK: torch.Tensor) -> torch.Tensor:
    """(N,) sum of the differences between the sorted probabilities, 0 … 2; differentiable by the student's logits."""
    q_NV = functional.softmax(student_NV, -1).sort(-1, descending=True).values
    p_NK = probability_NK.to(q_NV.dtype).sort(-1, descending=True).values
    width = max(q_NV.shape[1], p_NK.shape[1])
    q_NW, p_NW = (functional.pad(x, (0, width - x.shape[1])) for x in (q_NV, p_NK))
    return (q_NW - p_NW).abs().sum(-1)
