"""The control at equal budget: the same initial student, the same steps and rates, and no teacher's probabilities.

    plain = baseline_lesson(lesson, "answers", records, 256, work, text)
    baseline = train_student(start, plain, training, out, work, agent=teacher, seed=seed, name="baseline")

With `answers` it fine-tunes on the very rows of the student, in the same order: what differs is the loss alone. With
`references` the right answers take the place of the teachers' texts where they are known: what one would do who has no
teacher. A student that is no better than this has not earned its teacher.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from distillation.record import Record
from distillation.training.cached_rows import Part
from distillation.training.rows import TextRows
from distillation.training.strategies import Lesson, prepare
from distillation.training.strategy_config import Rationale, Response

Answers = Literal["answers", "references"]
NAME = "baseline"


def baseline_lesson(
    lesson: Lesson,
    kind: Answers,
    block_tokens: int,
    work: Path,
    text: TextRows | None = None,
) -> Lesson:
    """What the control of `lesson` learns from."""
    plain = Response()
    if kind == "answers" and not isinstance(lesson.strategy, Rationale):
        return replace(lesson, strategy=plain, parts=tuple(Part(part.rows) for part in lesson.parts), tutors=())
    records = with_references(lesson.records) if kind == "references" else lesson.records
    return prepare(plain, records, (), lesson.tokenizer, block_tokens, work / NAME, text=text)


def with_references(records: Sequence[Record]) -> list[Record]:
    """The records with their right answers, where those are known, and without anybody's steps."""
    return [replace(record, completion=record.reference or record.completion, rationale="") for record in records]
