"""`search.json`: what was searched, what it found and what it has to beat, as genomes that can be built again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phases.errors import CheckpointError
from phases.evomerge.finals import Finals, Searches
from phases.evomerge.genome import Genome
from phases.evomerge.lineage import Record
from phases.strict import StrictModel

SEARCH = "search.json"
LINEAGE = "lineage.jsonl"
RECIPE = "mergekit.yaml"


class Finding(StrictModel):
    """A genome with its validation scores."""

    genome: Genome
    description: str
    scores: dict[str, float]
    """Mean of each speciality on the finals' validation probe."""
    fitness: float


class SeedResult(StrictModel):
    """One seed: our search and random search at equal evaluations."""

    seed: int
    evaluations: int
    evolution: Finding
    random: Finding


class SearchReport(StrictModel):
    """Everything in `search.json`. Nothing in it depends on time or machine."""

    config: dict[str, Any]
    names: tuple[str, ...]
    """The trunk's name and the parents', as genomes number them."""
    digests: tuple[str, ...]
    """Their checkpoints' digests."""
    winner: Finding
    winner_seed: int
    seeds: tuple[SeedResult, ...]
    controls: dict[str, Finding]
    """The trunk, each parent, the uniform soup."""


def finding(record: Record, names: tuple[str, ...]) -> Finding:
    """A record as a finding."""
    genome = record.genome
    return Finding(genome=genome, description=genome.describe(names), scores=record.scores, fitness=record.fitness)


def report(
    config: Mapping[str, Any],
    names: tuple[str, ...],
    digests: Sequence[str],
    searches: Searches,
    finals: Finals,
) -> SearchReport:
    """The report over the searches and their finals."""
    seeds = tuple(
        SeedResult(
            seed=seed,
            evaluations=len(ours.records),
            evolution=finding(finals.evolution[seed], names),
            random=finding(finals.random[seed], names),
        )
        for seed, (ours, _) in searches.items()
    )
    return SearchReport(
        config=dict(config),
        names=names,
        digests=tuple(digests),
        winner=finding(finals.evolution[finals.winner_seed], names),
        winner_seed=finals.winner_seed,
        seeds=seeds,
        controls={name: finding(record, names) for name, record in finals.controls.items()},
    )


def read_report(checkpoint: Path) -> SearchReport:
    """The `search.json` of an evomerge checkpoint. Raises `CheckpointError` when it has none or it is altered."""
    path = checkpoint / SEARCH
    try:
        return SearchReport.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; give a checkpoint that the evomerge phase wrote") from None
    except ValueError:
        raise CheckpointError(f"{path}: altered (not a search report); run the phase again") from None
