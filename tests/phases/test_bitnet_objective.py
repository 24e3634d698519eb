"""What a step minimises: strength by progress, shares of text and teacher, hidden states; and what it reports."""

import copy

import pytest
import torch
from transformers import LlamaForCausalLM

from phases.bitnet.config import Distillation, Quantisation
from phases.bitnet.distil import hidden_distance
from phases.bitnet.estimator import Quantised
from phases.bitnet.objective import QuantisationAware
from phases.training.objective import LanguageModelling, Objective

TOKENS = torch.randint(257, (2, 13), generator=torch.Generator().manual_seed(0))
WEIGHT = torch.rand(2, 12, generator=torch.Generator().manual_seed(1)) / 12


def objective(
    model: LlamaForCausalLM, warmup: float = 0.5, logits: float = 0.0, hidden: float = 0.0, teacher: bool = True
) -> QuantisationAware:
    parent = copy.deepcopy(model) if teacher else None
    quantised = Quantised(model, Quantisation(group=16))
    return QuantisationAware(quantised, warmup, Distillation(logits=logits, hidden=hidden), parent)


def value(ours: Objective, progress: float) -> float:
    return float(ours(TOKENS, WEIGHT, progress).detach())


@pytest.mark.parametrize(("progress", "strength"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.99, 1.0)])
def test_strength_rises_over_the_warm_up(tiny_model: LlamaForCausalLM, progress: float, strength: float) -> None:
    plain = value(LanguageModelling(copy.deepcopy(tiny_model)), 0.0)
    ours = objective(tiny_model)
    loss = value(ours, progress)
    assert ours.curves()["strength"] == strength
    assert (loss == pytest.approx(plain, rel=1e-6)) == (strength == 0)
    assert all(estimator.strength == strength for estimator in ours.quantised._estimators.values())


def test_without_a_warm_up_it_is_quantised_at_once(tiny_model: LlamaForCausalLM) -> None:
    ours = objective(tiny_model, warmup=0.0)
    ours(TOKENS, WEIGHT, 0.0)
    assert ours.quantised.strength == 1.0


def test_shares_of_text_and_teacher(tiny_model: LlamaForCausalLM) -> None:
    """At strength 0 the model is its own teacher: the divergence is 0, so only the text's share is left."""
    plain = value(LanguageModelling(copy.deepcopy(tiny_model)), 0.0)
    for share in (0.0, 0.25, 1.0):
        ours = objective(copy.deepcopy(tiny_model), logits=share)
        assert value(ours, 0.0) == pytest.approx((1 - share) * plain, abs=1e-5)
        assert ours.curves()["plain_nll"] == pytest.approx(plain / 2, rel=1e-5)
        assert abs(ours.curves()["kl_from_parent"]) < 1e-5
    alone = objective(copy.deepcopy(tiny_model), logits=1.0, teacher=False)
    assert value(alone, 0.0) == pytest.approx(plain, rel=1e-6)  # nobody to learn from but the text


def test_hidden_states_count_with_their_weight(tiny_model: LlamaForCausalLM) -> None:
    losses = []
    for weight in (0.0, 2.0):
        ours = objective(copy.deepcopy(tiny_model), logits=0.5, hidden=weight)
        losses.append(value(ours, 1.0))
    student, teacher = ours.quantised.model, ours.teachers[0]
    with torch.no_grad():
        both = [m.model(TOKENS[:, :-1], output_hidden_states=True).hidden_states for m in (student, teacher)]
    apart = float(hidden_distance(both[0], both[1], WEIGHT))
    assert apart > 0.01 and losses[1] - losses[0] == pytest.approx(2 * apart, rel=1e-4)
    assert ours.curves()["hidden_distance"] == pytest.approx(apart / 2, rel=1e-4)


def test_nothing_flows_into_the_teacher(tiny_model: LlamaForCausalLM) -> None:
    ours = objective(tiny_model, logits=0.5, hidden=0.5)
    ours(TOKENS, WEIGHT, 1.0).backward()
    assert all(p.grad is None and not p.requires_grad for p in ours.teachers[0].parameters())
    assert all(p.grad is not None for p in ours.parameters())
    assert len(list(ours.parameters())) == len(list(tiny_model.parameters()))  # the teacher is not among them


def test_moves_of_codes_are_counted(tiny_model: LlamaForCausalLM) -> None:
    ours = objective(tiny_model)
    ours(TOKENS, WEIGHT, 1.0)
    first = ours.curves()
    assert first["codes_changed_since_start"] == 0 and "codes_changed_since_last" not in first
    count = sum(lattice.codes_OI.numel() for name, lattice in ours.quantised.lattices().items() if "proj" in name)
    latent = tiny_model.model.layers[0].mlp.up_proj.parametrizations.weight.original
    codes = ours.quantised.lattices()["model.layers.0.mlp.up_proj.weight"].codes_OI
    with torch.no_grad():
        latent.neg_()
    second = ours.curves()
    moved = int((codes != 0).sum()) / count
    for name in ("codes_changed_since_last", "codes_changed_since_start", "signs_flipped_since_start"):
        assert second[name] == pytest.approx(moved), name
    assert ours.curves()["codes_changed_since_last"] == 0
