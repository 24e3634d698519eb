"""A model in its compressed form: what it computes with is what would be stored, and what trains, trains."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from phases.bitnet.tensors import embedding_names, ternary_names
from phases.compression.codec import Encoded
from phases.compression.form import Codebook, Form, _Quantised
from phases.compression.hyper import Hyper
from phases.compression.kmeans import nearest
from phases.compression.seedlm import SeedLM
from phases.compression.stored import Coding
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.errors import CheckpointError, ConfigError

SMALL = VPTQ(vector=4, codebook_size=16)
TOKENS = torch.arange(12).view(2, 6)


def form_of(model: Any, codecs: Mapping[str, Coding]) -> Form:
    params = {name: p.detach() for name, p in model.named_parameters()}
    shared: dict[VPTQ, dict[str, torch.Tensor]] = {}
    fixed: dict[str, Encoded] = {}
    for name, codec in codecs.items():
        if isinstance(codec, VPTQ):
            shared.setdefault(codec, {})[name] = params[name]
        elif not isinstance(codec, Ternary):
            fixed[name] = codec.encode(params[name])
    books = {codec: codec.fit(weights) for codec, weights in shared.items()}
    return Form(model, codecs, books, fixed, {}, activations=False)


@pytest.fixture
def mixed(tiny_model: LlamaForCausalLM) -> tuple[LlamaForCausalLM, dict[str, Coding]]:
    body, ends = ternary_names(tiny_model), embedding_names(tiny_model)
    cycle: list[Coding] = [Ternary(0.6, 16, 16), SMALL, SeedLM(), Hyper(bits=4, group=None)]
    codecs: dict[str, Coding] = {name: cycle[i % 4] for i, name in enumerate(body)}
    return tiny_model, codecs | dict.fromkeys(ends, SMALL)


def test_it_computes_with_what_would_be_stored(mixed: tuple[LlamaForCausalLM, dict[str, Coding]]) -> None:
    model, codecs = mixed
    form = form_of(model, codecs)
    with torch.no_grad():
        inside = model(TOKENS).logits
    stored = form.stored(scale_bits=16)
    plain = form.fold()
    weights = stored.weights()
    assert weights.keys() == {name for name, _ in plain.named_parameters()}
    for name, p in plain.named_parameters():
        # Codebooks and norms are rounded to float16 on their way into the file.
        torch.testing.assert_close(weights[name], p.detach(), rtol=2e-3, atol=2e-3)
    with torch.no_grad():
        torch.testing.assert_close(plain(TOKENS).logits, inside, rtol=0, atol=1e-5)


def test_gradients_are_the_same_bits_with_several_threads() -> None:
    torch.manual_seed(0)
    wide = nn.Linear(128, 2048, bias=False)
    book = VPTQ(vector=4, codebook_size=16)
    form = _Quantised(book, Codebook(book.fit({"w": wide.weight.detach()})[0]), None)
    found = []
    torch.set_num_threads(4)
    for _ in range(8):
        centroids = form._shared[0].centroids_KV
        centroids.grad = None
        form(wide.weight).square().sum().backward()
        found.append(centroids.grad.clone())
    assert all(torch.equal(found[0], one) for one in found)


def test_in_half_precision_the_codes_stay_the_same(mixed: tuple[LlamaForCausalLM, dict[str, Coding]]) -> None:
    model, codecs = mixed
    form_of(model, codecs)
    modules = [model.get_submodule(name.removesuffix(".weight")) for name in codecs]
    plain = [module.weight.detach() for module in modules]
    with torch.autocast("cpu", torch.bfloat16):
        half = [module.weight.detach() for module in modules]
    assert all(torch.equal(a, b) for a, b in zip(plain, half, strict=True))


def test_gradients_reach_latent_weights_by_the_identity_and_centroids_by_those_they_serve(
    tiny_model: LlamaForCausalLM,
) -> None:
    name = ternary_names(tiny_model)[0]
    before = tiny_model.get_parameter(name).detach().clone()
    form = form_of(tiny_model, {name: SMALL})
    module = tiny_model.get_submodule(name.removesuffix(".weight"))
    weight, grad = module.weight, torch.randn(before.shape)
    weight.backward(grad)
    latent = form.latent[name]
    torch.testing.assert_close(latent.grad, grad)
    x_NV, count_NV, scale_S = SMALL.vectors(before)
    centroids = form.codebooks[0].centroids_KV
    codes = nearest(x_NV, centroids.detach(), count_NV)
    wanted, scaled = torch.zeros_like(centroids), (grad * scale_S.float()[:, None]).view(-1, SMALL.vector)
    for code, row in zip(codes.tolist(), scaled, strict=True):
        wanted[code] += row
    torch.testing.assert_close(centroids.grad, wanted, rtol=1e-4, atol=1e-6)


def test_what_seedlm_and_hyper_encoded_trains_no_more(mixed: tuple[LlamaForCausalLM, dict[str, Coding]]) -> None:
    model, codecs = mixed
    form = form_of(model, codecs)
    model(TOKENS, labels=TOKENS).loss.backward()
    for name, codec in codecs.items():
        grad = form.latent[name].grad
        moves = grad is not None and bool(grad.any())
        assert moves == isinstance(codec, Ternary | VPTQ), name
    assert all(book.centroids_KV.grad is not None for book in form.codebooks)


def test_strength_goes_from_the_latent_weights_to_the_form(mixed: tuple[LlamaForCausalLM, dict[str, Coding]]) -> None:
    model, codecs = mixed
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    form = form_of(model, codecs)
    seen = []
    for strength in (0.0, 0.5, 1.0):
        form.set_strength(strength)
        seen.append({n: model.get_submodule(n.removesuffix(".weight")).weight.detach().clone() for n in codecs})
    for name in codecs:
        torch.testing.assert_close(seen[0][name], before[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(seen[1][name], (seen[0][name] + seen[2][name]) / 2, rtol=0, atol=1e-6)


def test_a_tied_head_stays_tied(tiny_model: LlamaForCausalLM) -> None:
    ends = embedding_names(tiny_model)
    assert len(ends) == 1
    form = form_of(tiny_model, dict.fromkeys(ends, SMALL))
    assert torch.equal(tiny_model.lm_head.weight, tiny_model.model.embed_tokens.weight)
    plain = form.fold()
    assert plain.lm_head.weight is plain.model.embed_tokens.weight


def test_an_unknown_matrix_is_named(tiny_model: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="nowhere.weight: no parameter of a LlamaForCausalLM"):
        Form(tiny_model, {"nowhere.weight": Ternary()}, {}, {}, {}, activations=False)


def test_a_layer_that_is_no_plain_one_is_named(tiny_model: LlamaForCausalLM) -> None:
    class Scaled(nn.Linear):
        """Computes something else."""

    tiny_model.model.layers[1].mlp.up_proj = Scaled(32, 64, bias=False)
    with pytest.raises(
        CheckpointError, match=r"LlamaForCausalLM: model\.layers\.1\.mlp\.up_proj is a Scaled and no plain"
    ):
        ternary_names(tiny_model)


@pytest.mark.parametrize("settings", [{"residuals": 1}, {"outliers": 0.1}], ids=["residuals", "outliers"])
def test_what_would_be_lost_in_training_is_refused(tiny_model: LlamaForCausalLM, settings: dict[str, Any]) -> None:
    codec = VPTQ(vector=4, codebook_size=16, iterations=2, **settings)
    with pytest.raises(
        ConfigError, match="a model trains with one codebook and no outliers; set residuals and outliers"
    ):
        form_of(tiny_model, {ternary_names(tiny_model)[0]: codec})
