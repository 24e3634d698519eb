"""A budget is asked before each step and is never exceeded; 0 is a budget."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.money.budget import Budget, BudgetConfig, Spent
from phases.errors import ConfigError


def test_no_limits_allow_everything_even_without_a_price() -> None:
    budget = Budget()
    budget.spend(None, calls=10**6)
    assert budget.allows(None) and budget.allows(1e9, calls=10**9, seconds=1e9)


def test_nothing_may_be_spent_of_zero_dollars() -> None:
    budget = Budget(usd=0)
    assert not budget.allows(1e-9)
    assert not budget.allows(None)
    assert budget.allows(0.0)


@pytest.mark.parametrize("limits", [{"teacher_calls": 0}, {"seconds": 0}])
def test_zero_calls_or_seconds_allow_not_even_a_free_step(limits: dict[str, int]) -> None:
    refusal = Budget(**limits).refusal(0.0)
    assert refusal is not None and refusal.startswith("budget of 0 ")


def test_cents_add_up_exactly() -> None:
    budget = Budget(usd=0.3)
    budget.spend(0.1)
    budget.spend(0.1)
    assert budget.allows(0.1)  # in binary fractions 0.1 + 0.1 + 0.1 is above 0.3
    budget.spend(0.1)
    assert budget.spent.usd == Decimal("0.3")
    assert budget.refusal(0.000001) == "budget of $0.3: $0.3 spent, the next step may cost $0.000001"


def test_a_price_that_is_not_known_is_refused_where_dollars_are_limited() -> None:
    budget = Budget(usd=1.0)
    assert "not known" in (budget.refusal(None) or "")
    budget.spend(None)
    assert "1 steps were taken at a price that is not known" in (budget.refusal(0.01) or "")


def test_the_clock_counts() -> None:
    now = [100.0]
    budget = Budget(seconds=60, clock=lambda: now[0])
    now[0] = 130.0
    assert budget.allows(None, seconds=30) and not budget.allows(None, seconds=31)
    now[0] = 160.0
    assert not budget.allows(None)
    assert budget.spent.seconds == 60


def test_a_resumed_night_goes_on_from_what_it_had_spent() -> None:
    before = Spent(Decimal("0.9"), seconds=50, calls=9)
    budget = Budget(usd=1, seconds=60, teacher_calls=10, before=before, clock=lambda: 0.0)
    assert budget.allows(0.1) and not budget.allows(0.11) and not budget.allows(0.1, calls=2)


@pytest.mark.parametrize("limits", [{"usd": -1}, {"seconds": float("nan")}, {"teacher_calls": 1.5}])
def test_a_budget_that_cannot_be_is_one_line(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="budget: '"):
        Budget(**limits)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 400_000)), st.integers(0, 2_000_000))
def test_steps_that_are_asked_for_never_exceed_it(steps: list[int], limit: int) -> None:
    budget = Budget.of(BudgetConfig(usd=limit / 10**6))
    for micros in steps:
        if budget.allows(micros / 10**6):
            budget.spend(micros / 10**6)
    assert budget.spent.usd <= Decimal(limit) / 10**6
