"""Exit depths against a loop over tokens and layers; the slope against closed forms."""

from typing import Any

import numpy as np
import pytest
import torch

from evaluation.exit_depth import item_exits, slope, text_exits, unit_means, within
from evaluation.language import text_blocks
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.exits import exit_hidden_states


def slow_depths(model: Any, row: torch.Tensor, tau: float) -> tuple[list[int], list[bool]]:
    layers = len(model.model.layers)
    probs = [model.lm_head(s)[0].softmax(-1) for s in exit_hidden_states(model, row[None, :-1], range(1, layers + 1))]
    depths, agrees = [], []
    for t in range(len(row) - 1):
        first = next(k for k in range(layers) if k == layers - 1 or probs[k][t].max() >= tau)
        depths.append(first + 1)
        agrees.append(bool(probs[first][t].argmax() == probs[-1][t].argmax()))
    return depths, agrees


def test_text_exits_equal_a_plain_loop(family: Checkpoint, world: Dataset) -> None:
    model = family.siblings["adaptive"].model()
    tokens, _ = text_blocks(world, "test", 5)
    exits = text_exits(model, tokens, 0.97, batch=2)
    slow = [slow_depths(model, row, 0.97) for row in tokens]
    assert exits.depth_n.tolist() == [d for depths, _ in slow for d in depths]
    assert exits.agrees_n.tolist() == [a for _, agrees in slow for a in agrees]
    assert exits.unit_n.tolist() == [i for i in range(5) for _ in range(tokens.shape[1] - 1)]
    assert set(exits.depth_n) == {1, 2}


def test_item_exits_cover_the_completions_in_the_items_order(family: Checkpoint, world: Dataset) -> None:
    items = world.items("test", "memory")
    exits = item_exits(family.siblings["memory"].model(), world.tokenizer, items, 0.5)
    assert np.bincount(exits.unit_n).tolist() == [len(item.answer) + 2 for item in items]  # space, answer, end


def test_certainty_out_of_reach_uses_every_layer(tiny_model: Any, world: Dataset) -> None:
    tokens, _ = text_blocks(world, "test", 3)
    exits = text_exits(tiny_model, tokens, 1.0)
    assert set(exits.depth_n) == {2} and exits.agrees_n.all()


def test_slope_with_one_unit_a_cluster_is_white() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    y = 0.7 * x + rng.normal(size=500)
    value, error = slope(x, y, np.arange(500))
    design = np.stack([np.ones(500), x], 1)
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    bread = np.linalg.inv(design.T @ design)
    meat = (design * (y - design @ beta)[:, None] ** 2).T @ design
    assert value == pytest.approx(beta[1])
    assert error == pytest.approx(np.sqrt((bread @ meat @ bread)[1, 1]))


def test_copies_of_a_unit_bring_no_certainty() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 60))
    once = slope(x, y, np.arange(60))
    tenfold = slope(np.tile(x, 10), np.tile(y, 10), np.tile(np.arange(60), 10))
    assert tenfold == pytest.approx(once)


def test_slope_edges() -> None:
    assert slope(np.ones(4), np.arange(4.0), np.arange(4)) == (0.0, 0.0)
    assert slope(np.arange(4.0), 2 * np.arange(4.0), np.arange(4)) == (2.0, 0.0)


def test_within_and_unit_means() -> None:
    assert within(np.array([1.0, 3, 10, 20]), ["a", "a", "b", "b"]).tolist() == [-1, 1, -5, 5]
    means = unit_means(np.array([1.0, 3, 5]), np.array([0, 0, 2]), 3)
    assert means[[0, 2]].tolist() == [2, 5] and np.isnan(means[1])
