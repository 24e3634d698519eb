"""DARE: drop task-vector entries at random, rescale the rest (arXiv 2311.03099).

The paper rescales by 1/density, which keeps the expectation; mergekit matches the tensor's L1 norm instead. Both are
here. The uniform numbers behind the mask depend on seed, parent and tensor name only, never on the order of calls:
a mask drawn anew for each candidate would make the fitness noise. A kept set grows with the density (common random
numbers), so that the fitness is as smooth in the density as it can be.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch

from phases.evomerge.ties import consensus

Rescale = Literal["density", "l1"]


def uniform(shape: torch.Size, seed: int, parent: int, name: str) -> torch.Tensor:
    """float32 in [0, 1) of `shape`, a pure function of its arguments."""
    digest = hashlib.sha256(f"{seed}/{parent}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(shape, generator=generator)


def drop(delta: torch.Tensor, uniform: torch.Tensor, density: float, rescale: Rescale) -> torch.Tensor:
    """`delta` where `uniform` < `density`, else 0, rescaled to keep the expectation or the L1 norm.

    A density of one or more returns `delta` itself. An L1 norm below 1e-7 is not rescaled (as in mergekit).
    """
    if density >= 1:
        return delta
    masked = delta.masked_fill(uniform >= density, 0)
    if rescale == "density":
        return masked / density if density > 0 else masked
    before, after = delta.abs().sum(), masked.abs().sum()
    return masked if min(before, after) < 1e-7 else masked * (before / after)


def dare_linear(trunk: torch.Tensor, dropped_NP: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """θ₀ + Σ wᵢ·drop(τᵢ)."""
    result = trunk.clone()
    for delta, weight in zip(dropped_NP, weights, strict=True):
        result.add_(delta, alpha=weight)
    return result


def dare_ties(trunk: torch.Tensor, dropped_NP: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """θ₀ + the sign consensus of the dropped task vectors, not normalised (mergekit's default)."""
    return trunk + consensus(dropped_NP, weights, normalise=False)
