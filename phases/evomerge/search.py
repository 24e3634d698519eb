"""The search: baselines first, then one evolution strategy a family; and random search as its control.

Generation 0 holds the baselines (trunk, each parent, uniform soup) and every other method at its starting point. After
that a generation belongs to one family: to the one with the best candidate so far, but every fifth to the one that had
the fewest. The best candidate is never lost, and the search stops early when `patience` generations brought nothing
better. Random search draws uniformly from the same space, after the same generation 0, as many candidates.

Measured on 100 synthetic landscapes with binomial noise (five generations of eight): telling the strategy its best
candidate again in each generation changed nothing (.4308 against .4317), so the elite is kept but not told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phases.evomerge.genome import Genome, Method, baselines
from phases.evomerge.lineage import Candidate, Lineage, Record
from phases.evomerge.optimiser import Optimiser
from phases.evomerge.space import Draw, Family

EXPLORE_EVERY = 5
"""Of so many generations one goes to the least tried family."""
Progress = Callable[[list[Record]], None]


@dataclass(frozen=True)
class Budget:
    """How long and how wide a search is."""

    population: int
    generations: int
    patience: int
    sigma: float


def ignore_progress(records: list[Record]) -> None:
    """The default: nobody looks on."""


def first_generation(families: Sequence[Family], names: tuple[str, ...]) -> dict[str, Genome]:
    """The baselines, then every method but linear (that is the soup) at its family's start."""
    chosen = dict(baselines(names))
    for family in families:
        for i, method in enumerate(family.methods):
            layers_c = tuple(1 + k % family.parents for k in range(family.layers))
            c = (i,) if family.name == "weights" else (*layers_c, 0)
            genome = family.decode(Draw(family.start(), c if family.categories else ()))
            if method != "linear":
                chosen[f"{method} at the start"] = genome
    return chosen


def evolve(
    families: Sequence[Family],
    names: tuple[str, ...],
    budget: Budget,
    seed: int,
    lineage: Lineage,
    progress: Progress = ignore_progress,
) -> Record:
    """The best of `budget.generations` generations; every candidate is in `lineage`."""
    progress(_seed_generation(families, names, seed, "evolution", lineage))
    based = [replace(family, base=_best_parent(lineage, len(names) - 1)) for family in families]
    arms = [Optimiser(family, budget.population, budget.sigma, seed) for family in based]
    turns = [0] * len(arms)
    stale = 0
    for generation in range(1, budget.generations):
        best = lineage.best.fitness
        turn = _next_arm(arms, turns, generation, lineage)
        progress(_generation(arms[turn], generation, seed, lineage))
        turns[turn] += 1
        stale = 0 if lineage.best.fitness > best else stale + 1
        if stale >= budget.patience:
            break
    return lineage.best


def random_search(
    families: Sequence[Family],
    names: tuple[str, ...],
    budget: Budget,
    seed: int,
    lineage: Lineage,
    evaluations: int,
    progress: Progress = ignore_progress,
) -> Record:
    """The best of the baselines and uniform draws, `evaluations` candidates in all."""
    progress(_seed_generation(families, names, seed, "random", lineage))
    based = [replace(family, base=_best_parent(lineage, len(names) - 1)) for family in families]
    choices = [(family, method) for family in based for method in family.methods]
    rng = np.random.default_rng(seed)
    while len(lineage.records) < evaluations:
        start = len(lineage.records)
        generation = lineage.records[-1].generation + 1
        batch = []
        for i in range(min(budget.population, evaluations - start)):
            family, method = choices[int(rng.integers(len(choices)))]
            genome = family.sample(method, rng)
            batch.append(_candidate(start + i, generation, seed, "random", family.name, genome))
        progress(lineage.measure(batch))
    return lineage.best


def _seed_generation(
    families: Sequence[Family], names: tuple[str, ...], seed: int, search: str, lineage: Lineage
) -> list[Record]:
    chosen = first_generation(families, names)
    return lineage.measure(
        [_candidate(i, 0, seed, search, origin, genome) for i, (origin, genome) in enumerate(chosen.items())]
    )


def _generation(arm: Optimiser, generation: int, seed: int, lineage: Lineage) -> list[Record]:
    """Ask, measure, tell."""
    start = len(lineage.records)
    batch = [
        _candidate(start + i, generation, seed, "evolution", arm.family.name, arm.family.decode(draw)).model_copy(
            update={"parents": arm.parents, "sigma": arm.sigma}
        )
        for i, draw in enumerate(arm.ask())
    ]
    records = lineage.measure(batch)
    arm.tell([record.fitness for record in records], [record.id for record in records])
    return records


def _candidate(number: int, generation: int, seed: int, search: str, origin: str, genome: Genome) -> Candidate:
    return Candidate(id=number, generation=generation, seed=seed, search=search, origin=origin, genome=genome)


def _next_arm(arms: Sequence[Optimiser], turns: Sequence[int], generation: int, lineage: Lineage) -> int:
    """The least tried family every `EXPLORE_EVERY` generations, else the family of the best candidate."""
    if generation % EXPLORE_EVERY == 0:
        return min(range(len(arms)), key=lambda i: turns[i])
    best: dict[Method, float] = {}
    for record in lineage.records:
        best[record.genome.method] = max(record.fitness, best.get(record.genome.method, 0.0))
    return max(range(len(arms)), key=lambda i: max(best.get(method, 0.0) for method in arms[i].family.methods))


def _best_parent(lineage: Lineage, parents: int) -> int:
    """Number of the fittest specialised model; generation 0 has the trunk at 0 and parent i at i."""
    return 1 + max(range(parents), key=lambda i: lineage.records[1 + i].fitness)
