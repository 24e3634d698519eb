"""The maths of a bake: against torch's own divergence, and adapters against the closed form."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from phases.baking.adapters import Adapted
from phases.baking.objective import Baking
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.lattice import ternary
from phases.cognate.config import Adapter
from phases.training.objective import LanguageModelling


class Holder:
    """What `Adapted` needs of a body."""

    def __init__(self, model: Any, quantised: Quantised | None = None) -> None:
        self.model, self.quantised = model, quantised


def batch(model: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.randint(1, model.config.vocab_size, (3, 13))
    weight = torch.rand(3, 12)
    weight[0, :4] = 0
    marks = torch.full((3, 12, 1), -1)
    marks[0, 6:9, 0] = torch.tensor([4, 0, 2])
    marks[1, 2, 0] = 1
    return tokens, weight, marks


def reference(
    model: Any, hidden: torch.Tensor, head: torch.Tensor, tokens: Any, weight: Any, marks: Any
) -> torch.Tensor:
    log_p = model(tokens[:, :-1]).logits.log_softmax(-1)
    total = torch.zeros(())
    for row in range(tokens.shape[0]):
        for place in range(tokens.shape[1] - 1):
            mark = int(marks[row, place, 0])
            if mark >= 0:
                q = (hidden[mark] @ head.T).log_softmax(-1)
                loss = F.kl_div(log_p[row, place], q, reduction="sum", log_target=True)
            else:
                loss = -log_p[row, place, tokens[row, place + 1]]
            total = total + weight[row, place] * loss
    return total


def test_the_loss_and_its_gradients_are_those_of_the_definition(tiny_model: Any) -> None:
    hidden, head = torch.randn(5, 24), torch.randn(tiny_model.config.vocab_size, 24)
    rows = batch(tiny_model)
    ours = Baking(tiny_model, hidden, head)(rows[0], rows[1], 0.0, rows[2])
    mine = torch.autograd.grad(ours, list(tiny_model.parameters()), allow_unused=True)
    theirs = reference(tiny_model, hidden, head, *rows)
    expected = torch.autograd.grad(theirs, list(tiny_model.parameters()), allow_unused=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for a, b in zip(mine, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_model_that_is_its_own_teacher_has_nothing_to_learn(tiny_model: Any) -> None:
    tokens, _, _ = batch(tiny_model)
    with torch.no_grad():
        hidden = tiny_model.model(tokens[:, :-1]).last_hidden_state.reshape(-1, 32)
    marks = torch.arange(36).reshape(3, 12, 1)
    objective = Baking(tiny_model, hidden, tiny_model.lm_head.weight.detach().clone())
    loss = objective(tokens, torch.ones(3, 12), 0.0, marks)
    gradients = torch.autograd.grad(loss, list(tiny_model.parameters()))
    assert abs(float(loss.detach())) < 1e-4 and max(float(g.abs().max()) for g in gradients) < 1e-4
    assert objective.curves()["kl_to_prompted"] == pytest.approx(0, abs=1e-6)


def test_the_teacher_is_no_part_of_the_module(tiny_model: Any) -> None:
    names = dict(Baking(tiny_model, torch.zeros(1, 32), torch.zeros(257, 32)).named_parameters())
    assert set(names) == {f"model.{name}" for name, _ in tiny_model.named_parameters()}


def nudged(adapted: Adapted) -> None:
    """B starts at zero: give the adapters something to say."""
    for name, parameter in adapted.peft.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3)


def test_adapters_of_a_ternary_model_are_inside_the_lattice(tiny_model: Any) -> None:
    quantised = Quantised(tiny_model, Quantisation(group=16))
    latent = quantised.latent()
    adapted = Adapted(Holder(tiny_model, quantised), Adapter(rank=2, alpha=6.0))  # type: ignore[arg-type]
    nudged(adapted)
    layer = adapted.layers[0]
    name = quantised.ternary[0]
    update = 3.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = ternary((latent[name] + update).detach(), 16).dequantise()
    torch.testing.assert_close(layer.get_base_layer().weight.detach(), expected)


def test_merging_changes_nothing_that_the_model_says(tiny_model: Any) -> None:
    quantised = Quantised(tiny_model, Quantisation(group=16))
    body = Holder(tiny_model, quantised)
    adapted = Adapted(body, Adapter(rank=4, alpha=8.0))  # type: ignore[arg-type]
    nudged(adapted)
    tokens = torch.randint(1, 257, (2, 9))
    with torch.no_grad():
        before = body.model(tokens).logits
        adapted.merge()
        torch.testing.assert_close(body.model(tokens).logits, before)
        quantised.fold()
        torch.testing.assert_close(body.model(tokens).logits, before, rtol=1e-2, atol=5e-2)
    assert not any("lora" in name for name, _ in body.model.named_parameters())


def test_adapters_alone_are_trained_and_learn_through_the_lattice(tiny_model: Any) -> None:
    quantised = Quantised(tiny_model, Quantisation(group=16))
    body = Holder(tiny_model, quantised)
    adapted = Adapted(body, Adapter(rank=8, alpha=16.0))  # type: ignore[arg-type]
    trained = [p for p in body.model.parameters() if p.requires_grad]
    assert len(trained) == 2 * len(adapted.layers)
    tokens, optimizer = torch.randint(1, 257, (2, 17)), torch.optim.AdamW(trained, lr=0.02)
    objective, losses = LanguageModelling(body.model), []
    for _ in range(30):
        loss = objective(tokens, torch.ones(2, 16) / 32, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3


def test_adapters_of_a_plain_model_merge_too(tiny_model: Any) -> None:
    body = Holder(tiny_model)
    adapted = Adapted(body, Adapter(rank=4, alpha=8.0))  # type: ignore[arg-type]
    nudged(adapted)
    tokens = torch.randint(1, 257, (2, 9))
    with torch.no_grad():
        before = adapted.peft(tokens).logits
        adapted.merge()
        torch.testing.assert_close(body.model(tokens).logits, before, rtol=1e-4, atol=1e-4)
