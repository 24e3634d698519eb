"""What a month depends on, gathered: the config first, then what was measured, then the price list; or unknown."""

from dataclasses import dataclass

from distillation.money.amount import NOTHING, Amount, given, known, unknown
from distillation.money.hosting import hour_price
from distillation.money.money_config import Hosted, MoneyConfig, PerToken
from distillation.money.month import Month
from distillation.money.pricing import TokenPrice, always_on_usd, hosted_price, request_cost
from distillation.teachers.prices import Price


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second of a busy machine; None: not measured."""

    tokens_per_s: float | None = None
    """Written."""
    prompt_tokens_per_s: float | None = None
    """Read."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a night found out that money depends on; None: not measured."""

    prompt_tokens: float | None = None
    """Of a question, on average."""
    completion_tokens: float | None = None
    """Of an answer, on average."""
    teacher_price: Price | None = None
    """What the teacher's config leads to."""
    teacher_speed: Speed = Speed()
    student_speed: Speed = Speed()
    extra_errors: float | None = None
    """The teacher's accuracy less the student's; below 0 the student is better, which is counted as 0."""
    extra_errors_stderr: float | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """How a request is paid at the teacher, or at the student."""

    price: TokenPrice
    usd_per_hour: Amount | None
    """Of its machine; None where tokens are paid."""
    source: str
    """Where the price stands."""


def month_of(config: MoneyConfig, measured: Measured) -> tuple[Month[Amount], dict[str, str]]:
    """A month as far as it is known, and where the two prices stand."""
    teacher = _side(config.teacher, "teacher", measured.teacher_speed, measured.teacher_price)
    student = _side(config.student, "student", measured.student_speed, None)
    requests = given(config.requests_per_month, "money.requests_per_month")
    read = _tokens(config.prompt_tokens, measured.prompt_tokens, "prompt_tokens")
    written = _tokens(config.completion_tokens, measured.completion_tokens, "completion_tokens")
    student_usd = request_cost(read, written, NOTHING, student.price)
    fixed = known(config.fixed_usd_per_month)
    if config.student_billing == "always_on" and student.usd_per_hour is not None:
        answered = requests * (known(1) - known(config.escalation_share))
        fixed, student_usd = fixed + always_on_usd(student.usd_per_hour, answered, student_usd), NOTHING
    month = Month(
        requests=requests,
        teacher_usd=request_cost(read, written, known(config.cached_share), teacher.price),
        student_usd=student_usd,
        escalation=known(config.escalation_share),
        extra_errors=_extra_errors(measured),
        error_usd=given(config.usd_per_error, "money.usd_per_error"),
        fixed_usd=fixed,
    )
    return month, {"teacher": teacher.source, "student": student.source}


def _side(pricing: PerToken | Hosted, name: str, speed: Speed, listed: Price | None) -> Side:
    if isinstance(pricing, Hosted):
        return _hosted(pricing, name, speed)
    own = (pricing.usd_per_million_in, pricing.usd_per_million_cached, pricing.usd_per_million_out)
    if listed is not None and own == (None, None, None):
        rates = listed.rates
        charged = (rates.usd_per_token_in, rates.usd_per_token_cached, rates.usd_per_token_out, rates.usd_per_request)
        price = TokenPrice(*(known(usd) for usd in charged))
        return Side(price, None, " ".join(filter(None, [listed.model, listed.provider, listed.source, listed.date])))
    names = ("usd_per_million_in", "usd_per_million_cached", "usd_per_million_out")
    values = (given(usd, f"money.{name}.{key}") for usd, key in zip(own, names, strict=True))
    return Side(TokenPrice(*(value / known(1_000_000) for value in values)), None, "config")


def _hosted(pricing: Hosted, name: str, speed: Speed) -> Side:
    """A machine's; a prompt that nobody timed is taken to be read as slowly as text is written."""
    hour = hour_price(pricing.machine, f"money.{name}.machine")
    writes = pricing.tokens_per_s or speed.tokens_per_s
    reads = pricing.prompt_tokens_per_s or speed.prompt_tokens_per_s or writes
    where = f"money.{name}.tokens_per_s"
    price = hosted_price(hour.usd, given(writes, where), given(reads, where), known(pricing.utilisation))
    return Side(price, hour.usd, hour.source)


def _tokens(own: float | None, measured: float | None, name: str) -> Amount:
    return given(measured if own is None else own, f"money.{name}")


def _extra_errors(measured: Measured) -> Amount:
    if measured.extra_errors is None:
        return unknown("extra errors: not measured")
    return known(max(0.0, measured.extra_errors))
