"""The closed loop on toy plants: steps in skill, saturation, an exponent with a disturbance; and updates by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from phases.forge.config import Chaos
from phases.forge.controller import (
    LEAST,
    Loop,
    focused,
    moved_difficulty,
    moved_noise,
    moved_tilt,
    rate_factor,
    reference_course,
    smoothed,
    tilted,
)

BAND = Chaos().band
SLOPE, ITEMS = 6.0, 24


def counts(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def solved(skill: float, difficulty: float) -> float:
    """The plant: a logistic curve, the easier the better."""
    return 1 / (1 + math.exp(SLOPE * difficulty - skill))


def share_in_band(skill: Callable[[int], float], settings: Chaos, closed: bool, after: int, steps: int) -> float:
    """Share of the steps from `after` on in which the plant's true success lies in the band."""
    rng, loop = np.random.default_rng(0), Loop(settings, {"t": 1.0})
    inside = []
    for step in range(steps):
        success = solved(skill(step), loop.difficulty["t"] if closed else 0.55)
        inside.append(BAND[0] <= success <= BAND[1])
        loop.observe_success(counts(rng.binomial(ITEMS, success)), counts(ITEMS))
    return float(np.mean(inside[after:]))


@pytest.mark.parametrize("disturbance", [2.0, -2.0])
@pytest.mark.parametrize("smoothing", [0.5, 0.8])
def test_a_step_in_skill_is_answered_and_without_the_loop_it_is_not(disturbance: float, smoothing: float) -> None:
    def skill(step: int) -> float:
        return 4.0 + (disturbance if step >= 60 else 0.0)

    settings = Chaos(smoothing=smoothing)
    assert share_in_band(skill, settings, True, after=30, steps=60) >= 0.9
    assert share_in_band(skill, settings, True, after=85, steps=400) >= 0.9
    assert share_in_band(skill, settings, False, after=0, steps=60) == 1  # the best fixed difficulty, before the step
    assert share_in_band(skill, settings, False, after=60, steps=400) == 0


def test_an_impossible_task_goes_to_the_limit_and_leaves_it_at_once() -> None:
    loop = Loop(Chaos(), {"t": 1.0})
    for _ in range(200):
        loop.observe_success(counts(0), counts(ITEMS))
    assert loop.difficulty == {"t": 0.0}
    steps = 0
    while loop.difficulty["t"] == 0 and steps < 50:
        loop.observe_success(counts(ITEMS), counts(ITEMS))
        steps += 1
    assert steps == math.floor(math.log(1 - BAND[1]) / math.log(0.8)) + 1 == 7  # the smoothing alone, no windup
    for _ in range(200):
        loop.observe_success(counts(ITEMS), counts(ITEMS))
    assert loop.difficulty == {"t": 1.0}


def test_two_updates_by_hand() -> None:
    loop = Loop(Chaos(gain=0.5, smoothing=0.5, hardest=2.0), {"a": 1.0, "b": 1.0, "c": 1.0})
    assert loop.success == {"a": None, "b": None, "c": None}
    assert loop.difficulty == {"a": 1.0, "b": 1.0, "c": 1.0}
    loop.observe_success(counts(1, 9, 0), counts(4, 10, 0))
    assert loop.difficulty == pytest.approx({"a": 1 + 0.5 * (0.25 - 0.55), "b": 1 + 0.5 * (0.9 - 0.75), "c": 1.0})
    loop.observe_success(counts(2, 0, 0), counts(2, 1, 0))
    success = {"a": (0.5 * 1 + 2) / (0.5 * 4 + 2), "b": (0.5 * 9 + 0) / (0.5 * 10 + 1)}  # 0.625 and 0.75: in the band
    assert loop.success == pytest.approx(success | {"c": None})
    assert loop.difficulty == pytest.approx({"a": 0.85, "b": 1.075, "c": 1.0})
    assert loop.curves()["success"] == pytest.approx((2.5 + 4.5) / (4 + 6))  # every item asked has the same say
    assert "success/c" not in loop.curves()


