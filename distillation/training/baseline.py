"""The control at equal budget: the same initial student, the same steps and rates, and no teacher's probabilities.

    plain = baseline_lesson(lesson, "answers", 256, work, text)
    baseline = train_student(start, plain, training, out, work, agent=teacher, seed=seed, name="baseline")

With `answers` it fine-tunes on the very rows of the student, in the same order: what differs is the loss alone. With
`references` it learns what one would have who has no teacher: the answers that came with the data, or the right ones
where those are known. A student that is no better than this has not earned its teacher. Where the teacher gives
nothing but texts (`response`, and `rationale` without its probabilities), fine-tuning on them *is* the student, so the
control learns the references there, whatever was chosen.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from distillation.record import GIVEN, Record
from distillation.training.cached_rows import Part
from distillation.training.rows import TextRows
from distillation.training.strategies import Lesson, prepare
from distillation.training.strategy_config import Rationale, Response, Strategy

Answers = Literal["answers", "references"]
NAME = "baseline"


def learns_from(strategy: Strategy, kind: Answers) -> Answers:
    """What the control of a strategy is trained on."""
    texts_alone = isinstance(strategy, Response) or (isinstance(strategy, Rationale) and not strategy.alpha)
    return "references" if texts_alone else kind


def baseline_lesson(
    lesson: Lesson,
    kind: Answers,
    block_tokens: int,
    work: Path,
    text: TextRows | None = None,
) -> Lesson | None:
    """What the control of `lesson` learns from; None: without the teacher there is nothing to learn from."""
    plain = Response()
    kind = learns_from(lesson.strategy, kind)
    if kind == "answers" and not isinstance(lesson.strategy, Rationale):
        return replace(lesson, strategy=plain, parts=tuple(Part(part.rows) for part in lesson.parts), tutors=())
    records = with_references(lesson.records) if kind == "references" else lesson.records
    if not records and text is None:
        return None
    return prepare(plain, records, (), lesson.tokenizer, block_tokens, work / NAME, text=text)


def control_had(strategy: Strategy, kind: Answers, plain: Lesson | None, *, searched: bool) -> str:
    """What the control has in common with the student, and what it has not; for the report."""
    if plain is None:
        return "the initial student as it is: without the teacher no record has an answer to learn from"
    rates = "as many search trials" if searched else "same rates"
    if learns_from(strategy, kind) == "references":
        return f"same initial student and steps, {rates}; answers that one has without the teacher"
    rows = "texts without worked steps" if isinstance(strategy, Rationale) else "rows, order"
    return f"same initial student, {rows} and steps, {rates}; cross-entropy alone"


def with_references(records: Sequence[Record]) -> list[Record]:
    """The records with what one has without a teacher: the answers that they came with, or else the right ones."""
    known = [(record, _own(record)) for record in records]
    return [replace(record, completion=answer, rationale="", teacher="") for record, answer in known if answer]


def _own(record: Record) -> str:
    came = "" if record.teacher else record.completion
    return record.more.get(GIVEN) or came or record.reference
