"""One night's distillation: a student cut and taught, the control beside it, and how both do on held-out records.

    found = distil(tutors, records, config, out, work, seed=0, validation=held_out, data=dataset)
    found.student, found.baseline, found.figures

`<out>/student` and `<out>/baseline` are checkpoints; the figures are of the validation split: the sealed records are
the gate's. A killed run goes on where it was, and ends in the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillation.record import Record
from distillation.training.baseline import NAME, baseline_lesson, control_had
from distillation.training.distil_config import DistilConfig
from distillation.training.held_out import HeldOut, compare
from distillation.training.lessons import INITIAL, Lessons
from distillation.training.search import Found, search
from distillation.training.side_by_side import train_all
from distillation.training.strategies import Tutor
from distillation.training.strategy_config import CrossTokenizer, Response
from distillation.training.time_limit import Over, ends_before, never
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.phase import MetricsCallback, Pool, ignore_metrics, serial_pool

STUDENT = "student"


@dataclass(frozen=True)
class Distilled:
    """What a night made."""

    student: Checkpoint
    baseline: Checkpoint
    initial: Checkpoint
    """The student before it learnt anything: both began there."""
    figures: dict[str, Any]
    """Of the validation split, and of the work."""
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
    over: Over = never,
) -> Distilled:
    """Make, teach and compare. The first tutor is the one whose place the student is to take; student and baseline are
    the pool's jobs. Once `over` says so a search ends, and nothing is trained.

    Raises an `InputError` of one line then, and where student, strategy, teachers and records do not go together.
    """
    night = Lessons(tuple(tutors), tuple(records), config, out, work, seed, data)
    exam, start = HeldOut(validation, night.tokenizer), night.start(night.lesson(config.strategy))
    strategy, training, found = config.strategy, night.training, None
    if config.search is not None:
        sought = (start, strategy, training, night.lesson, exam, config.search, work / "search")
        found = search(*sought, seed=seed, metrics=metrics, over=over)
        strategy, training = found.strategy, found.training
        ends_before("training", over)
    lesson = night.lesson(strategy)
    plain = baseline_lesson(lesson, config.baseline, night.block_tokens, work, night.text)
    jobs = [night.job(STUDENT, start, lesson, training)]
    if plain is not None:
        rates = night.training
        if config.search is not None and found is not None:
            # As many trials as the student had: rates that suit another loss would make a weak control.
            folder = work / "search.baseline"
            as_many = config.search.model_copy(update={"trials": len(found.trials), "seconds": None})
            rates = search(start, Response(), rates, lambda _: plain, exam, as_many, folder, seed=seed).training
        jobs.append(night.job(NAME, start, plain, rates))
    trained = train_all(jobs, pool, metrics)
    student, baseline = trained[0][0], trained[1][0] if plain is not None else start
    made = {INITIAL: start, STUDENT: student, NAME: baseline}
    pairs = [(STUDENT, NAME)]
    if tutors and not isinstance(strategy, CrossTokenizer):
        made["teacher"] = tutors[0].checkpoint
        pairs.append((STUDENT, "teacher"))
    measured = {name: exam.measure(checkpoint.model()) for name, checkpoint in made.items()}
    figures = compare(measured, pairs) | {
        "seconds": {job.name: seconds for job, (_, seconds) in zip(jobs, trained, strict=True)},
        "control_had": control_had(strategy, config.baseline, plain, searched=config.search is not None),
        "sizes": dict(start.manifest["metrics"]),
        "rows": sum(len(part.rows) for part in lesson.parts),
        "cache_bytes_per_token": [float(cache.card["bytes_per_token"]) for cache in lesson.caches],
    }
    return Distilled(student, baseline, start, figures, found)
