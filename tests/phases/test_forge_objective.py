"""What a step minimises, ingredient by ingredient, against full logits and autograd; and what the loop is told."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from phases.forge.chaos import lyapunov_exponent
from phases.forge.config import ForgeStage, ForgeTrainingConfig
from phases.forge.controller import Loop
from phases.forge.objective import JVP_COST, Forging
from phases.forge.rows import DREAM, ITEM, LABEL
from phases.forge.self_model import self_states
from phases.training.objective import LanguageModelling

B, T = 4, 12
TASKS = ("sums", "recall")
PLAIN, EDGE, DREAMS, SELF = (
    ForgeStage(name=name, **{name: True} if name != "plain" else {})
    for name in ("plain", "control", "dreams", "self_model")
)


def config(**changes: Any) -> ForgeTrainingConfig:
    stages = [stage.model_dump() for stage in (PLAIN, EDGE, DREAMS, SELF)]
    values = {"stages": stages, "training": {"steps": 40}, "chaos": {"every": 5, "rows": 2, "directions": 2}}
    merged: dict[str, Any] = {**values, **changes}
    on = {name: {"enabled": True, **merged.get(name, {})} for name in ("chaos", "dreams", "self_model")}
    return ForgeTrainingConfig.parse({**merged, **on}, "test")


def forging(model: Any, settings: ForgeTrainingConfig, stage: ForgeStage, teacher: Any = None) -> Forging:
    """The objective, in training, over a stand-in for the rows that has a real loop."""
    loop, task_I = Loop(settings.chaos, dict.fromkeys(TASKS, 1.0)), torch.tensor([0, 1, 1, 0])
    source: Any = SimpleNamespace(loop=loop, tasks=TASKS, task_I=task_I)
    source.memory, source.remember = dict, lambda memory: None
    made = Forging(model, settings, source)
    made.train()
    made.enter(stage, (0, 40), teacher)
    return made


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    tokens_BT = torch.randint(1, 257, (B, T + 1), generator=generator)
    weight_BT = torch.rand(B, T, generator=generator) * (torch.rand(B, T, generator=generator) > 0.3)
    return tokens_BT, weight_BT / weight_BT.sum(1, keepdim=True)


def no_marks() -> torch.Tensor:
    marks_BTC = torch.full((B, T, 3), -1)
    marks_BTC[..., DREAM] = 0
    return marks_BTC


def gradients(module: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    module.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def nll(model: Any, tokens_BT: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """(B, T) by transformers' own logits."""
    logits = model(**(inputs or {"input_ids": tokens_BT[:, :-1]})).logits
    return -logits.log_softmax(-1).gather(-1, tokens_BT[:, 1:, None])[..., 0]


def set_noise(objective: Forging, strength: float) -> None:
    state = objective.source.loop.state()
    state["exponent"][-1] = strength
    objective.source.loop.load(state)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("stage", [PLAIN, EDGE, DREAMS, SELF], ids=lambda stage: stage.name)
def test_without_ingredients_it_is_language_modelling(
    own: bool, stage: ForgeStage, tiny_model: LlamaForCausalLM, batch: Any
) -> None:
    off = config(chaos={"enabled": False}, dreams={"enabled": False}, self_model={"enabled": False})
    settings = config(chaos={"enabled": False}) if own and stage != SELF else off
    plain = LanguageModelling(tiny_model)
    expected = plain(*batch, 0.0)
    wanted = gradients(tiny_model, expected)
    made = forging(tiny_model, settings, stage)
    found = gradients(made, loss := made(*batch, 0.0, no_marks()))
    assert torch.equal(loss, expected) and len(found) == len(wanted)
    assert all(torch.equal(found[n], g) for n, g in zip(found, wanted.values(), strict=True))
    assert (made.head is not None) == settings.self_model.enabled
    assert made.cost == 0 and made.curves() == {} and made.rate == 1.0


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_dreams_are_learnt_from_the_dreamer_as_well(share: float, tiny_model: Any, make_model: Any, batch: Any) -> None:
    teacher, (tokens_BT, weight_BT) = make_model("llama", 32), batch
    made = forging(tiny_model, config(dreams={"teacher": share}), DREAMS, teacher)
    marks_BTC, dreamt = no_marks(), torch.tensor([False, True, False, True])
    marks_BTC[dreamt, :, DREAM] = 1
    loss = made(*batch, 0.1, marks_BTC)
    log_p = tiny_model(tokens_BT[:, :-1]).logits.log_softmax(-1)
    with torch.no_grad():
        log_q = teacher(tokens_BT[:, :-1]).logits.log_softmax(-1)
    nll_BT = -log_p.gather(-1, tokens_BT[:, 1:, None])[..., 0]
    kl_BT = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1)
    mixed_BT = torch.where(dreamt[:, None], (1 - share) * nll_BT + share * kl_BT, nll_BT)
    expected = (weight_BT * mixed_BT).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    found, wanted = gradients(made, loss), gradients(made, expected)
    assert all(torch.allclose(found[n], wanted[n], rtol=1e-3, atol=1e-6) for n in wanted)
    assert made.cost == (2 * T if share else 0)
    if share:
        means = {n: float((weight_BT * x).detach()[dreamt].sum()) / 2 for n, x in (("kl", kl_BT), ("nll", nll_BT))}
        assert made.curves() == pytest.approx({f"dream_{n}": x for n, x in means.items()}, rel=1e-4)


