"""The space of designs: which there are, and uniform draws from it, as the control proposes them.

space = Space(pool, experts=("python", "facts"), max_techniques=6, sigma=0.1, budget=2.0)
at_random(space, rng, taken)                             # Proposal(genome, origin)
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from phases.adas.archive import Origin
from phases.adas.genome import Genome
from phases.adas.technique import Technique

TRIES = 64
"""Proposals that are made anew because they repeat one, before it is taken that there is no other."""
WEIGHTED = 0.25
"""Chance that a random design has explicit weights, or spares experts."""


class Proposal(NamedTuple):
    """A design, and where it comes from."""

    genome: Genome
    origin: Origin


class Child(NamedTuple):
    """A design that an operator can make."""

    techniques: tuple[str, ...]
    weights: Mapping[str, float]
    spared: tuple[str, ...] = ()
    technique: str = ""
    """What is new or gone."""

    @property
    def parts(self) -> tuple[str, ...]:
        """As those of its genome."""
        return Genome(techniques=self.techniques, weights=dict(self.weights), spared=self.spared).parts


class Space:
    """All designs that can be proposed."""

    def __init__(
        self,
        pool: Mapping[str, Technique],
        experts: tuple[str, ...],
        max_techniques: int,
        sigma: float,
        budget: float,
    ) -> None:
        """`sigma`: standard deviation of a step of an expert's weight; `budget`: work over the parent's at most."""
        self.pool, self.experts, self.sigma, self.budget = pool, experts, sigma, budget
        self.groups: dict[str, list[str]] = {}
        """Techniques by group."""
        for name in sorted(pool):
            self.groups.setdefault(pool[name].group, []).append(name)
        self.most = min(max_techniques, len(self.groups))
        """Techniques that a design has at most."""

    def uniform(self, rng: np.random.Generator) -> Genome:
        """Any design: the number of techniques, their groups and they themselves uniform, the rest sometimes."""
        count = int(rng.integers(1, self.most + 1)) if self.most else 0
        groups = [list(self.groups.values())[i] for i in rng.permutation(len(self.groups))[:count]]
        names = tuple(group[int(rng.integers(len(group)))] for group in groups)
        if rng.random() >= WEIGHTED:
            return Genome(techniques=names)
        if self.dispatching.intersection(names):
            return Genome(techniques=names, spared=tuple(one for one in self.experts if rng.random() < 0.5))
        return Genome(techniques=names, weights=self.step(names, {}, rng) or {})

    def singles(self, count: int, rng: np.random.Generator) -> list[Genome]:
        """Designs of one technique, so many or all there are, spread over the groups."""
        shuffled = [[group[i] for i in rng.permutation(len(group))] for group in self.groups.values()]
        queues = [shuffled[i] for i in rng.permutation(len(shuffled))]
        names = [name for layer in zip_longest(*queues) for name in layer if name is not None]
        return [Genome(techniques=(name,)) for name in names[:count]]

    def step(
        self, techniques: tuple[str, ...], weights: Mapping[str, float], rng: np.random.Generator
    ) -> dict[str, float] | None:
        """Weights after a step N(0, σ²) of each: from those of the design, else from those of its recipe.

        None where weights change nothing, or would replace a recipe whose weights are not known here.
        """
        mixture = Genome(techniques=techniques).design(self.pool).mixture
        start = {"none": 0.0, "uniform": 1 / max(1, len(self.experts))}.get(mixture.recipe)
        if not self.experts or mixture.dispatch != "none" or (start is None and not weights):
            return None
        steps = rng.normal(0.0, self.sigma, len(self.experts)).tolist()
        return {
            name: round(weights.get(name, start or 0.0) + step, 4)
            for name, step in zip(self.experts, steps, strict=True)
        }

    @cached_property
    def dispatching(self) -> frozenset[str]:
        """Techniques that choose an expert: with them weights mean nothing, without them what is spared."""
        return frozenset(
            n for n, one in self.pool.items() if one.patch.get("mixture", {}).get("dispatch", "none") != "none"
        )

    def genome(self, child: Child) -> Genome:
        """The child as a genome, without what would mean nothing."""
        if self.dispatching.intersection(child.techniques):
            return Genome(techniques=child.techniques, spared=child.spared)
        return Genome(techniques=child.techniques, weights=dict(child.weights))


def at_random(space: Space, rng: np.random.Generator, taken: set[str]) -> Proposal | None:
    """A uniform design that is not among those taken; None where there seems to be no other."""
    for _ in range(TRIES):
        genome = space.uniform(rng)
        if genome.key not in taken:
            return Proposal(genome, Origin(operator="random"))
    return None
