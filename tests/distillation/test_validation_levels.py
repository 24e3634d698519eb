"""Holm against its definition, plans that never spend more than there is, thirty nights at the boundary."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from distillation.validation.levels import Spending, SpendingConfig, holm
from phases.errors import ConfigError, DataError, InputError

PLANS = ("summable", "pocock", "obrien_fleming")


def closed_test(p_values: list[float], alpha: float) -> list[bool]:
    """Holm as what it is: a closed test whose intersections are Bonferroni's."""
    k = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(k, size)]
    return [all(min(p_values[i] for i in s) <= alpha / len(s) for s in sets if j in s) for j in k]


@settings(deadline=None)
@given(st.lists(st.floats(0, 0.2), max_size=6))
def test_holm_is_the_closed_bonferroni_test(p_values: list[float]) -> None:
    assert holm(p_values, 0.05) == closed_test(p_values, 0.05)


def test_holm_by_hand() -> None:
    assert holm([0.02, 0.011, 0.04], 0.05) == [True, True, True]
    assert holm([0.02, 0.03, 0.04], 0.05) == [False, False, False]
    assert holm([0.06, 0.001], 0.05) == [False, True]


def parts(plan: str, nights: int = 30, run: int = 30) -> list[float]:
    spending, found = Spending.begin(SpendingConfig(plan=plan, nights=nights)), []  # type: ignore[arg-type]
    for _ in range(run):
        found.append(spending.available)
        spending = spending.after_test(False)
    return found


@pytest.mark.parametrize("plan", PLANS)
def test_parts_sum_to_alpha_at_most(plan: str) -> None:
    assert sum(parts(plan)) <= 0.05 + 1e-12
    assert sum(parts(plan, run=500)) <= 0.05 + 1e-12
    assert all(part >= 0 for part in parts(plan, run=500))


def test_fixed_horizons_spend_all_of_it_and_then_nothing() -> None:
    for plan in ("pocock", "obrien_fleming"):
        assert sum(parts(plan)) == pytest.approx(0.05)
        assert parts(plan, run=31)[-1] == 0.0


def test_plans_by_hand() -> None:
    assert parts("summable")[:3] == pytest.approx([0.05 / 2, 0.05 / 6, 0.05 / 12])
    assert parts("pocock")[0] == pytest.approx(0.05 * math.log(1 + (math.e - 1) / 30))
    spent = np.cumsum(parts("obrien_fleming", nights=5, run=5))
    assert spent[1] == pytest.approx(math.erfc(1.959964 / math.sqrt(0.4) / math.sqrt(2)), rel=1e-6)


def test_a_promoted_night_hands_on_what_it_had() -> None:
    first = Spending.begin(SpendingConfig())
    second = first.after_test(True)
    assert second.available == pytest.approx(0.05 / 6 + 0.05 / 2)
    assert second.after_test(False).available == pytest.approx(0.05 / 12)


@pytest.mark.parametrize("plan", PLANS)
def test_chance_of_a_false_promotion_over_thirty_nights(plan: str) -> None:
    """Half of the nights' students are good and pass, which hands α on; the others are on the boundary."""
    rng, series, false = np.random.default_rng(0), 2000, 0
    for _ in range(series):
        spending = Spending.begin(SpendingConfig(plan=plan))  # type: ignore[arg-type]
        for good, p in zip(rng.random(30) < 0.5, rng.random(30), strict=True):
            if not good and p <= spending.available:
                false += 1
                break
            spending = spending.after_test(bool(good))
    assert false <= binom.ppf(0.999, series, 0.05)


def test_state_survives_json() -> None:
    state = Spending.begin(SpendingConfig(plan="pocock", nights=7)).after_test(True).after_test(False)
    assert Spending.from_json(state.as_json()) == state


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"alpha": 1}', "not json"])
def test_broken_state(text: str) -> None:
    with pytest.raises(DataError, match="not a state of alpha spending"):
        Spending.from_json(text)


def test_a_plan_does_not_change_on_the_same_hold_out() -> None:
    state = Spending.begin(SpendingConfig())
    assert state.for_config(SpendingConfig()) is state
    with pytest.raises(InputError, match="seal a new hold-out"):
        state.for_config(SpendingConfig(alpha=0.1))


def test_config_refuses_nonsense() -> None:
    with pytest.raises(ConfigError, match="alpha"):
        SpendingConfig.parse({"alpha": 0}, "gate")
