"""The search over designs: propose, play, keep (ADAS's Meta Agent Search, arXiv 2408.08435); and its control.

    archive = Archive(work / "archive.jsonl")
    found = search(POOL, experts, evaluate, SearchConfig(), seed=0, archive=archive)
    found.best.genome, found.units
    random_search(POOL, experts, evaluate, SearchConfig(), 0, Archive(), found.units)

Iteration 0 plays the parent and single techniques, spread over the groups: what helps alone mostly helps in company,
and is found there with the least noise. Every later iteration plays a population of proposals: evolution's, or partly
those of a language model that is shown the archive.

An iteration is a successive halving (arXiv 1502.07943): all play the first rung, the best 1/η of them the next, and so
on; who is beyond the budget of work goes no further. Random search is given the same parent, pool, halving and number
of units, and proposes uniformly.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from phases.adas.archive import Archive, Candidate, Evaluate, Origin, Record
from phases.adas.genome import PARENT, Genome
from phases.adas.pareto import Point, hypervolume, ranks
from phases.adas.proposals import Evolution
from phases.adas.proposer_llm import Guided, ModelSettings
from phases.adas.space import Proposal, Space, at_random
from phases.adas.technique import Technique
from phases.strict import StrictModel

Progress = Callable[[list[Record]], None]


class SearchConfig(StrictModel):
    """How long and how wide the search for a design is, and where its proposals come from."""

    iterations: int = Field(10, ge=1, le=10_000)
    """Iterations, the one with single techniques counted."""
    population: int = Field(8, ge=2, le=1024)
    """Candidates an iteration but the first."""
    singles: int = Field(48, ge=1)
    """Single techniques in the first iteration, the parent on top; those of small groups first."""
    rungs: tuple[int, ...] = Field((8, 24, 72), min_length=1)
    """Units of each domain that a candidate plays on each rung; a rung has more than the one before it."""
    eta: int = Field(3, ge=2, le=16)
    """One in so many goes on to the next rung."""
    max_techniques: int = Field(6, ge=1)
    """Techniques that a design has at most."""
    budget: float = Field(2.0, ge=1)
    """Work that a design may need, as a multiple of the parent's; beyond it, it is stopped."""
    sigma: float = Field(0.1, gt=0)
    """Standard deviation of a step of an expert's weight."""
    proposer: Literal["evolution"] | ModelSettings = "evolution"
    """Evolution alone, or a language model with evolution beside it."""

    @field_validator("rungs")
    @classmethod
    def _rise(cls, rungs: tuple[int, ...]) -> tuple[int, ...]:
        if rungs[0] < 1 or any(more <= fewer for fewer, more in pairwise(rungs)):
            raise ValueError("every rung needs more units than the one before it")
        return rungs


@dataclass(frozen=True)
class Outcome:
    """What a search found."""

    archive: Archive
    budget: float
    """Work that a design may need, as a multiple of the parent's."""

    @property
    def best(self) -> Record:
        """The best candidate within the budget, by its highest rung; the parent where nothing is better."""
        return self.archive.ordered[0]

    @property
    def units(self) -> int:
        """Units that were played."""
        return self.archive.units

    @property
    def front(self) -> list[Record]:
        """Those on the highest rung, within the budget, that no other beats in fitness and work; the cheapest first."""
        there = [record for record in self.archive.on(self.best.rung) if record.feasible]
        fronts = ranks([record.point for record in there])
        return sorted((r for r, rank in zip(there, fronts, strict=True) if rank == 0), key=lambda r: r.scores.work)

    @property
    def hypervolume(self) -> float:
        """Area of fitness and work that the front wins over the parent at all the budget's work."""
        reference: Point = (self.archive.parent(self.best.rung).fitness, self.budget)
        return hypervolume([record.point for record in self.front], reference)

    @property
    def fallbacks(self) -> dict[str, int]:
        """How often the model's proposal was not taken, by the reason."""
        found = Counter(record.origin.fallback for record in self.archive.on(0) if record.origin.fallback)
        return dict(sorted(found.items()))


def ignore_progress(records: list[Record]) -> None:
    """The default: nobody looks on."""


