"""`baking.json`: what was learnt from, what was taken out and why, and what each bake did."""

import json
from pathlib import Path

from pydantic import Field, ValidationError

from phases.errors import CheckpointError
from phases.strict import StrictModel

RECORD = "baking.json"


class BakeRecord(StrictModel):
    """One bake."""

    name: str
    asked: int
    """Conversations that the prompted model was asked to answer by itself."""
    kept: int
    """Those that it was baked from: none when too few came out right."""
    right: int
    """Those that came out right."""
    reasons: dict[str, int]
    """Why the others were not, and how many."""
    left_out: int
    """Of the kept, those that did not fit a row."""
    steps: int
    """Optimizer steps."""
    kl_start: float | None
    """Divergence from the prompted model at the first step, nats a token."""
    kl_end: float | None
    """The same at the last."""


class Record(StrictModel):
    """All of it."""

    made: dict[str, int]
    """Conversations that were generated, by kind."""
    rejected: dict[str, dict[str, int]]
    """By kind: why some were taken out, and how many."""
    train: dict[str, int]
    """Conversations that were taught, by kind."""
    traces: dict[str, int] = Field({})
    """The user's own: how many were kept, and why others were not."""
    bakes: tuple[BakeRecord, ...] = ()
    """The bakes, in order."""


def read_record(path: Path) -> Record:
    """Of a checkpoint. Raises `CheckpointError` when it is missing or damaged."""
    try:
        return Record.model_validate(json.loads((path / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        raise CheckpointError(f"{path / RECORD}: missing, truncated or altered; run the phase again") from None
