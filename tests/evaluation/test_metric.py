"""Metrics, controls and gates against closed forms."""

import numpy as np
import pytest
from pydantic import ValidationError

from evaluation.metric import Metric, finite_check, gate, mean_metric, paired_control, standard_error


def test_standard_error_of_a_proportion() -> None:
    values = np.array([True] * 30 + [False] * 70)
    assert standard_error(values) == pytest.approx(np.sqrt(0.3 * 0.7 / 99))


def test_one_unit_has_no_standard_error_and_equal_units_none() -> None:
    assert standard_error(np.array([0.5])) is None
    assert standard_error(np.full(7, 0.1)) == 0.0


def test_mean_metric_carries_n_and_parent() -> None:
    metric = mean_metric("a/b", "test", np.array([1.0, 2.0, 3.0]), "layers", parent=1.5)
    assert (metric.value, metric.n, metric.parent) == (2.0, 3, 1.5)
    assert metric.stderr == pytest.approx(1 / np.sqrt(3))


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ValueError, match="no units to measure on; give the test split"):
        mean_metric("a/b", "test", np.array([]))


def test_nan_is_never_a_metric() -> None:
    with pytest.raises(ValidationError):
        Metric(name="a", split="test", value=float("nan"), n=1, unit="share")


def test_paired_control_uses_the_differences() -> None:
    ours, control = np.array([1.0, 1, 0, 1]), np.array([0.0, 1, 0, 0])
    result = paired_control("plain", "m", ours, control, "10 steps")
    assert (result.ours, result.control, result.difference, result.n) == (0.75, 0.25, 0.5, 4)
    assert result.stderr == pytest.approx(np.std(ours - control, ddof=1) / 2)


def test_pairs_must_be_of_the_same_units() -> None:
    with pytest.raises(ValueError, match="3 and 2 units cannot be paired"):
        paired_control("plain", "m", np.zeros(3), np.zeros(2), "")


@pytest.mark.parametrize(("sign", "passed"), [("<", False), ("<=", True), (">", False), (">=", True)])
def test_a_gate_at_its_threshold(sign: str, passed: bool) -> None:
    assert gate("g", "m", 1.0, sign, 1.0).passed is passed  # type: ignore[arg-type]


def test_finite_check() -> None:
    assert finite_check(0, "test", 5)[1].passed
    metric, verdict = finite_check(2, "test", 5)
    assert not verdict.passed and metric.value == 2 and metric.n == 5