def search(
    pool: Mapping[str, Technique],
    experts: tuple[str, ...],
    evaluate: Evaluate,
    config: SearchConfig,
    seed: int,
    archive: Archive,
    progress: Progress = ignore_progress,
) -> Outcome:
    """`config.iterations` iterations; every candidate is in `archive`, from whose file a killed search goes on.

    It ends early where every design has been proposed. Raises `ConfigError` where the model's key is missing.
    """
    rng = np.random.default_rng(seed)
    space = Space(pool, experts, config.max_techniques, config.sigma, config.budget)
    proposer = Evolution(space, config.population, rng)
    if isinstance(config.proposer, ModelSettings):
        proposer = Guided(config.proposer, space, config.population, rng, archive.path)
    play = _Play(evaluate, config, seed, "search", archive, progress)
    play.parent()
    play.halve([Proposal(genome, Origin(operator="single")) for genome in space.singles(config.singles, rng)], 0)
    for iteration in range(1, config.iterations):
        proposer.look(archive)
        if not play.iteration(iteration, config.population, proposer.propose):
            break
    return Outcome(archive, config.budget)


def random_search(
    pool: Mapping[str, Technique],
    experts: tuple[str, ...],
    evaluate: Evaluate,
    config: SearchConfig,
    seed: int,
    archive: Archive,
    units: int,
    progress: Progress = ignore_progress,
) -> Outcome:
    """The control: uniform proposals until at least so many units were played, and less than one candidate's more."""
    rng = np.random.default_rng(seed)
    space = Space(pool, experts, config.max_techniques, config.sigma, config.budget)
    play = _Play(evaluate, config, seed, "random", archive, progress)
    play.parent()
    iteration = 1
    while archive.units < units:
        count = play.affordable(units - archive.units)
        if not play.iteration(iteration, count, lambda taken, _: at_random(space, rng, taken)):
            break
        iteration += 1
    return Outcome(archive, config.budget)


@dataclass(frozen=True)
class _Play:
    """Plays proposals, by halving."""

    evaluate: Evaluate
    config: SearchConfig
    seed: int
    search: Literal["search", "random"]
    archive: Archive
    progress: Progress

    def parent(self) -> None:
        """The parent on all rungs."""
        self.halve([Proposal(PARENT, Origin(operator="parent"))], 0)

    def iteration(self, number: int, count: int, propose: Callable[[set[str], list[Genome]], Proposal | None]) -> bool:
        """Play so many proposals; False where there are none any more."""
        taken = {record.genome.key for record in self.archive.on(0)}
        proposals: list[Proposal] = []
        while len(proposals) < count and (one := propose(taken, [genome for genome, _ in proposals])):
            proposals.append(one)
            taken.add(one.genome.key)
        self.halve(proposals, number)
        return bool(proposals)

    def halve(self, proposals: Sequence[Proposal], iteration: int) -> None:
        """All on the first rung, the best of a rung that are within the budget on the next."""
        start = len(self.archive.on(0))
        candidates = [
            Candidate(id=i, iteration=iteration, seed=self.seed, search=self.search, origin=origin, genome=genome)
            for i, (genome, origin) in enumerate(proposals, start)
        ]
        for rung in range(len(self.config.rungs)):
            if not candidates:
                return
            records = self.archive.measure(candidates, rung, self.evaluate, self.config.budget)
            self.progress(records)
            best = sorted(records, key=lambda record: record.standing, reverse=True)
            going_on = {record.id for record in best[: self._kept(len(best))] if record.feasible}
            candidates = [candidate for candidate in candidates if candidate.id in going_on]

    def affordable(self, units: int) -> int:
        """The fewest candidates whose halving plays so many units, at most a population."""
        each = [self.archive.parent(rung).scores.units for rung in range(len(self.config.rungs))]
        for count in range(1, self.config.population):
            played, left = 0, count
            for cost in each:
                played, left = played + left * cost, self._kept(left)
            if played >= units:
                return count
        return self.config.population

    def _kept(self, count: int) -> int:
        """How many of a rung go on: one in η, rounded up."""
        return -(-count // self.config.eta)
