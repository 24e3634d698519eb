"""TIES merging: trim, elect a sign, average those that agree (arXiv 2306.01708).

Election is on the *weighted* task vectors and a sum of zero counts as positive, as in mergekit, so that its YAML
reproduces ours. Trimming keeps the `density` share of each tensor's largest |τ|: the order is fixed for a parent,
so a search computes it once (`magnitude_rank`) and a candidate costs one comparison instead of a sort.
"""

import functools
from collections.abc import Sequence

import torch


def magnitude_rank(delta: torch.Tensor) -> torch.Tensor:
    """int32, shape of `delta`: 0 for the entry with the largest |τ|, numel − 1 for the smallest."""
    order = torch.argsort(delta.abs().flatten(), descending=True)
    rank = torch.empty(delta.numel(), dtype=torch.int32)
    rank[order] = torch.arange(delta.numel(), dtype=torch.int32)
    return rank.view_as(delta)


def kept(density: float, numel: int) -> int:
    """Entries that a trim to `density` keeps: at least one when the density is positive."""
    if density >= 1:
        return numel
    return max(1, int(density * numel)) if density > 0 else 0


def trim(delta: torch.Tensor, density: float, rank: torch.Tensor | None = None) -> torch.Tensor:
    """`delta` with all but its `density` share of largest magnitudes set to zero."""
    rank = magnitude_rank(delta) if rank is None else rank
    return delta.masked_fill(rank >= kept(density, delta.numel()), 0)


def consensus(
    deltas_NP: Sequence[torch.Tensor], weights: Sequence[float], normalise: bool, scale: float = 1.0
) -> torch.Tensor:
    """(P,) the disjoint merge: λ · Σ_{agree} wᵢτ̂ᵢ, divided by Σ_{agree} wᵢ when `normalise`.

    `deltas_NP` are trimmed or dropped already; an entry agrees when its sign is that of Σ wᵢτ̂ᵢ. Weights must not be
    negative: the divisor could pass through zero.
    """
    weighted_NP = [delta * weight for delta, weight in zip(deltas_NP, weights, strict=True)]
    total_P = functools.reduce(torch.add, weighted_NP)
    sign_P = (total_P >= 0).to(total_P.dtype).mul_(2).sub_(1)
    merged_P = torch.zeros_like(sign_P)
    divisor_P = torch.zeros_like(sign_P)
    for weighted_P, weight in zip(weighted_NP, weights, strict=True):
        agreeing_P = weighted_P.mul_(sign_P).clamp_(min=0)  # |wτ| where the signs agree, else 0
        merged_P += agreeing_P
        if normalise:
            divisor_P.add_(agreeing_P.sign_(), alpha=weight)
    merged_P *= sign_P
    if normalise:
        merged_P /= divisor_P.masked_fill_(divisor_P == 0, 1)
    return merged_P if scale == 1 else merged_P.mul_(scale)


def ties(
    trunk: torch.Tensor,
    deltas: Sequence[torch.Tensor],
    weights: Sequence[float],
    densities: Sequence[float],
    scale: float = 1.0,
    ranks: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """θ₀ + TIES of one tensor's N task vectors; `scale` is the paper's λ, `ranks` their magnitude ranks if known."""
    ranks = [magnitude_rank(delta) for delta in deltas] if ranks is None else ranks
    trimmed = [trim(*each) for each in zip(deltas, densities, ranks, strict=True)]
    return trunk + consensus(trimmed, weights, normalise=True, scale=scale)
