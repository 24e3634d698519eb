"""The Quiet-STaR loss against loops over rows, positions, thoughts and tokens that run the plain model every time."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from phases.quiet_star import objective
from phases.quiet_star.config import QuietStarConfig
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.objective import QuietStar
from phases.quiet_star.thinker import Sampled, Thinker

ROWS, TIME, SAMPLES, AHEAD, LENGTH = 2, 9, 2, 3, 2
START, END = 250, 251
PARTS = ("plain", "helped", "fluent", "alone", "policy")
DONE = 1.0  # progress past any warm-up
BARE: dict[str, Any] = {"fluency": 0.0, "alone": 0.0, "alone_after": 0.0, "reinforce": {"weight": 0.0}}
OTHER: dict[str, Any] = {
    "fluency": 2.0,
    "alone": 3.0,
    "reinforce": {"positive_only": False, "temperature": 3.0, "weight": 5.0},
}


def settings(more: dict[str, Any] | None = None, **thoughts: Any) -> QuietStarConfig:
    asked = {"tokens": LENGTH, "samples": SAMPLES, "positions": None, "ahead": AHEAD, **thoughts}
    return QuietStarConfig.parse({"thoughts": asked, **(more or {})}, "quiet_star")


@pytest.fixture
def thinker(tiny_model: LlamaForCausalLM) -> Thinker:
    head = MixingHead(tiny_model.config.hidden_size)
    for parameter in (*head.parameters(), *tiny_model.parameters()):
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return Thinker(tiny_model, head, START, END)


@dataclass(frozen=True)
class Case:
    """A batch, and thoughts that all sides have in common."""

    tokens_BT: torch.Tensor
    weight_BT: torch.Tensor
    anchor_BP: torch.Tensor
    thought_BSPN: torch.Tensor

    def row(self, b: int) -> "Case":
        return Case(*(tensor[b : b + 1] for tensor in vars(self).values()))


def case(anchors: list[list[int]] | None = None, samples: int = SAMPLES, length: int = LENGTH) -> Case:
    """Random weights, one of them 0, that sum to one in a row; thoughts without delimiters."""
    made = torch.Generator().manual_seed(4)
    weight_BT = torch.rand(ROWS, TIME, generator=made)
    weight_BT[0, 5] = 0
    anchor_BP = torch.tensor(anchors or [list(range(TIME - AHEAD + 1))] * ROWS)
    return Case(
        torch.randint(START, (ROWS, TIME + 1), generator=made),
        weight_BT / weight_BT.sum(1, keepdim=True),
        anchor_BP,
        torch.randint(START, (ROWS, samples, anchor_BP.shape[1], length), generator=made),
    )


@pytest.fixture
def pin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def pinned(case: Case) -> None:
        sampled = Sampled(case.thought_BSPN.flatten(1, 2), 0.0)
        monkeypatch.setattr(objective, "sample_thoughts", lambda *_: (sampled, None))
        monkeypatch.setattr(objective, "sample_anchors", lambda *_: case.anchor_BP)

    return pinned


@dataclass
class Slow:
    """Parts of the loss, summed over rows, and what was seen on the way."""

    parts: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    gains: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def loss(self, config: QuietStarConfig, held: bool = False) -> torch.Tensor:
        alone = config.alone if held else config.alone_after
        weights = (0.5, 0.5, config.fluency, alone, config.reinforce.weight)
        return sum(w * self.parts[name] for w, name in zip(weights, PARTS, strict=True))


def hidden(thinker: Thinker, tokens: list[int]) -> torch.Tensor:
    return thinker.model.model(input_ids=torch.tensor([tokens]), use_cache=False).last_hidden_state[0]


def log_policy(thinker: Thinker, states: torch.Tensor, thought: list[int], temperature: float) -> torch.Tensor:
    """Σ log π of a thought's tokens; a delimiter cannot be drawn."""
    logits = thinker.model.lm_head(states)
    logits[:, [START, END]] = float("-inf")
    return sum(((logits[i] / temperature).log_softmax(0)[t] for i, t in enumerate(thought)), torch.zeros(()))


