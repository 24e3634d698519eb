"""Bits per byte against the model's own loss; the ratio's standard error against a jackknife; the floors."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from evaluation import language
from evaluation.floors import chance, copy_chance, fit_bigram, floor_losses, majority_right
from evaluation.language import block_losses, depth_losses, spread, text_blocks
from evaluation.ratio import BlockLosses, bits_difference, bits_per_byte, perplexity, ratio
from phases.dataset import Dataset
from phases.exits import exit_hidden_states
from phases.tasks.item import Item


def test_nats_equal_the_models_own_loss(tiny_model: Any, world: Dataset) -> None:
    tokens, sizes = text_blocks(world, "test", 5)
    losses = block_losses(tiny_model, tokens, sizes, batch=2)
    own = [tiny_model(input_ids=row[None], labels=row[None]).loss.item() * (len(row) - 1) for row in tokens]
    np.testing.assert_allclose(losses.nats_N, own, rtol=1e-5)
    value = bits_per_byte(losses, "m/bits_per_byte", "test").value
    assert value == pytest.approx(sum(own) / math.log(2) / sizes.sum(), rel=1e-5)
    assert perplexity(losses, "m/p", "test").value == pytest.approx(
        math.exp(sum(own) / tokens[:, 1:].numel()), rel=1e-5
    )


def test_an_early_exit_is_the_head_on_that_layer(tiny_model: Any, world: Dataset) -> None:
    tokens, sizes = text_blocks(world, "test", 4)
    logits = tiny_model.lm_head(exit_hidden_states(tiny_model, tokens[:, :-1], (1,))[0])
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").sum(1)
    np.testing.assert_allclose(
        depth_losses(tiny_model, tokens, sizes, (2, 1))[1].nats_N, nats.detach().numpy(), rtol=1e-5
    )


def test_slices_do_not_change_the_result(tiny_model: Any, world: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, sizes = text_blocks(world, "test")
    whole = block_losses(tiny_model, tokens, sizes)
    monkeypatch.setattr(language, "LOGITS_BYTES", 4 * 257 * 7)
    np.testing.assert_allclose(block_losses(tiny_model, tokens, sizes).nats_N, whole.nats_N, rtol=1e-6)


def test_batch_of_one_equals_one_batch(tiny_model: Any, world: Dataset) -> None:
    tokens, sizes = text_blocks(world, "test", 8)
    one, eight = (block_losses(tiny_model, tokens, sizes, batch=b).nats_N for b in (1, 8))
    np.testing.assert_allclose(one, eight, rtol=1e-6)


def test_limits_spread_over_the_split() -> None:
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
    assert spread(3, 9).tolist() == spread(3, None).tolist() == [0, 1, 2]


def test_ratio_error_matches_the_jackknife() -> None:
    rng = np.random.default_rng(0)
    y = rng.uniform(50, 150, size=400)
    x = 2 * y + rng.normal(size=400) * 20
    value, error = ratio(x, y)
    left_out = (x.sum() - x) / (y.sum() - y)
    jackknife = math.sqrt(399 / 400 * ((left_out - left_out.mean()) ** 2).sum())
    assert value == pytest.approx(x.sum() / y.sum())
    assert error == pytest.approx(jackknife, rel=0.02)


def test_ratio_edges() -> None:
    assert ratio(np.array([3.0]), np.array([2.0])) == (1.5, None)
    with pytest.raises(ValueError, match="stand for no bytes"):
        ratio(np.array([1.0]), np.array([0.0]))


def test_paired_bits_need_the_same_blocks() -> None:
    a = BlockLosses(np.array([2.0, 3.0]), np.array([1.0, 2.0]), 4)
    assert bits_difference(a, a) == (0.0, 0.0)
    with pytest.raises(ValueError, match="same text blocks"):
        bits_difference(a, BlockLosses(a.nats_N, np.array([1.0, 3.0]), 4))


def test_bigram_sums_to_one_and_equals_a_slow_count() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.zipf(1.5, size=(30, 21)) % 12
    model = fit_bigram(blocks, 14)
    grid_v, grid_w = (g.ravel() for g in np.meshgrid(np.arange(14), np.arange(14), indexing="ij"))
    np.testing.assert_allclose(model.probabilities(grid_v, grid_w).reshape(14, 14).sum(1), 1, rtol=1e-12)
    pairs = [(int(r[i]), int(r[i + 1])) for r in blocks for i in range(20)]
    v, w = 1, 2
    seen = [b for a, b in pairs if a == v]
    unigram = (sum(b == w for _, b in pairs) + 0.5) / (len(pairs) + 7)
    counts = [pairs.count(pair) for pair in set(pairs)]
    d = counts.count(1) / (counts.count(1) + 2 * counts.count(2))
    expected = (max(seen.count(w) - d, 0) + d * len(set(seen)) * unigram) / len(seen)
    assert model.probabilities(np.array([v]), np.array([w]))[0] == pytest.approx(expected)


def test_floors_are_ordered_on_text_that_has_structure() -> None:
    text = np.frombuffer((" ".join(["the cat sat on the mat and the dog sat on the log"] * 60)).encode(), np.uint8)
    blocks = np.lib.stride_tricks.sliding_window_view(text, 33)[::32]
    model = fit_bigram(blocks[:40], 256)
    losses = floor_losses(model, blocks[40:], np.full(len(blocks) - 40, 32.0))
    bits = {name: bits_per_byte(value, name, "test").value for name, value in losses.items()}
    assert bits["uniform"] == pytest.approx(8.0)
    assert bits["bigram"] < bits["unigram"] - 1 < bits["uniform"]


def test_a_large_vocabulary_stays_sparse() -> None:
    model = fit_bigram(np.random.default_rng(0).integers(32_000, size=(10, 101)), 32_000)
    assert len(model.keys_K) <= 1000
    assert model.probabilities(np.array([31_999]), np.array([5]))[0] > 0


def test_majority_answers_by_task() -> None:
    def item(task: str, answer: str) -> Item:
        return Item(task=task, speciality="reasoning", prompt="?", answer=answer)

    train = [item("a", "1"), item("a", "1"), item("a", "2"), item("b", "2")]
    assert majority_right(train, [item("a", "1"), item("b", "1"), item("c", "1")]).tolist() == [True, False, False]


def test_chance_is_one_over_the_choices() -> None:
    item = Item(task="t", speciality="choice", prompt="?", answer="a", choices=("a", "b", "c", "d"))
    assert chance([item]).tolist() == [0.25]


def test_copying_any_value_is_a_floor_of_memory() -> None:
    def item(prompt: str, answer: str) -> Item:
        return Item(task="recall", speciality="memory", prompt=prompt, answer=answer)

    items = [
        item("s=4;z=2?z", "z=2"),
        item("s=4;z=2;Q=2;d=1?z", "z=2"),
        item("so The code of K is 53. and The code of T is 12. so What is the code of K?", "53"),
        item("nothing stored", "1"),
    ]
    assert copy_chance(items).tolist() == [0.5, 0.5, 0.5, 0.0]
