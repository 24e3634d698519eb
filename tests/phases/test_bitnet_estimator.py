"""The straight-through estimator: values on the lattice, gradients as if it were not there, and back."""

from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised, quantise_activations, straight_through
from phases.bitnet.lattice import absmax, ternary
from phases.bitnet.tensors import embedding_names, ternary_names
from phases.errors import CheckpointError

WEIGHTS_ONLY = Quantisation(group=16, activations=False)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_straight_through(strength: float) -> None:
    latent = torch.randn(5, 8, requires_grad=True)
    quantised = ternary(latent, 4).dequantise()
    value = straight_through(latent, quantised, strength)
    torch.testing.assert_close(value, latent + strength * (quantised - latent))
    if strength == 1:
        assert torch.equal(value, quantised)  # not beside the lattice by a rounding error
    (gradient,) = torch.autograd.grad((value * 3).sum(), latent)
    assert (gradient == 3).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler that loads torch's forward mode
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_forward_mode_is_the_adjoint_of_its_backward(strength: float) -> None:
    x, u, v = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x.requires_grad_()

    def surrogate(x: torch.Tensor) -> torch.Tensor:
        bent = x.tanh()
        return straight_through(bent, quantise_activations(bent), strength) ** 2

    (pulled,) = torch.autograd.grad(surrogate(x), x, u)
    dual: Any = forward_ad
    with dual.dual_level():
        value, pushed = dual.unpack_dual(surrogate(dual.make_dual(x, v)))
    assert torch.equal(value, surrogate(x))
    torch.testing.assert_close((u * pushed).sum(), (pulled * v).sum())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler that this import brings along
def test_activations_are_transformers_bitnet() -> None:
    from transformers.integrations.bitnet import BitLinear

    x = torch.randn(3, 7, 33) * torch.tensor([1e-8, 1.0, 1e4]).view(3, 1, 1)
    codes, scale = BitLinear.activation_quant(None, x)
    torch.testing.assert_close(quantise_activations(x), codes.float() / scale)
    assert (quantise_activations(torch.zeros(2, 4)) == 0).all()
    assert quantise_activations(x.bfloat16()).dtype == torch.bfloat16


def test_what_the_model_computes_with_is_the_lattice(tiny_model: LlamaForCausalLM) -> None:
    plain = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    tokens = torch.randint(257, (2, 9))
    quantised = Quantised(tiny_model, WEIGHTS_ONLY)
    layer = tiny_model.model.layers[0].mlp.up_proj
    assert torch.equal(layer.weight, ternary(plain["model.layers.0.mlp.up_proj.weight"], 16).dequantise())
    embedding = absmax(plain["model.embed_tokens.weight"], 8, 16).dequantise()
    assert torch.equal(tiny_model.lm_head.weight, embedding) and torch.equal(
        tiny_model.model.embed_tokens.weight, embedding
    )
    through = tiny_model(tokens).logits
    quantised.fold()
    assert torch.equal(tiny_model(tokens).logits, through)
    assert tiny_model.lm_head.weight is tiny_model.model.embed_tokens.weight
    assert {name for name, _ in tiny_model.named_parameters()} == set(plain)
    assert torch.equal(tiny_model.model.norm.weight, plain["model.norm.weight"])


def test_at_strength_0_it_is_the_model_itself(tiny_model: LlamaForCausalLM) -> None:
    tokens = torch.randint(257, (2, 9))
    before = tiny_model(tokens).logits
    quantised = Quantised(tiny_model, Quantisation(group=16))
    quantised.set_strength(0.0)
    assert torch.equal(tiny_model(tokens).logits, before)
    quantised.set_strength(1.0)
    assert not torch.allclose(tiny_model(tokens).logits, before, atol=1e-3)


def test_the_gradient_is_that_of_the_rounded_model(tiny_model: LlamaForCausalLM) -> None:
    """∂loss/∂latent is ∂loss/∂weight at the rounded weights, for a tied head as well."""
    tokens = torch.randint(257, (2, 9))
    rounded = LlamaForCausalLM(tiny_model.config).eval()
    rounded.load_state_dict(tiny_model.state_dict())
    Quantised(rounded, WEIGHTS_ONLY).fold()
    rounded.requires_grad_(True)
    Quantised(tiny_model, WEIGHTS_ONLY)
    for model in (tiny_model, rounded):
        model(tokens, labels=tokens).loss.backward()
    pairs = zip(tiny_model.named_parameters(), rounded.named_parameters(), strict=True)
    found = {name.replace("parametrizations.weight.original", "weight"): p.grad for (name, p), _ in pairs}
    expected = {name: p.grad for name, p in rounded.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_activations_are_rounded_before_ternary_layers_only(tiny_model: LlamaForCausalLM) -> None:
    seen: dict[str, torch.Tensor] = {}
    Quantised(tiny_model, Quantisation(group=16))
    for name in ("model.layers.0.self_attn.q_proj", "lm_head"):
        module = tiny_model.get_submodule(name)
        module.register_forward_hook(lambda m, args, out, name=name: seen.update({name: args[0].detach()}))
    tiny_model(torch.randint(257, (1, 6)))
    steps = {name: x / (x.abs().amax(-1, keepdim=True) / 127) for name, x in seen.items()}
    off = {name: float((step - step.round()).abs().max()) for name, step in steps.items()}
    assert off["model.layers.0.self_attn.q_proj"] < 1e-4 < 0.3 < off["lm_head"]


def test_names_of_tied_and_untied_models_with_biases() -> None:
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 1, "intermediate_size": 24}
    for tied in (True, False):
        model = Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=tied))
        assert len(ternary_names(model)) == 7 and all(name.endswith("_proj.weight") for name in ternary_names(model))
        assert embedding_names(model) == ("model.embed_tokens.weight", *(() if tied else ("lm_head.weight",)))
        names = set(ternary_names(model))
        quantised = Quantised(model, Quantisation(embedding_bits=None, group=8))
        assert set(quantised.lattices()) == names and quantised.embeddings == ()


def test_layers_that_are_not_linear_are_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(CheckpointError, match="GPT2LMHeadModel: .* not linear layers"):
        ternary_names(model)
