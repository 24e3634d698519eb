"""The money of a student as tables of a report: figures, what they depend on most, teacher and student side by side.

What is not known says what is missing, and what was not measured stays empty, which a report shows as "not measured".
"""

from dataclasses import dataclass

from distillation.money.amount import Amount
from distillation.money.assessment import Assessment
from distillation.money.month import NEVER
from evaluation.judgement import Cell, Table


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured of one model; None: not measured."""

    quality: float | None = None
    """On the sealed questions."""
    quality_stderr: float | None = None
    latency_ms_per_token: float | None = None
    """Median."""
    bytes_on_disk: int | None = None
    parameters: int | None = None


def money_table(assessment: Assessment) -> Table:
    """Every figure, with what it lacks."""
    rows: list[tuple[Cell, ...]] = [(name, *_shown(figure)) for name, figure in assessment.figures.items()]
    for kind, amount in assessment.invested.items():
        value, how = _shown(amount)
        rows.append((f"invested in {kind}", value, how if amount.value != 0 else "nothing was booked, or it was free"))
    odds = assessment.odds
    name = "probability that the investment has come back"
    if odds is None:
        rows.append((name, None, ", ".join(assessment.odds_missing)))
    else:
        rows.append((name, f"{odds.probability:.3f} ± {odds.stderr:.3f}", f"by day {odds.day:g}, {odds.draws} draws"))
    return Table(title="Money", columns=("figure", "value", "missing or how"), rows=tuple(rows))


def sensitivity_table(assessment: Assessment) -> Table:
    """The saving of a month where each figure is low and high, the widest first."""
    columns = ("figure", "low (10 %)", "high (90 %)", "saving at low", "saving at high", "swing")
    rows = tuple(
        (row.name, row.low, row.high, row.saving_at_low, row.saving_at_high, row.swing)
        for row in assessment.sensitivity
    )
    return Table(title="What the saving depends on, USD a month", columns=columns, rows=rows)


def hints_table(assessment: Assessment) -> Table:
    """Cheaper ways to the teacher's own tokens, which a student has to be worth more than."""
    rows = tuple((hint.kind, hint.text, hint.usd_now, hint.usd_then) for hint in assessment.hints)
    return Table(title="The teacher's tokens for less", columns=("", "how", "USD a month", "then"), rows=rows)


def before_after(teacher: Measures, student: Measures, assessment: Assessment) -> Table:
    """Cost of a request, latency, size and quality of teacher and student, and the student's share of the teacher's."""
    figures = assessment.figures
    before_usd, after_usd = figures["teacher_usd_per_request"].as_float, figures["student_usd_per_request"].as_float
    pairs: list[tuple[str, float | None, float | None]] = [
        ("USD a request", before_usd, after_usd),
        ("latency, ms a token (median)", teacher.latency_ms_per_token, student.latency_ms_per_token),
        ("bytes on disk", teacher.bytes_on_disk, student.bytes_on_disk),
        ("parameters", teacher.parameters, student.parameters),
        ("quality", teacher.quality, student.quality),
        ("quality, standard error", teacher.quality_stderr, student.quality_stderr),
    ]
    rows = tuple((name, before, after, _share(before, after)) for name, before, after in pairs)
    return Table(title="Before and after", columns=("", "teacher", "student", "student / teacher"), rows=rows)


def _share(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None or before == 0 else after / before


def _shown(amount: Amount) -> tuple[Cell, Cell]:
    """Sums to the cent, small prices to four digits."""
    if amount == NEVER:
        return "never", "nothing is saved"
    if amount.value is None:
        return None, ", ".join(amount.missing)
    small = abs(amount.value) < 1 and amount.value != 0
    return (f"{amount.value:.4g}" if small else f"{amount.cents:,f}"), ""
