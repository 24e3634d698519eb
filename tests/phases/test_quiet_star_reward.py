"""Anchors, rewards and the mixing head against loops, frequencies and closed forms."""

import math
from collections import Counter
from itertools import combinations

import pytest
import torch

from phases.quiet_star.mixing import MixingHead, mix
from phases.quiet_star.reward import advantage, following, reward, sample_anchors

DRAWS = 20_000


@pytest.mark.parametrize("ahead", [1, 4])
@pytest.mark.parametrize("count", [1, 5, 6])
def test_anchors_are_sorted_distinct_and_leave_tokens_ahead(count: int, ahead: int) -> None:
    torch.manual_seed(0)
    anchor_BP = sample_anchors(torch.rand(300, 10), count, ahead)
    assert anchor_BP.shape == (300, count)
    assert (anchor_BP.diff(dim=1) > 0).all()
    assert anchor_BP.min() == 0 and anchor_BP.max() == 10 - ahead


def test_gradients_of_what_follows_are_the_same_bits_with_several_threads() -> None:
    torch.manual_seed(0)
    values, anchor_BP = torch.randn(2, 40, 128, requires_grad=True), torch.arange(30).expand(2, 30)
    scale, found = torch.randn(2, 30, 8, 128), []
    torch.set_num_threads(4)
    for _ in range(40):
        found += torch.autograd.grad((following(values, anchor_BP, 8) * scale).sum(), values)
    assert all(torch.equal(found[0], one) for one in found)


@pytest.mark.parametrize("count", [None, 7, 8, 100])
def test_all_places_think_when_no_fewer_are_wanted(count: int | None) -> None:
    anchor_BP = sample_anchors(torch.zeros(2, 10), count, 4)
    assert anchor_BP.tolist() == [[0, 1, 2, 3, 4, 5, 6]] * 2


def test_one_anchor_is_drawn_in_proportion_to_the_weight() -> None:
    torch.manual_seed(0)
    weight = torch.tensor([0.1, 0.0, 0.4, 0.2, 0.3, 9.0])
    drawn = sample_anchors(weight.expand(DRAWS, -1), 1, 2).flatten()
    frequency = drawn.bincount(minlength=5) / DRAWS
    torch.testing.assert_close(frequency, weight[:5], rtol=0, atol=4 * 0.5 / DRAWS**0.5)


def test_pairs_of_anchors_are_drawn_one_after_the_other_without_replacement() -> None:
    torch.manual_seed(0)
    weight = torch.tensor([0.1, 0.5, 0.15, 0.25])
    seen = Counter(map(tuple, sample_anchors(weight.expand(DRAWS, -1), 2, 1).tolist()))
    for i, j in combinations(range(4), 2):
        a, b = float(weight[i]), float(weight[j])
        assert seen[i, j] / DRAWS == pytest.approx(a * b / (1 - a) + b * a / (1 - b), abs=4 * 0.5 / DRAWS**0.5)


def test_a_row_with_few_weighted_places_takes_them_all_first() -> None:
    torch.manual_seed(0)
    weight = torch.zeros(200, 12)
    weight[:, 3], weight[:, 7] = 0.9, 0.1
    weight[100:] = 1 / 12
    anchor_BP = sample_anchors(weight, 5, 1)
    assert all({3, 7} <= set(row) and len(set(row)) == 5 for row in anchor_BP[:100].tolist())


def test_weight_that_no_anchor_can_have_stops_nothing() -> None:
    """An answer in the last tokens of a row, with prompts of weight 0: places without weight think."""
    weight = torch.zeros(3, 9)
    weight[:, -1] = 1.0
    anchor_BP = sample_anchors(weight, 4, 3)
    assert all(len(set(row)) == 4 and max(row) <= 6 for row in anchor_BP.tolist())


