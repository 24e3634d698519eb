"""Each merge method against a slow reference written out entry by entry, or a closed form."""

import math

import pytest
import torch

from phases.errors import MergeError
from phases.evomerge.dare import dare_linear, dare_ties, drop, uniform
from phases.evomerge.linear import linear, trunk_weights
from phases.evomerge.slerp import slerp
from phases.evomerge.ties import kept, magnitude_rank, ties, trim


def rows(count: int, *shape: int) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(3))


def slow_ties(trunk, deltas, weights, densities, scale):
    """TIES with loops over entries (arXiv 2306.01708, algorithm 1; election on weighted task vectors)."""
    trimmed = []
    for delta, density in zip(deltas.tolist(), densities, strict=True):
        keep = sorted(range(len(delta)), key=lambda i: -abs(delta[i]))[: max(1, int(density * len(delta)))]
        trimmed.append([v if i in keep else 0.0 for i, v in enumerate(delta)])
    merged = []
    for p, start in enumerate(trunk.tolist()):
        weighted = [w * t[p] for w, t in zip(weights, trimmed, strict=True)]
        sign = 1 if sum(weighted) >= 0 else -1
        agree = [(w, v) for w, v in zip(weights, weighted, strict=True) if v * sign > 0]
        merged.append(start + scale * sum(v for _, v in agree) / (sum(w for w, _ in agree) or 1))
    return torch.tensor(merged)


def test_linear_is_the_weighted_mean():
    thetas = rows(3, 5)
    expected = (2 * thetas[0] + thetas[1] + 3 * thetas[2]) / 6
    torch.testing.assert_close(linear(thetas, (2, 1, 3)), expected)


def test_linear_with_one_weight_is_that_parent_bit_for_bit():
    thetas = rows(3, 100)
    assert torch.equal(linear(thetas, trunk_weights((0.0, 1.0))), thetas[2])
    assert torch.equal(linear(thetas, trunk_weights((0.0, 0.0))), thetas[0])


def test_linear_with_trunk_weights_is_task_arithmetic():
    thetas = rows(3, 50)
    expected = thetas[0] + 0.7 * (thetas[1] - thetas[0]) + 0.9 * (thetas[2] - thetas[0])
    torch.testing.assert_close(linear(thetas, trunk_weights((0.7, 0.9))), expected)


def test_linear_refuses_weights_that_sum_to_zero():
    with pytest.raises(MergeError, match="sum to zero"):
        linear(rows(2, 4), (1.0, -1.0))


def test_slerp_walks_the_circle():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    for t in (0.0, 0.25, 1.0):
        angle = t * math.pi / 2
        torch.testing.assert_close(slerp(a, b, t), torch.tensor([math.cos(angle), math.sin(angle)]))


def test_slerp_keeps_the_shape_and_its_ends():
    a, b = rows(2, 3, 4)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)


@pytest.mark.parametrize("other", [1.0001, -1.0, 0.0])
def test_slerp_of_parallel_opposite_or_zero_tensors_is_finite(other):
    a = rows(1, 8)[0]
    merged = slerp(a, a * other, 0.3)
    torch.testing.assert_close(merged, 0.7 * a + 0.3 * a * other if other else slerp(a, a * 0, 0.3))
    assert merged.isfinite().all()


def test_trim_keeps_the_largest_magnitudes():
    delta = torch.tensor([0.1, -5.0, 3.0, -0.2, 0.0])
    assert trim(delta, 0.4).tolist() == [0.0, -5.0, 3.0, 0.0, 0.0]
    assert torch.equal(trim(delta, 1.0), delta)
    assert trim(delta, 0.0).abs().sum() == 0


def test_ranks_are_a_permutation_and_kept_counts_them():
    rank = magnitude_rank(rows(1, 6, 7)[0])
    assert sorted(rank.flatten().tolist()) == list(range(42))
    assert [kept(d, 10) for d in (0.0, 0.01, 0.55, 1.0, 2.0)] == [0, 1, 5, 10, 10]


@pytest.mark.parametrize("densities", [(0.3, 0.6, 1.0), (0.02, 0.02, 0.02)])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.2, 1.3, 0.0)])
def test_ties_equals_the_loop(densities, weights):
    trunk, deltas = rows(1, 61)[0], rows(4, 61)[1:]
    expected = slow_ties(trunk, deltas, weights, densities, 0.8)
    torch.testing.assert_close(ties(trunk, list(deltas), weights, densities, 0.8), expected)


def test_ties_of_one_model_at_full_density_is_that_model():
    trunk, delta = rows(2, 30)
    torch.testing.assert_close(ties(trunk, [delta, delta * 0], (1.0, 1.0), (1.0, 1.0)), trunk + delta)


def test_uniforms_depend_on_seed_parent_and_name_only():
    size = torch.Size([100])
    first = uniform(size, 1, 2, "a")
    torch.manual_seed(99)
    assert torch.equal(first, uniform(size, 1, 2, "a"))
    for other in (uniform(size, 2, 2, "a"), uniform(size, 1, 1, "a"), uniform(size, 1, 2, "b")):
        assert not torch.equal(first, other)


def test_drop_keeps_the_expectation():
    delta = torch.ones(200_000)
    dropped = drop(delta, uniform(delta.shape, 0, 0, "x"), 0.2, "density")
    kept_share = (dropped != 0).float().mean()
    assert abs(kept_share - 0.2) < 5 * math.sqrt(0.2 * 0.8 / 200_000)
    assert dropped.unique().tolist() == [0.0, 5.0]


def test_drop_by_l1_keeps_the_norm():
    delta = rows(1, 1000)[0]
    dropped = drop(delta, uniform(delta.shape, 0, 0, "x"), 0.3, "l1")
    torch.testing.assert_close(dropped.abs().sum(), delta.abs().sum())


def test_drop_masks_are_nested_in_the_density():
    delta, chance = torch.ones(500), uniform(torch.Size([500]), 0, 0, "x")
    sparse, dense = drop(delta, chance, 0.2, "density") > 0, drop(delta, chance, 0.6, "density") > 0
    assert (dense | ~sparse).all()


def test_drop_edges():
    delta = rows(1, 10)[0]
    assert drop(delta, torch.zeros(10), 1.0, "l1") is delta
    assert drop(delta, torch.zeros(10), 0.0, "density").abs().sum() == 0
    assert drop(delta * 0, torch.zeros(10), 0.5, "l1").abs().sum() == 0


def test_dare_without_dropping_is_task_arithmetic_and_consensus():
    trunk, one, two = rows(3, 40)
    torch.testing.assert_close(dare_linear(trunk, [one, two], (0.5, 0.3)), trunk + 0.5 * one + 0.3 * two)
    total = 0.5 * one + 0.3 * two
    agree = sum(torch.where(torch.sign(d) == torch.sign(total), w * d, 0.0) for w, d in ((0.5, one), (0.3, two)))
    torch.testing.assert_close(dare_ties(trunk, [one, two], (0.5, 0.3)), trunk + agree)
