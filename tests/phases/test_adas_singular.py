"""Singular-value fine-tuning against numpy's decomposition, finite differences, and the closed form of its gradient."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize

from phases.adas.singular import Scaling, Singular, decompose, latent_of, scaled
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.lattice import nearest_ternary, ternary
from phases.bitnet.tensors import ternary_names

SHAPES = [(7, 12), (12, 7), (9, 9)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def modules_of(model: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: model.get_submodule(name.removesuffix(".weight")) for name in names}


def parts(model: Any) -> tuple[dict[str, Any], dict[str, Singular]]:
    modules = modules_of(model, ternary_names(model))
    return modules, {name: decompose(latent_of(module)) for name, module in modules.items()}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_vectors_are_orthonormal_and_the_values_numpys(shape: tuple[int, int]) -> None:
    weight = random(*shape)
    found = decompose(weight)
    one = torch.eye(min(shape), dtype=torch.float64)
    torch.testing.assert_close(found.u_OR.T @ found.u_OR, one, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.vt_RI @ found.vt_RI.T, one, rtol=0, atol=1e-12)
    values = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(found.sigma_R.numpy(), values, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_offset_is_the_closed_form(shape: tuple[int, int]) -> None:
    weight, z = random(*shape), 1 + 0.3 * random(min(shape), seed=1)
    u, sigma, vt = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    expected = u @ np.diag(sigma * z.double().numpy()) @ vt - weight.double().numpy()
    np.testing.assert_allclose(decompose(weight).offset(z).numpy(), expected, atol=1e-12)
    scaling = Scaling(decompose(weight))
    scaling.z_R.data.copy_(z)
    np.testing.assert_allclose(scaling(weight).detach().numpy(), expected + weight.numpy(), atol=2e-6)


def test_ones_add_nothing_at_all(tiny_model: Any) -> None:
    tokens = torch.randint(257, (2, 9))
    before = tiny_model(tokens).logits
    modules, singular = parts(tiny_model)
    with scaled(modules, singular):
        assert torch.equal(tiny_model(tokens).logits, before)
    assert all((one.offset(torch.ones(len(one.sigma_R))) == 0).all() for one in singular.values())


def test_ones_add_nothing_on_the_lattice_either(tiny_model: Any) -> None:
    quantised = Quantised(tiny_model, Quantisation(group=16))
    tokens = torch.randint(257, (2, 9))
    before = tiny_model(tokens).logits
    modules = modules_of(tiny_model, quantised.ternary)
    with scaled(modules, {name: decompose(latent_of(module)) for name, module in modules.items()}):
        assert torch.equal(tiny_model(tokens).logits, before)


def test_what_z_does_is_on_the_lattice(tiny_model: Any) -> None:
    quantised = Quantised(tiny_model, Quantisation(group=16))
    modules = modules_of(tiny_model, quantised.ternary)
    with scaled(modules, {name: decompose(latent_of(module)) for name, module in modules.items()}) as scalings:
        for name, module in modules.items():
            plain = module.weight.detach().clone()
            scalings[name].z_R.data.add_(0.2 * random(len(scalings[name].z_R)))
            moved = latent_of(module) + decompose(latent_of(module)).offset(scalings[name].z_R)
            assert nearest_ternary(module.weight, 16)[1] == 0 and not torch.equal(module.weight, plain)
            same = module.weight == ternary(moved.float(), 16).dequantise()
            assert same.float().mean() > 0.999  # float32 and float64 may differ on a threshold


@pytest.mark.parametrize("quantisation", [None, Quantisation(group=16)])
def test_it_is_taken_off_again_whatever_happens(tiny_model: Any, quantisation: Quantisation | None) -> None:
    if quantisation is not None:
        Quantised(tiny_model, quantisation)
    before = {name: (id(p), p.detach().clone()) for name, p in tiny_model.named_parameters()}
    names = [n for n, m in tiny_model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    modules = {name: tiny_model.get_submodule(name) for name in names}
    with (
        pytest.raises(KeyboardInterrupt),
        scaled(modules, {n: decompose(latent_of(m)) for n, m in modules.items()}) as scalings,
    ):
        assert {n for n, _ in tiny_model.named_parameters() if n.endswith("z_R")} and len(scalings) == 21
        raise KeyboardInterrupt
    after = dict(tiny_model.named_parameters())
    assert after.keys() == before.keys()
    assert all(id(after[name]) == ident and torch.equal(after[name], value) for name, (ident, value) in before.items())
    assert parametrize.is_parametrized(modules[names[0]], "weight") == (quantisation is not None)


def loss_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(tokens[:, :-1]).logits
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def double(model: Any) -> Any:
    """In float64 throughout: transformers' own norm computes in float32 whatever it is given."""
    for name, module in list(model.named_modules()):
        if name.endswith("norm"):
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], torch.nn.RMSNorm(module.weight.shape, module.variance_epsilon))
    return model.double()


def test_the_gradient_is_that_of_finite_differences(tiny_model: Any) -> None:
    model, tokens, step = double(tiny_model), torch.randint(257, (2, 9)), 1e-5
    modules, singular = parts(model)
    with scaled(modules, singular) as scalings:
        for scaling in scalings.values():
            scaling.z_R.data.add_(0.1 * random(len(scaling.z_R)).double())
        gradients = torch.autograd.grad(loss_of(model, tokens), [scaling.z_R for scaling in scalings.values()])
        for scaling, gradient in list(zip(scalings.values(), gradients, strict=True))[::5]:
            for r in (0, len(gradient) - 1):
                losses = []
                for side in (step, -2 * step):
                    scaling.z_R.data[r] += side
                    losses.append(float(loss_of(model, tokens).detach()))
                scaling.z_R.data[r] += step
                assert float(gradient[r]) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5, abs=1e-10)


def test_through_the_lattice_it_is_the_latent_weights_gradient_projected(tiny_model: Any) -> None:
    """∂L/∂z_r = σ_r · u_rᵀ (∂L/∂W_latent) v_r at z = 1."""
    quantised = Quantised(tiny_model, Quantisation(group=16))
    tokens, modules = torch.randint(257, (2, 9)), modules_of(tiny_model, quantised.ternary)
    latent = {name: latent_of(module) for name, module in modules.items()}
    by_latent = torch.autograd.grad(loss_of(tiny_model, tokens), list(latent.values()))
    with scaled(modules, {name: decompose(weight) for name, weight in latent.items()}) as scalings:
        by_z = torch.autograd.grad(loss_of(tiny_model, tokens), [scalings[name].z_R for name in latent])
    for (name, weight), whole, found in zip(latent.items(), by_latent, by_z, strict=True):
        u, sigma, vt = np.linalg.svd(weight.detach().double().numpy(), full_matrices=False)
        expected = sigma * np.einsum("or,oi,ri->r", u, whole.double().numpy(), vt)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6, err_msg=name)


def test_half_precision_is_for_activations_only(tiny_model: Any) -> None:
    modules, singular = parts(tiny_model)
    with scaled(modules, singular) as scalings:
        for name, module in modules.items():
            scalings[name].z_R.data.add_(0.1 * random(len(scalings[name].z_R)))
            with torch.autocast("cpu", torch.bfloat16):
                inside = module.weight
            assert torch.equal(inside, module.weight)


def test_what_has_no_singular_values_is_refused() -> None:
    with pytest.raises(ValueError, match="give a matrix"):
        decompose(torch.ones(4))
    with pytest.raises(ValueError, match="not finite"):
        decompose(torch.tensor([[1.0, torch.nan]]))
