"""A month with and without the student, and what follows from it: saving, break-even, total cost, return.

    S = N·(c_T − c_S − ρ·c_T − ε·c_err) − F        N requests, ρ of them sent on to the teacher, ε more of them wrong,
                                                    c_err what a wrong one costs, F what a month costs whatever happens
    break-even = I / S;  TCO = I + Σ_m cost_m / (1 + d)^m;  NPV = TCO without − TCO with;  ROI = (H·S − I) / I

The same formulas serve exact amounts (`Amount`) and the arrays of a simulation. Costs fall due at a month's end.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from distillation.money.amount import Amount, known, total, unknown
from distillation.money.pricing import HOURS_PER_MONTH

Floats = npt.NDArray[np.float64]
Money = TypeVar("Money", Amount, Floats)
DAYS_PER_MONTH = HOURS_PER_MONTH / 24
NEVER = Amount(Decimal("Infinity"))
"""A break-even that does not come."""
NOTHING_INVESTED = unknown("a return on nothing: the investment is 0")


@dataclass(frozen=True, slots=True)
class Month(Generic[Money]):
    """What a month's cost depends on."""

    requests: Money
    teacher_usd: Money
    """A request at the teacher."""
    student_usd: Money
    """A request at the student."""
    escalation: Money
    """Share of the requests that the student sends on to the teacher."""
    extra_errors: Money
    """Share of the requests that the student gets wrong and the teacher would not."""
    error_usd: Money
    """What a wrong answer costs."""
    fixed_usd: Money
    """A month, whatever the traffic."""


def cost_without(month: Month[Money]) -> Money:
    """USD a month, if the teacher answers everything."""
    return month.requests * month.teacher_usd


def cost_with(month: Month[Money]) -> Money:
    """USD a month with the student, with what it sends on and gets wrong."""
    request = month.student_usd + month.escalation * month.teacher_usd + month.extra_errors * month.error_usd
    return month.requests * request + month.fixed_usd


def saving(month: Month[Money]) -> Money:
    """USD a month that the student saves; below 0, it costs more than it saves."""
    return cost_without(month) - cost_with(month)


def break_even_months(invested: Amount, saved: Amount) -> Amount:
    """When the investment has come back; `NEVER` where nothing is saved."""
    return NEVER if saved.value is not None and saved.value <= 0 else invested / saved


def discounted(usd_a_month: Amount, months: int, rate_per_year: float) -> Amount:
    """Today's worth of so much at the end of each month."""
    rate = 1 + Decimal(repr(float(rate_per_year)))
    factors = (known(1 / rate ** (Decimal(month) / 12)) for month in range(1, months + 1))
    return total(usd_a_month * factor for factor in factors)


def total_cost(invested: Amount, usd_a_month: Amount, months: int, rate_per_year: float) -> Amount:
    """Total cost of ownership: the investment now, and the discounted months."""
    return invested + discounted(usd_a_month, months, rate_per_year)


def net_present_value(invested: Amount, saved: Amount, months: int, rate_per_year: float) -> Amount:
    """What the student is worth today, its making paid."""
    return discounted(saved, months, rate_per_year) - invested


def return_on_investment(invested: Amount, saved: Amount, months: Amount) -> Amount:
    """(H·S − I) / I, without discounting; there is none on nothing."""
    return NOTHING_INVESTED if invested.value == 0 else (saved * months - invested) / invested
