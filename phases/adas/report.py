"""`adas.json`: what was searched, what was found, and what it has to beat, as genomes that can be played again."""

import json
from pathlib import Path
from typing import Any

from phases.adas.genome import Genome
from phases.errors import CheckpointError
from phases.strict import StrictModel

REPORT, ARCHIVE, CONTROL = "adas.json", "archive.jsonl", "archive.random.jsonl"


class Finding(StrictModel):
    """A genome with its figures on the validation split."""

    genome: Genome
    description: str
    quality: dict[str, float]
    """How often it was right, by domain."""
    n: dict[str, int]
    work: float
    """Tokens through all layers, over the parent's."""
    fitness: float


class Searched(StrictModel):
    """What one search was given."""

    candidates: int
    """Distinct designs that were played."""
    units: int
    """Conversations that were played."""
    best: tuple[float, ...]
    """Fitness of the best so far on the lowest rung, after each iteration."""


class AdasReport(StrictModel):
    """Everything in `adas.json`. Nothing in it depends on time or machine."""

    config: dict[str, Any]
    experts: tuple[str, ...]
    """Domains of the expert vectors."""
    found: dict[str, dict[str, float]]
    """By kind of vector: the weights that the cross-entropy method found."""
    losses: dict[str, dict[str, dict[str, float]]]
    """By kind of vector and expert (`none`: the parent): nats a token of every domain's held-out answers."""
    cosines: dict[str, dict[str, dict[str, float]]]
    """By kind: cosine of the angle between two experts."""
    left_out: tuple[str, ...]
    """Techniques that change nothing for this agent, for want of thoughts, say."""
    parent: Finding
    winner: Finding
    random: Finding
    uniform: Finding
    evolution: Searched
    control: Searched


def read_report(checkpoint: Path) -> AdasReport:
    """That of an adas checkpoint. Raises `CheckpointError` when there is none or it is altered."""
    path = checkpoint / REPORT
    try:
        return AdasReport.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; give a checkpoint that the adas phase wrote") from None
    except ValueError:
        raise CheckpointError(f"{path}: altered (no report of a search); run the phase again") from None
