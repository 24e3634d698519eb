"""Learning curves: the power law against scipy's solver, the verdict where the truth is known, subsets that nest."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from distillation.record import asked
from distillation.training.data_size import (
    EXPONENTS,
    DataSizeConfig,
    data_size,
    fit_power_laws,
    learning_curve,
    subset,
)
from phases.errors import ConfigError, DataError

SIZES = [100, 200, 400, 800]
CONFIG = DataSizeConfig()


def losses(a: float, b: float, c: float, noise: float, n: int = 200) -> Any:
    """(P, N) losses of n questions, whose own difficulty is the same at all sizes."""
    generator = np.random.default_rng(0)
    curve = a + b * np.array(SIZES, dtype=float) ** -c
    return curve[:, None] + generator.normal(0, 0.5, n) + generator.normal(0, noise, (len(SIZES), n))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.01, 10), min_size=4, max_size=4))
def test_the_fit_is_the_best_of_scipys(values: list[float]) -> None:
    law = fit_power_laws(SIZES, np.array([values]))[0]
    error = sum((law.at(n) - v) ** 2 for n, v in zip(SIZES, values, strict=True))
    x = [(np.array(SIZES) / SIZES[0]) ** -c for c in EXPONENTS]
    best = min(nnls(np.stack([np.ones(4), column], axis=1), np.array(values))[1] for column in x) ** 2
    assert error == pytest.approx(best, abs=1e-9)
    assert law.a >= 0 and law.b >= 0


def test_a_true_power_law_is_found_again() -> None:
    values = 0.4 + 20 * np.array(SIZES, dtype=float) ** -0.75
    law = fit_power_laws(SIZES, values[None])[0]
    assert (law.a, law.b, law.c) == pytest.approx((0.4, 20, 0.75), rel=1e-6)
    assert law.at(1600) == pytest.approx(0.4 + 20 * 1600**-0.75)


def test_the_verdict_where_the_truth_is_known() -> None:
    steep = data_size(SIZES, losses(0.2, 20, 0.5, 0.01), np.zeros((4, 200)), CONFIG)
    assert not steep.enough and steep.gain == pytest.approx(20 * (800**-0.5 - 1600**-0.5), rel=0.1)
    assert steep.low < steep.gain < steep.high and "more would help" in steep.reason
    flat = data_size(SIZES, losses(0.5, 0, 1, 0.2), np.zeros((4, 200)), CONFIG)
    assert flat.enough and flat.low == pytest.approx(0, abs=1e-9) and "may be nothing" in flat.reason
    little = data_size(SIZES, losses(0.5, 1, 1, 0.0001), np.zeros((4, 200)), CONFIG)
    assert little.enough and 0 < little.gain < 0.01 and "less than" in little.reason


def test_points_carry_what_a_plot_needs() -> None:
    found = data_size(SIZES, losses(0.2, 20, 0.5, 0.01), np.ones((4, 200)), CONFIG).as_json()
    assert [point["records"] for point in found["points"]] == SIZES
    assert all(point["stderr"] > 0 and point["accuracy"] == 1 for point in found["points"])


@settings(deadline=None)
@given(st.integers(0, 5), st.floats(0.05, 0.9))
def test_subsets_nest_and_keep_every_group(seed: int, share: float) -> None:
    records = [asked(str(i), completion="x", group="abc"[i % 3]) for i in range(60)]
    small, large = subset(records, share, seed), subset(records, min(1.0, share * 1.5), seed)
    assert {r.key for r in small} <= {r.key for r in large}
    assert {r.group for r in small} == {"a", "b", "c"}
    assert [r for r in records if r in small] == small and subset(records, 1.0, seed) == records


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="2 different sizes"):
        data_size([1, 2, 2], np.ones((3, 5)), np.ones((3, 5)), CONFIG)
    for shares in ((0.5, 0.2, 0.8), (0.5, 1.0), (), (0.5, 0.8, 1.2)):
        with pytest.raises(ConfigError, match="at least 3 ascending shares"):
            DataSizeConfig.parse({"shares": shares}, "data_size")


def test_a_curve_trains_once_for_each_share() -> None:
    records, seen = [asked(str(i), completion="x") for i in range(80)], []

    def train_on(chosen: Any, share: float) -> Any:
        seen.append((len(chosen), share))
        return 0.3 + 4 / np.full(30, len(chosen)), np.zeros(30)

    found, share = learning_curve(CONFIG, 0, lambda share: subset(records, share, 0), train_on)
    assert seen == [(10, 0.125), (20, 0.25), (40, 0.5), (80, 1.0)] and share == 1
    assert found.law.c == pytest.approx(1, abs=0.03)


def test_no_more_is_asked_for_once_the_curve_is_flat() -> None:
    records, asked_for = [asked(str(i), completion="x") for i in range(80)], []

    def answered(share: float) -> Any:
        asked_for.append(share)
        return subset(records, share, 0)

    def noisy(chosen: Any, share: float) -> Any:
        return np.random.default_rng(len(chosen)).uniform(0, 9, 30), np.zeros(30)

    flat, share = learning_curve(CONFIG, 0, answered, lambda chosen, share: (np.linspace(0.2, 0.4, 30), np.zeros(30)))
    assert asked_for == [0.125, 0.25, 0.5] and share == 0.5 and flat.enough
    # What cannot be told apart from noise is not flat, nor is what one question says.
    single = lambda chosen, share: (np.full(1, 0.3), np.zeros(1))  # noqa: E731
    assert learning_curve(CONFIG, 0, answered, single)[1] == 1
    assert learning_curve(CONFIG, 0, answered, noisy)[1] == 1
