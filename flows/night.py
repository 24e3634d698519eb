"""One night of a project, step by step, without Prefect: what the tasks of `flows.distill_flow` call.

Every step keeps what it made in the project's folder, so a night that was killed goes on where it was: answers in the
stores, rows, caches and training states in `night-0001/work`, checkpoints beside it, latencies in `latency.json`.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from distillation.money.ledger import Kind
from distillation.night.accounting import Account, Sized, book, take_account
from distillation.night.asking import answers_of
from distillation.night.conversations import conversation_criteria
from distillation.night.faculty import Config, Faculty, open_faculty
from distillation.night.judgement import decide
from distillation.night.schooling import Plan, Schooled, Schooling
from distillation.night.sitting import Exam, Examinee, sit
from distillation.night.workshop import ANSWERS, SEALED, TALKS, Workshop, fingerprint
from distillation.project.project import Project
from distillation.teachers.local import LocalTeacher, LocalTeacherConfig
from distillation.teachers.store import CaptureStore
from distillation.training.distil import Distilled, distil
from distillation.training.strategy_config import Incremental, Logits
from distillation.validation.gate import Verdicts, judge
from distillation.validation.levels import Spending
from evaluation.latency import Latency, count_parameters, measure_latency
from evaluation.paired_latency import measure_beside
from flows.console import say
from flows.distill_parameters import ProjectConfig
from flows.pools import with_pool
from phases.checkpoint import Checkpoint
from phases.errors import ConfigError
from phases.phase import MetricsCallback
from phases.storage import write_json

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
        with CaptureStore(self.workshop.project / ANSWERS) as store:
            return opened.ranked(
                plan.gathered.validation,
                store,
                self.config.ask.max_tokens,
                budget=self.budget,
                ledger=self.workshop.ledger,
                seed=self.config.seed,
            )

    def school(self, plan: Plan, faculty: Faculty) -> Schooled:
        """Answers for every question, as far as the budget goes."""
        with self._timed("labelling"):
            schooled = self.schooling.answered(plan, faculty, self.budget)
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
        config, strategy = self.config.distil, self.config.distil.strategy
        if isinstance(strategy, Incremental) and not strategy.champion:
            known = strategy.model_dump(include={"alpha", "trust", "cache"})
            strategy = strategy.model_copy(update={"champion": champion}) if champion else Logits(**known)
        run, tutors = plan.gathered.run, faculty.tutors
        faculty.forget()
        with self._timed("training"):
            learn = partial(
                distil,
                tutors,
                schooled.records,
                config.model_copy(update={"strategy": strategy}),
                self.workshop.night,
                self.workshop.night / "work",
                seed=self.config.seed,
                validation=plan.gathered.validation,
                data=None if run is None else run.data,
                metrics=metrics,
            )
            return with_pool(self.config.runner, lambda pool: learn(pool=pool))

    def examine(self, plan: Plan, faculty: Faculty, schooled: Schooled, made: Distilled, spent: Spending) -> Examined:
        """Student, baseline and teacher on the sealed questions; the gate; the money."""
        run, most, ledger = plan.gathered.run, self.config.exam.max_tokens, self.workshop.ledger
        with self._timed("evaluation"):
            with CaptureStore(self.workshop.project / SEALED) as store:
                ask = answers_of(faculty.first, store, most, budget=self.budget, ledger=ledger)
                exam = sit(
                    self._examinee("student", made.student, store),
                    self._examinee("baseline", made.baseline, store),
                    Examinee("teacher", ask, faculty.first if isinstance(faculty.first, LocalTeacher) else None),
                    plan.sealed,
                    self.config.exam,
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
            student, teacher = [*self._sized(here), Sized(None, None, None)][:2]
        book(ledger, self.config.money, self.seconds, self.workshop.number)
        account = take_account(
            self.config.money,
            ledger,
            student=student,
            teacher=teacher,
            teacher_right=exam.right["teacher"],
            student_right=exam.right["student"],
            tokens=self._tokens(exam, made.student),
            price=faculty.price,
            seed=self.config.seed,
        )
        verdicts = decide(
            judge(exam.criteria, self.config.gate, spent), account.reduction, self.config.goal.cost_reduction
        )
        return Examined(exam, verdicts, student, teacher, account)

    def _examinee(self, name: str, checkpoint: Checkpoint, store: CaptureStore) -> Examinee:
        model = LocalTeacher(LocalTeacherConfig(checkpoint=checkpoint.path, name=name, licence="own"))
        return Examinee(name, answers_of(model, store, self.config.exam.max_tokens), model)

    def _sized(self, checkpoints: Sequence[Checkpoint]) -> list[Sized]:
        """Of their smallest forms, student first. A teacher on this machine is measured beside it; once a night."""
        shipped = [one.siblings.get("packed", one) for one in checkpoints]
        path = self.workshop.night / "latency.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if any(one.digest not in known for one in shipped):
            student, *teacher = (one.path for one in shipped)
            measured = measure_beside(teacher[0], student)[::-1] if teacher else (measure_latency(student),)
            known = {one.digest: asdict(latency) for one, latency in zip(shipped, measured, strict=True)}
            write_json(path, known)
        return [
            Sized(Latency(**known[small.digest]), count_parameters(small.path)[1], count_parameters(one.path)[0])
            for one, small in zip(checkpoints, shipped, strict=True)
        ]

    def _tokens(self, exam: Exam, student: Checkpoint) -> tuple[float, float] | None:
        """Of a question and its answer on average, in the student's tokens."""
        tokenizer = student.tokenizer()
        texts = (
            [record.prompt for record in exam.records],
            [record.completion or record.reference for record in exam.records],
        )
        counts = [[len(ids) for ids in tokenizer(list(some))["input_ids"]] for some in texts]
        return (sum(counts[0]) / len(counts[0]), sum(counts[1]) / len(counts[1])) if exam.records else None

    @contextlib.contextmanager
    def _timed(self, kind: Kind) -> Iterator[None]:
        """Adds the seconds of its block."""
        began = time.monotonic()
        yield
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - began


def spending_of(project: Project, config: ProjectConfig) -> Spending:
    """What earlier nights have spent of the project's alpha."""
    return Spending.from_json(project.spending) if project.spending else Spending.begin(config.gate.spending)
