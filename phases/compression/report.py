"""`compression.json`: which ratio was reached, what every codec brought, and how each ratio fared after training."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phases.compression.staging import Stage
from phases.compression.stored import Stored
from phases.errors import CheckpointError
from phases.strict import StrictModel

REPORT = "compression.json"


class Rung(StrictModel):
    """One ratio that was tried."""

    ratio: float
    """How many times smaller than float32 it was to be."""
    budget: int
    """Bytes of the file."""
    bytes: int
    """Of the weights as they are stored, without the header."""
    stages: tuple[Stage, ...]
    """Codec after codec, before training."""
    untrained: float
    """Divergence from the parent on held-out rows, nats a token."""
    trained: float
    retention_untrained: float
    """Share of the parent's right answers there, mean over streams."""
    retention: float
    streams: Mapping[str, float]
    """By stream, after training; only those in which the parent has anything right."""
    training_kept: bool
    """Whether training lowered the divergence; else the untrained form stayed."""
    accepted: bool
    """Whether enough was retained."""


class Carried(StrictModel):
    """What one codec carries in the end."""

    codec: str
    """With its settings."""
    matrices: int
    weights: int
    bytes: int


class CompressionReport(StrictModel):
    """All of it."""

    config: Mapping[str, Any]
    rungs: tuple[Rung, ...]
    """In the order in which they were tried; the last is the one that was taken."""
    taken: int
    """Which of them the artefact is."""
    carried: tuple[Carried, ...]


def carried(stored: Stored) -> tuple[Carried, ...]:
    """By codec what it carries, codebooks with theirs, and what none does."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name, codec in stored.codecs.items():
        one = stored.encoded[name]
        found.setdefault(_title(codec), []).append((math.prod(one.shape), one.bytes))
    for codec, book in stored.codebooks.items():
        found[_title(codec)].append((0, 2 * book.numel()))
    if stored.plain:
        found["float16"] = [(tensor.numel(), 2 * tensor.numel()) for tensor in stored.plain.values()]
    return tuple(
        Carried(
            codec=title,
            matrices=sum(weights > 0 for weights, _ in every),
            weights=sum(weights for weights, _ in every),
            bytes=sum(size for _, size in every),
        )
        for title, every in found.items()
    )


def read_report(path: Path) -> CompressionReport:
    """Of a compression checkpoint. Raises `CheckpointError` where it is missing or damaged."""
    try:
        return CompressionReport.model_validate_json((path / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        raise CheckpointError(f"{path / REPORT}: missing or altered; run the compression phase again") from None


def _title(codec: Any) -> str:
    shown = {"ternary": "threshold", "vptq": "vector", "hyper": "bits", "seedlm": "latent"}[codec.name]
    return f"{codec.name}, {shown} {getattr(codec, shown):g}"