def slow(thinker: Thinker, config: QuietStarConfig, case: Case, held: float | None = None) -> Slow:
    """The loss as its definition reads; `held` is a mixing weight that takes the head's place."""
    made, predict = Slow(), thinker.model.lm_head
    samples, places = case.thought_BSPN.shape[1:3]
    for b, row in enumerate(case.tokens_BT.tolist()):
        states, weight = hidden(thinker, row[:-1]), case.weight_BT[b] / case.weight_BT[b].max()
        nll = [-predict(states[t]).log_softmax(0)[row[t + 1]] for t in range(TIME)]
        made.parts["plain"] += sum(case.weight_BT[b, t] * nll[t] for t in range(TIME))
        whole = sum(weight[a + k] for a in case.anchor_BP[b].tolist() for k in range(AHEAD))
        for p, a in enumerate(case.anchor_BP[b].tolist()):
            gains, logs = [], []
            said = hidden(thinker, [*row[: a + 1], START, *row[a + 1 : a + AHEAD]])[-AHEAD:]
            for k in range(AHEAD):
                made.parts["fluent"] -= weight[a + k] / whole * predict(said[k]).log_softmax(0)[row[a + k + 1]]
            for thought in case.thought_BSPN[b, :, p].tolist():
                read = hidden(thinker, [*row[: a + 1], START, *thought, END, *row[a + 1 : a + AHEAD]])
                share = thinker.head(states[a], read[-AHEAD]) if held is None else torch.tensor(held)
                gains.append(0.0)
                for k in range(AHEAD):
                    logits = (1 - share) * predict(states[a + k]) + share * predict(read[k - AHEAD])
                    mixed = -logits.log_softmax(0)[row[a + k + 1]]
                    made.parts["helped"] += weight[a + k] / whole / samples * mixed
                    unmixed = predict(read[k - AHEAD]).log_softmax(0)[row[a + k + 1]]
                    made.parts["alone"] -= weight[a + k] / whole / samples * unmixed
                    gains[-1] += (weight[a + k] * (nll[a + k] - mixed)).item()
                logs.append(log_policy(thinker, read[a + 1 : -AHEAD], thought, config.reinforce.temperature))
                made.weights.append(share.item())
            for gain, log in zip(gains, logs, strict=True) if config.reinforce.weight else ():
                better = max(gain - sum(gains) / samples, 0.0 if config.reinforce.positive_only else -math.inf)
                made.parts["policy"] += -better * log / (samples * places * max(1, case.thought_BSPN.shape[3]))
            made.gains += gains
    return made


def gradients(thinker: Thinker, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    thinker.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in thinker.named_parameters() if p.grad is not None}


