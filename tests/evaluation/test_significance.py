"""The bootstrap against closed forms and against a slow loop."""

import numpy as np
import pytest

from evaluation.significance import paired_bootstrap, proportion_stderr, stratified_bootstrap


def test_stderr_matches_the_closed_form() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=300), rng.normal(size=300)
    result = paired_bootstrap(a, b)
    assert result.difference == pytest.approx(np.mean(a - b))
    assert result.stderr == pytest.approx(np.std(a - b) / np.sqrt(300), rel=0.03)


def test_right_and_wrong_answers_match_the_closed_form_too() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(400) < 0.6, rng.random(400) < 0.5
    result = paired_bootstrap(a, b)
    assert result.stderr == pytest.approx(np.std(1.0 * a - 1.0 * b) / np.sqrt(400), rel=0.03)
    assert result.low == pytest.approx(result.difference - 1.96 * result.stderr, abs=0.01)


def test_against_a_slow_loop() -> None:
    rng = np.random.default_rng(3)
    d = rng.exponential(size=40) - 0.8
    slow = [np.mean([d[i] for i in rng.integers(40, size=40)]) for _ in range(3000)]
    fast = paired_bootstrap(d, np.zeros(40))
    assert fast.stderr == pytest.approx(np.std(slow), rel=0.06)
    assert fast.high == pytest.approx(np.quantile(slow, 0.975), abs=0.04)


def test_p_is_like_the_normal_test() -> None:
    d = np.random.default_rng(4).normal(size=500)
    d = d - d.mean() + 2 * d.std() / np.sqrt(500)  # exactly two standard errors above 0
    assert paired_bootstrap(d, np.zeros(500)).p == pytest.approx(0.0455, abs=0.012)


def test_equal_systems_do_not_differ() -> None:
    a = np.array([True, False, True, True])
    result = paired_bootstrap(a, a)
    assert (result.difference, result.stderr, result.p) == (0.0, 0.0, 1.0)
    assert not result.beyond(0)


def test_p_is_never_zero() -> None:
    assert paired_bootstrap(np.ones(50), np.zeros(50), resamples=999).p == pytest.approx(1 / 1000)


def test_strata_count_equally_and_errors_add_as_squares() -> None:
    rng = np.random.default_rng(5)
    pairs = [(rng.normal(size=n), rng.normal(size=n)) for n in (50, 500)]
    result = stratified_bootstrap(pairs)
    d = [a - b for a, b in pairs]
    assert result.difference == pytest.approx((d[0].mean() + d[1].mean()) / 2)
    closed = np.sqrt(sum(np.var(x) / len(x) for x in d)) / 2
    assert result.stderr == pytest.approx(closed, rel=0.03)
    assert result.n == 550


def test_same_seed_same_result() -> None:
    a, b = np.random.default_rng(6).normal(size=(2, 60))
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert paired_bootstrap(a, b, seed=3) != paired_bootstrap(a, b, seed=4)


def test_unpaired_units_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 4 units cannot be paired"):
        paired_bootstrap(np.zeros(3), np.zeros(4))


def test_proportion() -> None:
    units = np.array([1.0] * 3 + [0.0] * 7)
    assert proportion_stderr(0.3, 10) == pytest.approx(np.std(units, ddof=1) / np.sqrt(10))
    with pytest.raises(ValueError, match="0 ≤ p ≤ 1"):
        proportion_stderr(1.2, 10)
