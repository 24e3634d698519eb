"""The Lyapunov exponent of a model's layers: closed forms, finite differences, and whole Jacobians by reverse mode."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaForCausalLM

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised, quantise_activations, straight_through
from phases.errors import TrainingError
from phases.forge.chaos import lyapunov_exponent

TOKENS = torch.randint(257, (2, 6), generator=torch.Generator().manual_seed(0))


class Body(nn.Module):
    """Linear maps as decoder layers; `packed`: in tuples, as some families return their states."""

    def __init__(self, matrices: tuple[torch.Tensor, ...], packed: bool) -> None:
        super().__init__()
        self.embed, self.packed = nn.Embedding(257, matrices[0].shape[1]), packed
        self.layers = nn.ModuleList(nn.Linear(*m.shape, bias=False) for m in matrices)
        for layer, matrix in zip(self.layers, matrices, strict=True):
            layer.weight.data = matrix
            if packed:
                layer.register_forward_hook(lambda module, args, output: (output, None))

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> torch.Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)[0] if self.packed else layer(x)
        return x


def maps(*matrices: torch.Tensor, packed: bool = False) -> Any:
    """A model whose Jacobians are known."""
    model = nn.Module()
    model.base_model = Body(matrices, packed)
    model.config = SimpleNamespace(num_hidden_layers=len(matrices), hidden_size=matrices[0].shape[1])
    return model


def random_maps(count: int, width: int) -> list[torch.Tensor]:
    return list(torch.randn(count, width, width, generator=torch.Generator().manual_seed(4)))


def direction(model: Any, seed: int, tokens_BT: torch.Tensor = TOKENS) -> torch.Tensor:
    """The tangent that a seed gives."""
    size = (*tokens_BT.shape, model.config.hidden_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def run(model: Any, embedded_BTD: torch.Tensor) -> list[torch.Tensor]:
    """The states after every layer, from what stands in place of the embeddings."""
    states: list[torch.Tensor] = []
    stack = model.model.layers if hasattr(model, "model") else model.gpt_neox.layers
    hooks = [layer.register_forward_hook(lambda m, a, out: states.append(out)) for layer in stack]
    with sdpa_kernel(SDPBackend.MATH):
        model(inputs_embeds=embedded_BTD, use_cache=False)
    for hook in hooks:
        hook.remove()
    return states


def make_neox() -> Any:
    torch.manual_seed(5)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=257, bos_token_id=0, eos_token_id=0, **sizes)).eval()


@pytest.mark.parametrize("packed", [False, True])
def test_with_power_it_is_the_largest_singular_value_of_the_product(packed: bool) -> None:
    first, second, third = random_maps(3, 6)
    model = maps(first, second, third, packed=packed)
    found = lyapunov_exponent(model, TOKENS, directions=2, power=40, seed=0)
    largest = torch.linalg.svdvals(third @ second @ first)[0]
    assert found.value == pytest.approx(math.log(largest) / 3, abs=1e-5)
    assert sum(found.growth_L) == pytest.approx(3 * found.value)
    less = [lyapunov_exponent(model, TOKENS, directions=2, power=p, seed=0).value for p in (0, 1, 2)]
    assert less == sorted(less) and less[-1] < found.value


def test_a_random_direction_in_the_plane_has_a_closed_form() -> None:
    """∫ ½ ln(a² cos² θ + b² sin² θ) dθ / 2π = ln((a + b) / 2)."""
    rotation = torch.linalg.qr(random_maps(1, 2)[0])[0]
    model = maps(rotation @ torch.diag(torch.tensor([3.0, 0.5])))
    tokens = torch.zeros(1500, 1, dtype=torch.long)
    found = lyapunov_exponent(model, tokens, directions=2, seed=1)
    theta = torch.arange(0, 2 * math.pi, 1e-4, dtype=torch.float64)
    growth = (9 * theta.cos() ** 2 + 0.25 * theta.sin() ** 2).log() / 2
    assert growth.mean() == pytest.approx(math.log(1.75), abs=1e-4)
    assert found.stderr == pytest.approx(float(growth.std()) / math.sqrt(3000), rel=0.05)
    assert abs(found.value - math.log(1.75)) < 3 * found.stderr


def test_a_random_direction_among_many_grows_as_the_root_mean_square() -> None:
    (matrix,) = random_maps(1, 48)
    found = lyapunov_exponent(maps(matrix), torch.zeros(4, 64, dtype=torch.long), directions=4, seed=1)
    assert found.value == pytest.approx(float((matrix.norm() / math.sqrt(48)).log()), abs=0.01)


def test_scaled_states_have_the_scales_exponents() -> None:
    found = lyapunov_exponent(maps(3 * torch.eye(4), -0.5 * torch.eye(4)), TOKENS, directions=2, seed=0)
    assert found.growth_L == pytest.approx((math.log(3), math.log(0.5)))
    assert found.value == pytest.approx(math.log(1.5) / 2) and found.stderr == pytest.approx(0, abs=1e-6)
    assert lyapunov_exponent(maps(torch.eye(4)), TOKENS[:1], directions=1, seed=0).stderr is None


@pytest.mark.parametrize("power", [0, 2])
def test_layers_that_add_nothing_are_at_the_edge(tiny_model: LlamaForCausalLM, power: int) -> None:
    for layer in tiny_model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    found = lyapunov_exponent(tiny_model, TOKENS, directions=1, power=power, seed=0)
    assert found.value == 0 and found.growth_L == (0, 0, 0)


@pytest.mark.parametrize("family", ["llama", "qwen3", "neox"])
def test_growths_are_finite_differences_and_autograds_own(make_model: Callable[..., Any], family: str) -> None:
    model = (make_neox() if family == "neox" else make_model(family)).double()
    tangent = direction(model, 7).double()
    embedded = model.get_input_embeddings()(TOKENS).detach()
    with torch.no_grad():
        ahead, back = (run(model, embedded + step * tangent) for step in (1e-4, -1e-4))
    norms = [tangent.norm(dim=(1, 2)), *((a - b).norm(dim=(1, 2)) / 2e-4 for a, b in zip(ahead, back, strict=True))]
    growth_LB = torch.stack(norms).log().diff(dim=0)
    found = lyapunov_exponent(model, TOKENS, directions=1, seed=7)
    assert found.growth_L == pytest.approx(growth_LB.mean(1).tolist(), abs=5e-5)
    assert found.value == pytest.approx(float(growth_LB.mean()), abs=5e-5)
    assert found.stderr == pytest.approx(float((growth_LB[:, 0] - growth_LB[:, 1]).mean().abs()) / 2, rel=1e-3)
    pushed = torch.autograd.functional.jvp(lambda x: run(model, x)[-1], embedded, tangent)[1]
    total = (pushed.norm(dim=(1, 2)) / tangent.norm(dim=(1, 2))).log().mean()
    assert sum(found.growth_L) == pytest.approx(float(total), abs=1e-6)  # their norms compute in float32


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_through_the_lattice_it_is_what_training_differentiates(tiny_model: LlamaForCausalLM, strength: float) -> None:
    """The Jacobian of the straight-through surrogate, row by row in reverse mode."""
    quantised = Quantised(tiny_model, Quantisation(group=16))
    quantised.set_strength(strength)
    tokens = TOKENS[:, :3]
    embedded = tiny_model.get_input_embeddings()(tokens).detach()
    jacobians = []
    for row in range(2):
        x = embedded[row : row + 1].clone().requires_grad_()
        last = run(tiny_model, x)[-1].flatten()
        jacobians.append(torch.stack([torch.autograd.grad(y, x, retain_graph=True)[0].flatten() for y in last]))
    tangent = direction(tiny_model, 2, tokens).flatten(1)
    growths = [((j @ v).norm() / v.norm()).log() for j, v in zip(jacobians, tangent, strict=True)]
    found = lyapunov_exponent(tiny_model.train(), tokens, directions=1, seed=2)
    assert 3 * found.value == pytest.approx(float(sum(growths)) / 2, abs=1e-5)
    largest = [float(torch.linalg.svdvals(j)[0].log()) for j in jacobians]
    found = lyapunov_exponent(tiny_model, tokens, directions=1, power=40, seed=2)
    assert 3 * found.value == pytest.approx(sum(largest) / 2, abs=1e-3)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_estimators_forward_mode_is_the_adjoint_of_its_backward(strength: float) -> None:
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


def test_nothing_is_touched_and_the_seed_decides(make_model: Callable[..., Any]) -> None:
    model = make_model("llama", attention_dropout=0.5)
    calm = lyapunov_exponent(model, TOKENS, directions=2, power=1, seed=3)
    model.train().model.layers[0].eval()
    modes, before = [m.training for m in model.modules()], [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    assert lyapunov_exponent(model, TOKENS, directions=2, power=1, seed=3) == calm
    assert lyapunov_exponent(model, TOKENS, directions=2, power=1, seed=4) != calm
    assert torch.equal(torch.get_rng_state(), state) and [m.training for m in model.modules()] == modes
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(model.parameters(), before, strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(("value", "growth"), [(math.nan, "nan"), (0.0, "-inf"), (1e30, "inf")])
def test_what_is_not_finite_is_an_error(value: float, growth: str) -> None:
    model = maps(torch.eye(4), value * torch.eye(4), value * torch.eye(4)).train()
    with pytest.raises(TrainingError, match=rf"layer [12] .* exp\({growth}\)"):
        lyapunov_exponent(model, TOKENS, directions=1, seed=0)
    assert model.training and not model.base_model.layers[0]._forward_hooks
