"""Adding experts: their weighted sum, or the mean of those that agree about the sign (TIES, arXiv 2306.01708).

    W = W₀ + Σ_k α_k Δ_k                                 (Transformer², arXiv 2501.06252; task arithmetic, 2212.04089)

    changes = weighted_sum(vectors, {"python": 0.5, "facts": -0.1})

Of z-vectors the sum is z = 1 + Σ α_k (z_k − 1), so that for both kinds the change of the latent weight is linear in α.
"""

from collections.abc import Mapping

import torch

from phases.adas.vectors import Kind, Vectors, change
from phases.evomerge.ties import ties

DENSITY = 0.2
"""Share of an expert's changes, the largest of each matrix, that is kept before signs are elected; the paper's."""


def weighted_sum(kind: Kind, vectors: Vectors, weights: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """By matrix Σ α_k (z_k − 1), (R,), or Σ α_k τ_k, (O, I), in float64."""
    total: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        for matrix, vector in vectors[name].items():
            if matrix not in total:
                total[matrix] = torch.zeros(vector.shape, dtype=torch.float64)
            total[matrix].add_(change(kind, vector), alpha=weight)
    return total


def elected(kind: Kind, vectors: Vectors) -> dict[str, torch.Tensor]:
    """By matrix TIES of all experts at equal weights, in float32."""
    experts, share = list(vectors.values()), [1 / len(vectors)] * len(vectors)
    merged = {}
    for matrix in experts[0]:
        changes = [change(kind, expert[matrix]) for expert in experts]
        merged[matrix] = ties(torch.zeros_like(changes[0]), changes, share, [DENSITY] * len(changes))
    return merged
