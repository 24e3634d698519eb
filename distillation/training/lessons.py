"""What all trainings of a night share: the student that they begin with, its tokens, rows of text, rates.

lessons = Lessons(tutors, records, config, out, work, seed, data)
lesson = lessons.lesson(config.strategy)
start = lessons.start(lesson)
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillation.record import Record
from distillation.training.beside_records import Shares, beside_records
from distillation.training.distil_config import DistilConfig
from distillation.training.rows import TextRows, pack_records
from distillation.training.side_by_side import Job
from distillation.training.strategies import Lesson, Tutor, check_strategy, prepare
from distillation.training.strategy_config import Incremental, Strategy
from distillation.training.student import Own, Pruned, make_student
from distillation.training.variants import with_variants
from phases.checkpoint import Checkpoint, load_tokenizer
from phases.dataset import Dataset
from phases.errors import ConfigError
from phases.training.batches import Rows
from phases.training.config import TrainingConfig

INITIAL = "initial"


@dataclass(frozen=True)
class Lessons:
    """What all trainings of a night share."""

    tutors: tuple[Tutor, ...]
    records: tuple[Record, ...]
    config: DistilConfig
    out: Path
    work: Path
    seed: int
    data: Dataset | None = None

    @cached_property
    def tokenizer(self) -> Any:
        """The student's: its own model's, or else its teacher's."""
        if self.own is not None:
            return load_tokenizer(self.own.path)
        if not self.tutors:
            raise ConfigError("student: without a local teacher there is nothing to cut; set student.kind=checkpoint")
        return self.tutors[0].checkpoint.tokenizer()

    def check(self) -> None:
        """Whether student, strategy and teachers go together: asked before anything is paid. Raises `ConfigError`."""
        check_strategy(self.config.strategy, self.tutors, self.tokenizer)

    @property
    def own(self) -> Own | None:
        """The model that the student starts from, where it is given: the champion, or one's own."""
        if isinstance(self.config.strategy, Incremental):
            return Own(path=self.config.strategy.champion)
        return self.config.student if isinstance(self.config.student, Own) else None

    @property
    def block_tokens(self) -> int:
        """T."""
        default = self.data.block_tokens if self.data is not None else 256
        return self.config.block_tokens or default

    @property
    def training(self) -> TrainingConfig:
        """With the rates of the strategy."""
        training, strategy = self.config.training, self.config.strategy
        rates = ("learning_rate", "matrix_learning_rate")
        factor = strategy.rate if isinstance(strategy, Incremental) else 1.0
        return training.model_copy(update={name: getattr(training, name) * factor for name in rates})

    @cached_property
    def learnt(self) -> list[Record]:
        """The records, and some of them once more in another way."""
        return with_variants(self.records, self.config.variants, self.seed)

    @cached_property
    def text(self) -> TextRows | None:
        """Rows of the data set's streams and of an agent's conversations: their shares of all rows."""
        if self.data is None:
            return None
        counted = len(pack_records(self.learnt, self.tokenizer, self.block_tokens, self.work / "rows.counted"))
        shares = Shares(self.config.text, self.config.conversations, self.config.mix.model_dump())
        teacher = self.tutors[0].checkpoint if self.tutors else None
        return beside_records(self.data, teacher, counted, shares, self.block_tokens, self.seed)

    def lesson(self, strategy: Strategy) -> Lesson:
        """The records as the strategy wants them."""
        folder = self.work / "lesson"
        return prepare(strategy, self.learnt, self.tutors, self.tokenizer, self.block_tokens, folder, text=self.text)

    def start(self, lesson: Lesson) -> Checkpoint:
        """The student before it learns; what it is cut by is measured on rows from all over the lesson."""
        rows = lesson.parts[0].rows
        wanted = self.config.student.calibration_rows if isinstance(self.config.student, Pruned) else 1
        index = np.unique(np.linspace(0, len(rows) - 1, wanted).astype(np.int64))
        tokens, weight = rows.tokens_NT[index].astype(np.int64), np.array(rows.weight_NT[index])
        calibration = Rows(torch.from_numpy(tokens), torch.from_numpy(weight))
        teacher = self.tutors[0].checkpoint if self.tutors else None
        config = self.own or self.config.student
        return make_student(teacher, config, self.work / INITIAL, calibration=calibration, seed=self.seed)

    def job(self, name: str, start: Checkpoint, lesson: Lesson, training: TrainingConfig) -> Job:
        """A training."""
        taught = self.tutors[0].checkpoint if self.tutors else start
        agent = taught if self.config.conversations else None
        return Job(name, start, lesson, training, self.out / name, self.work, agent, self.seed)
