"""One evolution strategy a family: CatCMA with margin from `cmaes` (arXiv 2504.07884), asked and told in order.

Continuous coordinates live in the unit cube, so one step size (σ₀ = 1/6 as in arXiv 2403.13187) fits all.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from cmaes import CatCMAwM

from phases.evomerge.space import Draw, Family

TIE = 1e-9
"""Fitness of equals is spread by this much: exact-match scores tie often, and the library's bound handling needs a
spread that is not zero. Later candidates rank lower."""


class Optimiser:
    """Ask for draws, tell their fitness (higher is better)."""

    def __init__(self, family: Family, population: int, sigma: float, seed: int) -> None:
        self.family = family
        self.parents: tuple[int, ...] = ()
        """Ids of the candidates that the present distribution was recombined from."""
        continuous = family.dimensions > 0
        self._best_half = population // 2
        self._es = CatCMAwM(
            x_space=[[0.0, 1.0]] * family.dimensions if continuous else None,
            c_space=list(family.categories) or None,
            population_size=population,
            mean=np.array(family.start()) if continuous else None,
            sigma=sigma if continuous else None,
            cov=np.eye(family.dimensions) if continuous else None,
            seed=seed,
        )
        self._asked: list[Any] = []

    @property
    def sigma(self) -> float | None:
        """Step size; None for a family of categories only."""
        return float(self._es._sigma) if self.family.dimensions else None

    def ask(self) -> list[Draw]:
        """A population of draws."""
        self._asked = [self._es.ask() for _ in range(self._es.population_size)]
        return [self._draw(solution) for solution in self._asked]

    def tell(self, fitness: Sequence[float], ids: Sequence[int]) -> None:
        """The fitness of what was asked, in the same order, and the candidates' ids."""
        losses = [-value + TIE * i for i, value in enumerate(fitness)]
        self._es.tell(list(zip(self._asked, losses, strict=True)))
        order = sorted(range(len(losses)), key=losses.__getitem__)
        self.parents = tuple(sorted(ids[i] for i in order[: self._best_half]))

    def _draw(self, solution: Any) -> Draw:
        x = () if solution.x is None else tuple(float(v) for v in solution.x)
        c = () if solution.c is None else tuple(int(row.argmax()) for row in solution.c)
        return Draw(x, c)
