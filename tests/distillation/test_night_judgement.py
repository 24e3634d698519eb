"""The verdicts as a reader sees them."""

import numpy as np
import pytest

from distillation.night.judgement import verdict_table
from distillation.validation.gate import Criterion, GateConfig, judge
from distillation.validation.levels import Spending


def test_costs_stand_under_whose_they_are() -> None:
    config = GateConfig(resamples=1000)
    student, teacher, baseline = (np.full(200, cost) for cost in (0.50, 0.49, 0.55))
    found = judge(
        [Criterion("text", student, teacher, baseline, "graded", costs=True)], config, Spending.begin(config.spending)
    )
    beside_teacher, beside_baseline = (
        dict(zip(verdict_table(found).columns, row, strict=True)) for row in verdict_table(found).rows
    )
    assert (beside_teacher["criterion"], beside_teacher["role"]) == ("text (cost)", "gate")
    assert (beside_teacher["teacher"], beside_teacher["student"]) == (pytest.approx(0.49), pytest.approx(0.50))
    assert beside_teacher["ratio"] == pytest.approx(0.98) and beside_teacher["verdict"] == "pass"
    assert (beside_baseline["role"], beside_baseline["teacher"]) == ("baseline", pytest.approx(0.55))
    assert beside_baseline["ratio"] == pytest.approx(1.1)
