"""How near a model is to the edge of chaos: the Lyapunov exponent of its layers, seen as a map from one to the next.

    λ = (1/L) · ln(‖J_L ··· J_1 v‖ / ‖v‖)        v a tangent of the residual stream, J_l the Jacobian of layer l

Below 0 a small difference between two states dies away on its way through the depth, above 0 it grows, at 0 it is
handed on (order, chaos and the edge between them). The tangent goes along with one forward pass (forward-mode
automatic differentiation), so that nothing is perturbed by a finite step and the growth of every layer is exact.

Following a tangent is the method of Benettin et al. (Meccanica 15, 1980), without their renormalising: a depth of tens
of layers neither over- nor underflows. In wide random networks a layer's mean squared singular value is the χ of Poole
et al. (arXiv 1606.05340), with the edge at χ = 1: there λ = ½ ln χ. It is another exponent than that of arXiv
2506.08523, which follows weights over training steps and finds the shortest training where that one is positive.
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

from phases.architecture import decoder_layers
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
    """The largest Lyapunov exponent of `model`'s layers, in nats a layer, on rows `tokens_BT` (B, T) on its device.

    Each row gets `directions` Gaussian tangents over its (T, D) states where they enter the first layer; their
    growths are averaged as logarithms. With `power` = 0 that is the growth of a random direction: the logarithm of
    about the root mean square of the singular values of J_L ··· J_1, a lower bound of what the largest gives, at two
    to three forward passes a direction. Each of `power` iterations v ← JᵀJv / ‖JᵀJv‖ (at about twice that cost) turns
    the tangent towards the direction that grows most, and λ towards ln σ_max(J_L ··· J_1) / L from below.

    The model is measured as it computes in eval mode. One that trains through the lattice (`Quantised`) counts with
    the straight-through derivative, which training itself uses; the exact derivative of rounding is 0. Same seed, same
    bits; parameters, gradients, modes and global randomness stay as they are. Raises `TrainingError` for an exponent
    that is not finite.
    """
    generator, shape = torch.Generator().manual_seed(seed), (*tokens_BT.shape, model.config.hidden_size)
    found: list[torch.Tensor] = []
    with _evaluating(model), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward mode
        pull = _transposed(model, tokens_BT) if power else None
        for _ in range(directions):
            tangent_BTD = torch.randn(shape, generator=generator)
            if pull is not None:
                for _ in range(power):
                    tangent_BTD = _unit(pull(_unit(_push(model, tokens_BT, tangent_BTD)[-1])))
            tangents = [tangent_BTD, *_push(model, tokens_BT, tangent_BTD)]
            norm_BL = torch.stack([_norm(t).cpu() for t in tangents], 1)
            found.append(norm_BL.log().diff(dim=1))
    growth_NL = torch.cat(found)
    value_N = growth_NL.mean(1)
    growth_L = growth_NL.mean(0).tolist()
    _check_finite(growth_L)
    stderr = float(value_N.std()) / math.sqrt(len(value_N)) if len(value_N) > 1 else None
    return Exponent(float(value_N.mean()), stderr, tuple(growth_L))


def _push(model: Any, tokens_BT: torch.Tensor, tangent_BTD: torch.Tensor) -> list[torch.Tensor]:
    """[J_1 v, J_2 J_1 v, …], (B, T, D) each: the tangent after every layer."""
    ad: Any = forward_ad  # untyped
    with warnings.catch_warnings(), torch.no_grad(), ad.dual_level():
        # The first dual number makes torch load rules of its own through its own deprecated compiler.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        states = _states(model, tokens_BT, lambda x: ad.make_dual(x, tangent_BTD.to(x)))
        return [ad.unpack_dual(state).tangent for state in states]


def _transposed(model: Any, tokens_BT: torch.Tensor) -> Map:
    """u ↦ (J_L ··· J_1)ᵀ u by reverse mode; one forward pass is kept for all calls."""
    leaves: list[torch.Tensor] = []

    def enter(x: torch.Tensor) -> torch.Tensor:
        leaves.append(x.detach().requires_grad_())
        return leaves[0]

    with torch.enable_grad():
        last = _states(model, tokens_BT, enter)[-1]
    return lambda u: torch.autograd.grad(last, leaves, u.to(last), retain_graph=True)[0]


def _states(model: Any, tokens_BT: torch.Tensor, enter: Map) -> list[torch.Tensor]:
    """The output of every layer, (B, T, D) each, when the first one reads `enter(x)` in place of x."""
    layers, states = decoder_layers(model), []

    def read(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return enter(args[0]), *args[1:]

    def keep(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layers[0].register_forward_pre_hook(read), *(layer.register_forward_hook(keep) for layer in layers)]
    try:
        model.base_model(input_ids=tokens_BT, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return states


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
    """(B,) float64."""
    norm_B: torch.Tensor = torch.linalg.vector_norm(x_BTD, dim=(1, 2), dtype=torch.float64)
    return norm_B


def _unit(x_BTD: torch.Tensor) -> torch.Tensor:
    """Every row of norm 1: rows do not see one another, each has a Jacobian of its own."""
    return x_BTD / _norm(x_BTD).view(-1, 1, 1).to(x_BTD)


def _check_finite(growth_L: list[float]) -> None:
    broken = next((index for index, growth in enumerate(growth_L) if not math.isfinite(growth)), None)
    if broken is not None:
        raise TrainingError(
            f"the Lyapunov exponent is not finite: layer {broken} of the model multiplies a small difference by "
            f"exp({growth_L[broken]}); lower this phase's learning rates or go back to an earlier checkpoint"
        )
