"""The chunked loss against torch's own, values and gradients."""

import pytest
import torch
from torch.nn import functional

from phases.training.loss import linear_cross_entropy, linear_nll, row_nll


@pytest.mark.parametrize("rows", [1, 7, 3000])
def test_linear_cross_entropy_equals_torch(rows: int) -> None:
    hidden = torch.randn(1, rows, 16, requires_grad=True)
    head = torch.randn(50, 16, requires_grad=True)
    target, weight = torch.randint(50, (1, rows)), torch.rand(1, rows)
    nll = functional.cross_entropy((hidden @ head.T)[0], target[0], reduction="none")
    expected = torch.autograd.grad((nll * weight[0]).sum() * 0.3, [hidden, head])
    loss = linear_cross_entropy(hidden, head, target, weight)
    actual = torch.autograd.grad(loss * 0.3, [hidden, head])
    torch.testing.assert_close(loss, (nll * weight[0]).sum(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 7, 3000])
def test_the_nll_of_every_row_equals_torch(rows: int) -> None:
    hidden, head = torch.randn(rows, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    target, weight = torch.randint(50, (rows,)), torch.randn(rows)  # a policy's weights may be negative
    nll = functional.cross_entropy(hidden @ head.T, target, reduction="none")
    expected = torch.autograd.grad((nll * weight).sum() * 0.3, [hidden, head])
    total, nll_N = linear_nll(hidden, head, target, weight)
    assert not nll_N.requires_grad
    torch.testing.assert_close([nll_N, row_nll(hidden, head, target)], [nll.detach()] * 2, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(total, (nll * weight).sum(), rtol=1e-5, atol=1e-3)
    actual = torch.autograd.grad(total * 0.3, [hidden, head])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_linear_cross_entropy_survives_large_logits_and_skips_zero_weights() -> None:
    hidden = torch.full((1, 2, 4), 1e4, requires_grad=True)
    head = torch.eye(4)[:, :4] * 1e3
    weight = torch.tensor([[0.0, 1.0]])
    loss = linear_cross_entropy(hidden, head, torch.tensor([[1, 2]]), weight)
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    assert (gradient[0, 0] == 0).all()
