"""`DataConfig`: sources, tasks, splits, tokenizer and packing. The defaults are the embedded corpus."""

from typing import Self

from pydantic import Field, model_validator

from phases.data.sources import Embedded, Source
from phases.strict import SectionSeed, StrictModel
from phases.tasks.config import TasksConfig


class DataConfig(StrictModel):
    """What the forge learns from and is measured on."""

    seed: SectionSeed = 0
    """Seed of the generated tasks; empty: the run's."""
    sources: tuple[Source, ...] = Field((Embedded(),), min_length=1)
    """Texts; cut into passages and split by content hash unless `validation` and `test` are given."""
    validation: tuple[Source, ...] = ()
    """Own validation texts; with them `sources` is training text only."""
    test: tuple[Source, ...] = ()
    """Own test texts; given together with `validation`."""
    validation_share: float = Field(0.03, ge=0, lt=0.5)
    """Share of the passages in the validation split."""
    test_share: float = Field(0.03, ge=0, lt=0.5)
    """Share of the passages in the sealed test split."""
    passage_chars: int = Field(3000, ge=200)
    """Size of a passage, the unit of splitting."""
    tasks: TasksConfig = TasksConfig()
    """Tasks with verifiable answers."""
    vocabulary: int = Field(2048, ge=260, le=2**20)
    """Entries of the tokenizer that is trained; an own base model keeps its own."""
    tokenizer_bytes: int = Field(4_000_000, ge=1000)
    """The tokenizer is trained on at most this much of the training text."""
    block_tokens: int = Field(256, ge=16)
    """Tokens of a packed training row."""
    decontaminate: bool = True
    """Drop training passages that repeat held-out text; without it a leak fails the run."""
    ngram: int = Field(13, ge=3)
    """Words of the n-grams of the leakage check."""
    max_overlap: float = Field(0.1, ge=0, le=1)
    """Share of a held-out passage's n-grams that may stand in training text."""

    @model_validator(mode="after")
    def _both_held_out(self) -> Self:
        if bool(self.validation) != bool(self.test):
            raise ValueError("give validation and test together, or neither to split by hash")
        return self