def same(thinker: Thinker, actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(thinker, actual), gradients(thinker, expected)
    assert not [name for name, value in theirs.items() if (ours[name] - value).norm() > 2e-5 * value.norm()]


@pytest.mark.parametrize("anchors", [None, [[0, 3, 6], [1, 2, 5]]])
@pytest.mark.parametrize("more", [{}, BARE, OTHER])
def test_the_loss_is_its_definition(
    thinker: Thinker, pin: Any, more: dict[str, Any], anchors: list[list[int]] | None
) -> None:
    config, given = settings(more), case(anchors)
    pin(given)
    actual = QuietStar(thinker, config)(given.tokens_BT, given.weight_BT, DONE)
    same(thinker, actual, slow(thinker, config, given).loss(config))


def test_an_empty_thought_is_not_reinforced(thinker: Thinker, pin: Any) -> None:
    config, given = settings(samples=3, tokens=0), case([[0, 3, 6], [1, 2, 5]], 3, 0)
    pin(given)
    actual = QuietStar(thinker, config)(given.tokens_BT, given.weight_BT, DONE)
    expected = slow(thinker, config, given)
    assert expected.parts["policy"] == 0
    same(thinker, actual, expected.loss(config))


def test_the_mixing_weight_is_held_while_it_warms_up(thinker: Thinker, pin: Any) -> None:
    config, given = settings(), case([[0, 3, 6], [1, 2, 5]])
    pin(given)
    made = QuietStar(thinker, config)
    for progress in (0.0, config.mixing_warmup - 1e-6):
        held = slow(thinker, config, given, held=config.mixing_start)
        same(thinker, made(given.tokens_BT, given.weight_BT, progress), held.loss(config, held=True))
    after = made(given.tokens_BT, given.weight_BT, config.mixing_warmup)
    torch.testing.assert_close(after, slow(thinker, config, given).loss(config), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("progress", [0.0, DONE])
def test_every_parameter_has_a_gradient(thinker: Thinker, pin: Any, progress: float) -> None:
    pin(given := case())  # data parallelism waits for all gradients
    found = gradients(thinker, QuietStar(thinker, settings())(given.tokens_BT, given.weight_BT, progress))
    assert found.keys() == {name for name, _ in thinker.named_parameters()}


def test_thoughts_where_nothing_counts_are_no_nan(thinker: Thinker, pin: Any) -> None:
    pin(given := case([[0, 1], [0, 4]]))
    given.weight_BT[0, :-1] = 0
    loss = QuietStar(thinker, settings())(given.tokens_BT, given.weight_BT, DONE)
    assert all(g.isfinite().all() for g in (loss, *gradients(thinker, loss).values()))


@pytest.mark.parametrize("positive_only", [True, False])
def test_a_better_thought_becomes_likelier_than_its_sibling(thinker: Thinker, pin: Any, positive_only: bool) -> None:
    given = case([[4]] * ROWS).row(0)
    pin(given)
    losses = [settings({"reinforce": {"positive_only": positive_only, "weight": w}}) for w in (1.0, 0.0)]
    policy, nothing = (QuietStar(thinker, c)(given.tokens_BT, given.weight_BT, DONE) for c in losses)
    gains = slow(thinker, losses[0], given).gains
    assert abs(gains[0] - gains[1]) > 1e-3
    step = gradients(thinker, policy - nothing)

    def logs() -> torch.Tensor:
        thoughts, prefix = given.thought_BSPN[0, :, 0].tolist(), [*given.tokens_BT[0, :5].tolist(), START]
        read = [log_policy(thinker, hidden(thinker, prefix + t)[5:-1], t, 1.0) for t in thoughts]
        return torch.stack(read).detach()

    before = logs()
    with torch.no_grad():
        for name, parameter in thinker.named_parameters():
            parameter -= 1e-3 / max(abs(g) for g in gains) * step[name]
    moved, better = logs() - before, int(gains[1] > gains[0])
    assert moved[better] > 0 and moved[better] > moved[1 - better]


def test_two_half_batches_are_a_whole_one(thinker: Thinker, pin: Any) -> None:
    given, made, losses = case(), QuietStar(thinker, settings()), []
    for part in (given, given.row(0), given.row(1)):
        pin(part)
        losses.append(made(part.tokens_BT, part.weight_BT, DONE))
    same(thinker, losses[1] + losses[2], losses[0])


def test_the_pause_control_reads_start_delimiters_and_draws_nothing(
    thinker: Thinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(objective, "sample_thoughts")
    before, given = torch.get_rng_state(), case(samples=1)
    actual = QuietStar(thinker, settings(), sampled=False)(given.tokens_BT, given.weight_BT, DONE)
    assert torch.equal(before, torch.get_rng_state())
    config = settings({"reinforce": {"weight": 0.0}})
    pauses = replace(given, thought_BSPN=torch.full_like(given.thought_BSPN, START))
    same(thinker, actual, slow(thinker, config, pauses).loss(config))


def test_curves_are_means_of_what_was_seen(thinker: Thinker, pin: Any) -> None:
    config, given = settings(), case()
    pin(given)
    made = QuietStar(thinker, config)
    made(given.tokens_BT, given.weight_BT, DONE)
    expected, curves = slow(thinker, config, given), made.curves()
    means = {"reward": expected.gains, "mixing_weight": expected.weights}
    wanted = {name: sum(values) / len(values) for name, values in means.items()}
    wanted |= {"plain_nll": expected.parts["plain"].item() / ROWS, "mixed_nll": expected.parts["helped"].item() / ROWS}
    assert {name: curves[name] for name in wanted} == pytest.approx(wanted, abs=1e-5)
