"""`assess`: what the student costs and saves, from the config, what was measured and what was spent.

    assessment = assess(config, measured, ledger.invested(), seed=0)
    assessment.figures["saving_usd_per_month"].cents      # Decimal("1234.56"), or None
    assessment.figures["saving_usd_per_month"].missing    # ("money.usd_per_error",)

A figure that needs a price nobody gave says which; the others come all the same.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from distillation.money.amount import Amount, given, known, total
from distillation.money.inputs import Measured, month_of
from distillation.money.ledger import Kind
from distillation.money.money_config import MoneyConfig
from distillation.money.month import (
    DAYS_PER_MONTH,
    NEVER,
    Month,
    break_even_months,
    cost_with,
    cost_without,
    discounted,
    net_present_value,
    return_on_investment,
    saving,
    total_cost,
)
from distillation.money.simulation import Odds, Sensitivity, sensitivities, simulate
from distillation.teachers.prices import Hint


@dataclass(frozen=True)
class Assessment:
    """The money side of a student."""

    figures: dict[str, Amount]
    """By name, with the unit in it: known, or what is missing."""
    invested: dict[Kind, Amount]
    """By what it was spent on."""
    month: Month[Amount]
    odds: Odds | None
    """None: something that the simulation needs is not known."""
    odds_missing: tuple[str, ...]
    sensitivity: tuple[Sensitivity, ...]
    """The widest first; empty where the saving is not known."""
    sources: dict[str, str]
    """Where the prices of teacher and student stand."""
    hints: tuple[Hint, ...]
    """Cheaper ways for the teacher's tokens."""
    horizon_months: int

    @property
    def missing(self) -> tuple[str, ...]:
        """Everything that some figure lacks."""
        named = [name for figure in self.figures.values() for name in figure.missing]
        return tuple(dict.fromkeys([*named, *self.odds_missing]))

    @property
    def saved_usd_per_month(self) -> float | None:
        """For the portfolio."""
        return self.figures["saving_usd_per_month"].as_float

    @property
    def invested_usd(self) -> float | None:
        """For the portfolio."""
        return self.figures["invested_usd"].as_float

    @property
    def break_even_day(self) -> float | None:
        """Days after the student answers; None where it is not known, and where it does not come (nothing is saved)."""
        days = self.figures["break_even_days"]
        return None if days == NEVER else days.as_float

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        odds = self.odds and {k: v for k, v in asdict(self.odds).items() if not hasattr(v, "tolist")}
        return {
            "figures": {name: _as_json(figure) for name, figure in self.figures.items()},
            "invested": {kind: _as_json(amount) for kind, amount in self.invested.items()},
            "month": {f.name: _as_json(getattr(self.month, f.name)) for f in fields(self.month)},
            "odds": odds,
            "odds_missing": list(self.odds_missing),
            "sensitivity": [asdict(row) | {"swing": row.swing} for row in self.sensitivity],
            "sources": self.sources,
            "hints": [asdict(hint) for hint in self.hints],
            "horizon_months": self.horizon_months,
            "missing": list(self.missing),
        }


def assess(
    config: MoneyConfig,
    measured: Measured,
    invested: Mapping[Kind, Amount],
    *,
    seed: int,
    hints: tuple[Hint, ...] = (),
) -> Assessment:
    """Every figure that can be had. Raises InputError for a machine that nobody offers."""
    month, sources = month_of(config, measured)
    spent = total(invested.values())
    figures = _figures(config, month, spent)
    stderr = given(measured.extra_errors_stderr, "extra errors: standard error not measured")
    lacking = total([*(getattr(month, f.name) for f in fields(month)), stderr])
    odds: Odds | None = None
    rows: tuple[Sensitivity, ...] = ()
    if lacking.value is not None and stderr.value is not None:
        errors_stderr, unsure = float(stderr.value), config.uncertainty
        rows = sensitivities(month, unsure, errors_stderr)
        if spent.value is not None:
            odds = simulate(
                month, spent, unsure, errors_stderr=errors_stderr, horizon_months=config.horizon_months, seed=seed
            )
    odds_missing = total([lacking, spent]).missing
    return Assessment(figures, dict(invested), month, odds, odds_missing, rows, sources, hints, config.horizon_months)


def _figures(config: MoneyConfig, month: Month[Amount], spent: Amount) -> dict[str, Amount]:
    saved, months, rate = saving(month), config.horizon_months, config.discount_rate_per_year
    back = break_even_months(spent, saved)
    return {
        "teacher_usd_per_request": month.teacher_usd,
        "student_usd_per_request": month.student_usd,
        "fixed_usd_per_month": month.fixed_usd,
        "cost_without_usd_per_month": cost_without(month),
        "cost_with_usd_per_month": cost_with(month),
        "saving_usd_per_month": saved,
        "invested_usd": spent,
        "break_even_months": back,
        "break_even_days": back * Amount(DAYS_PER_MONTH),
        "total_cost_without_usd": discounted(cost_without(month), months, rate),
        "total_cost_with_usd": total_cost(spent, cost_with(month), months, rate),
        "net_present_value_usd": net_present_value(spent, saved, months, rate),
        "return_on_investment": return_on_investment(spent, saved, known(months)),
    }


def _as_json(amount: Amount) -> dict[str, Any]:
    """The number to a millionth of a dollar; `never` for a break-even that does not come."""
    value = None if amount.value is None or amount == NEVER else round(float(amount.value), 9)
    return {"value": value, "missing": list(amount.missing)} | ({"never": True} if amount == NEVER else {})
