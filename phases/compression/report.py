"""`compression.json`: which ratio was reached, what every codec brought, and how each ratio fared after training."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phases.compression.squeezes import Squeeze
from phases.compression.staging import Stage
from phases.compression.stored import Stored
from phases.compression.thoughts import Thoughts
from phases.errors import CheckpointError
from phases.strict import StrictModel

REPORT = "compression.json"


class Rung(StrictModel):
    """One ratio that was tried."""

    ratio: float
    """How many times smaller than float32 it was to be."""
    budget: int
    """Bytes of the file, and of the mixing head's where the parent thinks."""
    bytes: int
    """Of the weights as they are stored, without the file's header."""
    stages: tuple[Stage, ...]
    """Codec after codec, before training."""
    untrained: float
    """Divergence from the parent on held-out rows, nats a token."""
    trained: float
    retention_untrained: float
    """Of the parent, on the validation split (`kept`)."""
    retention: float
    stderr: float
    """Standard error of it."""
    groups: Mapping[str, float]
    """The retention of tasks, domains and text, as far as the parent has any."""
    training_kept: bool
    """Whether training lowered the divergence; else the untrained form stayed."""
    squeezed: tuple[Squeeze, ...]
    """What coding brought of scales and of indices, in the form that was trained."""
    accepted: bool
    """Whether enough was retained, by as many standard errors as are asked."""


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
    """In the order in which they were tried."""
    taken: int
    """Which of them the artefact is."""
    carried: tuple[Carried, ...]

    @property
    def missed(self) -> tuple[str, ...]:
        """Why every ratio above the one that was taken was not, and whether that one keeps too little, too."""
        tried, best = {rung.ratio: rung for rung in self.rungs}, self.rungs[self.taken]
        asked = f"{self.config['retention']:g} and {self.config['sigmas']:g} standard errors asked"
        found = []
        for ratio in self.config["ratios"]:
            rung = tried.get(ratio)
            what = "keeps most, and not enough" if rung is best else "not reached"
            if rung is None and ratio > best.ratio:
                found.append(f"{ratio:g}× {what}: nothing fits")
            elif rung is not None and not rung.accepted:
                found.append(f"{ratio:g}× {what}: retention {rung.retention:.3f} ± {rung.stderr:.3f}, {asked}")
        return tuple(found)


def carried(stored: Stored, thoughts: Thoughts) -> tuple[Carried, ...]:
    """By codec what it carries, codebooks with theirs, what none does, and the mixing head of a model that thinks."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name, codec in stored.codecs.items():
        one = stored.encoded[name]
        found.setdefault(_title(codec), []).append((math.prod(one.shape), one.bytes))
    for codec, book in stored.codebooks.items():
        found[_title(codec)].append((0, 2 * book.numel()))
    if stored.plain:
        found["float16"] = [(tensor.numel(), 2 * tensor.numel()) for tensor in stored.plain.values()]
    head = Carried(codec="float16, mixing head", matrices=3, weights=thoughts.numbers, bytes=thoughts.size)
    every = tuple(
        Carried(
            codec=title,
            matrices=sum(weights > 0 for weights, _ in parts),
            weights=sum(weights for weights, _ in parts),
            bytes=sum(size for _, size in parts),
        )
        for title, parts in found.items()
    )
    return (*every, head) if thoughts.tensors else every


def read_report(path: Path) -> CompressionReport:
    """Of a compression checkpoint. Raises `CheckpointError` where it is missing or damaged."""
    try:
        return CompressionReport.model_validate_json((path / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        raise CheckpointError(f"{path / REPORT}: missing or altered; run the compression phase again") from None


def _title(codec: Any) -> str:
    shown = {"ternary": "threshold", "vptq": "vector", "hyper": "bits", "seedlm": "latent"}[codec.name]
    return f"{codec.name}, {shown} {getattr(codec, shown):g}"
