"""The distillation loss against torch's own losses, values and gradients."""

import pytest
import torch
from torch.nn import functional

from phases.bitnet.distil import distillation_loss, hidden_distance


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rows", [1, 9, 1500])
def test_distillation_equals_torch(rows: int, share: float) -> None:
    torch.manual_seed(rows)
    hidden, head = torch.randn(2, rows, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    teacher, teacher_head = torch.randn(2, rows, 5, requires_grad=True), torch.randn(30, 5, requires_grad=True)
    target, weight = torch.randint(30, (2, rows)), torch.rand(2, rows) / rows
    weight[0, 0] = 0.0
    log_p = functional.log_softmax(hidden @ head.T, -1)
    log_q = functional.log_softmax(teacher @ teacher_head.T, -1).detach()
    nll = (weight * functional.nll_loss(log_p.movedim(-1, 1), target, reduction="none")).sum()
    kl = (weight * functional.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1)).sum()
    loss, found_nll, found_kl = distillation_loss(hidden, head, teacher, teacher_head, target, weight, share)
    expected = (1 - share) * nll + share * kl
    torch.testing.assert_close([loss, found_nll, found_kl], [expected, nll, kl], rtol=1e-4, atol=1e-5)
    assert not found_nll.requires_grad and not found_kl.requires_grad
    actual = torch.autograd.grad(loss * 0.7, [hidden, head, teacher, teacher_head], allow_unused=True)
    torch.testing.assert_close(actual[:2], torch.autograd.grad(expected * 0.7, [hidden, head]), rtol=1e-4, atol=1e-6)
    assert actual[2:] == (None, None)


def test_a_student_like_its_teacher_has_no_divergence_and_no_gradient() -> None:
    hidden, head = torch.randn(1, 6, 4, requires_grad=True), torch.randn(9, 4)
    loss, _, kl = distillation_loss(
        hidden, head, hidden, head, torch.zeros(1, 6, dtype=torch.long), torch.ones(1, 6), 1.0
    )
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert abs(float(kl)) < 1e-5 and gradient.abs().max() < 1e-6


def test_hidden_distance_by_hand() -> None:
    ours = (torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), torch.tensor([[[2.0, 0.0], [3.0, 4.0]]]))
    teacher = (torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[2.0, 0.0], [0.0, 5.0]]]))
    # layer 1: 1/4 and 1/1; layer 2: 0 and (9 + 1)/25; weights 1 and 0.5; mean over two layers
    expected = ((0.25 + 0.5) + (0.0 + 0.5 * 0.4)) / 2
    assert float(hidden_distance(ours, teacher, torch.tensor([[1.0, 0.5]]))) == pytest.approx(expected)
