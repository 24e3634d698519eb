"""A project's teachers: who they are, who may be learnt from, who answers which question.

    faculty = open_faculty(configs).ranked(validation, store, max_tokens, budget=budget, ledger=ledger, seed=0)
    faculty.teacher_of(record).name

One teacher answers everything. Several are ranked on held-out questions that have a right answer, with confidence and
cost, and each group of questions goes to the one that is best there. Models are in memory from their first question
until `forget`: a student trains without them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from distillation.money.budget import Budget
from distillation.money.ledger import Ledger
from distillation.record import Record
from distillation.teachers.collect import collect
from distillation.teachers.endpoint import EndpointTeacher, EndpointTeacherConfig
from distillation.teachers.licences import LicenceVerdict
from distillation.teachers.local import LocalTeacher, LocalTeacherConfig
from distillation.teachers.prices import Price
from distillation.teachers.ranking import Ranking, rank
from distillation.teachers.store import CaptureStore
from distillation.teachers.teacher import Answer, Ask, Failure, PricedTeacher
from distillation.teachers.teacher_config import judge_licence, open_teacher
from distillation.training.strategies import Tutor
from distillation.validation.grading import grade
from phases.checkpoint import Checkpoint
from phases.errors import ConfigError, DataError

Config = LocalTeacherConfig | EndpointTeacherConfig


@dataclass(frozen=True)
class Faculty:
    """The teachers of a night."""

    teachers: tuple[PricedTeacher, ...]
    licences: tuple[LicenceVerdict, ...]
    ranking: Ranking | None = None

    @property
    def first(self) -> PricedTeacher:
        """The one whose place the student is to take."""
        return self.teachers[0]

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Of the first; None: it is an endpoint."""
        return self.first.checkpoint if isinstance(self.first, LocalTeacher) else None

    @property
    def price(self) -> Price | None:
        """Of the first, where it is paid by the token; None: it is a machine, or its price is not known."""
        return self.first.price if isinstance(self.first, EndpointTeacher) else None

    def teacher_of(self, record: Record) -> PricedTeacher:
        """Who answers a question."""
        if self.ranking is None:
            return self.first
        route = self.ranking.routes.get(record.group)
        name = self.ranking.recommended if route is None else route.teacher
        return next(teacher for teacher in self.teachers if teacher.name == name)

    def ranked(
        self,
        questions: Sequence[Record],
        store: CaptureStore,
        max_tokens: int,
        *,
        budget: Budget,
        ledger: Ledger,
        seed: int,
    ) -> "Faculty":
        """Ranked on questions with a right answer (`DataError` without any); one teacher alone needs no ranking."""
        if len(self.teachers) < 2:
            return self
        graded = [record for record in questions if record.reference]
        if not graded:
            raise DataError(
                "teachers: several are ranked on validation questions that have a right answer (reference), and none "
                "has; give some, or name one teacher"
            )
        asks = [Ask(record.messages, max_tokens) for record in graded]
        answers: dict[str, dict[int, Answer]] = {}
        for teacher in self.teachers:
            answers[teacher.name] = collect(teacher, asks, store, budget=budget, ledger=ledger).answers
        return replace(self, ranking=rank(answers, graded, grade, seed=seed))

    @property
    def tutors(self) -> tuple[Tutor, ...]:
        """Those whose probabilities can be had: the ones on this machine."""
        scores = {} if self.ranking is None else {one.teacher: one.score for one in self.ranking.standings}
        return tuple(
            Tutor(teacher.name, teacher.checkpoint, scores.get(teacher.name, 1.0))
            for teacher in self.teachers
            if isinstance(teacher, LocalTeacher)
        )

    def forget(self) -> None:
        """Take the models out of memory."""
        for teacher in self.teachers:
            if isinstance(teacher, LocalTeacher):
                teacher.forget()


def open_faculty(configs: Sequence[Config]) -> Faculty:
    """Open every teacher. Raises `ConfigError` for two of one name, and what opening them raises."""
    licences = tuple(judge_licence(config) for config in configs)
    teachers = tuple(open_teacher(config) for config in configs)
    names = [teacher.name for teacher in teachers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"teachers: two are called '{twice[0]}'; give each a name of its own")
    return Faculty(teachers, licences)


class Remembered:
    """A teacher that is asked through a store: what it was asked before costs nothing."""

    def __init__(self, teacher: PricedTeacher, store: CaptureStore, budget: Budget, ledger: Ledger) -> None:
        self.name, self.identity, self.licence = teacher.name, teacher.identity, teacher.licence
        self._teacher, self._store, self._budget, self._ledger = teacher, store, budget, ledger

    def answer(self, asks: Iterable[Ask]) -> Iterator[tuple[int, Answer | Failure]]:
        """From the store, or asked; what the budget does not allow is a lasting failure."""
        wanted = list(asks)
        found = collect(self._teacher, wanted, self._store, budget=self._budget, ledger=self._ledger)
        for i in range(len(wanted)):
            if i in found.answers:
                yield i, found.answers[i]
            else:
                yield i, found.failures.get(i, Failure(found.stopped or "not asked", lasting=True))
