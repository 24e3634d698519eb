"""How near a model is to the edge of chaos: the Lyapunov exponent of its layers, seen as a map from one to the next.

    u_l = h_l / rms(h_l)        λ = (1/L) · ln(‖δu_L‖ / ‖δu_0‖)        h_l the residual stream after l layers

The layers of a pre-norm transformer read u alone, position by position; how large h is goes no further. Without the
division λ would mostly say how small the embeddings are: the first layer's output dwarfs them, and its difference
theirs. As a growth of h that looks like chaos (2 nats in one layer), which no later layer reads and no training steers.

λ says what becomes of a small relative difference. Below 0 it dies away on its way through the depth, above 0 it grows,
at 0 it is handed on: order, chaos and the edge between them. Followed in a random direction λ is that of the typical
difference; the one that grows most is followed by `power`. The tangent goes along with one forward pass (forward-mode
automatic differentiation), so that nothing is perturbed by a finite step and the growth of every layer is exact.

Following a tangent is the method of Benettin et al. (Meccanica 15, 1980), without their renormalising: a depth of tens
of layers neither over- nor underflows. In wide random networks it is λ = ½ ln χ with the χ of Poole et al. (arXiv
1606.05340): the slope of the map between correlations of states, where they are equal, with the edge at χ = 1. It is
another exponent than that of arXiv 2506.08523, which follows weights over training steps and finds the shortest
training where that one is positive.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from phases.architecture import decoder_layers, layer_output
from phases.errors import TrainingError

Map = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Exponent:
    """What `lyapunov_exponent` found; all in nats."""

    value: float
    """Nats a layer: the mean growth over the depth, divided by the layers."""
    stderr: float | None
    """Standard error of `value` over rows × directions; None for a single one."""
    growth_L: tuple[float, ...]
    """Mean ln growth in each layer; they sum to L · `value`."""


def lyapunov_exponent(model: Any, tokens_BT: torch.Tensor, *, directions: int, power: int = 0, seed: int) -> Exponent:
    """The Lyapunov exponent of `model`'s layers, in nats a layer, on rows `tokens_BT` (B, T) on its device.

    Each row gets `directions` Gaussian tangents v over its (T, D) normalised embeddings; their growths are averaged as
    logarithms. δu_0 is v without its part along u_0 at each position, whose length is fixed. With `power` = 0 the value
    is the growth of a random direction: the logarithm of about the root mean square of the singular values of J, the
    Jacobian of u_0 → u_L, a lower bound of what the largest gives, at the time of about four forward passes a
    direction. Each of `power` iterations v ← JᵀJv / ‖JᵀJv‖ (the time of six) turns the tangent towards the direction
    that grows most, and λ towards ln σ_max(J) / L from below.

    The model is measured as it computes in eval mode. One that trains through the lattice (`Quantised`) counts with
    the straight-through derivative, which training itself uses; the exact derivative of rounding is 0. Same seed, same
    bits; parameters, gradients, modes and global randomness stay as they are. Raises `TrainingError` for an exponent
    that is not finite.
    """
    generator, shape = torch.Generator().manual_seed(seed), (*tokens_BT.shape, model.config.hidden_size)
    found: list[torch.Tensor] = []
    with _evaluating(model), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward mode
        pull = _transposed(model, tokens_BT, shape) if power else None
        for _ in range(directions):
            tangent_BTD = torch.randn(shape, generator=generator, dtype=torch.float64).to(tokens_BT.device)
            if pull is not None:
                for _ in range(power):
                    tangent_BTD = _unit(pull(_push(model, tokens_BT, tangent_BTD)[-1]))
            norm_BL = torch.stack([_norm(t).cpu() for t in _push(model, tokens_BT, tangent_BTD)], 1)
            found.append(norm_BL.log().diff(dim=1))
    growth_NL = torch.cat(found)
    value_N = growth_NL.mean(1)
    growth_L = growth_NL.mean(0).tolist()
    _check_finite(growth_L)
    stderr = float(value_N.std()) / math.sqrt(len(value_N)) if len(value_N) > 1 else None
    return Exponent(float(value_N.mean()), stderr, tuple(growth_L))


def _push(model: Any, tokens_BT: torch.Tensor, tangent_BTD: torch.Tensor) -> list[torch.Tensor]:
    """[δu_0, δu_1, …, δu_L], (B, T, D) each, of a tangent of u_0."""
    ad: Any = forward_ad  # untyped
    with warnings.catch_warnings(), torch.no_grad(), ad.dual_level():
        # The first dual number makes torch load rules of its own through its own deprecated compiler.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        read = _read(model, tokens_BT, ad.make_dual(torch.zeros_like(tangent_BTD), tangent_BTD))
        return [ad.unpack_dual(u_BTD).tangent for u_BTD in read]


def _transposed(model: Any, tokens_BT: torch.Tensor, shape: tuple[int, ...]) -> Map:
    """w ↦ Jᵀw, J the Jacobian of u_0 → u_L, by reverse mode; one forward pass is kept for all calls."""
    with torch.enable_grad():
        moved_BTD = torch.zeros(shape, dtype=torch.float64, device=tokens_BT.device, requires_grad=True)
        last_BTD = _read(model, tokens_BT, moved_BTD)[-1]
    return lambda w_BTD: torch.autograd.grad(last_BTD, moved_BTD, w_BTD, retain_graph=True)[0]


def _read(model: Any, tokens_BT: torch.Tensor, moved_BTD: torch.Tensor) -> list[torch.Tensor]:
    """[u_0, u_1, …, u_L], (B, T, D) float64 each, where u_0 is moved by an infinitesimal (B, T, D)."""
    layers, states = decoder_layers(model), []

    def enter(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x_BTD = args[0]
        u_BTD = _normalise(x_BTD)
        # u_0 has one length: what lies along it would change the scale of x, which is no part of u_0.
        along_BT1 = (u_BTD * moved_BTD).mean(-1, keepdim=True)
        entered_BTD = x_BTD + (_rms(x_BTD) * (moved_BTD - along_BT1 * u_BTD)).to(x_BTD.dtype)
        states.append(entered_BTD)
        return entered_BTD, *args[1:]

    def keep(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        states.append(layer_output(output))

    hooks = [layers[0].register_forward_pre_hook(enter), *(layer.register_forward_hook(keep) for layer in layers)]
    try:
        model.base_model(input_ids=tokens_BT, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return [_normalise(state_BTD) for state_BTD in states]


def _rms(x_BTD: torch.Tensor) -> torch.Tensor:
    """(B, T, 1) float64."""
    norm_BT1: torch.Tensor = torch.linalg.vector_norm(x_BTD.double(), dim=-1, keepdim=True)
    return norm_BT1 / math.sqrt(x_BTD.shape[-1])


def _normalise(x_BTD: torch.Tensor) -> torch.Tensor:
    """(B, T, D) float64 of rms 1 at every position; zeros, as padding may be embedded, stay zeros."""
    return x_BTD.double() / _rms(x_BTD).clamp(min=torch.finfo(torch.float64).tiny)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout inside; every module in its own mode again after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _norm(x_BTD: torch.Tensor) -> torch.Tensor:
    """(B,)."""
    norm_B: torch.Tensor = torch.linalg.vector_norm(x_BTD, dim=(1, 2))
    return norm_B


def _unit(x_BTD: torch.Tensor) -> torch.Tensor:
    """Every row of norm 1: rows do not see one another, each has a Jacobian of its own."""
    return x_BTD / _norm(x_BTD).view(-1, 1, 1)


def _check_finite(growth_L: list[float]) -> None:
    broken = next((index for index, growth in enumerate(growth_L) if not math.isfinite(growth)), None)
    if broken is not None:
        raise TrainingError(
            f"the Lyapunov exponent is not finite: layer {broken} of the model multiplies a small difference by "
            f"exp({growth_L[broken]}); lower this phase's learning rates or go back to an earlier checkpoint"
        )
