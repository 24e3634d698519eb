"""The losses from hidden states, with a stored teacher and with one in memory, against float64 numpy."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.losses.divergences import forward_kl, reverse_kl
from distillation.losses.sliced import sliced_loss
from distillation.losses.stored import Stored, stored_loss
from phases.bitnet.distil import distillation_loss
from phases.training.from_hidden import CHUNK
from phases.training.loss import linear_cross_entropy


def problem(rows: int, kind: torch.dtype = torch.float64, vocabulary: int = 30, ids: int = 5) -> dict[str, Any]:
    """Hidden states, a head, and a teacher whose last row is unknown; weights with zeros."""
    hidden = torch.randn(rows, 8, dtype=kind, requires_grad=True)
    head = torch.randn(vocabulary, 8, dtype=kind, requires_grad=True)
    weight = torch.rand(rows, dtype=kind)
    weight[::3] = 0
    weight[-1] = 1.0
    chosen = torch.stack([torch.randperm(vocabulary)[:ids] for _ in range(rows)])
    share = torch.rand(rows, ids, dtype=kind)
    share /= share.sum(1, keepdim=True)
    share[-1], chosen[-1] = 0, 0
    return {
        "hidden": hidden,
        "head": head,
        "target": torch.randint(vocabulary, (rows,)),
        "weight": weight,
        "ids": chosen,
        "share": share,
    }


def oracle(p: dict[str, Any], alpha: float, tau: float, ghost: bool) -> float:
    logits = p["hidden"].detach().double().numpy() @ p["head"].detach().double().numpy().T
    total = 0.0
    for row, weight, target, ids, share in zip(logits, p["weight"], p["target"], p["ids"], p["share"], strict=True):
        log_q = row - row.max() - np.log(np.exp(row - row.max()).sum())
        soft = row / tau - (row / tau).max()
        log_soft = soft - np.log(np.exp(soft).sum())
        s = share.double().numpy()
        if not s.any():
            total += float(weight) * -log_q[target]
            continue
        apart = -(s * log_soft[ids]).sum()
        if ghost:
            rest, others = 1 - s.sum(), np.delete(log_soft, ids)
            apart += (s * np.log(s)).sum() + rest * (np.log(rest) - np.log(np.exp(others).sum()))
        total += float(weight) * ((1 - alpha) * -log_q[target] + alpha * tau**2 * apart)
    return total


def loss(p: dict[str, Any], alpha: float, tau: float, ghost: bool) -> torch.Tensor:
    share = p["share"] * 0.8 if ghost else p["share"]
    stored = Stored(p["ids"], share, ghost)
    return stored_loss(p["hidden"], p["head"], p["target"], p["weight"], stored, alpha, tau)[0]


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize(("alpha", "tau"), [(0.0, 1.0), (0.3, 1.0), (1.0, 1.0), (0.3, 2.5), (1.0, 0.5)])
@pytest.mark.parametrize("rows", [1, 9, CHUNK + 5])
def test_stored_loss_equals_numpy(rows: int, alpha: float, tau: float, ghost: bool) -> None:
    p = problem(rows)
    shown = {**p, "share": p["share"] * 0.8} if ghost else p
    assert loss(p, alpha, tau, ghost).item() == pytest.approx(oracle(shown, alpha, tau, ghost), rel=1e-9)
    single = {n: t.detach().float() if t.is_floating_point() else t for n, t in p.items()}
    assert loss(single, alpha, tau, ghost).item() == pytest.approx(oracle(shown, alpha, tau, ghost), rel=1e-6)


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize(("alpha", "tau"), [(0.0, 1.0), (0.4, 1.0), (0.4, 2.0), (1.0, 0.7)])
def test_stored_loss_gradcheck(alpha: float, tau: float, ghost: bool) -> None:
    p = problem(4, vocabulary=9, ids=3)
    assert torch.autograd.gradcheck(
        lambda h, w: loss({**p, "hidden": h, "head": w}, alpha, tau, ghost), (p["hidden"], p["head"])
    )


def test_without_a_share_it_is_cross_entropy_to_the_bit_of_its_gradient() -> None:
    p = problem(50, torch.float32)
    plain = linear_cross_entropy(p["hidden"][None], p["head"], p["target"][None], p["weight"][None])
    expected = torch.autograd.grad(plain, [p["hidden"], p["head"]])
    found = torch.autograd.grad(loss(p, 0.0, 1.0, False), [p["hidden"], p["head"]])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_all_ids_stored_are_the_full_divergence() -> None:
    p = problem(12, vocabulary=7, ids=7)
    teacher = torch.randn(12, 7, dtype=torch.float64)
    stored = Stored(torch.arange(7).expand(12, 7), torch.softmax(teacher, 1))
    found, _, cross = stored_loss(p["hidden"], p["head"], p["target"], p["weight"], stored, 1.0)
    eye = torch.eye(7, dtype=torch.float64)
    args = (p["hidden"][None], p["head"], teacher[None], eye, p["target"][None], p["weight"][None])
    full = distillation_loss(*args, share=1.0)[0]
    entropy = -(p["weight"][:, None] * torch.xlogy(stored.share_NK, stored.share_NK)).sum()
    assert cross.item() == pytest.approx(found.item()) == pytest.approx(full.item() + entropy.item(), rel=1e-5)
    grads = [torch.autograd.grad(x, p["hidden"])[0] for x in (found, full)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_expected_gradient_of_draws_is_that_of_the_full_divergence() -> None:
    p, teacher = problem(1, vocabulary=7, ids=7), torch.softmax(torch.randn(1, 7, dtype=torch.float64), 1)
    p["weight"][:] = 1.0
    total = torch.zeros_like(p["hidden"])
    for token in range(7):  # a single draw, weighted by its probability
        stored = Stored(torch.tensor([[token]]), torch.ones(1, 1, dtype=torch.float64))
        one = stored_loss(p["hidden"], p["head"], p["target"], p["weight"], stored, 1.0)[0]
        total += teacher[0, token] * torch.autograd.grad(one, p["hidden"])[0]
    whole = Stored(torch.arange(7)[None], teacher)
    full = stored_loss(p["hidden"], p["head"], p["target"], p["weight"], whole, 1.0)[0]
    torch.testing.assert_close(total, torch.autograd.grad(full, p["hidden"])[0], rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, 1e4, -1e4, 1e30, -1e30]), min_size=6, max_size=6),
    ghost=st.booleans(),
    tau=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_extreme_logits_give_numbers(values: list[float], ghost: bool, tau: float) -> None:
    hidden = torch.ones(1, 1, requires_grad=True)
    head = torch.tensor(values)[:, None].requires_grad_()
    stored = Stored(torch.tensor([[1, 3]]), torch.tensor([[0.4, 0.6 if not ghost else 0.1]]), ghost)
    found = stored_loss(hidden, head, torch.tensor([0]), torch.ones(1), stored, 0.5, tau)[0]
    grads = torch.autograd.grad(found, [hidden, head])
    assert torch.isfinite(found) and not any(torch.isnan(g).any() for g in grads)


def test_masked_rows_count_as_nothing_whatever_they_hold() -> None:
    p = problem(6, torch.float32)
    with torch.no_grad():
        p["hidden"][p["weight"] == 0] = torch.nan
    found = loss(p, 0.5, 1.0, False)
    (gradient,) = torch.autograd.grad(found, p["hidden"])
    assert torch.isfinite(found) and (gradient[p["weight"] == 0] == 0).all()
    nothing = loss({**p, "weight": torch.zeros(6)}, 0.5, 1.0, True)
    assert nothing.item() == 0 and (torch.autograd.grad(nothing, p["head"])[0] == 0).all()


@pytest.mark.parametrize("row_loss", [forward_kl, reverse_kl])
def test_sliced_loss_equals_autograd_over_all_rows(row_loss: Any) -> None:
    p, teacher = problem(CHUNK + 9), torch.randn(CHUNK + 9, 30, dtype=torch.float64)
    logits = p["hidden"] @ p["head"].T
    nll = torch.nn.functional.cross_entropy(logits, p["target"], reduction="none")
    plain = (p["weight"] * (0.3 * nll + 0.7 * row_loss(logits, teacher))).sum()
    expected = torch.autograd.grad(plain * 2, [p["hidden"], p["head"]])
    args = (p["hidden"], p["head"], p["target"], p["weight"])
    found, own_nll, apart = sliced_loss(*args, lambda z, rows: row_loss(z, teacher[rows]), 0.3, 0.7)
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(0.3 * own_nll + 0.7 * apart, plain.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.autograd.grad(found * 2, [p["hidden"], p["head"]]), expected)


def test_sliced_loss_of_no_rows_is_0() -> None:
    p = problem(1)
    empty = {n: t[:0] for n, t in p.items() if n in ("hidden", "target", "weight")}
    found = sliced_loss(empty["hidden"], p["head"], empty["target"], empty["weight"], lambda z, _: z.sum(1), 0.5, 0.5)
    assert found[0].item() == 0 and (torch.autograd.grad(found[0], p["head"])[0] == 0).all()
