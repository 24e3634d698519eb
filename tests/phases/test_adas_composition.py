"""The cross-entropy method on problems with known optima, what it minimises, and sums of experts against TIES' own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phases.adas import composition
from phases.adas.composition import (
    CompositionConfig,
    Tried,
    cross_entropy_method,
    relative_loss,
)
from phases.adas.mixing import DENSITY, elected, weighted_sum
from phases.errors import CheckpointError
from phases.evomerge.ties import ties
from phases.json_lines import append_lines, read_lines

NAMES = ("python", "facts", "reasoning")
OPTIMUM = {"python": 0.4, "facts": -0.25, "reasoning": 0.0}
LONG = CompositionConfig(iterations=30, population=16)


def quadratic(weights: Mapping[str, float]) -> float:
    x, y, z = (weights[name] - OPTIMUM[name] for name in NAMES)
    return x * x + 2 * y * y + z * z + x * y


@pytest.mark.parametrize("antithetic", [True, False])
def test_it_finds_the_optimum_of_a_quadratic_negative_weights_too(antithetic: bool) -> None:
    found = cross_entropy_method(quadratic, NAMES, LONG.model_copy(update={"antithetic": antithetic}), 0)
    assert found.weights == pytest.approx(OPTIMUM, abs=0.03) and found.value == quadratic(found.weights)
    assert max(found.sigma.values()) < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_the_default_budget_comes_close_from_several_sigmas_away(seed: int) -> None:
    found = cross_entropy_method(quadratic, NAMES, CompositionConfig(), seed)
    assert len(found.history) == 82 and found.value < 0.25 * quadratic(dict.fromkeys(NAMES, 0.0))


def test_it_beats_as_many_random_draws() -> None:
    rng, wins = np.random.default_rng(0), 0
    for seed in range(10):
        found = cross_entropy_method(quadratic, NAMES, CompositionConfig(), seed)
        random = min(quadratic(dict(zip(NAMES, rng.normal(0, 0.3, 3), strict=True))) for _ in found.history)
        wins += found.value < random
    assert wins >= 7


def test_where_no_expert_helps_the_parent_stays() -> None:
    found = cross_entropy_method(lambda weights: sum(map(abs, weights.values())), NAMES, LONG, 0)
    assert found.weights == dict.fromkeys(NAMES, 0.0) and found.value == 0


def test_it_begins_with_the_parent_and_ends_with_its_mean() -> None:
    found = cross_entropy_method(quadratic, NAMES, CompositionConfig(iterations=3, population=4), 0)
    assert [one.iteration for one in found.history] == [0, *[1] * 4, *[2] * 4, *[3] * 4, 4]
    assert found.history[0].weights == dict.fromkeys(NAMES, 0.0)
    assert (found.weights, found.value) == (found.history[-1].weights, found.history[-1].value)


def test_mirrored_draws_lie_around_the_mean() -> None:
    found = cross_entropy_method(quadratic, NAMES, CompositionConfig(population=5), 3)
    first = np.array([list(one.weights.values()) for one in found.history if one.iteration == 1])
    np.testing.assert_allclose(first[:2], -first[3:], atol=1e-4)
    assert np.abs(first).max() < 0.5


def test_the_next_distribution_is_the_definitions() -> None:
    config = CompositionConfig(elite=0.5, smoothing=0.6)
    draws, old = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [9.0, 9.0]]), np.array([0.5, 0.5])
    mean, sigma = composition._next(old, np.array([0.1, 0.2]), draws, [2.0, 1.0, 3.0, 4.0], config)
    first, second = np.log(2.5), np.log(2.5 / 2)  # ranks 1 and 2 of two
    first, second = first / (first + second), second / (first + second)
    np.testing.assert_allclose(mean, [second * 1.0, first * 2.0])
    np.testing.assert_allclose(sigma**2, [0.004 + 0.6 * 0.25, 0.016 + 0.6 * (first * 2.25 + second * 0.25)])


def test_what_is_not_a_number_is_never_the_best() -> None:
    def broken(weights: Mapping[str, float]) -> float:
        return float("nan") if weights["python"] > 0 else quadratic(weights)

    found = cross_entropy_method(broken, NAMES, CompositionConfig(), 0)
    assert found.weights["python"] <= 0 and all(np.isfinite(one.value) for one in found.history)


class Killed(BaseException):
    pass


def test_a_killed_search_goes_on_where_it_stood(tmp_path: Path) -> None:
    log, config, asked = tmp_path / "log.jsonl", CompositionConfig(), []

    def kill(weights: Mapping[str, float]) -> float:
        if len(asked) == 21:
            raise Killed
        asked.append(weights)
        return quadratic(weights)

    with pytest.raises(Killed):
        cross_entropy_method(kill, NAMES, config, 5, note=lambda tried: append_lines(log, [tried.model_dump_json()]))
    with log.open("a") as file:
        file.write('{"iteration": 3, "wei')
    known, again = read_lines(log, Tried.model_validate), []
    found = cross_entropy_method(
        lambda w: again.append(w) or quadratic(w),
        NAMES,
        config,
        5,
        known,
        lambda tried: append_lines(log, [tried.model_dump_json()]),
    )
    assert found == cross_entropy_method(quadratic, NAMES, config, 5)
    assert len(known) == 21 and len(again) == len(found.history) - 21
    assert tuple(read_lines(log, Tried.model_validate)) == found.history


def test_the_log_of_another_search_is_refused(tmp_path: Path) -> None:
    known = cross_entropy_method(quadratic, NAMES, CompositionConfig(), 1).history
    with pytest.raises(CheckpointError, match="of another search"):
        cross_entropy_method(quadratic, NAMES, CompositionConfig(), 2, known)
    (tmp_path / "log").write_text('{"iteration": "one"}\n')
    with pytest.raises(CheckpointError, match="log: altered"):
        read_lines(tmp_path / "log", Tried.model_validate)
    assert read_lines(tmp_path / "none", Tried.model_validate) == []


def test_what_is_minimised_is_the_mean_and_what_was_forgotten() -> None:
    parent = {"a": 1.9, "b": 0.9, "c": 0.4}
    assert relative_loss(parent, parent, 3.0) == 1
    losses = {"a": 0.9, "b": 1.0, "c": 0.4}  # with the floor 1.0 of 2.0, 1.1 of 1.0, 0.5 of 0.5
    assert relative_loss(losses, parent, 0.0) == pytest.approx((0.5 + 1.1 + 1) / 3)
    assert relative_loss(losses, parent, 2.0) == pytest.approx((0.5 + 1.1 + 2 * 0.1 + 1) / 3)


def test_noise_of_a_solved_domain_hardly_counts() -> None:
    assert relative_loss({"a": 0.002}, {"a": 0.001}, 0.0) < 1.01


def test_with_noise_the_mean_is_nearer_than_the_best_draw() -> None:
    """Which is why it is what is found."""
    nearer = 0
    for seed in range(12):
        noise = np.random.default_rng(seed)
        found = cross_entropy_method(lambda w: quadratic(w) + 0.05 * noise.normal(), NAMES, CompositionConfig(), seed)  # noqa: B023
        best = min(found.history, key=lambda one: one.value)
        nearer += quadratic(found.history[-1].weights) < quadratic(best.weights)
    assert nearer >= 9


def vectors(kind: str, count: int = 3) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    shape = (11,) if kind == "singular" else (5, 11)
    about = 1.0 if kind == "singular" else 0.0
    return {
        NAMES[i]: {m: about + 0.1 * torch.randn(shape, generator=generator) for m in ("q", "k")} for i in range(count)
    }


@pytest.mark.parametrize(("kind", "about"), [("singular", 1.0), ("task", 0.0)])
def test_sums_and_elections_are_the_definitions(kind: Any, about: float) -> None:
    found, weights = vectors(kind), {"python": 0.5, "facts": -2.0, "reasoning": 0.0}
    for matrix, total in weighted_sum(kind, found, weights).items():
        expected = 0.5 * (found["python"][matrix] - about) - 2.0 * (found["facts"][matrix] - about)
        torch.testing.assert_close(total.float(), expected)
    for matrix, total in elected(kind, found).items():
        deltas = [expert[matrix] - about for expert in found.values()]
        trunk = torch.zeros_like(deltas[0])
        expected = ties(trunk, deltas, [1.0, 1.0, 1.0], [DENSITY] * 3)
        torch.testing.assert_close(total, expected)
        assert 0 < int((expected != 0).sum()) <= 3 * int(DENSITY * expected.numel())


def test_one_expert_elected_is_its_largest_changes() -> None:
    found = vectors("task", 1)
    delta = found["python"]["q"]
    kept = elected("task", found)["q"]
    threshold = delta.abs().flatten().sort(descending=True).values[int(DENSITY * delta.numel()) - 1]
    torch.testing.assert_close(kept, torch.where(delta.abs() >= threshold, delta, 0))


def test_tried_weights_are_written_as_they_are() -> None:
    found = cross_entropy_method(quadratic, NAMES, CompositionConfig(iterations=2), 0)
    assert tuple(Tried.model_validate_json(one.model_dump_json()) for one in found.history) == found.history
