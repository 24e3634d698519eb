"""A student and its equal-budget baseline on several kinds of items: gains on one pay for no loss on another."""

import numpy as np
import pytest
from scipy.stats import binom

from distillation.validation.gate import Criterion, GateConfig, Verdicts, judge
from distillation.validation.levels import Spending
from evaluation.metric import Values

CONFIG = GateConfig(resamples=1000)
N, BLOCKS = 1200, 128
CELLS = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
RIGHT = (np.random.default_rng(0).random(N) < 0.8).astype(float)


def text(level: float, seed: int) -> Values:
    """Costs of blocks; all draw the same blocks."""
    blocks = np.random.default_rng(9).normal(0.0, 0.05, BLOCKS)
    return np.clip(level + blocks + np.random.default_rng(seed).normal(0.0, 0.005, BLOCKS), 0, 1)


def night(answers: Values, baseline: Values, ours: float, theirs: float, teacher: Values = RIGHT) -> Verdicts:
    criteria = (
        Criterion("answers", answers, teacher, baseline),
        Criterion("text", text(ours, 1), text(0.48, 2), text(theirs, 3), "graded", costs=True),
    )
    return judge(criteria, CONFIG, Spending.begin(CONFIG.spending))


def paired(both: float, first: float, second: float, seed: int) -> tuple[Values, Values]:
    """Two examinees with so large shares of items that both, the first alone, the second alone have right."""
    shares = [both, first, second, 1 - both - first - second]
    rows = np.repeat(CELLS, np.random.default_rng(seed).multinomial(N, shares), axis=0).astype(float)
    return rows[:, 0], rows[:, 1]


def test_as_right_and_better_at_text_is_better() -> None:
    found = night(RIGHT, RIGHT, 0.48, 0.51)
    assert found.decision == "promote" and found.baseline is not None
    assert found.baseline.difference == pytest.approx(
        0.015, abs=0.002
    )  # (0 + .03) / 2: each kind of items counts alike
    assert [(one.name, one.verdict) for one in found.beside] == [("answers", "pass"), ("text", "pass")]


def test_text_does_not_pay_for_lost_answers() -> None:
    """The mean over both is better; answers are .87 of the baseline's."""
    student, baseline = paired(0.68, 0.02, 0.12, 4)
    found = night(student, baseline, 0.48, 0.60, teacher=student)
    assert found.baseline is not None and found.baseline.low > 0
    assert found.decision == "roll back" and len(found.reasons) == 2
    assert found.reasons[0].startswith("worse than the equal-budget baseline on answers: difference -")
    assert "of the baseline" in found.reasons[1] and "shown to be below 0.95" in found.reasons[1]


def test_text_does_not_pay_for_a_small_loss_of_answers() -> None:
    """Shown to keep .95 of the baseline's answers, and shown to have fewer of them."""
    student, baseline = paired(0.780, 0.005, 0.020, 6)
    found = night(student, baseline, 0.48, 0.60, teacher=student)
    assert found.baseline is not None and found.baseline.low > 0
    assert all(one.verdict == "pass" for one in found.beside)
    assert found.decision == "roll back" and len(found.reasons) == 1
    assert found.reasons[0].startswith("worse than the equal-budget baseline on answers")


def test_lost_text_is_measured_as_the_promise_is() -> None:
    """Nats over nats: .92 of the baseline's text is less than .95 of it, whatever the vocabulary."""
    found = night(RIGHT, RIGHT * (np.arange(N) % 20 > 0), 0.48 / 0.92, 0.48)
    (text_kept,) = (one for one in found.beside if one.name == "text")
    assert text_kept.verdict == "fail" and text_kept.kept.ratio == pytest.approx(0.92, abs=0.005)


def test_what_is_open_beside_the_baseline_stays_open() -> None:
    student, baseline = paired(0.55, 0.125, 0.135, 5)
    found = night(student, baseline, 0.48, 0.60, teacher=student)
    assert found.baseline is not None and found.baseline.low > 0
    assert found.decision == "not enough data" and "of the baseline" in found.reasons[0]


def test_equal_in_both_is_no_win() -> None:
    found = night(RIGHT, RIGHT, 0.48, 0.48)
    assert found.decision != "promote" and any("equal-budget baseline" in reason for reason in found.reasons)


def test_a_baseline_with_nothing_right_cannot_be_lost() -> None:
    found = night(RIGHT, np.zeros(N), 0.48, 0.51)
    assert found.decision == "promote" and [one.name for one in found.beside] == ["text"]


def test_students_at_the_limit_beside_the_baseline_rarely_pass() -> None:
    """Answers at exactly .95 of the baseline, text far better: passed at most in one of twenty."""
    students, false = 150, 0
    for seed in range(students):
        student, baseline = paired(0.72, 0.04, 0.08, 100 + seed)
        false += night(student, baseline, 0.48, 0.60, teacher=student).decision == "promote"
    assert false <= binom.ppf(0.999, students, 0.05)
