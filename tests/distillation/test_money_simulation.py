"""The simulation against closed forms, its quantiles against scipy's distributions, and its edges."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distillation.money.amount import NOTHING, Amount, known
from distillation.money.month import Month, saving
from distillation.money.simulation import Odds, as_floats, proportion_stderr, sensitivities, simulate
from distillation.money.uncertainty import (
    UncertaintyConfig,
    beta_quantile,
    lognormal_quantile,
    normal_share_quantile,
)

MONTH = Month(
    known(100_000), known(0.0025), known(0.0004), known(0.05), known(0.01), known(0.05), known(10)
)  # saves 137.50
CERTAIN = UncertaintyConfig(requests_cv=0, teacher_price_cv=0, student_price_cv=0)
AT = np.array([0.001, 0.1, 0.5, 0.9, 0.999])


def odds(month: Month[Amount], invested: float, config: UncertaintyConfig, seed: int = 0, stderr: float = 0.0) -> Odds:
    return simulate(month, known(invested), config, errors_stderr=stderr, horizon_months=12, seed=seed)


def test_quantiles_are_those_of_scipy() -> None:
    sigma = np.sqrt(np.log(1 + 0.3**2))
    lognormal = stats.lognorm(sigma, scale=5 * np.exp(-(sigma**2) / 2))
    assert lognormal.mean() == pytest.approx(5) and lognormal.std() == pytest.approx(1.5)
    np.testing.assert_allclose(lognormal_quantile(5, 0.3, AT), lognormal.ppf(AT), rtol=1e-12)
    np.testing.assert_allclose(beta_quantile(0.05, 100, AT), stats.beta(5, 95).ppf(AT), rtol=1e-9)
    np.testing.assert_allclose(normal_share_quantile(0.5, 0.1, AT), stats.norm(0.5, 0.1).ppf(AT), rtol=1e-12)
    assert normal_share_quantile(0.0, 0.1, AT)[0] == 0.0
    assert set(beta_quantile(0.0, 100, AT)) == {0.0}


@pytest.mark.parametrize("invested", [100.0, 135.0, 180.0])
def test_the_probability_is_the_closed_form_where_only_traffic_varies(invested: float) -> None:
    # saved by day 30 = N · u · 24 · 30 / 730 with a lognormal N: P(N > I / (u · 720/730))
    month = replace(MONTH, escalation=NOTHING, fixed_usd=NOTHING)
    config = replace_config(CERTAIN, requests_cv=0.3, draws=50_000)
    each = 0.0025 - 0.0004 - 0.01 * 0.05
    sigma = np.sqrt(np.log(1.09))
    traffic = stats.lognorm(sigma, scale=100_000 * np.exp(-(sigma**2) / 2))
    expected = traffic.sf(invested / (each * 30 * 24 / 730))
    found = odds(month, invested, config)
    assert abs(found.probability - expected) < 4 * found.stderr


def replace_config(config: UncertaintyConfig, **values: float) -> UncertaintyConfig:
    return UncertaintyConfig.parse(config.model_dump() | values, "test")


def test_the_stated_error_is_the_scatter_over_seeds() -> None:
    config = replace_config(UncertaintyConfig(), draws=1_000)
    many = [odds(MONTH, 130, config, seed, 0.01) for seed in range(200)]
    assert np.std([o.probability for o in many]) == pytest.approx(many[0].stderr, rel=0.2)


def test_no_finite_number_of_draws_makes_certain() -> None:
    month = replace(MONTH, escalation=NOTHING)
    sure = odds(month, 0.01, CERTAIN)
    assert sure.probability == 1.0 and 0 < sure.stderr < 1e-4
    assert proportion_stderr(50, 100) == pytest.approx(0.05, rel=0.03)


def test_certain_figures_give_the_exact_saving() -> None:
    month = replace(MONTH, escalation=NOTHING)
    found = odds(month, 100, CERTAIN)
    exact = saving(month).as_float
    assert found.saving_low == pytest.approx(exact) and found.saving_high == pytest.approx(exact)
    assert float(saving(as_floats(MONTH))) == pytest.approx(137.5)


def test_bands_start_at_the_investment_and_grow_evenly() -> None:
    found = odds(MONTH, 500, UncertaintyConfig(draws=2_000), stderr=0.01)
    assert found.with_band.shape == (3, len(found.days))
    assert list(found.with_band[:, 0]) == [500.0] * 3 and list(found.without_band[:, 0]) == [0.0] * 3
    assert np.all(np.diff(found.with_band, axis=0)[:, 1:] > 0)
    assert found.days[-1] == pytest.approx(365)


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again = (odds(MONTH, 130, UncertaintyConfig(), seed=7, stderr=0.01) for _ in range(2))
    other = odds(MONTH, 130, UncertaintyConfig(), seed=8, stderr=0.01)
    assert first.with_band.tobytes() == again.with_band.tobytes() != other.with_band.tobytes()


def test_sensitivities_are_the_saving_at_each_end_the_widest_first() -> None:
    rows = sensitivities(MONTH, UncertaintyConfig(), 0.01)
    assert [row.swing for row in rows] == sorted((row.swing for row in rows), reverse=True)
    traffic = next(row for row in rows if row.name == "requests")
    # 0.001475 saved with each request, less 10 fixed
    assert traffic.saving_at_high == pytest.approx(0.001475 * traffic.high - 10)
    certain = sensitivities(replace(MONTH, escalation=NOTHING), CERTAIN, 0.0)
    assert [row.swing for row in certain] == pytest.approx([0.0] * 5)


@given(st.floats(0, 1), st.floats(1, 1e6), st.floats(0, 5), st.floats(1e-300, 1, exclude_max=True))
def test_quantiles_are_finite_and_in_their_range(mean: float, n: float, cv: float, at: float) -> None:
    place = np.array([at])
    assert 0 <= beta_quantile(mean, n, place)[0] <= 1
    assert 0 <= normal_share_quantile(mean, cv, place)[0] <= 1
    assert 0 <= lognormal_quantile(mean, cv, place)[0] < np.inf
