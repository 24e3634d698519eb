"""One night's distillation: a student cut and taught, the control beside it, and how both do on held-out records.

    found = distil(tutors, records, config, out, work, seed=0, validation=held_out, data=dataset)
    found.student, found.baseline, found.figures

`<out>/student` and `<out>/baseline` are checkpoints; the figures are of the validation split: the sealed records are
the gate's. A killed run goes on where it was, and ends in the same bits.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator

from distillation.record import Record
from distillation.training.baseline import NAME, Answers, baseline_lesson
from distillation.training.beside_records import Shares, beside_records
from distillation.training.data_size import DataSize, DataSizeConfig, Values, learning_curve
from distillation.training.held_out import HeldOut, compare
from distillation.training.learner import open_learner
from distillation.training.rows import TextRows, pack_records
from distillation.training.search import Found, search
from distillation.training.search_space import SearchConfig
from distillation.training.side_by_side import Job, train_all
from distillation.training.strategies import Lesson, Tutor, prepare
from distillation.training.strategy_config import CrossTokenizer, Incremental, Logits, Strategy, StrategyConfig
from distillation.training.student import Own, Pruned, StudentConfig, make_student
from distillation.training.train import fit, training_key
from distillation.training.variants import with_variants
from phases.checkpoint import Checkpoint, load_tokenizer
from phases.cognate.config import Mix
from phases.dataset import Dataset
from phases.errors import ConfigError
from phases.phase import MetricsCallback, Pool, ignore_metrics, serial_pool
from phases.storage import write_json
from phases.strict import StrictModel
from phases.training.batches import Rows
from phases.training.config import TrainingConfig

STUDENT, INITIAL = "student", "initial"


class DistilConfig(StrictModel):
    """What a night trains, and on what."""

    student: StudentConfig = Pruned()
    """Where the student comes from."""
    strategy: StrategyConfig = Logits()
    """How it learns."""
    training: TrainingConfig = TrainingConfig(steps=300, learning_rate=0.002, matrix_learning_rate=0.01, decay=0.6)
    """Steps and rates, the same for the control."""
    block_tokens: int | None = Field(None, ge=16)
    """Tokens of a row; empty: as the data set's, or 256."""
    text: float = Field(0.25, ge=0, lt=1)
    """Share of rows of the data set's own streams, where there is a data set: what it could do before should stay."""
    mix: Mix = Mix(text=1.0)
    """Shares of the streams among those rows."""
    conversations: float = Field(0.0, ge=0, lt=1)
    """Share of rows of its own conversations, where the first teacher is an agent of the forge; 0: the student is no
    agent, and has neither tools nor persona."""
    variants: float = Field(0.2, ge=0, le=1)
    """Share of the records that are learnt once more, in other white space or another frame."""
    baseline: Answers = "answers"
    """What the control is fine-tuned on: the very rows of the student, or the references where they are known."""
    search: SearchConfig | None = None
    """Search for rates and shares first; empty: they are as they are given."""
    data_size: DataSizeConfig | None = None
    """Draw a learning curve over the number of records; empty: none."""

    @model_validator(mode="after")
    def _leaves_room(self) -> "DistilConfig":
        if self.text + self.conversations >= 1:
            raise ValueError(f"text {self.text:g} and conversations {self.conversations:g} leave no rows for records")
        return self


@dataclass(frozen=True)
class Distilled:
    """What a night made."""

    student: Checkpoint
    baseline: Checkpoint
    initial: Checkpoint
    """The student before it learnt anything: both began there."""
    figures: dict[str, Any]
    """Of the validation split, and of the work."""
    curve: DataSize | None
    search: Found | None


