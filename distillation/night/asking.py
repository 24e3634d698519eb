"""Asking: completions for records that have none, and answers to sealed questions, all through a capture store.

    filled = complete(records, teacher, store, config, budget=budget, ledger=ledger)
    answers = answers_of(teacher, sealed_store, 96)          # for `sitting`

A teacher that is down costs its answers, not the night: what is there is learnt from, and the report says what is not.
Sealed questions are another matter: without the teacher's answers there is nothing to compare with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from distillation.money.budget import Budget
from distillation.money.ledger import Ledger
from distillation.night.sitting import Answers
from distillation.record import GIVEN, Message, Record
from distillation.teachers.collect import Collected, collect
from distillation.teachers.store import CaptureStore
from distillation.teachers.teacher import Ask, PricedTeacher
from phases.errors import InputError
from phases.strict import StrictModel
from phases.tasks.item import MARK

Progress = Callable[[int, int], None]
STEPS_FIRST = f"\nShow the steps, then write {MARK.strip()} and the answer alone."
"""As records with worked steps have them (`phases.tasks.item`)."""


class AskConfig(StrictModel):
    """How teachers are asked for what is learnt."""

    max_tokens: int = Field(96, ge=1)
    """Of an answer; one that is cut off is not learnt from."""
    temperature: float = Field(0.0, ge=0)
    """0: the likeliest answer."""
    steps: bool = False
    """Ask for worked steps before the answer: what `rationale` transfers from a teacher that gives none by itself."""
    samples: int = Field(1, ge=1)
    """Answers that are drawn for a question that has a reference, of which the first right one is kept."""


@dataclass(frozen=True)
class Filled:
    """Records, and how they came by their completions."""

    records: list[Record]
    """Those with a completion."""
    asked: int
    """Questions that went to a teacher this night."""
    from_store: int
    failed: dict[str, int]
    """Questions without an answer, by reason."""
    cut_off: int
    """Answers that were too long."""
    usd: float | None
    stopped: str
    """Why some were not asked; empty: all were."""


def complete(
    records: Sequence[Record],
    teacher_of: Callable[[Record], PricedTeacher],
    store: CaptureStore,
    config: AskConfig,
    *,
    right: Callable[[Record, str], bool],
    budget: Budget,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> Filled:
    """Fill in what is missing, each record by its teacher. `right`: whether an answer agrees with the reference."""
    missing: dict[str, list[int]] = {}
    teachers: dict[str, PricedTeacher] = {}
    for i, record in enumerate(records):
        if not record.completion:
            teacher = teacher_of(record)
            teachers[teacher.identity] = teacher
            missing.setdefault(teacher.identity, []).append(i)
    filled = list(records)
    told = _Told()
    for identity, places in missing.items():
        for sample in range(config.samples):
            left = [i for i in places if not filled[i].completion]
            # A question without a reference has no right answer to wait for.
            left = left if sample == 0 else [i for i in left if filled[i].reference]
            if not left or told.stopped:
                break
            seed = sample if config.temperature else 0
            asks = [Ask(_wording(records[i], config), config.max_tokens, config.temperature, seed=seed) for i in left]
            found = collect(teachers[identity], asks, store, budget=budget, ledger=ledger, progress=progress)
            told.add(found, failures=sample == 0)
            last = sample + 1 == config.samples
            for place, text in found.finished().items():
                record = filled[left[place]]
                if last or not record.reference or right(record, text):
                    filled[left[place]] = replace(record, completion=text, teacher=teachers[identity].name)
    filled = [_corrected(record, right) for record in filled]
    return told.result([record for record in filled if record.completion])


def _wording(record: Record, config: AskConfig) -> tuple[Message, ...]:
    """What a teacher is asked for a record."""
    *before, last = record.messages
    return (*before, replace(last, content=last.content + STEPS_FIRST)) if config.steps else record.messages


def _corrected(record: Record, right: Callable[[Record, str], bool]) -> Record:
    """With the answer that the question came with, where the teacher gave none or a wrong one."""
    given = record.more.get(GIVEN, "")
    # Without a reference nobody knows that it is wrong.
    if not given or (record.completion and (not record.reference or right(record, record.completion))):
        return record
    return replace(record, completion=given, teacher="")


def together(growing: Sequence[Filled]) -> Filled:
    """Of shares that hold the ones before them: the last one's records, with what all of them asked and paid."""
    asked = sum(one.asked for one in growing)
    prices = [one.usd for one in growing]
    usd = None if None in prices else sum(price for price in prices if price is not None)
    last = growing[-1]
    return replace(last, asked=asked, from_store=last.from_store + last.asked - asked, usd=usd)


class _Told:
    """Counts over several teachers and samples."""

    def __init__(self) -> None:
        self.asked = self.from_store = self.cut_off = 0
        self.usd: float | None = 0.0
        self.stopped = ""
        self.failed: dict[str, int] = {}

    def add(self, found: Collected, failures: bool) -> None:
        self.asked, self.from_store = self.asked + found.asked, self.from_store + found.from_store
        self.usd = None if self.usd is None or found.usd is None else self.usd + found.usd
        self.stopped = self.stopped or found.stopped
        self.cut_off += len(found.answers) - len(found.finished())
        for failure in found.failures.values() if failures else ():
            self.failed[failure.reason] = self.failed.get(failure.reason, 0) + 1

    def result(self, records: list[Record]) -> Filled:
        return Filled(records, self.asked, self.from_store, self.failed, self.cut_off, self.usd, self.stopped)


def answers_of(
    teacher: PricedTeacher,
    store: CaptureStore,
    max_tokens: int,
    *,
    budget: Budget | None = None,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> Answers:
    """Greedy answers for the examination. Raises `InputError` where some cannot be had and may be had later."""

    def answers(records: Sequence[Record]) -> list[str]:
        asks = [Ask(record.messages, max_tokens) for record in records]
        found = collect(teacher, asks, store, budget=budget, ledger=ledger, progress=progress)
        later = [failure for failure in found.failures.values() if not failure.lasting]
        if found.stopped or later:
            why = found.stopped or later[0].reason
            lacking = len(records) - len(found.answers)
            raise InputError(
                f"{teacher.name}: {lacking} of {len(records)} questions of the test have no answer ({why}); what was "
                f"answered is kept: {'raise that and ' if found.stopped else ''}run the night again"
            )
        # What can never be answered (a prompt that is too long) is answered wrongly.
        return [found.answers[i].text if i in found.answers else "" for i in range(len(records))]

    return answers
