"""The score by hand, and what a missing part does to it."""

import pytest

from distillation.validation.readiness import Observed, ReadinessWeights, readiness
from phases.errors import InputError

ALL = Observed(
    ratio_low=0.95,
    transformed_ratios=(1.2, 0.5),
    safe_shares=(1.0, 0.8),
    speed_up=2.0,
    smaller=4.0,
    pays_back=0.9,
    quality_score=8.0,
    records_kept=0.5,
)
BY_HAND = {"quality": 75, "robustness": 75, "safety": 80, "speed": 50, "size": 100, "money": 90, "data": 40}


def test_every_part_by_hand() -> None:
    found = readiness(ALL)
    assert {part.name: part.points for part in found.parts} == pytest.approx(BY_HAND)
    # .35·75 + .15·75 + .15·80 + .1·50 + .05·100 + .1·90 + .1·40
    assert found.score == pytest.approx(72.5) and found.coverage == 1


def test_a_missing_part_is_neither_nothing_nor_all() -> None:
    found = readiness(Observed(ratio_low=0.9, smaller=4.0))
    assert found.score == pytest.approx((0.35 * 50 + 0.05 * 100) / 0.4) and found.coverage == pytest.approx(0.4)
    assert "money: not measured (weight 0.1)" in found.as_text() and "40% of the weights" in found.as_text()


def test_nothing_measured_has_no_score() -> None:
    found = readiness(Observed())
    assert found.score is None and found.coverage == 0 and found.as_text().startswith("readiness not measured")


def test_points_stay_between_0_and_100() -> None:
    low = readiness(Observed(ratio_low=0.1, speed_up=0.2, smaller=0.0))
    high = readiness(Observed(ratio_low=1.4, speed_up=99, smaller=99))
    assert (low.score, high.score) == (0, pytest.approx(100))


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="no measurement"):
        readiness(Observed(speed_up=float("nan")))
    with pytest.raises(InputError, match="all weights are 0"):
        readiness(ALL, ReadinessWeights(**dict.fromkeys(ReadinessWeights.model_fields, 0)))
