"""The replay buffer against a naive one, its rows against what they say of themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from phases.forge.dreams import Dream, Prompt
from phases.forge.replay import ReplayBuffer, qualities
from phases.tasks.item import Item

PAD, BLOCK, PROMPT_WEIGHT = 0, 24, 0.25
ITEM = Item(task="sum", speciality="reasoning", prompt="3+4", answer="7")


def make(
    prompt: tuple[int, ...], written: tuple[int, ...], nats: float = 1.0, label: int = 0, task: bool = False
) -> Dream:
    return Dream(Prompt(prompt, ITEM if task else None, ()), written, label, nats, True, True if task else None)


TOKENS = st.lists(st.integers(1, 2), min_size=1, max_size=3).map(tuple)
DREAMS = st.lists(st.builds(make, TOKENS, TOKENS, st.floats(0, 5), st.integers(0, 2), st.booleans()), max_size=12)


def filled(count: int = 20, capacity: int = 64) -> ReplayBuffer:
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(capacity, 0.5)
    sizes = rng.integers(1, 7, size=(count, 2))
    dreams = [
        make(tuple(rng.integers(1, 99, a).tolist()), (*rng.integers(1, 99, b).tolist(), PAD)[: b + i % 2], label=i % 3)
        for i, (a, b) in enumerate(sizes)
    ]
    assert buffer.offer(dreams) == min(count, capacity)
    return buffer


def contents(buffer: ReplayBuffer) -> list[tuple[int, ...]]:
    state = buffer.state()
    return [tuple(part.tolist()) for part in torch.split(state["tokens"], state["facts"][:, 0].tolist())]


def naive(capacity: int, novelty: float, offers: list[list[Dream]]) -> list[tuple[int, ...]]:
    """The buffer's rule once more, from lists alone."""
    held: list[tuple[tuple[int, ...], float]] = []
    for dreams in offers:
        for dream in dreams:
            kind = [d.nats for d in dreams if (d.prompt.item is None) == (dream.prompt.item is None)]
            kind.remove(dream.nats)
            quality = sum((n > dream.nats) + (n == dream.nats) / 2 for n in kind) / len(kind) if kind else 1.0
            grams = {dream.tokens[i : i + 3] for i in range(len(dream.tokens) - 2)}
            old = {tokens[i : i + 3] for tokens, _ in held for i in range(len(tokens) - 2)}
            new = len(grams - old) / len(grams) if grams else 1.0
            priority = (1 - novelty) * quality + novelty * new
            if dream.tokens in [tokens for tokens, _ in held]:
                continue
            if len(held) == capacity:
                worst = min(range(capacity), key=lambda i: held[i][1])
                if priority <= held[worst][1]:
                    continue
                held.pop(worst)
            held.append((dream.tokens, priority))
    return [tokens for tokens, _ in held]


@settings(max_examples=150, deadline=None)
@given(st.lists(DREAMS, max_size=4), st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_buffer_is_the_naive_one(offers: list[list[Dream]], capacity: int, novelty: float) -> None:
    buffer = ReplayBuffer(capacity, novelty)
    for dreams in offers:
        before = contents(buffer)
        assert buffer.offer(dreams) == len(set(contents(buffer)) - set(before))
        assert len(buffer) <= capacity
        assert len(set(contents(buffer))) == len(buffer)
    assert contents(buffer) == naive(capacity, novelty, offers)


@settings(max_examples=60, deadline=None)
@given(DREAMS, DREAMS, st.integers(1, 6), st.floats(0, 1))
def test_a_buffer_from_disk_goes_on_as_if_nothing_had_been(
    first: list[Dream], second: list[Dream], capacity: int, novelty: float
) -> None:
    buffer, again = ReplayBuffer(capacity, novelty), ReplayBuffer(capacity, novelty)
    buffer.offer(first)
    if first:
        buffer.rows(0, 2, BLOCK, 0, PROMPT_WEIGHT, PAD)
    again.load(load(save(buffer.state())))
    assert again.used == buffer.used and len(again) == len(buffer)
    assert again.offer(second) == buffer.offer(second)
    assert all(torch.equal(tensor, again.state()[name]) for name, tensor in buffer.state().items())
    if len(buffer):
        ours, theirs = (b.rows(1, 3, BLOCK, 0, PROMPT_WEIGHT, PAD) for b in (buffer, again))
        assert torch.equal(ours[0].tokens_BT, theirs[0].tokens_BT) and torch.equal(ours[1], theirs[1])


def test_quality_is_a_rank_among_the_same_kind() -> None:
    text = [make((1,), (i,), nats) for i, nats in enumerate((3.0, 1.0, 2.0, 2.0, 5.0))]
    assert qualities(text) == [0.25, 1.0, 0.625, 0.625, 0.0]
    assert qualities([*text, make((1,), (9,), 0.1, task=True)]) == [0.25, 1.0, 0.625, 0.625, 0.0, 1.0]


def test_equal_tokens_are_one_dream_however_they_were_written() -> None:
    buffer = ReplayBuffer(2, 0.5)
    assert buffer.offer([make((1, 2), (3,)), make((1,), (2, 3), label=1), make((1, 2), (4,), 2.0)]) == 2
    before = buffer.state()
    assert buffer.offer([make((1, 2), (3,)), make((1, 2), (4,), 0.5)]) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in buffer.state().items())


