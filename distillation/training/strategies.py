"""From a strategy to what the training loop takes: rows of tokens with what teachers thought of them, and an objective.

    lesson = prepare(Logits(), records, tutors, tokenizer, 256, work)             # rows and caches, on the disk
    train(lesson.objective(model), lesson.source(model, seed), training, folder, name="student", seed=seed)

What is prepared depends on records, teachers and what is stored of them, not on how long or how fast is trained: a
search prepares once. Only `jsd`, `reverse` and `on_policy` keep a teacher in memory; else it is gone before a student
is opened.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distillation.cache.config import CacheConfig
from distillation.cache.read import Cache
from distillation.cache.write import cache_teacher
from distillation.record import Record
from distillation.training.cached_rows import CachedRows, Part
from distillation.training.cross_rows import CrossObjective, CrossRows
from distillation.training.objective import DistilObjective
from distillation.training.on_policy import OnPolicyObjective, OwnTexts
from distillation.training.row_file import RowFile, open_rows, tokenizer_digest
from distillation.training.rows import TextRows, pack_records
from distillation.training.strategy_config import (
    CrossTokenizer,
    Logits,
    MultiTeacher,
    OnPolicy,
    Rationale,
    Response,
    Strategy,
    Trusting,
)
from distillation.training.warmed import Warmed
from distillation.validation.grading import is_right
from phases.checkpoint import Checkpoint
from phases.errors import ConfigError, DataError
from phases.storage import sha256_json
from phases.training.batches import RowSource
from phases.training.objective import Objective


@dataclass(frozen=True)
class Tutor:
    """A teacher whose weights are on this machine."""

    name: str
    """As `Record.teacher` has it."""
    checkpoint: Checkpoint
    quality: float = 1.0
    """Held-out accuracy, 0 … 1: what teachers are pooled by."""


@dataclass(frozen=True)
class Lesson:
    """What is learnt, prepared on the disk."""

    strategy: Strategy
    parts: tuple[Part, ...]
    records: tuple[Record, ...]
    tutors: tuple[Tutor, ...]
    tokenizer: Any
    across: tuple[RowFile, Cache] | None = None
    """The records in the teacher's own tokens, where those are others."""

    @property
    def digest(self) -> str:
        """Over everything that a student learns from."""
        seen = [
            [
                part.rows.digest,
                [(cache.digest, weight) for cache, weight in part.teachers],
                None if part.trust_E is None else part.trust_E.tolist(),
            ]
            for part in self.parts
        ]
        across = [one.digest for one in self.across or ()]
        tutors = [tutor.checkpoint.digest for tutor in self.tutors]
        return sha256_json([self.strategy.model_dump(mode="json"), seen, across, tutors])

    @property
    def caches(self) -> tuple[Cache, ...]:
        """All teachers' caches."""
        beside = self.across[1:] if self.across else ()
        return (*(cache for part in self.parts for cache, _ in part.teachers), *beside)

    def source(self, model: Any, seed: int, steps: int) -> RowSource:
        """The rows of each of `steps` steps; `model` writes some of them where that is the strategy."""
        if self.across:
            return CrossRows(self.parts[0].rows, *self.across, seed)
        rows = CachedRows(self.parts, seed)
        if isinstance(self.strategy, OnPolicy):
            return OwnTexts(rows, self.records, model, self.tokenizer, self.strategy, steps, seed)
        return rows

    def objective(self, model: Any) -> Objective:
        """What a step minimises."""
        strategy = self.strategy
        if isinstance(strategy, Response):
            return DistilObjective(model, 0.0)
        if isinstance(strategy, CrossTokenizer):
            return CrossObjective(model, strategy.weight)
        if isinstance(strategy, OnPolicy):
            return OnPolicyObjective(model, self.tutors[0].checkpoint.model(), strategy)
        if isinstance(strategy, Logits) and strategy.live:
            return Warmed(model, self.tutors[0].checkpoint.model(), strategy)
        ghost = any(cache.ghost for cache in self.caches)
        return DistilObjective(model, strategy.alpha if self.caches else 0.0, strategy.cache.tau, ghost)


def prepare(
    strategy: Strategy,
    records: Sequence[Record],
    tutors: Sequence[Tutor],
    tokenizer: Any,
    block_tokens: int,
    work: Path,
    *,
    text: TextRows | None = None,
) -> Lesson:
    """Pack the records and store what the tutors think of them; what is there already is taken.

    Raises `ConfigError` for tutors that the strategy cannot use, and `DataError` for records without completion.
    """
    check_strategy(strategy, tutors, tokenizer)
    packing = _Packing(tokenizer, block_tokens, work)
    parts: tuple[Part, ...]
    if isinstance(strategy, MultiTeacher) and strategy.combine == "route":
        parts = _routed(strategy, records, tutors, packing, text)
    else:
        parts = (_together(strategy, records, tutors, packing, text),)
    across = None
    if isinstance(strategy, CrossTokenizer):
        theirs = replace(packing, tokenizer=tutors[0].checkpoint.tokenizer())
        rows = theirs.rows("theirs", records, strategy, None)
        across = rows, theirs.cache(tutors[0], rows, strategy.cache)
    return Lesson(strategy, parts, tuple(records), tuple(tutors), tokenizer, across)


