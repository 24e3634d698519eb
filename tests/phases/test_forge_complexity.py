"""Complexity measures against closed forms."""

import math

import pytest
import torch
from transformers import LlamaForCausalLM

from phases.forge.complexity import (
    activation_rank,
    effective_rank,
    local_learning_coefficient,
    matrices,
    mean_rank,
    weight_width,
)

N = 1000
SCALE = N / math.log(N)
COPIES = 500
"""Independent copies of a small loss side by side: their coefficients add up."""


def made(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_width_of_known_distributions() -> None:
    gauss = weight_width([3 * torch.randn(200, 1000, generator=made())])
    assert gauss.deviation == pytest.approx(math.sqrt(math.pi / 2), rel=0.01)
    assert gauss.interdecile == pytest.approx(2 * 1.28155 / math.sqrt(2 / math.pi), rel=0.01)
    even = weight_width([torch.linspace(-1, 0, 5001), torch.linspace(0, 1, 5001).view(3, -1)])
    assert even.deviation == pytest.approx(2 / math.sqrt(3), rel=0.001)
    assert even.interdecile == pytest.approx(3.2, rel=0.001)


def test_width_is_of_all_tensors_together() -> None:
    width = weight_width([torch.full((2, 2), 2.0), torch.zeros(4)])
    assert (width.deviation, width.interdecile) == (1, 2)


def test_effective_rank() -> None:
    turned = torch.linalg.qr(torch.randn(6, 6, generator=made()))[0]
    assert effective_rank(turned) == pytest.approx(6)
    assert effective_rank(torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 8))) == pytest.approx(1, abs=1e-5)
    # Shares ½, ¼, ¼: entropy 1.5 ln 2.
    assert effective_rank(turned[:3] * torch.tensor([[2.0], [1.0], [1.0]])) == pytest.approx(2**1.5)
    assert effective_rank(torch.zeros(3, 4)) == 0
    assert mean_rank([torch.eye(4), torch.ones(4, 9)]) == pytest.approx((1 + 1 / 4) / 2)


def test_activations_are_ranked_around_their_mean() -> None:
    centre = 100 * torch.randn(5, generator=made())
    assert activation_rank(centre.expand(9, 5)) == 0
    cross = torch.cat([torch.eye(5), -torch.eye(5)])
    assert activation_rank(cross + centre) == pytest.approx(5, rel=1e-4)
    assert activation_rank(cross[[0, 1, 5, 6]] + centre) == pytest.approx(2, rel=1e-4)


def test_a_models_matrices(tiny_model: LlamaForCausalLM) -> None:
    kinds = matrices(tiny_model)
    assert {name: len(tensors) for name, tensors in kinds.items()} == {"layers": 21, "embeddings": 1, "all": 22}


@pytest.mark.parametrize("localisation", [0.0, 50.0])
def test_a_regular_minimum_has_half_its_parameters(localisation: float) -> None:
    centre = torch.randn(COPIES, generator=made(3)).requires_grad_()
    curvature = torch.linspace(0.5, 2, COPIES)
    start = centre.detach().clone()
    found = local_learning_coefficient(
        [lambda: (curvature * (centre - start).square()).sum() / 2 + 7],
        [centre],
        N,
        step_size=0.1 / (2 * SCALE + localisation),
        localisation=localisation,
        burn_in=200,
        draws=300,
    )
    # The posterior is Gaussian with precision nβ · h + γ.
    expected = float((SCALE * curvature / (SCALE * curvature + localisation)).sum()) / 2
    assert found.value == pytest.approx(expected, rel=0.05)
    assert 0 < found.standard_error < 0.03 * expected
    assert torch.equal(centre, start) and centre.grad is None


def test_a_quartic_minimum_has_a_quarter() -> None:
    w = torch.zeros(COPIES, requires_grad=True)
    chain = {"step_size": 0.001, "localisation": 0.0, "burn_in": 400, "draws": 600, "chains": 2}
    found = local_learning_coefficient([lambda: w.pow(4).sum()], [w], N, **chain)
    assert found.value == pytest.approx(COPIES / 4, rel=0.05)


def test_a_minimum_with_flat_directions_has_less_than_a_regular_one() -> None:
    a, b = (torch.zeros(COPIES, requires_grad=True) for _ in range(2))
    chain = {"step_size": 0.001, "localisation": 10.0, "burn_in": 1000, "draws": 1000, "chains": 1}
    found = local_learning_coefficient([lambda: (a.square() * b.square()).sum()], [a, b], N, **chain)
    # λ of a pair is ½ as n grows without bounds, not 1; what it is at this n, and this near, is an integral.
    grid = torch.linspace(-3, 3, 2001, dtype=torch.float64).square()
    loss = SCALE * grid[:, None] * grid
    chance = torch.exp(-loss - 10 * (grid[:, None] + grid) / 2)
    expected = float((loss * chance).sum() / chance.sum())
    assert expected < 0.5 and found.value / COPIES == pytest.approx(expected, rel=0.05)


def test_two_short_chains_step_by_step() -> None:
    w, noise = torch.tensor([1.0, -2.0], requires_grad=True), made(9)
    means = []
    for _ in range(2):
        at, rises = torch.tensor([1.0, -2.0]), []
        for _ in range(5):
            rises.append(float(at.square().sum() / 2) - 2.5)
            pull = SCALE * at + 30 * (at - torch.tensor([1.0, -2.0]))
            at = at - 0.001 / 2 * pull + 0.001**0.5 * torch.randn(2, generator=noise)
        means.append(SCALE * sum(rises[2:]) / 3)
    chain = {"step_size": 0.001, "localisation": 30.0, "burn_in": 2, "draws": 3, "chains": 2}
    found = local_learning_coefficient([lambda: w.square().sum() / 2], [w], N, seed=9, **chain)
    assert found.value == pytest.approx(sum(means) / 2, rel=1e-4)
    assert found.value < 0  # no minimum: the chain walks downhill
    assert found.standard_error == pytest.approx(abs(means[0] - means[1]) / 2, rel=1e-3)


def test_batches_are_taken_in_turn_and_each_is_compared_with_itself() -> None:
    w = torch.zeros(3, requires_grad=True)
    seen: list[int] = []

    def batch(which: int, level: float) -> torch.Tensor:
        seen.append(which)
        return w.square().sum() / 2 + level

    losses = [lambda: batch(0, 1000.0), lambda: batch(1, -1000.0)]
    chain = {"step_size": 1e-6, "localisation": 1.0, "burn_in": 2, "draws": 3, "chains": 1}
    found = local_learning_coefficient(losses, [w], N, **chain)
    assert seen == [0, 1, 0, 1, 0, 1, 0]
    assert abs(found.value) < 1 and found.standard_error == 0


def test_the_seed_decides_and_the_global_one_is_left_alone() -> None:
    w = torch.zeros(4, requires_grad=True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    chain = {"step_size": 1e-4, "localisation": 1.0, "burn_in": 5, "draws": 5}
    first, again, other = (
        local_learning_coefficient([lambda: w.square().sum()], [w], N, seed=seed, **chain) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(before, torch.get_rng_state())


def test_a_chain_that_diverges_is_an_error_and_leaves_the_weights() -> None:
    w = torch.ones(4, requires_grad=True)
    chain = {"step_size": 10.0, "localisation": 1.0}
    with pytest.raises(ValueError, match=r"lower step_size=10\.0"):
        local_learning_coefficient([lambda: w.pow(4).sum()], [w], N, **chain)
    assert torch.equal(w, torch.ones(4))
