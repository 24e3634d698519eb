"""One night of a project, step by step, without Prefect: what the tasks of `flows.distill_flow` call.

Every step keeps what it made in the project's folder, so a night that was killed goes on where it was: answers in the
stores, rows, caches and training states in `night-0001/work`, checkpoints beside it, latencies in `latency.json`.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from distillation.money.ledger import Kind
from distillation.night.accounting import Account, Sized, book, take_account
from distillation.night.asking import answers_of, together
from distillation.night.conversations import conversation_criteria
from distillation.night.faculty import Config, Faculty, open_faculty
from distillation.night.judgement import decide
from distillation.night.schooling import Plan, Schooled, Schooling
from distillation.night.sitting import Exam, Examinee, ask_ahead, sit
from distillation.night.workshop import ANSWERS, SEALED, TALKS, Workshop, fingerprint
from distillation.project.project import Project
from distillation.record import Record
from distillation.teachers.local import LocalTeacher, LocalTeacherConfig
from distillation.teachers.store import CaptureStore
from distillation.training.data_curve import data_curve
from distillation.training.distil import Distilled, distil
from distillation.training.distil_config import DistilConfig
from distillation.training.lessons import Lessons
from distillation.training.strategy_config import Incremental, Logits
from distillation.training.time_limit import ends_before
from distillation.validation.gate import Verdicts, judge
from distillation.validation.levels import Spending
from flows.console import say
from flows.distill_parameters import ProjectConfig
from flows.night_sizes import sizes_of, tokens_of
from flows.pools import with_pool
from phases.checkpoint import Checkpoint
from phases.errors import ConfigError
from phases.phase import MetricsCallback

FREE = {"out", "runner", "budget", "money", "readiness", "promote", "plan", "template"}
"""Settings on which no student depends."""


@dataclass(frozen=True)
class Examined:
    """A student, and what it is worth."""

    exam: Exam
    verdicts: Verdicts
    student: Sized
    teacher: Sized
    account: Account


class Night:
    """What the steps of a night share."""

    def __init__(self, config: ProjectConfig, number: int) -> None:
        self.config, self.workshop = config, Workshop(config.folder, number)
        self.schooling = Schooling(self.workshop, config.data, config.curation, config.ask, config.seed)
        self.budget = self.workshop.budget(config.budget)
        self.seconds: dict[Kind, float] = {}

    def teachers(self, plan: Plan) -> tuple[Config, ...]:
        """The project's, or the model of its run. Raises `ConfigError` where there is none."""
        if self.config.teachers:
            return self.config.teachers
        if plan.gathered.run is None:
            raise ConfigError("teachers: name one, or set data.run to a finished run of the forge, whose model teaches")
        return (LocalTeacherConfig(checkpoint=plan.gathered.run.teacher, name="forged", licence="own"),)

    def fingerprint(self, plan: Plan, faculty: Faculty) -> str:
        """What this night's result depends on."""
        settings = self.config.model_dump(mode="json", exclude=FREE)
        held_out = [*plan.gathered.validation, *plan.sealed]
        return fingerprint(settings, [t.identity for t in faculty.teachers], plan.version, held_out)

    def faculty(self, plan: Plan) -> Faculty:
        """The teachers, ranked where there are several."""
        opened = open_faculty(self.teachers(plan))
        # What cannot be learnt is said before anybody is paid.
        work = self.workshop.night
        Lessons(opened.tutors, (), self.distilling(""), work, work, self.config.seed).check()
        with CaptureStore(self.workshop.project / ANSWERS) as store:
            return opened.ranked(
                plan.gathered.validation,
                store,
                self.config.ask.max_tokens,
                budget=self.budget,
                ledger=self.workshop.ledger,
                seed=self.config.seed,
            )

    def distilling(self, champion: str) -> DistilConfig:
        """With the champion's checkpoint where it is to be gone on from; empty: there is none yet."""
        config, strategy = self.config.distil, self.config.distil.strategy
        if not isinstance(strategy, Incremental) or strategy.champion:
            return config
        known = strategy.model_dump(include={"alpha", "trust", "cache"})
        begun = strategy.model_copy(update={"champion": champion}) if champion else Logits(**known)
        return config.model_copy(update={"strategy": begun})

    def school(self, plan: Plan, faculty: Faculty, champion: str) -> Schooled:
        """The teacher's answers to the test, then to questions, as far as the budget goes and as long as more help.

        The test comes first: without it nothing that is learnt could be judged. Raises an `InputError` where it cannot
        be had: better now than after a student was trained.
        """
        with self._timed("evaluation"), CaptureStore(self.workshop.project / SEALED) as store:
            ask_ahead(
                self._teacher(faculty, store).answers,
                plan.sealed,
                self.config.exam,
                learnt=plan.questions.records,
                data=None if plan.gathered.run is None else plan.gathered.run.data,
                seed=self.config.seed,
            )
        schooled = self._answered(plan, faculty, champion)
        filled = schooled.filled
        say(f"distill: {len(schooled.records):,} records, {filled.asked:,} asked, {filled.from_store:,} from the store")
        if filled.stopped:
            say(f"distill: asking stopped early: {filled.stopped}")
        for reason, count in filled.failed.items():
            say(f"distill: {count:,} questions without an answer: {reason}")
        return schooled

    def learn(
        self, plan: Plan, faculty: Faculty, schooled: Schooled, champion: str, metrics: MetricsCallback
    ) -> Distilled:
        """The student and its baseline."""
        run, tutors = plan.gathered.run, faculty.tutors
        faculty.forget()
        ends_before("training", self.budget.over)
        with self._timed("training"):
            learn = partial(
                distil,
                tutors,
                schooled.records,
                self.distilling(champion),
                self.workshop.night,
                self.workshop.night / "work",
                seed=self.config.seed,
                validation=schooled.validation,
                data=None if run is None else run.data,
                metrics=metrics,
                over=self.budget.over,
            )
            return with_pool(self.config.runner, lambda pool: learn(pool=pool))

    def examine(self, plan: Plan, faculty: Faculty, schooled: Schooled, made: Distilled, spent: Spending) -> Examined:
        """Student, baseline and teacher on the sealed questions; the gate; the money."""
        run, ledger = plan.gathered.run, self.workshop.ledger
        ends_before("the examination", self.budget.over)
        with self._timed("evaluation"):
            with CaptureStore(self.workshop.project / SEALED) as store:
                exam = sit(
                    self._examinee("student", made.student, store),
                    self._examinee("baseline", made.baseline, store),
                    self._teacher(faculty, store),
                    plan.sealed,
                    self.config.exam,
                    learnt=plan.questions.records,
                    data=None if run is None else run.data,
                    seed=self.config.seed,
                )
            faculty.forget()
            if run is not None and faculty.checkpoint is not None:
                spoken = conversation_criteria(
                    made.student,
                    faculty.checkpoint,
                    run.data,
                    self.config.exam.conversations,
                    self.workshop.project / TALKS,
                )
                exam = replace(exam, criteria=(*exam.criteria, *spoken))
            here = [made.student] if faculty.checkpoint is None else [made.student, faculty.checkpoint]
            student, teacher = [*sizes_of(here, self.workshop.night), Sized(None, None, None)][:2]
        book(ledger, self.config.money, self.seconds, self.workshop.number)
        account = take_account(
            self.config.money,
            ledger,
            student=student,
            teacher=teacher,
            teacher_right=exam.right["teacher"],
            student_right=exam.right["student"],
            tokens=tokens_of(exam, made.student),
            price=faculty.price,
            seed=self.config.seed,
        )
        verdicts = decide(
            judge(exam.criteria, self.config.gate, spent), account.reduction, self.config.goal.cost_reduction
        )
        return Examined(exam, verdicts, student, teacher, account)

    def _answered(self, plan: Plan, faculty: Faculty, champion: str) -> Schooled:
        """All questions, or ever more of them until the learning curve is flat."""
        config, run = self.distilling(champion), plan.gathered.run
        done: dict[float, Schooled] = {}
        with self._timed("labelling"):
            checked = self.schooling.expected(plan, faculty, self.budget)

        def answered(share: float) -> list[Record]:
            with self._timed("labelling"):
                done[share] = self.schooling.answered(plan, faculty, self.budget, checked, share)
            faculty.forget()
            return done[share].records

        if config.data_size is None:
            answered(1.0)
            return done[1.0]
        with self._timed("training"):
            curve, share = data_curve(
                faculty.tutors,
                answered,
                config,
                config.data_size,
                self.workshop.night / "work" / "curve",
                seed=self.config.seed,
                validation=checked,
                data=None if run is None else run.data,
            )
        filled = together([one.filled for one in done.values()])
        return replace(done[share], filled=filled, curve=curve)

    def _teacher(self, faculty: Faculty, store: CaptureStore) -> Examinee:
        """The one whose place the student is to take."""
        most, ledger = self.config.exam.max_tokens, self.workshop.ledger
        ask = answers_of(faculty.first, store, most, budget=self.budget, ledger=ledger)
        return Examinee("teacher", ask, faculty.first if isinstance(faculty.first, LocalTeacher) else None)

    def _examinee(self, name: str, checkpoint: Checkpoint, store: CaptureStore) -> Examinee:
        model = LocalTeacher(LocalTeacherConfig(checkpoint=checkpoint.path, name=name, licence="own"))
        return Examinee(name, answers_of(model, store, self.config.exam.max_tokens), model)

    @contextlib.contextmanager
    def _timed(self, kind: Kind) -> Iterator[None]:
        """Adds the seconds of its block, without those of blocks inside it."""
        began, before = time.monotonic(), sum(self.seconds.values())
        yield
        inside = sum(self.seconds.values()) - before
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - began - inside


def spending_of(project: Project, config: ProjectConfig) -> Spending:
    """What earlier nights have spent of the project's alpha."""
    return Spending.from_json(project.spending) if project.spending else Spending.begin(config.gate.spending)