def test_one_item_does_not_swing_the_success() -> None:
    loop = Loop(Chaos(), {"t": 1.0})
    for _ in range(20):
        loop.observe_success(counts(13), counts(20))
    loop.observe_success(counts(0), counts(1))
    assert loop.success["t"] == pytest.approx(0.65, abs=0.01)


@pytest.mark.parametrize(("success", "change"), [(0.0, -0.55), (0.5, -0.05), (0.55, 0), (0.75, 0), (0.8, 0.05)])
def test_the_difficulty_moves_by_the_distance_to_the_nearest_edge(success: float, change: float) -> None:
    assert moved_difficulty(0.5, success, BAND, 0.3, 1.0) == pytest.approx(0.5 + 0.3 * change)
    assert moved_difficulty(0.0, 0.0, BAND, 0.3, 1.0) == 0
    assert moved_difficulty(0.6, 1.0, BAND, 0.3, 0.6) == 0.6


def test_a_start_that_is_not_allowed_is_the_nearest() -> None:
    assert Loop(Chaos(hardest=0.6), {"t": 1.0}).difficulty == {"t": 0.6}
    assert Loop(Chaos(hardest=1.5), {"t": 1.0}).difficulty == {"t": 1.0}


def run_exponent(settings: Chaos, steps: int = 80, last: int = 20) -> float:
    """Mean distance from the course at the end: first order, noise lowers it, and half-way something lifts it."""
    loop, exponent = Loop(settings, {"t": 1.0}), 0.1
    errors = []
    for step in range(steps):
        loop.observe_exponent(exponent, step / steps)
        errors.append(abs(exponent - (0.1 + (settings.exponent - 0.1) * step / steps)))
        free = 0.1 + (0.05 if step >= steps // 2 else 0.0)
        exponent = 0.5 * exponent + 0.5 * (free - 0.5 * loop.noise)
    return float(np.mean(errors[-last:]))


def test_the_exponent_returns_to_its_course_and_without_noise_it_does_not() -> None:
    assert run_exponent(Chaos(noise_gain=0.5)) < 0.01
    assert run_exponent(Chaos(noise_gain=0.0)) > 0.1


def test_too_large_an_exponent_slows_the_rate_and_adds_noise() -> None:
    loop = Loop(Chaos(exponent=0.2, rate_gain=1.0, noise_gain=5.0), {"t": 1.0})
    assert (loop.rate, loop.noise, loop.reference) == (1.0, 0.0, None)
    loop.observe_exponent(0.4, 0.0)
    assert (loop.rate, loop.noise, loop.reference) == (1.0, 0.0, 0.4)
    loop.observe_exponent(0.34, 0.5)  # 0.04 above its course
    assert (loop.rate, loop.noise, loop.reference) == pytest.approx((math.exp(-0.04), 0.2, 0.3))
    loop.observe_exponent(0.22, 0.75)  # 0.03 below it
    assert (loop.rate, loop.noise) == pytest.approx((math.exp(0.03), 0.05))
    curves = loop.curves()
    assert (curves["exponent"], curves["exponent_reference"]) == pytest.approx((0.22, 0.25))
    assert (curves["rate"], curves["noise"]) == (loop.rate, loop.noise)


def test_the_parts_of_the_exponents_loop() -> None:
    assert reference_course(0.3, -0.1, 0.25) == pytest.approx(0.2)
    assert rate_factor(1e9, 2.0, (0.5, 1.5)) == pytest.approx(0.5)
    assert rate_factor(-1e9, 2.0, (0.5, 1.5)) == pytest.approx(1.5)
    assert rate_factor(0.1, 2.0, (0.5, 1.5)) == pytest.approx(math.exp(-0.2))
    assert moved_noise(0.29, 1.0, 5.0, 0.3) == 0.3 and moved_noise(0.1, -1.0, 5.0, 0.3) == 0
    assert smoothed(10.0, 3.0, 0.8) == 11


def test_shares_follow_the_variance_of_success_and_none_starves() -> None:
    loop = Loop(Chaos(), {"half": 1.0, "often": 1.0, "never": 1.0, "unseen": 4.0})
    loop.observe_success(counts(5, 8, 0, 0), counts(10, 10, 10, 0))
    total = 0.25 + 0.16 + LEAST + 0.25
    shares = {"half": 0.25 / total, "often": 0.16 / total, "never": LEAST / total, "unseen": 0.25 / total}
    assert loop.shares == pytest.approx(shares)
    assert focused([]) == []
    assert Loop(Chaos(focus=False), {"a": 1.0, "b": 3.0}).shares == {"a": 0.25, "b": 0.75}


def test_the_tilt_by_hand() -> None:
    assert moved_tilt(0.5, 0.45, BAND, 2.0, 4.0) == pytest.approx(0.5 + 2 * 0.1)  # too hard: towards the easier
    assert moved_tilt(0.5, 0.85, BAND, 2.0, 4.0) == pytest.approx(0.5 - 2 * 0.1)
    assert moved_tilt(0.5, 0.6, BAND, 2.0, 4.0) == 0.5
    assert moved_tilt(3.9, 0.0, BAND, 2.0, 4.0) == 4 and moved_tilt(-3.9, 1.0, BAND, 2.0, 4.0) == -4
    odds = math.exp(2 * (0.9 - 0.1)) * 0.2 / 0.8
    assert tilted([0.2, 0.8], [0.9, 0.1], 2.0) == pytest.approx([odds / (1 + odds), 1 / (1 + odds)])
    assert tilted([0.5, 0.5], [1.0, None], 3.0) == tilted([0.5, 0.5], [1.0, 0.5], 3.0)


@pytest.mark.parametrize("right", [0, 24])
def test_by_default_shares_do_not_tilt(right: int) -> None:
    loops = [
        Loop(settings, {"a": 1.0, "b": 1.0}) for settings in (Chaos(focus=False), Chaos(focus=False, tilt_gain=2.0))
    ]
    for _ in range(9):
        for loop in loops:
            loop.observe_success(counts(right, 12), counts(ITEMS, ITEMS // 2))
    assert loops[0].shares == {"a": 0.5, "b": 0.5} and loops[0].curves()["tilt"] == 0
    assert loops[1].curves()["tilt"] * (12 - right) > 0


@pytest.mark.parametrize("chances", [(0.95, 0.1), (0.9, 0.3, 0.05), (0.98, 0.9, 0.5)])
def test_tasks_that_no_difficulty_helps_are_mixed_until_the_whole_is_in_the_band(chances: tuple[float, ...]) -> None:
    def success(gain: float) -> float:
        """Mean over the last hundred steps; the tasks are solved as often at any difficulty."""
        rng = np.random.default_rng(2)
        loop = Loop(Chaos(tilt_gain=gain, focus=False), {str(k): 1.0 for k in range(len(chances))})
        means = []
        for _ in range(300):
            asked = rng.multinomial(40, list(loop.shares.values()))
            loop.observe_success(counts(*rng.binomial(asked, chances)), counts(*asked))
            means.append(loop.overall)
        assert (loop.steps == 300 and 0 < loop.held <= 300) or gain == 0
        return float(np.mean(means[-100:]))

    assert BAND[0] - 0.01 < success(0.5) < BAND[1] + 0.01
    assert not BAND[0] < success(0.0) < BAND[1]


def test_the_state_comes_back_bit_for_bit() -> None:
    settings, rng = Chaos(tilt_gain=0.5), np.random.default_rng(1)
    whole, second = Loop(settings, {"a": 1.0, "b": 2.0}), Loop(settings, {"a": 1.0, "b": 2.0})
    second.load(load(save(whole.state())))
    assert second.curves() == whole.curves() and second.reference is None
    for step in range(40):
        if step == 17:
            second = Loop(settings, {"a": 1.0, "b": 2.0})
            second.load(load(save(whole.state())))
        right, value = counts(*rng.integers(0, 9, size=2)), float(rng.normal())
        for loop in (whole, second):
            loop.observe_success(right, counts(8, 9))
            loop.observe_exponent(value, step / 40)
    assert second.curves() == whole.curves() and second.shares == whole.shares
    assert whole.curves()["tilt"] != 0
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in whole.state().items())
