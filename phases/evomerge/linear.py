"""Linear merging: the weighted mean of models (model soups, arXiv 2203.05482).

With the trunk among the models and weights (1 − Σw, w₁ … w_N) this is task arithmetic, θ₀ + Σ wᵢτᵢ
(arXiv 2212.04089): the weights then sum to one and need no normalisation.
"""

from collections.abc import Sequence

import torch

from phases.errors import MergeError


def linear(thetas_NP: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """(P,) Σ wᵢθᵢ / Σ wᵢ of N parameter vectors (trailing dimensions are free).

    A parent with weight zero is not touched, so a weight vector with a single one returns that parent bit for bit.
    Raises `MergeError` when the weights sum to zero.
    """
    total = sum(weights)
    if abs(total) < 1e-12:
        raise MergeError(f"linear: the weights {list(weights)} sum to zero; give weights with another sum")
    result = torch.zeros_like(thetas_NP[0])
    for theta_P, weight in zip(thetas_NP, weights, strict=True):
        if weight:
            result.add_(theta_P, alpha=weight)
    return result if total == 1 else result.div_(total)


def trunk_weights(weights: Sequence[float]) -> tuple[float, ...]:
    """(1 − Σw, w₁ … w_N): the linear weights of [trunk, parents…] that equal θ₀ + Σ wᵢτᵢ."""
    return (1.0 - sum(weights), *weights)
