"""The search space: how numbers that an optimiser understands become a genome.

A family is a set of methods that share coordinates. The weighted methods share N weights and N densities, with the
method itself as a category (Sakana's parameter space has the same two numbers a parent, arXiv 2403.13187); slerp
takes the two largest weights and their ratio. The two that lay out layers have coordinates of their own. A draw is
a point x in the unit cube and a tuple of categories c.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phases.evomerge.dare import Rescale
from phases.evomerge.dfs import chosen_path, layout
from phases.evomerge.frankenmerge import slices_of
from phases.evomerge.genome import SPARSE, WEIGHTED, Genome, Method

WEIGHT_MAX = 1.5
"""Weights run from 0 to here: a branch that was kept near the trunk can gain from a longer task vector."""
DENSITY_MIN = 0.1
SCALE_RANGE = (0.5, 1.5)
"""dfs: bounds of W around the identity."""


@dataclass(frozen=True)
class Draw:
    """One point of a family's space."""

    x: tuple[float, ...]
    """Coordinates in [0, 1]."""
    c: tuple[int, ...]
    """Categories, each from 0."""


@dataclass(frozen=True)
class Family:
    """Methods that share coordinates: bounds for the optimiser and the way to a genome."""

    name: str
    methods: tuple[Method, ...]
    parents: int
    """N, the trunk not counted."""
    layers: int
    rescale: Rescale = "density"
    mask_seed: int = 0
    repeats: int = 1
    base: int = 1
    """dfs: the parent of the embedding and the end layers."""

    @property
    def dimensions(self) -> int:
        """Continuous coordinates."""
        if self.name == "weights":
            return self.parents * (2 if set(self.methods) & set(SPARSE) else 1)
        return 2 * len(self._slots) if self.name == "dfs" else 0

    @property
    def categories(self) -> tuple[int, ...]:
        """Sizes of the categorical coordinates."""
        if self.name == "weights":
            return (len(self.methods),) if len(self.methods) > 1 else ()
        if self.name == "frankenmerge":
            return (*(self.parents + 1,) * self.layers, 2)
        return ()

    def start(self) -> tuple[float, ...]:
        """Where the search begins: the soup at density ½; for dfs the base parent alone, unscaled."""
        if self.name == "weights":
            soup = (1 / self.parents / WEIGHT_MAX,) * self.parents
            return (*soup, *(0.5,) * (self.dimensions - self.parents))
        slots = self._slots[: self.dimensions // 2]
        first_round = self.parents * self.layers
        on = [0.75 if slot[0] == self.base and i < first_round else 0.25 for i, slot in enumerate(slots)]
        return (*on, *(0.5,) * len(slots)) if self.name == "dfs" else ()

    def decode(self, draw: Draw) -> Genome:
        """The genome of a draw."""
        if self.name == "frankenmerge":
            return self._decode_layers(draw.c)
        if self.name == "dfs":
            return self._decode_flow(draw.x)
        return self._decode_weights(self.methods[draw.c[0] if draw.c else 0], draw.x)

    def sample(self, method: Method, rng: np.random.Generator) -> Genome:
        """A uniform draw of one method: what random search does."""
        x = tuple(float(v) for v in rng.random(self.dimensions))
        c = [int(rng.integers(size)) for size in self.categories]
        if self.name == "weights" and c:
            c = [self.methods.index(method)]
        return self.decode(Draw(x, tuple(c)))

    def _decode_weights(self, method: Method, x: Sequence[float]) -> Genome:
        weights = tuple(round(v * WEIGHT_MAX, 6) for v in x[: self.parents])
        if method == "linear":
            return Genome(method=method, weights=weights)
        if method == "slerp":
            return slerp_of(weights)
        densities = tuple(round(DENSITY_MIN + (1 - DENSITY_MIN) * v, 6) for v in x[self.parents :])
        if method == "ties":
            scale = round(sum(weights), 6)
            return Genome(method=method, weights=weights, densities=densities, scale=scale)
        return Genome(
            method=method, weights=weights, densities=densities, rescale=self.rescale, mask_seed=self.mask_seed
        )

    def _decode_layers(self, c: Sequence[int]) -> Genome:
        """Layer i from parent c[i]; the last category lays the middle layer out once more."""
        path = list(zip(c[:-1], range(self.layers), strict=True))
        middle = self.layers // 2
        path = path[: middle + 1] + path[middle if c[-1] else middle + 1 :]
        return Genome(method="frankenmerge", slices=slices_of(path))

    @property
    def _slots(self) -> list[tuple[int, int]]:
        stacks = [(p, layer) for p in range(1, self.parents + 1) for layer in range(self.layers)]
        return layout(stacks, self.repeats)

    def _decode_flow(self, x: Sequence[float]) -> Genome:
        slots, (low, high) = self._slots, SCALE_RANGE
        indicator = [v - 0.5 for v in x[: len(slots)]]
        scales = [round(low + (high - low) * v, 6) for v in x[len(slots) :]]
        path, chosen = chosen_path(slots, indicator, scales, self.base)
        return Genome(method="dfs", slices=slices_of(path), scales=tuple(chosen))


def slerp_of(weights: Sequence[float]) -> Genome:
    """Slerp between the two parents of the largest weights, as far as their ratio says."""
    heavy, light = sorted(range(len(weights)), key=lambda i: -weights[i])[:2]
    a, b = sorted((heavy, light))
    total = weights[a] + weights[b]
    t = round(weights[b] / total, 6) if total else 0.5
    return Genome(method="slerp", pair=(a + 1, b + 1), t=t)


def families(
    methods: Sequence[Method], parents: int, layers: int, rescale: Rescale, mask_seed: int, repeats: int
) -> list[Family]:
    """The families that `methods` need, the weighted one first."""
    weighted = tuple(method for method in WEIGHTED if method in methods)
    groups: list[tuple[str, tuple[Method, ...]]] = [("weights", weighted)] if weighted else []
    groups += [(method, (method,)) for method in ("frankenmerge", "dfs") if method in methods]
    return [Family(name, group, parents, layers, rescale, mask_seed, repeats) for name, group in groups]
