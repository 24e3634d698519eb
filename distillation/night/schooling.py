"""From a project's sources to a version of its data: gathered, curated, gaps filled, answered, curated again.

    school = Schooling(workshop, config…)
    plan = school.plan(out)                                      # questions and the sealed test
    checked = school.expected(plan, faculty, budget)             # what settings are chosen by
    data = school.answered(plan, faculty, budget, checked)       # with answers, as a version on the disk

Curation comes twice: questions before anybody is paid to answer them, answers before anybody learns from them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from distillation.curation.config import CurationConfig
from distillation.curation.curate import Curated, curate, in_order
from distillation.curation.decontamination import Sealed
from distillation.curation.pii import Kind, redact_record
from distillation.curation.step import Step
from distillation.curation.synthesis import gaps, synthesise
from distillation.curation.versions import version, write_version
from distillation.money.budget import Budget
from distillation.night.asking import AskConfig, Filled, complete
from distillation.night.data import DataConfig, Gathered, gather
from distillation.night.faculty import Faculty, Remembered
from distillation.night.workshop import ANSWERS, VERSIONS, Workshop
from distillation.record import Record
from distillation.teachers.store import Attempts, CaptureStore
from distillation.training.data_size import DataSize, subset
from distillation.validation.grading import is_right
from phases.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """A night's questions, before anybody answers them."""

    gathered: Gathered
    questions: Curated
    version: str
    """Of the questions."""
    parent: str
    """Version of the data of the last finished night; empty: this is the first."""

    @property
    def sealed(self) -> list[Record]:
        """The test."""
        return self.gathered.sealed


@dataclass(frozen=True)
class Schooled:
    """What is learnt from."""

    records: list[Record]
    steps: list[Step]
    filled: Filled
    synthetic: dict[str, int]
    """New questions by group."""
    attempts: tuple[Attempts, ...]
    """Requests that brought nothing, of all nights."""
    version: str
    card: dict[str, Any]
    validation: list[Record]
    """What settings are chosen by, each with something that is expected."""
    curve: DataSize | None = None
    """What more questions would bring; None: not drawn."""


@dataclass(frozen=True)
class Schooling:
    """How a project comes by its data."""

    workshop: Workshop
    data: DataConfig
    curation: CurationConfig
    ask: AskConfig
    seed: int

    def plan(self, out: Path, parent: str = "", began: datetime | None = None) -> Plan:
        """Gather and curate the questions. Raises `DataError` where nothing is left, or nothing is sealed.

        `parent`: version of the last finished night's data, from which this night's is named. `began`: when the night
        was first begun; None: now.
        """
        captured = self.workshop.captured(self.data.retention_days, began)
        gathered = held_out_redacted(gather(self.data, out, self.workshop.project, captured), self.curation.redact)
        questions = curate(gathered.train, sealed_questions(gathered), self.curation, self.seed)
        return Plan(gathered, questions, version(questions.records, self.curation), parent)

    def answered(
        self,
        plan: Plan,
        faculty: Faculty,
        budget: Budget,
        validation: list[Record],
        share: float = 1.0,
        progress: Progress | None = None,
    ) -> Schooled:
        """Fill gaps, ask, curate what came, write the version.

        `validation`: what `expected` gave. `share`: of the questions; those of more hold those of less.
        """
        ledger = self.workshop.ledger
        with CaptureStore(self.workshop.project / ANSWERS) as store:
            records, synthetic = list(plan.questions.records), {}
            asker = Remembered(faculty.first, store, budget, ledger)
            for gap in gaps(records, self.data.wanted):
                made = synthesise(
                    gap,
                    records,
                    asker,
                    sealed=sealed_questions(plan.gathered),
                    seed=self.seed,
                    config=self.data.synthesis,
                )
                records += made.records
                synthetic[gap.group] = len(made.records)
            filled = complete(
                subset(records, share, self.seed),
                faculty.teacher_of,
                store,
                self.ask,
                right=is_right,
                budget=budget,
                ledger=ledger,
                progress=progress,
            )
            attempts = store.attempts()
        curated = curate(filled.records, sealed_questions(plan.gathered), self.curation, self.seed, records)
        name = version(curated.records, self.curation, plan.parent)
        folder = self.workshop.project / VERSIONS / name[:16]
        count = _token_counter(faculty)
        card = write_version(folder, curated, self.curation, parent=plan.parent, seed=self.seed, count_tokens=count)
        return Schooled(curated.records, curated.steps, filled, synthetic, attempts, name, card, validation)

    def expected(self, plan: Plan, faculty: Faculty, budget: Budget) -> list[Record]:
        """The validation questions; of those that came without any answer, the ones that the first teacher answers.

        Raises `DataError` where none has an answer.
        """
        given = [record for record in plan.gathered.validation if record.completion or record.reference]
        open_ = [record for record in plan.gathered.validation if not (record.completion or record.reference)]
        with CaptureStore(self.workshop.project / ANSWERS) as store:
            told = complete(
                open_,
                lambda _: faculty.first,
                store,
                self.ask,
                right=is_right,
                budget=budget,
                ledger=self.workshop.ledger,
            )
        if not given and not told.records:
            why = told.stopped or ", ".join(told.failed) or "there are none"
            raise DataError(
                f"no validation question has an answer ({why}), so no setting could be chosen; give records with one, "
                "raise data.validation_share, or run the night again when a teacher answers"
            )
        return [*given, *told.records]


def _token_counter(faculty: Faculty) -> Callable[[str], int] | None:
    """By the first teacher's tokenizer; None where it is an endpoint's, which is not known."""
    tutors = faculty.tutors
    if not tutors:
        return None
    tokenizer = tutors[0].checkpoint.tokenizer()
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def held_out_redacted(gathered: Gathered, kinds: Sequence[Kind]) -> Gathered:
    """Own questions are asked of teachers in the examination too, so they lose what training questions lose.

    Only now that each has its part: that follows from the question as it came. A run's questions are made up. Own ones
    that are equal then, or were before, are one: as several they would count as independent trials in every test.
    """

    def redacted(records: Sequence[Record]) -> list[Record]:
        made = [one for one in records if one.source.startswith("run:")]
        own = (redact_record(one, kinds)[0] for one in records if not one.source.startswith("run:"))
        return [*made, *{one.prompt_key: one for one in in_order(list(own))[::-1]}.values()]

    return replace(gathered, validation=redacted(gathered.validation), sealed=redacted(gathered.sealed))


def sealed_questions(gathered: Gathered) -> Sequence[Sealed]:
    """What must not stand in training: sealed and validation questions, alone and with their answers."""
    return [_wordings(record) for record in (*gathered.sealed, *gathered.validation)]


def _wordings(record: Record) -> Sealed:
    answer = record.completion or record.reference
    # A short answer is a word that any record may have; the question tells whether it is the same.
    return (record.prompt, f"{record.prompt} {answer}") if answer else (record.prompt,)