def test_following_is_a_window_of_each_row() -> None:
    values_BTD, anchor_BP = torch.randn(2, 9, 3), torch.tensor([[0, 4, 6], [1, 2, 5]])
    windows = following(values_BTD, anchor_BP, 3)
    assert windows.shape == (2, 3, 3, 3)
    for b in range(2):
        for p in range(3):
            assert torch.equal(windows[b, p], values_BTD[b, anchor_BP[b, p] : anchor_BP[b, p] + 3])
    assert torch.equal(following(values_BTD[..., 0], anchor_BP, 3), windows[..., 0])


def test_reward_is_what_a_thought_saves() -> None:
    nll_BSPK, plain_BPK, weight_BPK = torch.rand(2, 3, 4, 5), torch.rand(2, 4, 5), torch.rand(2, 4, 5)
    made = reward(nll_BSPK, plain_BPK, weight_BPK)
    for b in range(2):
        for s in range(3):
            for p in range(4):
                saved = sum(float(weight_BPK[b, p, k] * (plain_BPK[b, p, k] - nll_BSPK[b, s, p, k])) for k in range(5))
                assert float(made[b, s, p]) == pytest.approx(saved, abs=1e-5)


def test_advantage_compares_siblings() -> None:
    reward_BSP = torch.randn(2, 3, 4)
    relative, positive = advantage(reward_BSP, False), advantage(reward_BSP, True)
    torch.testing.assert_close(relative.sum(1), torch.zeros(2, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(relative[1, 2, 3], reward_BSP[1, 2, 3] - reward_BSP[1, :, 3].mean())
    torch.testing.assert_close(positive, torch.where(relative > 0, relative, 0.0))
    assert (advantage(reward_BSP + 5.0, True) - positive).abs().max() < 1e-5


def test_an_only_child_has_no_advantage() -> None:
    assert (advantage(torch.randn(2, 1, 4), False) == 0).all()


@pytest.mark.parametrize("start", [0.1, 0.5, 0.9])
def test_mixing_starts_constant_and_learns(start: float) -> None:
    torch.manual_seed(0)
    head, plain, thought = MixingHead(16, start), torch.randn(3, 5, 16), torch.randn(3, 5, 16)
    weight = head(plain, thought)
    torch.testing.assert_close(weight, torch.full((3, 5, 1), start), rtol=0, atol=1e-6)
    weight.square().sum().backward()
    last = head.mlp[-1]
    assert last.weight.grad.abs().max() > 0 and last.bias.grad.abs().max() > 0


def test_mixing_head_is_the_paper_s_network() -> None:
    torch.manual_seed(0)
    head, plain, thought = MixingHead(4), torch.randn(4), torch.randn(4)
    torch.nn.init.normal_(head.mlp[-1].weight)
    state = torch.cat([plain, thought])
    for i in (0, 2):
        state = (head.mlp[i].weight @ state + head.mlp[i].bias).clamp(min=0)
    logit = (head.mlp[4].weight @ state + head.mlp[4].bias).item()
    assert head(plain, thought).item() == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)


def test_mixing_hidden_states_is_mixing_logits() -> None:
    torch.manual_seed(0)
    head, weight = torch.nn.Linear(16, 40, bias=False), torch.rand(3, 2, 5, 1)
    plain, thought = torch.randn(3, 1, 5, 16), torch.randn(3, 2, 5, 16)
    logits = mix(head(plain), head(thought), weight)
    torch.testing.assert_close(head(mix(plain, thought, weight)), logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits, (1 - weight) * head(plain) + weight * head(thought), rtol=1e-5, atol=1e-5)


def test_weight_zero_is_no_thought_and_one_is_only_the_thought() -> None:
    plain, thought = torch.randn(3, 16), torch.randn(3, 16)
    assert torch.equal(mix(plain, thought, torch.zeros(3, 1)), plain)
    torch.testing.assert_close(mix(plain, thought, torch.ones(3, 1)), thought, rtol=0, atol=1e-6)
    assert mix(plain.bfloat16(), thought.bfloat16(), torch.rand(3, 1)).dtype == torch.bfloat16
