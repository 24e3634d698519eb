"""Attention of threads is a plain softmax over [text, own tokens] behind a mask: values, gradients, any slicing."""

import math
from itertools import product

import pytest
import torch

from phases.quiet_star import attention
from phases.quiet_star.attention import own_visible, thread_attention, visible

ROWS, GROUPS, THREADS, TEXT, FEATURES = 3, 2, 4, 7, 8
SCALE = 0.3
Inputs = tuple[torch.Tensor, ...]


def masks(new: int, before: int, window: int | None) -> Inputs:
    """Masks of a batch whose first row has two tokens of padding; anchors from the first place to the last."""
    place = torch.arange(TEXT).repeat(ROWS, 1)
    place[0] = torch.tensor([-1, -1, 0, 1, 2, 3, 4])
    anchor = torch.tensor([[0, 2, 4, 4], [0, 3, 5, 6], [6, 6, 1, 2]])
    asking = anchor[..., None] + torch.arange(1 + before, 1 + before + new)
    return visible(anchor, asking, place, window), own_visible(new, before, window)


def tensors(group: int, new: int, before: int, dtype: torch.dtype = torch.float32) -> Inputs:
    """Query, the text's key and value, own key and value."""
    made = torch.Generator().manual_seed(group + 10 * new + 100 * before)
    text, own = (ROWS, GROUPS, TEXT, FEATURES), (ROWS, GROUPS, THREADS, before + new, FEATURES)
    shapes = ((ROWS, GROUPS, group, THREADS, new, FEATURES), text, text, own, own)
    return tuple(torch.randn(s, generator=made, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes)


def slow(inputs: Inputs, seen: torch.Tensor, own_seen: torch.Tensor) -> torch.Tensor:
    """One query at a time, in float64: the keys that it sees side by side, and a softmax."""
    query, text_key, text_value, own_key, own_value = (t.double() for t in inputs)
    seen = seen.expand(ROWS, THREADS, query.shape[4], TEXT)
    out = torch.zeros_like(query)
    for b, k, g, r, i in product(*map(range, query.shape[:5])):
        keys = torch.cat([text_key[b, k, seen[b, r, i]], own_key[b, k, r, own_seen[i]]])
        values = torch.cat([text_value[b, k, seen[b, r, i]], own_value[b, k, r, own_seen[i]]])
        out[b, k, g, r, i] = ((keys @ query[b, k, g, r, i]) * SCALE).softmax(0) @ values
    return out


def fast(inputs: Inputs, seen: torch.Tensor, own_seen: torch.Tensor) -> torch.Tensor:
    query, text_key, text_value, own_key, own_value = inputs
    return thread_attention(query, (text_key, text_value), (own_key, own_value), seen, own_seen, SCALE)


def gradients(out: torch.Tensor, inputs: Inputs) -> Inputs:
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(out.dtype)
    return tuple(g.double() for g in torch.autograd.grad((out * weight).sum(), inputs))


@pytest.mark.parametrize("window", [None, 1, 3])
def test_visible_is_the_rule_spelt_out(window: int | None) -> None:
    place = torch.tensor([[-1, -1, 0, 1, 2], [0, 1, 2, 3, 4]])
    anchor = torch.tensor([[0, 1, 2], [4, 0, 3]])
    asking = anchor[..., None] + torch.tensor([1, 2])
    seen = visible(anchor, asking, place, window)
    assert seen.shape == (2, 3, 1 if window is None else 2, 5)
    for b, r, i, t in product(range(2), range(3), range(2), range(5)):
        expected = 0 <= place[b, t] <= anchor[b, r] and (window is None or asking[b, r, i] - place[b, t] < window)
        assert seen.expand(2, 3, 2, 5)[b, r, i, t] == expected, (b, r, i, t)


@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize("before", [0, 3])
def test_own_visible_is_the_rule_spelt_out(before: int, window: int | None) -> None:
    seen = own_visible(4, before, window)
    assert seen.shape == (4, before + 4)
    for i, j in product(range(4), range(before + 4)):
        assert seen[i, j] == (j <= before + i and (window is None or before + i - j < window)), (i, j)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("group", "new", "before"), [(1, 3, 0), (2, 1, 2), (3, 2, 1)])
def test_values_and_gradients_are_those_of_a_softmax(group: int, new: int, before: int, window: int | None) -> None:
    inputs, seen = tensors(group, new, before), masks(new, before, window)
    actual, expected = fast(inputs, *seen), slow(inputs, *seen)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(actual, inputs), gradients(expected, inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2])
def test_slices_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, seen = tensors(2, 2, 1), masks(2, 1, None)
    whole = fast(inputs, *seen)
    expected = whole, gradients(whole, inputs)
    a_row = 4 * GROUPS * 2 * THREADS * 2 * TEXT
    monkeypatch.setitem(attention.SCORE_BYTES, "cpu", rows * a_row)
    assert len(attention._slices(inputs[0], inputs[1])) == math.ceil(ROWS / rows)
    sliced = fast(inputs, *seen)
    torch.testing.assert_close((sliced, gradients(sliced, inputs)), expected, rtol=1e-6, atol=1e-6)


def test_a_row_larger_than_the_limit_is_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, seen = tensors(2, 2, 1), masks(2, 1, None)
    monkeypatch.setitem(attention.SCORE_BYTES, "cpu", 1)
    torch.testing.assert_close(fast(inputs, *seen).double(), slow(inputs, *seen), rtol=1e-5, atol=1e-5)


def test_bfloat16_is_as_close_as_it_can_be() -> None:
    inputs, seen = tensors(2, 2, 1, torch.bfloat16), masks(2, 1, 4)
    actual, expected = fast(inputs, *seen), slow(inputs, *seen)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.double(), expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(gradients(actual, inputs), gradients(expected, inputs), rtol=0.05, atol=0.05)


def test_autocast_may_mix_precisions() -> None:
    """Rotary positions turn queries and keys to float32 and leave values in bfloat16; backward runs outside."""
    inputs, seen = tensors(2, 2, 0), masks(2, 0, None)
    kinds = (torch.float32, torch.float32, torch.bfloat16, torch.float32, torch.bfloat16)
    mixed = tuple(t.detach().bfloat16().to(kind).requires_grad_() for t, kind in zip(inputs, kinds, strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        actual = fast(mixed, *seen)
    expected = slow(mixed, *seen)
    torch.testing.assert_close(actual.double(), expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(gradients(actual, mixed), gradients(expected, mixed), rtol=0.05, atol=0.05)


def test_large_scores_neither_overflow_nor_vanish() -> None:
    query, *others = tensors(1, 2, 0)
    inputs, seen = (query.detach().mul(1e3).requires_grad_(), *others), masks(2, 0, None)
    actual, expected = fast(inputs, *seen), slow(inputs, *seen)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-3)
    assert all(g.isfinite().all() for g in gradients(actual, inputs))


def test_what_is_hidden_gets_no_gradient() -> None:
    inputs, seen = tensors(2, 2, 0), masks(2, 0, None)
    _, *made = gradients(fast(inputs, *seen), inputs)
    hidden = ~seen[0].expand(ROWS, THREADS, 2, TEXT).any(2).any(1)
    assert hidden[0, :2].all()
    for gradient in made[:2]:
        assert (gradient.transpose(1, 2)[hidden] == 0).all() and (gradient.transpose(1, 2)[~hidden] != 0).any(-1).all()
