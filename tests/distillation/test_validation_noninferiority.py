"""Verdicts, degenerate data, and the sizes that are asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.validation.noninferiority import Kept, items_needed, measure, reason, verdict
from distillation.validation.sample_size import fewest_items, required_items
from evaluation.metric import Values
from phases.errors import InputError


def answers(both: int, student_only: int, teacher_only: int, neither: int) -> tuple[Values, Values]:
    cells = (((1, 1), both), ((1, 0), student_only), ((0, 1), teacher_only), ((0, 0), neither))
    rows = np.array([pair for pair, count in cells for _ in range(count)]).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def kept(*counts: int, ratio: float = 0.95) -> Kept:
    return measure(*answers(*counts), ratio)


def test_the_sizes_of_the_reference_and_of_the_test_that_is_used() -> None:
    assert required_items(0.8, 1.0, 0.1, restricted=False) == 369
    assert required_items(0.8, 0.98, 0.1, restricted=False) == 1027
    assert (required_items(0.8, 1.0, 0.1), required_items(0.8, 0.98, 0.1)) == (401, 1080)


def test_size_by_simulation() -> None:
    """At the size for 80 % power the normal form of the test has 80 %."""
    from distillation.validation.paired_score import statistic

    n = required_items(0.8, 1.0, 0.1)
    drawn = np.random.default_rng(0).multinomial(n, [0.75, 0.05, 0.05, 0.15], size=20_000)
    power = (statistic(drawn[:, 0], drawn[:, 1], drawn[:, 2], 0.95) >= 1.644854).mean()
    assert power == pytest.approx(0.8, abs=0.012)


def test_size_at_least_lets_a_copy_pass() -> None:
    assert fewest_items(1.0, 0.05, 0.95) == 59
    assert required_items(1.0, 1.0, 0.0) == 59
    assert fewest_items(0.5, 0.05, 1.0) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.8, 0.95, 0.1), "on the line"),
        ((0.8, 0.5, 0.1), "differ on 0.4 to 0.8"),
        ((0.0, 1.0, 0.1), "above 0"),
        ((0.8, 1.0, 0.9), "not on 0.9"),
    ],
)
def test_sizes_that_cannot_be(arguments: tuple[float, float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        required_items(*arguments)


def test_three_verdicts() -> None:
    assert verdict(kept(750, 50, 50, 150), 0.05) == "pass"
    assert verdict(kept(500, 20, 280, 200), 0.05) == "fail"
    assert verdict(kept(75, 5, 5, 15), 0.05) == "not enough data"


def test_reason_says_how_much_is_needed() -> None:
    few = kept(75, 5, 5, 15)
    told = reason(few, "not enough data", 0.05)
    assert f"about {items_needed(few, 0.05, 1.0):,} items are needed if it equals the teacher" in told
    assert "1.000 of the teacher" in told and "on 100 items" in told


def test_reason_for_a_worse_student_says_what_would_show_it() -> None:
    told = reason(kept(40, 2, 6, 2), "not enough data", 0.05)
    assert "to show it below" in told


def test_teacher_never_right() -> None:
    nothing = kept(0, 10, 0, 40)
    assert (nothing.ratio, nothing.low, verdict(nothing, 0.05)) == (None, None, "not enough data")
    assert "nothing right on 50 items" in reason(nothing, "not enough data", 0.05)
    assert items_needed(nothing, 0.05, 1.0) is None


def test_no_items() -> None:
    nothing = measure(np.array([]), np.array([]))
    assert reason(nothing, verdict(nothing, 0.05), 0.05) == "no items"


def test_all_equal_passes_when_there_are_enough() -> None:
    assert verdict(kept(58, 0, 0, 0), 0.05) == "not enough data"
    assert verdict(kept(59, 0, 0, 0), 0.05) == "pass"


def test_a_handful_shows_nothing_good() -> None:
    assert verdict(kept(3, 0, 0, 0), 0.05) == "not enough data"


def test_student_never_right_fails_once_chance_is_ruled_out() -> None:
    assert verdict(kept(0, 0, 4, 0), 0.05) == "not enough data"
    assert verdict(kept(0, 0, 5, 0), 0.05) == "fail"
    assert kept(0, 0, 5, 0).p_below == pytest.approx((1 / 1.95) ** 5)  # at most as many are the teacher's alone


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 60), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_never_both(both: int, ours: int, theirs: int, neither: int) -> None:
    one = kept(both, ours, theirs, neither)
    assert one.p_above + one.p_below >= 0.999
    assert reason(one, verdict(one, 0.05), 0.05)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(0, 20), st.integers(1, 20))
def test_another_right_answer_never_hurts(both: int, ours: int, theirs: int) -> None:
    assert kept(both + 1, ours, theirs - 1, 0).p_above <= kept(both, ours, theirs, 0).p_above + 1e-6


def test_graded_scores() -> None:
    rng = np.random.default_rng(0)
    t = rng.beta(4, 2, 400)
    good = measure(t, t, 0.95, "graded", 2000)
    assert good.ratio == 1.0 and verdict(good, 0.05) == "pass"
    bad = measure(0.8 * t, t, 0.95, "graded", 2000)
    assert verdict(bad, 0.05) == "fail"
    needed = items_needed(measure(np.clip(t + rng.normal(0, 0.2, 400), 0, 1), t, 0.95, "graded", 2000), 0.05, 1.0)
    assert needed is not None and 59 <= needed < 1000


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ([1, 0], [1], "cannot be paired"),
        ([2.0], [1], "from 0 to 1"),
        ([float("nan")], [1], "not a number"),
        ([0.5], [1], "kind 'graded'"),
    ],
)
def test_bad_values(student: list[float], teacher: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(np.array(student), np.array(teacher))


def test_bad_ratio() -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        kept(1, 1, 1, 1, ratio=1.2)
