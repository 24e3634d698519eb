"""The curves of a search, read from the lineage of an evomerge checkpoint."""

from pathlib import Path

from phases.errors import CheckpointError
from phases.evomerge.lineage import Record
from phases.evomerge.report import LINEAGE

Curves = list[list[tuple[float, float]]]
"""One curve a seed of (evaluations, fitness of that candidate)."""


def search_curves(checkpoint: Path) -> tuple[Curves, Curves]:
    """(evolution, random search), one curve a seed in the seeds' order.

    Raises `CheckpointError` when the checkpoint has no lineage or it is altered.
    """
    path = checkpoint / LINEAGE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [Record.model_validate_json(line) for line in lines]
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; give a checkpoint that the evomerge phase wrote") from None
    except ValueError:
        raise CheckpointError(f"{path}: altered (a line is not a record); run the phase again") from None
    return _curves(records, "evolution"), _curves(records, "random")


def _curves(records: list[Record], search: str) -> Curves:
    by_seed: dict[int, list[tuple[float, float]]] = {}
    for record in records:
        if record.search == search:
            by_seed.setdefault(record.seed, []).append((record.id + 1.0, record.fitness))
    return [by_seed[seed] for seed in sorted(by_seed)]