@dataclass(frozen=True)
class _Packing:
    """How and where rows are written."""

    tokenizer: Any
    block_tokens: int
    work: Path

    def rows(self, name: str, records: Sequence[Record], strategy: Strategy, text: TextRows | None) -> RowFile:
        """Rows of some records."""
        form: dict[str, Any] = {}
        if isinstance(strategy, Rationale):
            form = {"rationale": strategy.form, "rationale_weight": strategy.weight}
        said = [[record.key, record.weight] for record in records]
        texts = (
            [] if text is None else [hashlib.sha256(a.tobytes()).hexdigest() for a in (text.tokens_NT, text.weight_NT)]
        )
        key = sha256_json([said, tokenizer_digest(self.tokenizer), self.block_tokens, form, texts])
        out = self.work / f"rows.{name}.{key[:16]}"
        if out.is_dir():
            return open_rows(out)
        return pack_records(records, self.tokenizer, self.block_tokens, out, text=text, **form)

    def cache(self, tutor: Tutor, rows: RowFile, config: CacheConfig) -> Cache:
        """What a tutor thinks of some rows."""
        name = f"cache.{tutor.checkpoint.digest[:12]}.{rows.digest[:12]}.{sha256_json(config.model_dump())[:12]}"
        return cache_teacher(tutor.checkpoint, rows, self.work / name, config, self.work / f"{name}.work")


def _together(
    strategy: Strategy, records: Sequence[Record], tutors: Sequence[Tutor], packing: _Packing, text: TextRows | None
) -> Part:
    """All records in one file of rows, whoever answered them."""
    rows = packing.rows("all", records, strategy, text)
    if isinstance(strategy, Response | OnPolicy | CrossTokenizer) or not strategy.alpha:
        return Part(rows)
    if isinstance(strategy, Logits) and strategy.live:
        return Part(rows)
    if not isinstance(strategy, MultiTeacher):
        return Part(rows, [(packing.cache(tutors[0], rows, strategy.cache), 1.0)], _trust(strategy, records))
    shares = pool_weights([tutor.quality for tutor in tutors], strategy.sharpness)
    pooled = [(packing.cache(t, rows, strategy.cache), w) for t, w in zip(tutors, shares, strict=True) if w]
    return Part(rows, pooled, _trust(strategy, records))


def _trust(strategy: Trusting | Rationale, records: Sequence[Record]) -> npt.NDArray[np.float32] | None:
    """(E,) `Part.trust_E`, an example a record; None: everywhere 1."""
    if isinstance(strategy, Rationale) or strategy.trust == 1:
        return None
    known = [is_right(record, record.completion) for record in records]
    return np.where(known, np.float32(strategy.trust), np.float32(1)) if any(known) else None


def _routed(
    strategy: MultiTeacher,
    records: Sequence[Record],
    tutors: Sequence[Tutor],
    packing: _Packing,
    text: TextRows | None,
) -> tuple[Part, ...]:
    """Each record with the tutor that answered it; those of nobody here, and running text, with the best one."""
    best = max(tutors, key=lambda tutor: tutor.quality)
    by_name = {tutor.name: tutor for tutor in tutors}
    parts = []
    for tutor in tutors:
        own = [record for record in records if by_name.get(record.teacher, best) is tutor]
        joined = text if tutor is best else None
        if own or joined is not None:
            rows = packing.rows(tutor.checkpoint.digest[:12], own, strategy, joined)
            cached = [(packing.cache(tutor, rows, strategy.cache), 1.0)] if strategy.alpha else ()
            parts.append(Part(rows, cached, _trust(strategy, own)))
    return tuple(parts)


def pool_weights(qualities: Sequence[float], sharpness: float) -> list[float]:
    """Weights that sum to 1: each quality to the power of `sharpness`. Raises `DataError` where nothing is above 0."""
    powers = [max(0.0, quality) ** sharpness for quality in qualities]  # 0 ** 0 is 1: all alike, whatever they know
    if not sum(powers):
        raise DataError("none of the teachers got anything right on held-out records: choose others")
    return [power / sum(powers) for power in powers]


def check_strategy(strategy: Strategy, tutors: Sequence[Tutor], tokenizer: Any) -> None:
    """Raises `ConfigError` of one line for tutors that the strategy cannot use."""
    kind = strategy.kind
    needs = not (isinstance(strategy, Response) or (isinstance(strategy, Rationale) and not strategy.alpha))
    if needs and not tutors:
        raise ConfigError(
            f"strategy.kind={kind}: it learns from probabilities, which no endpoint gives; name a local teacher, "
            "or use kind: response"
        )
    if needs and len(tutors) > 1 and not isinstance(strategy, MultiTeacher):
        names = ", ".join(tutor.name for tutor in tutors)
        raise ConfigError(f"strategy.kind={kind}: one teacher, not {len(tutors)} ({names}); use kind: multi_teacher")
    own = tokenizer_digest(tokenizer)
    other = [t.name for t in tutors if tokenizer_digest(t.checkpoint.tokenizer()) != own]
    if isinstance(strategy, CrossTokenizer) and not other:
        raise ConfigError("strategy.kind=cross_tokenizer: teacher and student have one vocabulary; use kind: logits")
    if needs and other and not isinstance(strategy, CrossTokenizer):
        raise ConfigError(
            f"strategy.kind={kind}: {other[0]} has another tokenizer than the student, so that its probabilities are "
            "of other tokens; use kind: cross_tokenizer, or kind: response"
        )
