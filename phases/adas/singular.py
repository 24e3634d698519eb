"""Singular-value fine-tuning: one number a singular value (Transformer², arXiv 2501.06252).

    W = U diag(σ) Vᵀ          W(z) = U diag(σ ⊙ z) Vᵀ = W + U diag(σ ⊙ (z − 1)) Vᵀ

    with scaled({"layer.weight": layer}, {"layer.weight": decompose(layer.weight)}) as scalings:
        …                                                          # train scalings["layer.weight"].z_R

Only z is trained, and z = 1 is the model itself, to the bit: the right-hand form adds nothing then, while U diag(σ) Vᵀ
would differ by rounding, which on a ternary lattice flips codes. z acts on the latent weight, before it is quantised,
so that whatever an expert does is on the lattice.

Shapes: O rows, I columns, R = min(O, I) singular values.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize


@dataclass(frozen=True)
class Singular:
    """A matrix in its singular vectors."""

    u_OR: torch.Tensor
    sigma_R: torch.Tensor
    vt_RI: torch.Tensor

    def offset(self, z_R: torch.Tensor) -> torch.Tensor:
        """(O, I) W(z) − W, in the type of the singular vectors."""
        return (self.u_OR * (self.sigma_R * (z_R.to(self.sigma_R.dtype) - 1))) @ self.vt_RI


@torch.no_grad()
def decompose(weight_OI: torch.Tensor) -> Singular:
    """The thin singular value decomposition, in float64.

    In float64 for what is computed from it as well: what two machines or numbers of threads disagree about is then far
    below the float32 that a weight is rounded to. Raises `ValueError` for a tensor that is no matrix, or not finite.
    """
    if weight_OI.ndim != 2:
        raise ValueError(f"a tensor of shape {tuple(weight_OI.shape)} has no singular values; give a matrix")
    if not weight_OI.isfinite().all():
        raise ValueError("a weight that is not finite has no singular values; restore the checkpoint")
    return Singular(*torch.linalg.svd(weight_OI.double(), full_matrices=False))


class Scaling(nn.Module):
    """A parametrisation of a weight: latent in, scaled latent out. Its parameter `z_R` starts at 1."""

    u_OR: torch.Tensor
    sigma_R: torch.Tensor
    vt_RI: torch.Tensor

    def __init__(self, singular: Singular, dtype: torch.dtype = torch.float32) -> None:
        """`dtype`: what is computed in; for training float32 is near enough."""
        super().__init__()
        self.z_R = nn.Parameter(torch.ones_like(singular.sigma_R, dtype=dtype))
        # Not saved: they follow from the weight.
        self.register_buffer("u_OR", singular.u_OR.to(dtype), persistent=False)
        self.register_buffer("sigma_R", singular.sigma_R.to(dtype), persistent=False)
        self.register_buffer("vt_RI", singular.vt_RI.to(dtype), persistent=False)

    def forward(self, latent_OI: torch.Tensor) -> torch.Tensor:
        """(O, I) W(z)."""
        # bfloat16 is for activations: here it would move every weight by more than an expert does.
        with torch.autocast(latent_OI.device.type, enabled=False):
            offset_OI = Singular(self.u_OR, self.sigma_R, self.vt_RI).offset(self.z_R)
        return latent_OI + offset_OI.to(latent_OI.dtype)


@contextlib.contextmanager
def scaled(modules: Mapping[str, nn.Module], singular: Mapping[str, Singular]) -> Iterator[dict[str, Scaling]]:
    """Put a `Scaling` on the `weight` of every module, before what parametrises it already; afterwards take it off.

    The weights underneath do not train meanwhile unless they are told to, and are untouched in the end.
    """
    scalings = {
        name: Scaling(singular[name], torch.promote_types(latent_of(module).dtype, torch.float32))
        for name, module in modules.items()
    }
    for name, module in modules.items():
        if parametrize.is_parametrized(module, "weight"):
            _before(module).insert(0, scalings[name])
        else:
            # unsafe: shape and type stay as they are; the check would compute everything once more.
            parametrize.register_parametrization(module, "weight", scalings[name], unsafe=True)
    try:
        yield scalings
    finally:
        for module in modules.values():
            if len(_before(module)) > 1:
                del _before(module)[0]
            else:
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


def latent_of(module: nn.Module) -> torch.Tensor:
    """(O, I) the weight of a linear layer that training moves: under its parametrisations, where it has some."""
    weight = _before(module).original if parametrize.is_parametrized(module, "weight") else module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _before(module: nn.Module) -> nn.ModuleList:
    """The parametrisations of a module's weight, the first of which sees the latent weight."""
    assert isinstance(module.parametrizations, nn.ModuleDict)
    found = module.parametrizations["weight"]
    assert isinstance(found, nn.ModuleList)
    return found
