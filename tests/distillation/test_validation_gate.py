"""Decisions of whole nights: what promotes, what rolls back, what is left open, and how often it is wrong."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from distillation.validation.gate import Criterion, GateConfig, Verdicts, judge
from distillation.validation.levels import Spending
from evaluation.metric import Values
from phases.errors import InputError

CONFIG = GateConfig(resamples=1000)
N = 1200


def right(share: float, seed: int, n: int = N) -> Values:
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def differing(values: Values, share: float, seed: int) -> Values:
    """The same answers but for a share that is the other way round."""
    return np.where(np.random.default_rng(seed).random(len(values)) < share, 1 - values, values)


TEACHER = right(0.8, 0)
SAME = differing(TEACHER, 0.01, 1)
WORSE = TEACHER * right(0.7, 2)
BASELINE = TEACHER * right(0.85, 3)


def night(*criteria: Criterion, config: GateConfig = CONFIG, spent: Spending | None = None) -> Verdicts:
    return judge(criteria, config, spent or Spending.begin(config.spending))


def main(student: Values = SAME, **rest: Any) -> Criterion:
    return Criterion("accuracy", student, TEACHER, **{"baseline": BASELINE, **rest})


def test_a_good_student_is_promoted() -> None:
    found = night(main())
    assert found.decision == "promote" and found.criteria[0].verdict == "pass"
    assert "accuracy shown at alpha 0.025; beats the equal-budget baseline: difference +" in found.reasons[0]
    assert found.spending.tested == 1 and found.spending.passed_on == pytest.approx(0.025)


def test_a_bad_student_is_rolled_back() -> None:
    found = night(main(WORSE, baseline=None))
    assert found.decision == "roll back" and "shown to be below 0.95" in found.reasons[0]
    assert found.spending.tested == 1 and found.spending.passed_on == 0


def test_few_items_are_not_enough() -> None:
    few = slice(0, 40)
    found = night(Criterion("accuracy", SAME[few], TEACHER[few], BASELINE[few]))
    assert found.decision == "not enough data" and "items are needed" in found.reasons[0]


def test_a_student_that_does_not_beat_the_baseline_stays() -> None:
    found = night(main(baseline=differing(SAME, 0.01, 4)))
    assert found.decision == "not enough data"
    assert "not shown to beat the equal-budget baseline: difference" in found.reasons[0]


def test_ties_are_no_win() -> None:
    found = night(main(baseline=SAME))
    assert found.decision == "not enough data" and "+0 (+0 to +0)" in found.reasons[0]


def test_worse_than_the_baseline_is_rolled_back() -> None:
    found = night(main(differing(TEACHER, 0.04, 5) * right(0.99, 6), baseline=np.ones(N)))
    assert found.decision == "roll back" and "worse than the equal-budget baseline" in found.reasons[0]


def test_two_values_of_an_item_are_no_two_items() -> None:
    alone = night(main(baseline=differing(SAME, 0.1, 4)))
    twice = night(
        main(baseline=differing(SAME, 0.1, 4), items="a"),
        Criterion("again", SAME, TEACHER, differing(SAME, 0.1, 4), role="guard", items="a"),
    )
    assert twice.baseline == alone.baseline and alone.baseline is not None and alone.baseline.n == N


def test_no_baseline_no_promotion() -> None:
    found = night(main(baseline=None))
    assert found.decision == "not enough data" and "no equal-budget baseline" in found.reasons[0]
    assert found.baseline is None


def test_a_broken_guard_stops() -> None:
    safe = np.ones(40)
    found = night(main(), Criterion("safety", np.repeat([0.0, 1.0], 20), safe, role="guard", ratio=0.9))
    assert found.decision == "roll back" and found.reasons[0].startswith("safety: 0.500 of the teacher")


def test_an_open_guard_does_not() -> None:
    safe = np.ones(10)
    found = night(main(), Criterion("safety", safe, safe, role="guard", ratio=0.9))
    assert found.decision == "promote" and found.criteria[1].verdict == "not enough data"


def test_one_lost_item_of_what_may_never_be_lost_stops() -> None:
    kept, told = np.ones(30), np.array([0.0] + [1.0] * 29)
    assert night(main(), Criterion("secrets", kept, kept, role="never")).decision == "promote"
    found = night(main(), Criterion("secrets", told, kept, role="never"))
    assert found.decision == "roll back" and found.reasons == ("secrets: 1 of 30 items lost that the teacher has",)
    assert night(main(), Criterion("secrets", told, told, role="never")).decision == "promote"


def test_every_gate_has_to_be_shown() -> None:
    few = Criterion("memory", TEACHER[:30], TEACHER[:30])
    found = night(main(), few)
    assert found.decision == "not enough data" and found.reasons[0].startswith("memory:")
    assert found.spending.passed_on == 0


def test_a_teacher_that_is_never_right_is_no_test() -> None:
    found = night(Criterion("accuracy", np.ones(50), np.zeros(50)))
    assert found.decision == "not enough data" and "nothing to keep" in found.reasons[0]
    assert found.spending.tested == 0


def test_spent_alpha_ends_the_series() -> None:
    config = GateConfig.parse({"resamples": 1000, "spending": {"plan": "pocock", "nights": 1}}, "gate")
    first = night(main(WORSE), config=config)
    second = night(main(), config=config, spent=first.spending)
    assert second.decision == "not enough data" and "seal a new one" in second.reasons[0]
    assert second.spending == first.spending


def test_later_nights_ask_for_more() -> None:
    spent = Spending.begin(CONFIG.spending)
    for _ in range(20):
        spent = spent.after_test(False)
    n = slice(0, 250)
    student = differing(TEACHER[n], 0.01, 7)
    one = Criterion("accuracy", student, TEACHER[n], BASELINE[n])
    assert night(one).decision == "promote"
    assert night(one, spent=spent).decision == "not enough data"


def test_same_input_same_report() -> None:
    graded = Criterion("style", 0.9 * right(0.5, 8), right(0.5, 9), kind="graded")
    first, second = (json.dumps(night(main(), graded).as_json()) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ([], "no criterion has to be shown"),
        ([main(role="guard")], "role is 'gate'"),
        ([main(), main()], "criteria of one name: accuracy"),
        ([main(baseline=np.ones(3))], "3 values of the baseline to 1200"),
        ([main(items="a"), Criterion("b", np.ones(3), np.ones(3), items="a")], "not as many values as others of 'a'"),
    ],
)
def test_bad_criteria(criteria: list[Criterion], message: str) -> None:
    with pytest.raises(InputError, match=message):
        night(*criteria)


@pytest.mark.parametrize("n", [60, 150])
def test_false_passes_of_boundary_students(n: int) -> None:
    """The whole of it, 10,000 students and more sizes, is `tests.benchmarks.noninferiority`."""
    students, level = 120, GateConfig.parse({"spending": {"plan": "pocock", "nights": 1}}, "gate")
    cells = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
    drawn = np.random.default_rng(n).multinomial(n, [0.73, 0.03, 0.07, 0.17], size=students)
    false, known = 0, {}
    for counts in map(tuple, drawn.tolist()):
        if counts not in known:
            rows = np.repeat(cells, counts, axis=0).astype(float)
            found = night(Criterion("accuracy", rows[:, 0], rows[:, 1]), config=level)
            known[counts] = found.criteria[0].verdict == "pass"
        false += known[counts]
    assert false <= binom.ppf(0.999, students, 0.05)
