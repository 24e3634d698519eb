"""Muon against PyTorch's, against the singular values that its polynomial must give, and what it refuses."""

import pytest
import torch

from phases.training.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonalised

SHAPES = ((24, 40), (40, 24), (24, 24), (24, 40))


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def test_steps_are_those_of_torch_up_to_its_rounding() -> None:
    ours, theirs = parameters(), parameters()
    muon = Muon(ours, lr=0.02, weight_decay=0.01)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.01)
    for step in range(5):
        for mine, other, gradient in zip(ours, theirs, parameters(step + 1), strict=True):
            mine.grad, other.grad = gradient.detach().clone(), gradient.detach().clone()
        muon.step()
        reference.step()
    moved = [(p - start).abs().mean() for p, start in zip(ours, parameters(), strict=True)]
    for mine, other, distance in zip(ours, theirs, moved, strict=True):
        # bfloat16 has 8 bits: five steps of it stay within 2 % of the way, and are not equal.
        assert 0 < (mine - other).abs().mean() < 0.02 * distance


def test_momentum_and_decay_are_exactly_those_of_torch() -> None:
    (ours, *_), (theirs, *_) = parameters(), parameters()
    muon, reference = Muon([ours], lr=0.0, weight_decay=0.5), torch.optim.Muon([theirs], lr=0.0, weight_decay=0.5)
    for gradient in (parameters(1)[0], parameters(2)[0]):
        ours.grad, theirs.grad = gradient.detach().clone(), gradient.detach().clone()
        muon.step()
        reference.step()
    assert torch.equal(muon.state[ours]["momentum_buffer"], reference.state[theirs]["momentum_buffer"])


def test_singular_values_follow_the_polynomial() -> None:
    update = torch.randn(1, 20, 30, generator=torch.Generator().manual_seed(3))
    left, values, right = torch.linalg.svd(update[0].double(), full_matrices=False)
    a, b, c = COEFFICIENTS
    values = values / values.norm()
    for _ in range(ITERATIONS):
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(orthogonalised(update)[0].double(), left @ values.diag() @ right, atol=1e-5, rtol=1e-5)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_a_matrix_alone_and_among_others_moves_alike() -> None:
    alone, together = parameters()[:1], parameters()
    for group in (alone, together):
        for parameter, gradient in zip(group, parameters(7), strict=False):
            parameter.grad = gradient.detach().clone()
        Muon(group, lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(alone[0], together[0], atol=1e-6, rtol=1e-6)


def test_a_gradient_of_zeros_moves_nothing_and_none_leaves_its_weight() -> None:
    still, without = parameters()[:2]
    before = still.detach().clone(), without.detach().clone()
    still.grad = torch.zeros_like(still)
    muon = Muon([still, without], lr=0.1, weight_decay=0.0)
    muon.step()
    assert torch.equal(still, before[0]) and torch.equal(without, before[1]) and without not in muon.state


def test_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="Muon is for matrices, not for a parameter of shape \\(3,\\)"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1, weight_decay=0.0)
