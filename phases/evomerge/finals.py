"""The finals: the few best of every search measured again on a larger probe, and the winner taken from there.

A search looks at hundreds of candidates through a small probe, so its best is partly the luckiest: on a toy with 160
items a speciality the chosen merge lost .008 from validation to test while the true best parent, unlucky on the same
items, stood .05 below its test value. Measuring few candidates on many items costs little and removes most of that.
The control's finalists get the same second look, and the baselines take part in both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from phases.evomerge.genome import baselines
from phases.evomerge.lineage import Candidate, Lineage, Record

Searches = Mapping[int, tuple[Lineage, Lineage]]
"""(evolution, random) by seed."""


@dataclass(frozen=True)
class Finals:
    """Records on the large probe."""

    controls: dict[str, Record]
    """The trunk, each parent, the uniform soup."""
    evolution: dict[int, Record]
    """The best of each seed's search."""
    random: dict[int, Record]
    """The best of each seed's random search."""

    @property
    def winner_seed(self) -> int:
        """The seed whose search found the fittest; the lowest among equals."""
        return max(self.evolution, key=lambda seed: (self.evolution[seed].fitness, -seed))


def hold_finals(searches: Searches, names: tuple[str, ...], finalists: int, lineage: Lineage) -> Finals:
    """Measure the baselines and the best `finalists` distinct genomes of each search through `lineage`."""
    first = next(iter(searches))
    candidates = [
        Candidate(id=i, generation=0, seed=first, search="finals", origin=name, genome=genome)
        for i, (name, genome) in enumerate(baselines(names).items())
    ]
    groups: dict[tuple[int, int], list[int]] = {}
    for seed, pair in searches.items():
        for side, search in enumerate(pair):
            chosen = best_distinct(search.records, finalists)
            start = len(candidates)
            candidates += [record_as_finalist(record, start + i) for i, record in enumerate(chosen)]
            groups[seed, side] = list(range(start, len(candidates)))
    records = lineage.measure(candidates)
    controls = dict(zip(baselines(names), records, strict=False))

    def best(seed: int, side: int) -> Record:
        entrants = [*(records[i] for i in groups[seed, side]), *controls.values()]
        return max(entrants, key=lambda record: record.fitness)

    return Finals(controls, {s: best(s, 0) for s in searches}, {s: best(s, 1) for s in searches})


def best_distinct(records: list[Record], count: int) -> list[Record]:
    """The `count` fittest records with different genomes, the earliest first among equals."""
    ranked = sorted(records, key=lambda record: (-record.fitness, record.id))
    distinct: dict[str, Record] = {}
    for record in ranked:
        distinct.setdefault(record.genome.key, record)
    return list(distinct.values())[:count]


def record_as_finalist(record: Record, number: int) -> Candidate:
    """The same genome as a candidate of the finals; its one parent is its number within its search."""
    return Candidate(
        id=number,
        generation=record.generation,
        seed=record.seed,
        search="finals",
        origin=record.search,
        genome=record.genome,
        parents=(record.id,),
    )
