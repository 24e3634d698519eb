"""Lattices of Korobov's: U points θ ↦ 2 frac(½ + (θ − U/2) · a / U) − 1 of a whole direction a = (1, g, g², …).

    points(2, 256)                              # (256, 2) float32 in [−1, 1)
    theta_OJ, error_OJ = nearest(x_OJD, h_JD, 256)

All in whole numbers mod U, hence exact for any θ. The g is the one whose points keep the most distance. Shapes as in
`phases.compression.hyper`.
"""

import itertools
import math
from functools import lru_cache, reduce

import numpy as np
import torch

TOLERANCE = {2: 0.02, 3: 0.1, 4: 0.1}
"""By which the covering radius of D dimensions may be named too large."""
CHUNK = 2**16
"""Blocks at a time; distances at a time are 32 times as many."""


@lru_cache(maxsize=32)
def generator(dimension: int, size: int) -> int:
    """g: the nearest of the points that it makes, everything mod U, are as far apart as can be; the least such.

    All g are tried: milliseconds up to 4,096 points, seconds for D = 4 at 65,536.
    """
    # A shortest vector is no longer than Hermite's constant allows, so neither is its first coordinate.
    first = np.arange(1, min(size, int(1.2 * size ** (1 - 1 / dimension)) + 1) + 1)
    best, least = 1, 0
    for g in range(1, size // 2 + 1):
        square, x = first**2, first
        for _ in range(dimension - 1):
            x = x * g % size
            square = square + np.minimum(x, size - x) ** 2
        if square.min() > least:
            best, least = g, int(square.min())
    return best


@lru_cache(maxsize=32)
def points(dimension: int, size: int) -> torch.Tensor:
    """(U, D) float32 in [−1, 1): p(θ). Shared between callers: not to be written to."""
    g, half = generator(dimension, size), size // 2
    theta = torch.arange(size, device="cpu") - half
    whole = torch.stack([(theta * pow(g, d, size) + half) % size - half for d in range(dimension)], 1)
    return whole.float() / half


@lru_cache(maxsize=32)
def covering_radius(dimension: int, size: int) -> float:
    """How far from its nearest point a place in [−1, 1]^D may be; at most 2 % more, for D > 2 10 %.

    By halving cubes, of which no place is further than the middle and half the diagonal, until none may exceed it.
    Less than a second for D = 2, ten for D = 3 and 8,192 points.
    """
    across = math.ceil(size ** (1 / dimension))
    axis = (torch.arange(across, dtype=torch.float64) + 0.5) * 2 / across - 1
    middle_BD, half, least = torch.cartesian_prod(*[axis] * dimension), 1 / across, 0.0
    corners = torch.tensor(list(itertools.product((-0.5, 0.5), repeat=dimension)), dtype=torch.float64)
    h_JD = torch.ones(1, dimension, dtype=torch.float64)
    while len(middle_BD):
        errors = [nearest(part[:, None], h_JD, size)[1][:, 0] for part in torch.split(middle_BD, CHUNK)]
        distance_B = torch.cat(errors).sqrt()
        least = max(least, float(distance_B.max()))
        middle_BD = middle_BD[distance_B + half * math.sqrt(dimension) > least * (1 + TOLERANCE[dimension])]
        middle_BD, half = (middle_BD[:, None] + corners * half).flatten(0, 1), half / 2
    return least * (1 + TOLERANCE[dimension])


def nearest(
    x_OJD: torch.Tensor, h_JD: torch.Tensor, size: int, limit_OJ: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(O, J) int64 θ of the point with the least Σ h (x − p)², and that sum; inf where it is not below the limit.

    Everything is float64; of two points alike near, either may be found.
    """
    limit_OJ = torch.full(x_OJD.shape[:2], math.inf, dtype=torch.float64) if limit_OJ is None else limit_OJ
    theta_OJ = torch.zeros(x_OJD.shape[:2], dtype=torch.int64)
    away_OJ = total((x_OJD.abs() - 1).clamp_min(0).square() * h_JD)
    error_OJ, tried_OJ = torch.full_like(away_OJ, math.inf), away_OJ < limit_OJ
    if x_OJD.shape[2] == 2:
        place_OJ2, bound_OJ = _corner(x_OJD * (size // 2), h_JD, size)
        within_OJ = ((place_OJ2 >= -(size // 2)) & (place_OJ2 < size // 2)).all(2)
        bound_OJ = bound_OJ / (size // 2) ** 2
        tried_OJ &= ~within_OJ & (bound_OJ < limit_OJ)
        theta_OJ = torch.where(within_OJ, place_OJ2[..., 0].long() + size // 2, 0)
        error_OJ = torch.where(within_OJ & (bound_OJ < limit_OJ), bound_OJ, math.inf)
    if tried_OJ.any():
        x_BD, h_BD = x_OJD[tried_OJ], h_JD.expand_as(x_OJD)[tried_OJ]
        p_UD = points(x_OJD.shape[2], size).double()
        terms_UX, found = torch.cat((p_UD.square(), p_UD), 1).T, []
        for x, h in zip(*(torch.split(t_BD, max(1, 32 * CHUNK // size)) for t_BD in (x_BD, h_BD)), strict=True):
            found.append((torch.cat((h, -2 * h * x), 1) @ terms_UX).argmin(1))
        theta_OJ[tried_OJ] = torch.cat(found)
        error_OJ[tried_OJ] = ((x_BD - p_UD[theta_OJ[tried_OJ]]).square() * h_BD).sum(1)
    return theta_OJ, error_OJ


def _corner(x_OJ2: torch.Tensor, h_J2: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(O, J, 2) whole numbers: the lattice point nearest to x, in the box or not, and its Σ h (x − p)²."""
    a_J2, b_J2 = _reduced(h_J2, size)
    volume_J = a_J2[:, 0] * b_J2[:, 1] - a_J2[:, 1] * b_J2[:, 0]
    x_OJ, y_OJ = x_OJ2.unbind(2)
    i_OJ = ((x_OJ * b_J2[:, 1] - y_OJ * b_J2[:, 0]) / volume_J).floor()[..., None]
    j_OJ = ((y_OJ * a_J2[:, 0] - x_OJ * a_J2[:, 1]) / volume_J).floor()[..., None]
    base_OJ2 = i_OJ * a_J2 + j_OJ * b_J2
    best_OJ2, least_OJ = base_OJ2, torch.full_like(x_OJ, math.inf)
    for offset_J2 in (torch.zeros_like(a_J2), a_J2, b_J2, a_J2 + b_J2):
        place_OJ2 = base_OJ2 + offset_J2
        error_OJ = total((x_OJ2 - place_OJ2).square() * h_J2)
        best_OJ2 = torch.where((error_OJ < least_OJ)[..., None], place_OJ2, best_OJ2)
        least_OJ = torch.minimum(error_OJ, least_OJ)
    return best_OJ2, least_OJ


def _reduced(h_J2: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(J, 2) each: a basis of the lattice for every metric h, by Gauss, with 0 ≤ ⟨a, b⟩ ≤ |a|² / 2 and |a| ≤ |b|.

    The triangles 0, a, b and a + b, a, b have no obtuse angle then, and a place in one is nearest to a corner of it.
    """
    a_J2 = torch.tensor([1.0, generator(2, size)], dtype=torch.float64).expand_as(h_J2)
    b_J2 = torch.tensor([0.0, size], dtype=torch.float64).expand_as(h_J2)
    while True:
        longer_J1 = ((a_J2**2 - b_J2**2) * h_J2).sum(1, keepdim=True) > 0
        a_J2, b_J2 = torch.where(longer_J1, b_J2, a_J2), torch.where(longer_J1, a_J2, b_J2)
        dot_J1 = (a_J2 * b_J2 * h_J2).sum(1, keepdim=True)
        steps_J1 = (dot_J1 / (a_J2**2 * h_J2).sum(1, keepdim=True)).round()
        if not steps_J1.any():
            return a_J2, torch.where(dot_J1 < 0, -b_J2, b_J2)
        b_J2 = b_J2 - steps_J1 * a_J2


def total(x: torch.Tensor) -> torch.Tensor:
    """Over the last, short dimension: three times as fast as `sum`."""
    return reduce(torch.add, x.unbind(-1))
