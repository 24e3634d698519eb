"""Self-modelling: what is predicted, where gradients flow, and what the head is compared with."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaForCausalLM

from phases.errors import ConfigError
from phases.forge.config import SelfModel
from phases.forge.self_model import (
    SelfModelHead,
    WithHead,
    layer_depths,
    prediction_r2,
    recognition_accuracy,
    self_states,
)
from phases.training.config import TrainingConfig
from phases.training.optimizer import build_optimizers, step_all

ROWS, TIME, WIDTH = 3, 11, 32


def tokens() -> torch.Tensor:
    return torch.randint(257, (ROWS, TIME), generator=torch.Generator().manual_seed(7))


def states(seed: int, rows: int = ROWS) -> torch.Tensor:
    return torch.randn(rows, TIME, WIDTH, generator=torch.Generator().manual_seed(seed))


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.square().mean(-1, keepdim=True).sqrt()


@pytest.fixture
def make_head(tiny_model: LlamaForCausalLM) -> Callable[..., SelfModelHead]:
    def make(seed: int = 1, **settings: Any) -> SelfModelHead:
        torch.manual_seed(seed)
        return SelfModelHead(tiny_model.config, SelfModel(**settings), 2)

    return make


def fit(head: SelfModelHead, source: torch.Tensor, target: torch.Tensor, steps: int = 200) -> None:
    optimizer = torch.optim.AdamW(head.predictor.parameters(), lr=0.01, weight_decay=0)
    rows = torch.zeros(source.shape[:2], dtype=torch.long)
    for _ in range(steps):
        head(source, target, rows).mean().backward()
        step_all([optimizer])


def test_depths_are_shares_of_the_layers() -> None:
    settings = SelfModel()
    assert [layer_depths(settings, n) for n in (1, 2, 3, 4, 12)] == [(0, 1), (1, 2), (1, 3), (1, 3), (4, 10)]
    assert layer_depths(SelfModel(source=0, target=1), 5) == (0, 5)
    with pytest.raises(ConfigError, match="both layer 2 of 4"):
        layer_depths(SelfModel(source=0.4, target=0.6), 4)
    with pytest.raises(ValidationError, match="identity"):
        SelfModel(source=0.5, target=0.5)


@pytest.mark.parametrize(("source", "target"), [(0.0, 1.0), (0.34, 0.67), (0.34, 1.0)])
@pytest.mark.parametrize("neox", [False, True])
def test_states_are_the_residual_stream(tiny_model: Any, neox: bool, source: float, target: float) -> None:
    if neox:
        sizes = {"vocab_size": 257, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 3}
        tiny_model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, num_attention_heads=4)).eval()
    head = SelfModelHead(tiny_model.config, SelfModel(source=source, target=target), 2)
    last, early, late = self_states(tiny_model, head, tokens())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny_model.base_model.layers)
    theirs = tiny_model.base_model(tokens(), output_hidden_states=True)
    assert torch.equal(last, theirs.last_hidden_state)
    assert torch.equal(early, theirs.hidden_states[head.depths[0]])
    if target < 1:
        assert torch.equal(late, theirs.hidden_states[head.depths[1]])
    else:  # theirs is after the final norm
        norm = tiny_model.base_model.final_layer_norm if neox else tiny_model.base_model.norm
        assert torch.equal(norm(late), theirs.hidden_states[-1]) and not torch.equal(late, theirs.hidden_states[-1])


def test_the_loss_by_hand(make_head: Callable[..., SelfModelHead]) -> None:
    head = make_head()
    torch.nn.init.normal_(head.predictor[-1].weight)
    source, target = 3 * states(0), 0.2 * states(1) + states(2)[:, :1]
    loss_BT = head(source, target, tokens())
    for row, (x, y) in enumerate(zip(unit(source), unit(target), strict=True)):
        error = (x + head.predictor(x) - y).square().sum(-1)
        variance = sum((p - y.mean(0)).square().sum() for p in y) / TIME
        torch.testing.assert_close(loss_BT[row], error / variance)
    weight = torch.rand(ROWS, TIME, generator=torch.Generator().manual_seed(3))
    expected = sum(weight[b, t] * loss_BT[b, t] for b in range(ROWS) for t in range(TIME))
    torch.testing.assert_close(head.loss(source, target, tokens(), weight), expected)
    halves = [head.loss(source[rows], target[rows], tokens()[rows], weight[rows]) for rows in ([0], [1, 2])]
    torch.testing.assert_close(sum(halves), expected)  # rows do not depend on their batch


def test_a_target_without_variance_is_no_infinity(make_head: Callable[..., SelfModelHead]) -> None:
    assert make_head()(states(0), states(1)[:, :1].expand(-1, TIME, -1), tokens()).isfinite().all()


@pytest.mark.parametrize("settings", [{}, {"hidden": 0}])
def test_at_first_the_head_is_the_copy(make_head: Callable[..., SelfModelHead], settings: dict[str, Any]) -> None:
    source = states(0)
    seen = prediction_r2(make_head(**settings), source, source + states(1), tokens())
    assert seen.r2 == pytest.approx(seen.copy)
    same = prediction_r2(make_head(**settings), source, 5 * source, tokens())
    assert (same.r2, same.copy, same.linear_copy) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))


@pytest.mark.parametrize("hidden", [0, 64])
def test_the_head_learns_what_copying_does_not_know(make_head: Callable[..., SelfModelHead], hidden: int) -> None:
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(4)))[0]
    head, source, fresh = make_head(hidden=hidden), states(0, 128), states(1, 64)
    before = prediction_r2(head, fresh, fresh @ turn, torch.zeros(64, TIME, dtype=torch.long))
    fit(head, source, source @ turn)
    after = prediction_r2(head, fresh, fresh @ turn, torch.zeros(64, TIME, dtype=torch.long))
    assert after.r2 > (0.99 if hidden == 0 else 0.8)
    assert after.copy == before.copy < 0 and after.linear_copy == before.linear_copy < 0.2


def test_baselines_and_variance_by_hand(make_head: Callable[..., SelfModelHead]) -> None:
    slope = torch.linspace(0.5, 2, WIDTH)
    source, target = states(0, 40), 4 * (slope * states(0, 40) + 0.5 * states(1, 40)) + 1
    seen = prediction_r2(make_head(), source, target, torch.zeros(40, TIME, dtype=torch.long))
    x, y = unit(source).flatten(0, 1).numpy(), unit(target).flatten(0, 1).numpy()
    total = ((y - y.mean(0)) ** 2).sum()
    assert seen.copy == pytest.approx(1 - ((x - y) ** 2).sum() / total, rel=1e-4)
    errors = 0.0
    for d in range(WIDTH):
        design = torch.stack([torch.from_numpy(x[:, d]), torch.ones(len(x))], 1)
        best = torch.linalg.lstsq(design, torch.from_numpy(y[:, d, None])).solution
        errors += float((design @ best - torch.from_numpy(y[:, d, None])).square().sum())
    assert seen.linear_copy == pytest.approx(1 - errors / total, rel=1e-4) and seen.linear_copy > seen.copy
    assert seen.variance == pytest.approx(float(target.flatten(0, 1).var(0, correction=0).mean()), rel=1e-4)
    assert seen.spread == pytest.approx(total / y.size, rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"what": "random"}])
def test_gradients_reach_the_source_and_never_the_target(
    tiny_model: LlamaForCausalLM, make_head: Callable[..., SelfModelHead], settings: dict[str, Any]
) -> None:
    head = make_head(**settings)
    torch.nn.init.normal_(head.predictor[-1].weight)
    _, source, target = self_states(tiny_model, head, tokens())
    loss = head.loss(source, target, tokens(), torch.ones(ROWS, TIME))
    to_source, to_target = torch.autograd.grad(loss, [source, target], retain_graph=True, allow_unused=True)
    assert to_source.abs().max() > 0 and to_target is None
    loss.backward()
    moved = [any(p.grad is not None and p.grad.any() for p in m.parameters()) for m in tiny_model.model.layers]
    assert moved == [True, False, False]  # the source leaves layer 1 of 3


def test_detached_only_the_head_learns(tiny_model: LlamaForCausalLM, make_head: Callable[..., SelfModelHead]) -> None:
    head = make_head(detached=True)
    torch.nn.init.normal_(head.predictor[-1].weight)
    last, source, target = self_states(tiny_model, head, tokens())
    loss = head.loss(source, target, tokens(), torch.ones(ROWS, TIME))
    (loss + head.recognise(last[:, -1], torch.tensor([0, 1, 2]))[0]).backward()
    assert all(p.grad is None for p in tiny_model.parameters())
    assert all(p.grad.abs().max() > 0 for p in head.parameters())


def test_the_random_target_is_a_map_of_the_tokens(
    tiny_model: LlamaForCausalLM, make_head: Callable[..., SelfModelHead]
) -> None:
    head, rows = make_head(what="random"), tokens()
    rows[1, 3] = rows[2, 5]
    wanted = head.wanted(states(0), rows)
    assert torch.equal(wanted[1, 3], wanted[2, 5]) and torch.equal(wanted, head.wanted(states(1), rows))
    assert torch.equal(wanted, make_head(seed=2, what="random").wanted(states(0), rows))
    assert len(wanted.flatten(0, 1).unique(dim=0)) == len(rows.unique())
    for state in tiny_model.base_model(rows, output_hidden_states=True).hidden_states:
        assert F.cosine_similarity(state, wanted, -1).abs().mean() < 0.3
    assert prediction_r2(head, states(0), states(1), rows).r2 == pytest.approx(0, abs=0.1)  # nothing known, not −1
    assert "random_VD" not in head.state_dict()


def test_the_seed_decides_the_weights(make_head: Callable[..., SelfModelHead]) -> None:
    first, again, other = (make_head(seed=seed).recogniser.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_recognition(make_head: Callable[..., SelfModelHead]) -> None:
    head, hidden, labels = make_head(), states(0)[:, -1], torch.tensor([2, 0, 2])
    logits = hidden @ head.recogniser.weight.T + head.recogniser.bias
    loss, right = head.recognise(hidden, labels)
    expected = -sum(logits[i].log_softmax(-1)[label] for i, label in enumerate(labels))
    torch.testing.assert_close(loss, expected)
    assert logits.shape == (3, 3) and float(right) == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    with torch.no_grad():
        head.recogniser.weight.zero_()
        head.recogniser.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    seen = recognition_accuracy(head, states(0, 8)[:, -1], torch.tensor([2, 2, 2, 0, 1, 2, 0, 2]))
    assert (seen.n, seen.accuracy, seen.chance) == (8, 5 / 8, 5 / 8)
    assert seen.standard_error == pytest.approx((15 / 64 / 8) ** 0.5)
    assert recognition_accuracy(head, states(0, 4)[:, -1], torch.tensor([0, 0, 0, 2])).chance == 0.75


def test_the_optimizers_train_the_head_and_muon_leaves_it(
    tiny_model: LlamaForCausalLM, make_head: Callable[..., SelfModelHead]
) -> None:
    both = WithHead(tiny_model, make_head())
    assert both.config is tiny_model.config
    adam, muon = build_optimizers(both, TrainingConfig(optimizer="muon"))
    held = [{id(p) for g in o.param_groups for p in g["params"]} for o in (adam, muon)]
    assert {id(p) for p in both.head.parameters()} <= held[0]
    assert held[1] == {id(p) for p in tiny_model.model.layers.parameters() if p.ndim == 2}
    before = {name: p.detach().clone() for name, p in both.head.named_parameters()}
    for _ in range(2):  # the first layer of the predictor has no gradient before the last one is off zero
        last, source, target = self_states(tiny_model, both.head, tokens())
        loss = both.head.loss(source, target, tokens(), torch.ones(ROWS, TIME))
        (loss + both.head.recognise(last[:, -1], torch.tensor([0, 1, 2]))[0]).backward()
        step_all([adam, muon])
    assert not [name for name, p in both.head.named_parameters() if torch.equal(p, before[name])]
