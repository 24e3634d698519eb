"""The Lyapunov exponent of a model's layers: closed forms, finite differences, and whole Jacobians by reverse mode."""

import math
from collections.abc import Callable
from statistics import mean, stdev
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaForCausalLM

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.errors import TrainingError
from phases.forge.chaos import lyapunov_exponent

TOKENS = torch.randint(257, (2, 6), generator=torch.Generator().manual_seed(0))
Path = Callable[[torch.Tensor], list[torch.Tensor]]


class Body(nn.Module):
    """Linear maps as decoder layers."""

    def __init__(self, matrices: tuple[torch.Tensor, ...]) -> None:
        super().__init__()
        self.embed = nn.Embedding(257, matrices[0].shape[1])
        self.layers = nn.ModuleList(nn.Linear(m.shape[1], m.shape[0], bias=False) for m in matrices)
        for layer, matrix in zip(self.layers, matrices, strict=True):
            layer.weight.data = matrix

    def forward(self, input_ids: Any = None, inputs_embeds: Any = None, use_cache: bool = False) -> None:
        x = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        for layer in self.layers:
            x = plain(layer(x))


def plain(output: Any) -> Any:
    """The states of a layer, which some families return in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def maps(*matrices: torch.Tensor) -> Any:
    """A model whose Jacobians are known."""
    torch.manual_seed(2)
    model: Any = nn.Module()
    model.base_model = Body(matrices)
    model.config = SimpleNamespace(num_hidden_layers=len(matrices), hidden_size=matrices[0].shape[1])
    return model


def random_maps(count: int, width: int) -> list[torch.Tensor]:
    return list(torch.randn(count, width, width, generator=seeded(4)))


def embed(model: Any, tokens_BT: torch.Tensor = TOKENS) -> Any:
    return next(m for m in model.modules() if isinstance(m, nn.Embedding))(tokens_BT).detach()


def path(model: Any, embedded_BTD: torch.Tensor) -> Path:
    """v ↦ [u_0, …, u_L], each of rms 1, where u_0 is moved by v over its sphere: the map that λ is the exponent of."""
    rms = embedded_BTD.square().mean(-1, keepdim=True).sqrt()
    stack = next(m for m in model.base_model.children() if isinstance(m, nn.ModuleList))

    def follow(moved_BTD: torch.Tensor) -> list[torch.Tensor]:
        moved = embedded_BTD / rms + moved_BTD.to(rms)
        states = [rms * moved / moved.square().mean(-1, keepdim=True).sqrt()]
        keep = [m.register_forward_hook(lambda m, a, y: states.append(plain(y))) for m in stack]
        with sdpa_kernel(SDPBackend.MATH):
            model.base_model(inputs_embeds=states[0], use_cache=False)
        for hook in keep:
            hook.remove()
        return [h.double() / h.double().square().mean(-1, keepdim=True).sqrt() for h in states]

    return follow


def jacobians(model: Any, tokens_BT: torch.Tensor = TOKENS) -> list[torch.Tensor]:
    """(T·D, T·D) of every row: all of u_0 → u_L, in reverse mode."""
    paths = [path(model, row) for row in embed(model, tokens_BT).split(1)]
    zero = torch.zeros(1, tokens_BT.shape[1], model.config.hidden_size, dtype=torch.float64)
    return [jacobian(lambda v, f=follow: f(v)[-1].flatten(), zero).flatten(1) for follow in paths]


def direction(model: Any, generator: torch.Generator, tokens_BT: torch.Tensor = TOKENS) -> torch.Tensor:
    """The next Gaussian tangent, without the part along the embedding of each position."""
    along = nn.functional.normalize(embed(model, tokens_BT).double(), dim=-1)
    tangent = torch.randn(along.shape, generator=generator, dtype=torch.float64)
    return tangent - along * (along * tangent).sum(-1, keepdim=True)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_neox() -> Any:
    torch.manual_seed(5)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=257, bos_token_id=0, eos_token_id=0, **sizes)).eval()


@pytest.mark.parametrize("packed", [False, True])
def test_with_power_it_is_the_largest_singular_value(packed: bool) -> None:
    model, tokens = maps(*random_maps(3, 6)), TOKENS[:, :2]
    for layer in model.base_model.layers if packed else ():
        layer.register_forward_hook(lambda module, args, output: (output, None))
    found = lyapunov_exponent(model, tokens, directions=2, power=40, seed=0)
    largest = torch.stack([torch.linalg.matrix_norm(j, 2).log() for j in jacobians(model, tokens)])
    assert found.value == pytest.approx(float(largest.mean()) / 3, abs=1e-5)
    assert sum(found.growth_L) == pytest.approx(3 * found.value)
    less = [lyapunov_exponent(model, tokens, directions=2, power=p, seed=0).value for p in (0, 1, 2)]
    assert less == sorted(less) and less[-1] < found.value


def test_the_mean_is_over_rows_and_directions() -> None:
    model, generator, growths = maps(*random_maps(2, 6)), seeded(8), []
    for _ in range(3):
        first = direction(model, generator).flatten(1)
        growths += [float(((j @ v).norm() / v.norm()).log()) / 2 for j, v in zip(jacobians(model), first, strict=True)]
    found = lyapunov_exponent(model, TOKENS, directions=3, seed=8)
    assert found.value == pytest.approx(mean(growths), abs=1e-6)
    assert found.stderr == pytest.approx(stdev(growths) / math.sqrt(6), abs=1e-6)
    assert lyapunov_exponent(model, TOKENS[:1], directions=1, seed=8).stderr is None


def test_a_random_direction_grows_as_the_root_mean_square_over_the_sphere() -> None:
    model, tokens = maps(*random_maps(1, 12)), torch.zeros(4, 256, dtype=torch.long)
    (jacobian_DD,) = jacobians(model, tokens[:1, :1])
    found = lyapunov_exponent(model, tokens, directions=4, seed=1)
    assert found.value == pytest.approx(float((jacobian_DD.norm() / math.sqrt(11)).log()), abs=0.01)


@pytest.mark.parametrize("power", [0, 2])
def test_in_the_plane_an_angle_has_a_closed_form(power: int) -> None:
    """The angle of M x turns by |det M| · ‖x‖² / ‖M x‖² of what the angle of x turns by, whatever the tangent."""
    model, tokens = maps(*random_maps(2, 2)), torch.arange(9).unsqueeze(1)
    x, growths = embed(model, tokens)[:, 0], []
    for layer in model.base_model.layers:
        y = layer(x)
        growths.append((layer.weight.det().abs() * x.square().sum(1) / y.square().sum(1)).log().mean().item())
        x = y
    assert lyapunov_exponent(model, tokens, directions=2, power=power, seed=1).growth_L == pytest.approx(
        growths, abs=1e-5
    )


@pytest.mark.parametrize(("place", "value"), [((1.0, 0.0), -math.log(4)), ((0.0, 1.0), math.log(4))])
@pytest.mark.parametrize("power", [0, 1])
def test_to_and_from_a_fixed_direction(place: tuple[float, float], value: float, power: int) -> None:
    """The axes are fixed, of one the differences shrink. Zeros before it (padding) neither move nor count."""
    model = maps(*[torch.diag(torch.tensor([2.0, 0.5]))] * 3)
    model.base_model.embed.weight.data[:2] = torch.tensor([(0.0, 0.0), place])
    found = lyapunov_exponent(model, torch.tensor([[0, 1]]), directions=2, power=power, seed=0)
    assert found.growth_L == pytest.approx([value] * 3, abs=1e-6)


@pytest.mark.parametrize("power", [0, 2])
def test_scales_and_rotations_are_at_the_edge(power: int) -> None:
    rotation = torch.linalg.qr(random_maps(1, 6)[0])[0]
    model = maps(3 * torch.eye(6), rotation, -0.5 * torch.eye(6), 7 * rotation)
    found = lyapunov_exponent(model, TOKENS, directions=2, power=power, seed=0)
    assert found.growth_L == pytest.approx([0] * 4, abs=1e-6) and found.stderr == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("power", [0, 2])
def test_layers_that_add_nothing_are_at_the_edge(tiny_model: LlamaForCausalLM, power: int) -> None:
    for layer in tiny_model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    found = lyapunov_exponent(tiny_model, TOKENS, directions=1, power=power, seed=0)
    assert found.value == 0 and found.growth_L == (0, 0, 0)


def test_a_positions_scale_is_nothing_to_layers_of_degree_one() -> None:
    model = maps(*random_maps(2, 6))
    before = lyapunov_exponent(model, TOKENS, directions=2, seed=0)
    model.base_model.embed.weight.data *= torch.logspace(-2, 2, 257).unsqueeze(1)
    assert lyapunov_exponent(model, TOKENS, directions=2, seed=0).growth_L == pytest.approx(before.growth_L, abs=1e-5)


def test_the_streams_scale_is_nothing_to_a_pre_norm_decoder(make_model: Callable[..., Any]) -> None:
    """Embeddings × 4, a first layer that adds × 4 and hands on / 64, a second that adds / 16: the same u everywhere."""
    model = make_model("llama", rms_norm_eps=0.0)
    before = lyapunov_exponent(model, TOKENS, directions=2, power=1, seed=0)
    model.model.embed_tokens.weight.data *= 4
    for layer, factor in zip(model.model.layers, (4, 1 / 16), strict=True):
        layer.self_attn.o_proj.weight.data *= factor
        layer.mlp.down_proj.weight.data *= factor
    model.model.layers[0].register_forward_hook(lambda module, args, output: output / 64)
    after = lyapunov_exponent(model, TOKENS, directions=2, power=1, seed=0)
    assert after.growth_L == pytest.approx(before.growth_L, abs=1e-5) and after.value != 0


@pytest.mark.parametrize("family", ["llama", "qwen3", "neox"])
def test_growths_are_finite_differences(make_model: Callable[..., Any], family: str) -> None:
    model = (make_neox() if family == "neox" else make_model(family)).double()
    tangent, follow = direction(model, seeded(7)), path(model, embed(model))
    with torch.no_grad():
        ahead, back = (follow(step * tangent) for step in (1e-4, -1e-4))
    norms = [(a - b).norm(dim=(1, 2)) for a, b in zip(ahead, back, strict=True)]
    growth_LB = torch.stack(norms).log().diff(dim=0)
    found = lyapunov_exponent(model, TOKENS, directions=1, seed=7)
    assert found.growth_L == pytest.approx(growth_LB.mean(1).tolist(), abs=5e-5)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_through_the_lattice_it_is_what_training_differentiates(tiny_model: LlamaForCausalLM, strength: float) -> None:
    """The Jacobian of the straight-through surrogate; at strength 0 that of the model itself."""
    Quantised(tiny_model, Quantisation(group=16)).set_strength(strength)
    tokens = TOKENS[:, :3]
    rows = jacobians(tiny_model, tokens)
    first = direction(tiny_model, seeded(2), tokens).flatten(1)
    growths = [((j @ v).norm() / v.norm()).log() for j, v in zip(rows, first, strict=True)]
    found = lyapunov_exponent(tiny_model.train(), tokens, directions=1, seed=2)
    assert 3 * found.value == pytest.approx(float(sum(growths)) / 2, abs=1e-5)
    largest = [float(torch.linalg.matrix_norm(j, 2).log()) for j in rows]
    found = lyapunov_exponent(tiny_model, tokens, directions=1, power=40, seed=2)
    assert 3 * found.value == pytest.approx(sum(largest) / 2, abs=1e-3)


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


@pytest.mark.parametrize(("value", "growth"), [(math.nan, "nan"), (0.0, "-inf"), (1e30, "nan")])
def test_what_is_not_finite_is_an_error(value: float, growth: str) -> None:
    model = maps(torch.eye(4), value * torch.eye(4), value * torch.eye(4)).train()
    with pytest.raises(TrainingError, match=rf"layer [12] .* exp\({growth}\)"):
        lyapunov_exponent(model, TOKENS, directions=1, seed=0)
    assert model.training and not model.base_model.layers[0]._forward_hooks
