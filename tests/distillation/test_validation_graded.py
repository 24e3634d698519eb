"""The BCa bootstrap against a slow one and closed forms; the rare loss that a bootstrap cannot know."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import bootstrap

from distillation.validation.paired_graded import FEWEST, RatioBootstrap


def scores(n: int, seed: int = 0, loss: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    teacher = rng.beta(4, 2, n)
    return np.clip(teacher * (1 - loss) + rng.normal(0, 0.05, n), 0, 1), teacher


def test_interval_matches_scipys_bca() -> None:
    s, t = scores(80)
    found = RatioBootstrap(s, t, 20_000, 0).interval(0.9)
    other = bootstrap(
        (s, t),
        lambda a, b, axis=-1: a.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        method="BCa",
        confidence_level=0.9,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found == pytest.approx((other.low, other.high), abs=0.0015)


def test_p_value_is_the_interval_turned_around() -> None:
    s, t = scores(80)
    found = RatioBootstrap(s, t, 20_000, 0)
    low, _ = found.interval(0.9)
    assert found._confidence_below(low) == pytest.approx(0.05, abs=0.003)


def test_without_bias_and_skew_it_is_the_plain_percentile() -> None:
    s, t = scores(80)
    found = RatioBootstrap(s, t, 5000, 0)
    found.bias = found.acceleration = 0.0
    assert found._confidence_below(0.97) == pytest.approx(float(ndtr(ndtri(found._share_below(0.97)))))


def test_clear_cases() -> None:
    good, bad = RatioBootstrap(*scores(300), 2000, 0), RatioBootstrap(*scores(300, loss=0.2), 2000, 0)
    assert good.p_value(0.9, "above") < 0.01 < 0.9 < good.p_value(0.9, "below")
    assert bad.p_value(0.9, "below") < 0.01 < 0.9 < bad.p_value(0.9, "above")


def test_losses_that_were_not_seen_are_reckoned_with() -> None:
    """Equal scores on 58 items: one that loses every twentieth answer whole looks like that 5.1 % of the time."""
    t = np.full(58, 0.8)
    assert RatioBootstrap(t, t, 1000, 0).p_value(0.95, "above") == pytest.approx(0.95**58)


def test_too_few_items_show_nothing() -> None:
    s, t = scores(FEWEST - 1, loss=0.5)
    found = RatioBootstrap(s, t, 1000, 0)
    assert found.p_value(0.95, "above") == found.p_value(0.95, "below") == 1.0


def test_same_seed_same_result() -> None:
    s, t = scores(50)
    assert RatioBootstrap(s, t, 1000, 4).interval(0.9) == RatioBootstrap(s, t, 1000, 4).interval(0.9)
    assert RatioBootstrap(s, t, 1000, 4).interval(0.9) != RatioBootstrap(s, t, 1000, 5).interval(0.9)


def test_a_teacher_without_a_score_has_no_ratio() -> None:
    with pytest.raises(ValueError, match="scores nothing"):
        RatioBootstrap(np.ones(30), np.zeros(30), 1000, 0)


def test_one_scoring_item_only() -> None:
    t = np.zeros(40)
    t[3] = 1.0
    found = RatioBootstrap(t, t, 2000, 0)
    assert found.ratio == 1.0 and found.p_value(0.95, "below") > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 100])
def test_false_passes_of_graded_boundary_students(n: int) -> None:
    rng = np.random.default_rng(n)
    false = 0
    for seed in range(2000):
        s, t = rng.beta(2, 2, n) * 0.95, rng.beta(2, 2, n)
        false += RatioBootstrap(s, t, 999, seed).p_value(0.95, "above") <= 0.05
    assert false / 2000 <= 0.055 + 3 * np.sqrt(0.05 * 0.95 / 2000)