def distil(
    tutors: Sequence[Tutor],
    records: Sequence[Record],
    config: DistilConfig,
    out: Path,
    work: Path,
    *,
    seed: int,
    validation: Sequence[Record],
    data: Dataset | None = None,
    metrics: MetricsCallback = ignore_metrics,
    pool: Pool = serial_pool,
) -> Distilled:
    """Make, teach and compare. The first tutor is the one whose place the student is to take; student and baseline are
    the pool's jobs.

    Raises an `InputError` of one line where student, strategy, teachers and records do not go together.
    """
    night = _Night(tuple(tutors), tuple(records), config, out, work, seed, data, metrics)
    exam, start = HeldOut(validation, night.tokenizer), night.start(night.lesson(config.strategy))
    strategy, training, found, curve = config.strategy, night.training, None, None
    if config.search is not None:
        sought = (start, strategy, training, night.lesson, exam, config.search, work / "search")
        found = search(*sought, seed=seed, metrics=metrics)
        strategy, training = found.strategy, found.training
    lesson = night.lesson(strategy)
    if config.data_size is not None:
        curve = night.curve(start, strategy, training, exam, config.data_size)
    plain = baseline_lesson(lesson, config.baseline, night.block_tokens, work, night.text)
    jobs = [night.job(name, start, one, training) for name, one in ((STUDENT, lesson), (NAME, plain))]
    (student, student_seconds), (baseline, baseline_seconds) = train_all(jobs, pool, metrics)
    made = {INITIAL: start, STUDENT: student, NAME: baseline}
    pairs = [(STUDENT, NAME)]
    if tutors and not isinstance(strategy, CrossTokenizer):
        made["teacher"] = tutors[0].checkpoint
        pairs.append((STUDENT, "teacher"))
    measured = {name: exam.measure(checkpoint.model()) for name, checkpoint in made.items()}
    figures = compare(measured, pairs) | {
        "seconds": {STUDENT: student_seconds, NAME: baseline_seconds},
        "baseline_learns_from": config.baseline,
        "sizes": dict(start.manifest["metrics"]),
        "rows": sum(len(part.rows) for part in lesson.parts),
        "cache_bytes_per_token": [float(cache.card["bytes_per_token"]) for cache in lesson.caches],
    }
    return Distilled(student, baseline, start, figures, curve, found)


@dataclass(frozen=True)
class _Night:
    """What all trainings of a night share."""

    tutors: tuple[Tutor, ...]
    records: tuple[Record, ...]
    config: DistilConfig
    out: Path
    work: Path
    seed: int
    data: Dataset | None
    metrics: MetricsCallback

    @cached_property
    def tokenizer(self) -> Any:
        """The student's: its own model's, or else its teacher's."""
        if self.own is not None:
            return load_tokenizer(self.own.path)
        if not self.tutors:
            raise ConfigError("student: without a local teacher there is nothing to cut; set student.kind=checkpoint")
        return self.tutors[0].checkpoint.tokenizer()

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
    def text(self) -> TextRows | None:
        """Rows of the data set's streams and of an agent's conversations: their shares of all rows."""
        if self.data is None:
            return None
        learnt = with_variants(self.records, self.config.variants, self.seed)
        counted = len(pack_records(learnt, self.tokenizer, self.block_tokens, self.work / "rows.counted"))
        shares = Shares(self.config.text, self.config.conversations, self.config.mix.model_dump())
        teacher = self.tutors[0].checkpoint if self.tutors else None
        return beside_records(self.data, teacher, counted, shares, self.block_tokens, self.seed)

    def lesson(self, strategy: Strategy, records: Sequence[Record] | None = None, name: str = "lesson") -> Lesson:
        """All records, or some, as the strategy wants them."""
        chosen = with_variants(self.records if records is None else records, self.config.variants, self.seed)
        folder = self.work / name
        return prepare(strategy, chosen, self.tutors, self.tokenizer, self.block_tokens, folder, text=self.text)

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

    def curve(
        self, start: Checkpoint, strategy: Strategy, training: TrainingConfig, exam: HeldOut, config: DataSizeConfig
    ) -> DataSize:
        """Short trainings on nested subsets of the records."""
        short = training.model_copy(update={"steps": config.steps})

        def train_on(records: Sequence[Record], share: float) -> tuple[Values, Values]:
            folder = self.work / f"curve.{share:g}"
            lesson = self.lesson(strategy, records, folder.name)
            done = folder / f"exam.{training_key(start, lesson, short, self.seed)[:16]}.json"
            if not done.is_file():
                learner, name = open_learner(start), f"curve_{share:g}"
                state = folder / done.stem
                fit(learner, lesson, short, state, seed=self.seed, name=name, metrics=self.metrics)
                seen = exam.measure(learner.model)
                write_json(done, [seen.nats_N.tolist(), seen.right_N.tolist()])
            nats, right = json.loads(done.read_text(encoding="utf-8"))
            return np.array(nats), np.array(right)

        return learning_curve(self.records, config, self.seed, train_on)
