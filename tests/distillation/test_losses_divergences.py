"""Divergences against float64 numpy, their ends, and their derivatives."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.losses.across import sorted_distance
from distillation.losses.divergences import forward_kl, generalised_jsd, reverse_kl
from distillation.losses.hidden import hidden_error

Array = npt.NDArray[np.float64]


def softmax(logits: Array, tau: float) -> Array:
    e = np.exp((logits - logits.max(-1, keepdims=True)) / tau)
    result: Array = e / e.sum(-1, keepdims=True)
    return result


def kl(a: Array, b: Array) -> Array:
    result: Array = np.where(a > 0, a * np.log(np.where(a > 0, a, 1) / b), 0).sum(-1)
    return result


def oracle(student: Array, teacher: Array, beta: float, tau: float) -> Array:
    q, p = softmax(student, tau), softmax(teacher, tau)
    if beta in (0, 1):
        return tau**2 * (kl(p, q) if beta == 0 else kl(q, p))
    m = beta * p + (1 - beta) * q
    return tau**2 * (beta * kl(p, m) + (1 - beta) * kl(q, m))


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_divergences_equal_numpy(beta: float, tau: float) -> None:
    student, teacher = np.random.default_rng(0).normal(0, 3, (2, 40, 50))
    found = generalised_jsd(torch.tensor(student), torch.tensor(teacher), beta, tau)
    np.testing.assert_allclose(found, oracle(student, teacher, beta, tau), rtol=0, atol=1e-9)
    single = generalised_jsd(torch.tensor(student).float(), torch.tensor(teacher).float(), beta, tau)
    np.testing.assert_allclose(single, oracle(student, teacher, beta, tau), rtol=1e-6, atol=1e-6)


def test_ends_of_beta_are_the_limits_of_the_scaled_divergence() -> None:
    student, teacher = torch.randn(2, 8, 20, dtype=torch.float64)
    for beta, whole in ((1e-6, forward_kl), (1 - 1e-6, reverse_kl)):
        scaled = generalised_jsd(student, teacher, beta) / min(beta, 1 - beta)
        torch.testing.assert_close(scaled, whole(student, teacher), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(generalised_jsd(student, teacher, 0.0), forward_kl(student, teacher), rtol=0, atol=0)
    torch.testing.assert_close(generalised_jsd(student, teacher, 1.0), reverse_kl(student, teacher), rtol=0, atol=0)


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_beta_outside_of_its_range_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta"):
        generalised_jsd(torch.zeros(1, 3), torch.zeros(1, 3), beta)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_gradcheck(beta: float) -> None:
    student = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: generalised_jsd(x, teacher, beta, 1.7), student)
    assert torch.autograd.gradcheck(lambda x: sorted_distance(x, torch.softmax(teacher, -1)), student)


@settings(deadline=None, max_examples=40)
@given(
    beta=st.sampled_from([0.0, 1e-12, 0.5, 1 - 1e-12, 1.0]),
    logits=st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e4, -1e4, 1e30, -1e30, -float("inf")]), min_size=8, max_size=8),
    tau=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_extreme_logits_give_numbers(beta: float, logits: list[float], tau: float) -> None:
    both = torch.tensor(logits).reshape(2, 4)
    both[:, 0] = 0.0  # one token at least is possible
    student = both[:1].clone().requires_grad_()
    value = generalised_jsd(student, both[1:], beta, tau).sum()
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value) and value >= -1e-5 and torch.isfinite(gradient).all()


def test_equal_distributions_do_not_diverge() -> None:
    logits: Any = torch.randn(5, 9, dtype=torch.float64)
    for beta in (0.0, 0.4, 1.0):
        assert generalised_jsd(logits + 3, logits, beta).abs().max() < 1e-12
    assert sorted_distance(logits, torch.softmax(logits.flip(-1), -1)).abs().max() < 1e-12


@pytest.mark.parametrize("teacher_ids", [4, 9, 15])
def test_the_distance_of_sorted_probabilities_equals_numpy(teacher_ids: int) -> None:
    student, teacher = torch.randn(6, 9, dtype=torch.float64), torch.softmax(torch.randn(6, teacher_ids), -1).double()
    q, p = (-np.sort(-x.numpy()) for x in (torch.softmax(student, -1), teacher))
    width = max(9, teacher_ids)
    q, p = (np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (q, p))
    np.testing.assert_allclose(sorted_distance(student, teacher), np.abs(q - p).sum(1), atol=1e-12)


def test_the_error_of_hidden_states_equals_numpy_and_skips_weight_0() -> None:
    student, teacher = torch.randn(5, 4, requires_grad=True), torch.randn(5, 6)
    projection, weight = torch.randn(6, 4, requires_grad=True), torch.tensor([1.0, 0.5, 0.0, 2.0, 0.0])
    with torch.no_grad():
        teacher[2] = torch.nan
    found = hidden_error(student, teacher, projection, weight)
    apart = student.detach().double().numpy() @ projection.detach().double().numpy().T - teacher.double().numpy()
    expected = (np.nan_to_num((apart**2).mean(1)) * weight.numpy()).sum()
    assert found.item() == pytest.approx(expected, rel=1e-6)
    found.backward()
    assert student.grad is not None and torch.isfinite(student.grad).all() and projection.grad is not None
    assert hidden_error(student, teacher, projection, torch.zeros(5)).item() == 0
    double = (student.double().detach().requires_grad_(), projection.double().detach().requires_grad_())
    clean = teacher.nan_to_num().double()
    assert torch.autograd.gradcheck(lambda s, w: hidden_error(s, clean, w, weight.double()), double)