def test_a_batch_of_dreams_only_and_dreams_without_a_dreamer(tiny_model: Any, make_model: Any, batch: Any) -> None:
    marks_BTC = no_marks()
    marks_BTC[..., DREAM] = 1
    plain = LanguageModelling(tiny_model)(*batch, 0.0)
    assert torch.equal(forging(tiny_model, config(), DREAMS)(*batch, 0.0, marks_BTC), plain)
    taught = forging(tiny_model, config(), DREAMS, make_model("llama", 32))(*batch, 0.0, marks_BTC)
    assert bool(taught.isfinite()) and not torch.equal(taught, plain)


@pytest.mark.parametrize("stage", [PLAIN, EDGE, DREAMS, SELF], ids=lambda stage: stage.name)
def test_noise_is_a_share_of_the_embeddings_size_while_controlled(
    stage: ForgeStage, tiny_model: Any, batch: Any
) -> None:
    tokens_BT, weight_BT = batch
    made = forging(tiny_model, config(self_model={"weight": 0.0, "temperature": 0.0}), stage)
    set_noise(made, 0.3)
    torch.manual_seed(8)
    loss = made(*batch, 1 / 40, no_marks())  # no step at which the exponent is measured, which would move the noise
    torch.manual_seed(8)
    embedded = tiny_model.model.embed_tokens(tokens_BT[:, :-1])
    noisy = embedded + 0.3 * embedded.pow(2).mean() ** 0.5 * torch.randn(embedded.shape)
    expected = (weight_BT * nll(tiny_model, tokens_BT, inputs_embeds=noisy)).sum()
    plain = (weight_BT * nll(tiny_model, tokens_BT)).sum()
    assert not torch.allclose(expected, plain, atol=1e-3)
    torch.testing.assert_close(loss, expected if stage == EDGE else plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((weight_BT * nll(tiny_model, tokens_BT)).sum(), plain, rtol=0, atol=0)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_loop_is_told_what_full_logits_solve(parts: int, tiny_model: Any, batch: Any) -> None:
    tokens_BT, weight_BT = batch
    made, marks_BTC = forging(tiny_model, config(), EDGE), no_marks()
    seen: list[Any] = []
    made.metrics = lambda step, values: seen.append((step, values))
    for row in range(B):  # predictions of positions 7 … 9 are item `row`'s answer
        marks_BTC[row, 7:10, ITEM] = row
    with torch.no_grad():
        for position in (8, 9, 10):  # item 0 is solved; item 1 but for its second token; item 2; item 3 not at all
            guess_B = tiny_model(tokens_BT).logits[:, position - 1].argmax(-1)
            wrong = torch.tensor([0, 1 if position == 9 else 0, 0, 1])
            tokens_BT[:, position] = (guess_B + wrong) % 257
    before = Loop(made.config.chaos, dict.fromkeys(TASKS, 1.0))
    before.observe_success(torch.tensor([1, 1]), torch.tensor([2, 2]))  # of tasks 0 1 1 0
    for part in range(parts):
        made(tokens_BT[part::parts], weight_BT[part::parts], 1 / 40, marks_BTC[part::parts])
    with made.stepping():
        assert made.source.loop.overall is None  # nothing is taken in before the step
    assert made.source.loop.success == before.success == {"sums": 0.5, "recall": 0.5}
    assert torch.equal(made.source.loop.state()["difficulty"], before.state()["difficulty"]) and not made.solved
    ((step, signals),) = seen
    assert step == 1 and signals["forge/loop/success"] == 0.5


def test_uneven_success_by_task(tiny_model: Any, batch: Any) -> None:
    made, marks_BTC = forging(tiny_model, config(), EDGE), no_marks()
    marks_BTC[:3, 3, ITEM] = torch.arange(3)
    batch[0][1, 4] = tiny_model(batch[0]).logits[1, 3].argmax(-1)
    made(*batch, 1 / 40, marks_BTC)
    with made.stepping():
        pass
    assert made.source.loop.success == {"sums": 0.0, "recall": 0.5}


@pytest.mark.parametrize("what", ["later", "random"])
def test_the_models_own_states_and_writing_are_added_with_their_weights(what: str, tiny_model: Any, batch: Any) -> None:
    tokens_BT, weight_BT = batch
    made = forging(tiny_model, config(self_model={"weight": 0.7, "temperature": 0.2, "what": what}), SELF)
    head, marks_BTC, plain = made.head, no_marks(), (weight_BT * nll(tiny_model, tokens_BT)).sum()
    assert head is not None
    with torch.no_grad():
        head.predictor[-1].weight.normal_(0, 0.1)
    marks_BTC[0, 4, LABEL], marks_BTC[0, 11, LABEL], marks_BTC[3, 6, LABEL] = 1, 2, 0
    last_BTD, source_BTD, later_BTD = self_states(tiny_model, head, tokens_BT[:, :-1])
    own = (weight_BT * head(source_BTD, later_BTD, tokens_BT[:, :-1])).sum()
    logits = head.recogniser(torch.stack([last_BTD[0, 4], last_BTD[0, 11], last_BTD[3, 6]]))
    told = F.cross_entropy(logits, torch.tensor([1, 2, 0]))  # the mean over texts, at the text's own weight B
    expected = plain + 0.7 * own + 0.2 * B * told
    loss = made(*batch, 0.9, marks_BTC)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    found, wanted = gradients(made, loss), gradients(made, expected)
    assert found.keys() == wanted.keys() and any("recogniser" in name for name in found)
    assert all(torch.allclose(found[n], wanted[n], rtol=1e-3, atol=1e-5) for n in wanted)
    assert made.curves()["self_r2"] == pytest.approx(1 - float(own.detach()) / B, abs=1e-5)
    assert made.curves()["recognised"] == pytest.approx(float((logits.argmax(-1) == torch.tensor([1, 2, 0])).sum()) / 3)
    torch.testing.assert_close(made(*batch, 0.9, no_marks()), plain + 0.7 * own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("tasks", [True, False])
def test_the_exponent_is_measured_every_so_often_and_sets_the_rate(
    tasks: bool, accumulation: int, tiny_model: Any, batch: Any
) -> None:
    made = forging(tiny_model, config(chaos={"every": 5, "rows": 2, "directions": 2, "exponent": -0.5}), EDGE)
    made.enter(EDGE, (10, 20))
    marks_BTC, loop, inputs_BT = no_marks(), made.source.loop, batch[0][:, :-1][::accumulation]
    marks_BTC[:, 5, ITEM] = torch.arange(4)
    values: list[float] = []
    for step in range(10, 21):
        for part in range(accumulation):
            marks = marks_BTC[part::accumulation] if tasks else None  # data without generators has none
            made(*(x[part::accumulation] for x in batch), step / 40, marks)
        with made.stepping():
            pass
        if step % 5 == 0:
            seed = made.config.seed * 1_000_003 + step
            values.append(lyapunov_exponent(tiny_model, inputs_BT[:2], directions=2, seed=seed).value)
        error = values[-1] - (values[0] + (-0.5 - values[0]) * (len(values) - 1) / 4)
        assert loop.exponent == values[-1]
        assert made.rate == loop.rate == pytest.approx(min(max(2.718281828 ** (-3 * error), 0.5), 1.5))
    assert made.cost == 3 * JVP_COST * 2 * 2 * T and made.rate != 1.0  # times, directions, rows, tokens
    made.enter(PLAIN, (0, 1))
    assert made.rate == 1.0 and made.curves() == {}


def test_gradients_are_amplified_by_their_mean(tiny_model: Any, batch: Any) -> None:
    settings = config(grokfast={"enabled": True, "alpha": 0.9, "amplify": 2.0})
    made = forging(tiny_model, settings, PLAIN)
    mean: dict[str, torch.Tensor] = {}
    for step in range(3):
        shifted = batch[0].roll(step, 0), batch[1]
        raw = gradients(made, made(*shifted, step / 40))
        mean = {n: 0.9 * mean[n] + 0.1 * g if mean else g for n, g in raw.items()}
        made.filter_gradients()
        after = {n: p.grad for n, p in made.named_parameters() if p.grad is not None}
        assert all(torch.allclose(after[n], raw[n] + 2 * mean[n], rtol=1e-4, atol=1e-7) for n in raw)
    other = forging(copy.deepcopy(tiny_model), settings, PLAIN)
    other.remember(made.memory())
    resumed = gradients(other, other(*shifted, 0.5))
    other.filter_gradients()
    again = {n: p.grad for n, p in other.named_parameters() if p.grad is not None}
    for n, g in resumed.items():
        torch.testing.assert_close(again[n], g + 2 * (0.9 * mean[n] + 0.1 * g), rtol=1e-4, atol=1e-7)
    off = forging(tiny_model, config(), PLAIN)
    raw = gradients(off, off(*batch, 0.0))
    off.filter_gradients()
    assert all(p.grad is None or torch.equal(p.grad, raw[n]) for n, p in off.named_parameters())