def test_rows_hold_whole_dreams_with_their_weights_and_labels() -> None:
    buffer = filled()
    rows, label_BT = buffer.rows(3, 6, BLOCK, 0, PROMPT_WEIGHT, PAD)
    assert rows.tokens_BT.shape == (6, BLOCK + 1) and rows.tokens_BT.dtype == label_BT.dtype == torch.int64
    assert rows.weight_BT.shape == label_BT.shape == (6, BLOCK) and rows.weight_BT.dtype == torch.float32
    facts = {tokens: tuple(f.tolist()) for tokens, f in zip(contents(buffer), buffer.state()["facts"], strict=True)}
    drawn = 0
    for tokens, weight, label in zip(rows.tokens_BT.tolist(), rows.weight_BT, label_BT, strict=True):
        start, wanted = 0, [0.0] * (BLOCK + 1)  # of each token, the first of them included
        for last in label.ge(0).nonzero().flatten().tolist():
            dreamt = tuple(tokens[start : last + 1])
            size, prompt, which = facts[dreamt]
            assert which == label[last]
            wanted[start : last + 1] = [0.0] + [PROMPT_WEIGHT] * (prompt - 1) + [1.0] * (size - prompt)
            start, drawn = last + 1, drawn + 1
            if dreamt[-1] != PAD and start < BLOCK:
                assert tokens[start] == PAD  # between two dreams
                start += 1
        assert start > 0 and set(tokens[start:]) <= {PAD} and tokens[-1] == PAD
        assert weight.sum() == pytest.approx(1, abs=1e-6)
        assert weight.tolist() == pytest.approx([w / sum(wanted) for w in wanted[1:]], abs=1e-6)
    assert buffer.used == drawn


def test_rows_are_a_function_of_seed_and_step() -> None:
    def tokens(step: int, seed: int) -> list[list[int]]:
        return filled().rows(step, 4, BLOCK, seed, PROMPT_WEIGHT, PAD)[0].tokens_BT.tolist()  # type: ignore[no-any-return]

    assert tokens(1, 0) == tokens(1, 0)
    assert tokens(1, 0) != tokens(2, 0) and tokens(1, 0) != tokens(1, 1)


def test_all_dreams_are_drawn_once_before_any_is_drawn_twice() -> None:
    buffer = ReplayBuffer(8, 0.5)
    buffer.offer([make((i, i), (i, i), label=i) for i in range(1, 5)])
    label_BT = buffer.rows(0, 3, 4, 0, PROMPT_WEIGHT, PAD)[1]
    assert len(set(label_BT[label_BT >= 0].tolist())) == 3 == buffer.used
    label_BT = buffer.rows(0, 12, 4, 0, PROMPT_WEIGHT, PAD)[1]
    assert sorted(label_BT[label_BT >= 0].tolist()) == sorted([1, 2, 3, 4] * 3) and buffer.used == 15


def test_dreams_longer_than_a_row_are_left_out() -> None:
    buffer = ReplayBuffer(8, 0.5)
    buffer.offer([make((1, 2, 3), (4, 5))])
    with pytest.raises(ValueError, match="no dream of at most 4 tokens among 1"):
        buffer.rows(0, 2, 4, 0, PROMPT_WEIGHT, PAD)
    assert buffer.rows(0, 2, 5, 0, PROMPT_WEIGHT, PAD)[0].tokens_BT.tolist() == [[1, 2, 3, 4, 5, PAD]] * 2
