"""What a night found out about cost: sizes, speeds, tokens, errors, and the money that follows.

    account = take_account(config, ledger, teacher=…, student=…, teacher_right=…, student_right=…, …)
    account.assessment, account.reduction, account.tables

A teacher on this machine is paid like the student: by the time that it takes. Where nobody gave the price of its hour,
the cost of a request is not known in dollars, and the share that is saved is that of the measured times: the price is
the same on both sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distillation.money.assessment import Assessment, assess
from distillation.money.booking import book_compute, book_people, invested
from distillation.money.hosting import Machine, hour_price
from distillation.money.inputs import Measured, Speed
from distillation.money.ledger import Kind, Ledger
from distillation.money.money_config import Hosted, MoneyConfig, PerToken
from distillation.money.showing import Measures, before_after, hints_table, money_table, sensitivity_table
from distillation.teachers.prices import Hint, Price, provider_hints
from evaluation.judgement import Table
from evaluation.latency import Latency
from evaluation.metric import Values, standard_error


@dataclass(frozen=True)
class Sized:
    """A model's measures; None: not measured, as of an endpoint."""

    latency: Latency | None
    bytes_on_disk: int | None
    parameters: int | None


@dataclass(frozen=True)
class Account:
    """The money side of a night."""

    assessment: Assessment
    reduction: float | None
    """Share of a request's cost that is saved; None: not known."""
    tables: dict[str, Table]


def book(ledger: Ledger, config: MoneyConfig, seconds: Mapping[Kind, float], night: int) -> None:
    """This machine's time and people's hours so far, each once."""
    hour = hour_price(config.compute, "money.compute")
    for kind, spent in seconds.items():
        if spent > 0:
            book_compute(ledger, kind, spent, hour, key=f"night {night}: {kind}")
    book_people(ledger, config.people_hours, config.usd_per_people_hour)


def take_account(
    config: MoneyConfig,
    ledger: Ledger,
    *,
    teacher: Sized,
    student: Sized,
    teacher_right: Values,
    student_right: Values,
    tokens: tuple[float, float] | None,
    price: Price | None,
    seed: int,
) -> Account:
    """Assess. `tokens`: of a question and its answer, on average; `price`: the teacher's, where it is by the token."""
    if price is None and teacher.latency is not None and config.teacher == PerToken():
        config = config.model_copy(update={"teacher": Hosted(machine=_machine(config))})
    lost = np.asarray(teacher_right, dtype=np.float64) - np.asarray(student_right, dtype=np.float64)
    measured = Measured(
        prompt_tokens=None if tokens is None else tokens[0],
        completion_tokens=None if tokens is None else tokens[1],
        teacher_price=price,
        teacher_speed=_speed(teacher.latency),
        student_speed=_speed(student.latency),
        extra_errors=float(lost.mean()),
        extra_errors_stderr=standard_error(lost),
    )
    found = assess(config, measured, invested(ledger, config), seed=seed, hints=_hints(config, measured, price))
    sides = _measures(teacher, teacher_right), _measures(student, student_right)
    tables = {"before_after": before_after(sides[0], sides[1], found), "money": money_table(found)}
    if found.hints:
        tables["hints"] = hints_table(found)
    if found.sensitivity:
        tables["sensitivity"] = sensitivity_table(found)
    return Account(found, _reduction(found, measured, teacher, student), tables)


def _measures(sized: Sized, right: Values) -> Measures:
    return Measures(
        quality=float(np.mean(right)),
        quality_stderr=standard_error(right),
        latency_ms_per_token=None if sized.latency is None else sized.latency.ms_per_token_p50,
        bytes_on_disk=sized.bytes_on_disk,
        parameters=sized.parameters,
    )


def _machine(config: MoneyConfig) -> Machine:
    return config.student.machine if isinstance(config.student, Hosted) else Hosted().machine


def _speed(latency: Latency | None) -> Speed:
    if latency is None:
        return Speed()
    return Speed(1e3 / latency.ms_per_token_p50, 1e3 / latency.prompt_ms_per_token_p50)


def _reduction(found: Assessment, measured: Measured, teacher: Sized, student: Sized) -> float | None:
    before, after = (found.figures[f"{who}_usd_per_request"].as_float for who in ("teacher", "student"))
    if before and after is not None:
        return 1 - after / before
    read, written = measured.prompt_tokens, measured.completion_tokens
    if teacher.latency is None or student.latency is None or read is None or written is None:
        return None
    times = [
        read * one.prompt_ms_per_token_p50 + written * one.ms_per_token_p50
        for one in (teacher.latency, student.latency)
    ]
    return 1 - times[1] / times[0] if times[0] > 0 else None


def _hints(config: MoneyConfig, measured: Measured, price: Price | None) -> tuple[Hint, ...]:
    requests, read, written = config.requests_per_month, measured.prompt_tokens, measured.completion_tokens
    if price is None or requests is None or read is None or written is None:
        return ()
    return provider_hints(price, round(requests * read), round(requests * written), config.cached_share)
