"""A teacher's distributions to what is stored of them: draws, or the likeliest tokens.

Draws are stratified: the i-th of n takes its uniform number from [i/n, (i+1)/n). Each token's expected count is n · p
exactly, as with independent draws, so the loss and its gradient stay unbiased (arXiv 2503.16870); but a count is never
further than 2 from n · p, so the loss has a fraction of the noise.

Shapes: P positions, V vocabulary, n draws, E stored ids of all positions together.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from distillation.cache.codec import Integers, ghost_codes

SLICE_NUMBERS = 2**23
"""Probabilities that are looked at at a time."""


def strata(seed: Sequence[int], positions: int, draws: int) -> torch.Tensor:
    """(P, n) float64 ascending numbers in [0, 1), one in each n-th."""
    inside = np.random.default_rng(seed).random((positions, draws))
    return torch.from_numpy((np.arange(draws) + inside) / draws)


def slice_rows(vocabulary: int) -> int:
    """Positions of a slice."""
    return max(1, SLICE_NUMBERS // vocabulary)


def split_rows(probability_PV: torch.Tensor, uniform_Pn: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Positions in slices that are small enough for what is computed of them; at least one, which may be empty."""
    size = slice_rows(probability_PV.shape[1])
    return list(zip(torch.split(probability_PV, size), torch.split(uniform_Pn, size), strict=True))


def draw(probability_PV: torch.Tensor, uniform_Pn: torch.Tensor) -> tuple[Integers, Integers, Integers]:
    """((P,) ids of each position, (E,) ids ascending in each, (E,) their counts) at the given quantiles, ascending."""
    total_PV = probability_PV.double().cumsum(1)
    # Scaled by the last sum, not by 1: rounding must not leave a draw beyond the last token.
    at_Pn = uniform_Pn.to(total_PV.device) * total_PV[:, -1:]
    drawn_Pn = torch.searchsorted(total_PV, at_Pn, right=True).clamp(max=probability_PV.shape[1] - 1).cpu().numpy()
    new_Pn = np.diff(drawn_Pn, axis=1, prepend=-1) > 0
    start_E = np.flatnonzero(new_Pn)
    counts_E = np.diff(start_E, append=drawn_Pn.size)
    return new_Pn.sum(1), drawn_Pn.reshape(-1)[start_E].astype(np.int64), counts_E


def likeliest(probability_PV: torch.Tensor, count: int) -> tuple[Integers, Integers, Integers]:
    """((P,) `count`, (E,) ids ascending in each position, (E,) codes of their probabilities)."""
    top = probability_PV.topk(count, dim=1)
    ids_PK, order = top.indices.sort(dim=1)
    codes = ghost_codes(top.values.gather(1, order).cpu().numpy())
    return np.full(len(ids_PK), count), ids_PK.cpu().numpy().reshape(-1), codes.reshape(-1)


def summary(probability_PV: torch.Tensor, depths: Sequence[int]) -> npt.NDArray[np.float64]:
    """Sums over the positions: nats of entropy, and the mass of the `depths` likeliest tokens each."""
    entropy = -torch.xlogy(probability_PV, probability_PV).sum(dtype=torch.float64)
    most = min(max(depths), probability_PV.shape[1])
    mass_K = probability_PV.topk(most, dim=1).values.double().cumsum(1).sum(0)
    return np.array([float(entropy), *(float(mass_K[min(depth, most) - 1]) for depth in depths)])
