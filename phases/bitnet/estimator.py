"""Training through the lattice: quantised in the forward pass, as if it were not in the backward pass.

    forward:  x + λ · (Q(x) − x)        backward: identity        (straight-through estimator, arXiv 1308.3432)

λ is the strength: 0 is the full-precision model, 1 the quantised one; a warm-up of λ eases a pretrained model onto
the lattice. Weights are parametrised by torch's own `parametrize`, so `linear.weight` *is* the quantised weight for
everybody who reads it (attention, fused losses, a tied head), and the latent weight is what the optimizer moves.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from phases.bitnet.config import Quantisation
from phases.bitnet.lattice import Lattice, absmax, ternary
from phases.bitnet.tensors import embedding_names, ternary_names

ACTIVATION_LEVELS = 127
"""8 bits, symmetric."""
EMPTY: Mapping[str, torch.Tensor] = {}
SMALLEST = 1e-5
"""Least magnitude of a token's largest activation, so that zeros divide."""


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: torch.Tensor, quantised: torch.Tensor, strength: float) -> torch.Tensor:
        # At full strength exactly the lattice: latent + (quantised − latent) would be a rounding error beside it.
        return quantised.view_as(quantised) if strength == 1 else torch.lerp(latent, quantised, strength)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grads[0], None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor) -> torch.Tensor:
        return tangents[0]


def straight_through(latent: torch.Tensor, quantised: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """latent + strength · (quantised − latent), whose derivative by `latent` is the identity in either mode."""
    # Detached: else rounding's own tangent would come along in forward mode.
    result: torch.Tensor = _StraightThrough.apply(latent, quantised.detach(), strength)  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def quantise_activations(x: torch.Tensor) -> torch.Tensor:
    """(…, D) on 255 levels between ± the largest magnitude of each token (8-bit absmax), in the type of `x`."""
    largest: torch.Tensor = torch.linalg.vector_norm(x, torch.inf, -1, keepdim=True)
    step = largest.float().clamp(min=SMALLEST) / ACTIVATION_LEVELS
    rounded: torch.Tensor = (x.float() / step).round_().mul_(step)
    return rounded.to(x.dtype)


class Estimator(nn.Module):
    """The parametrisation of one weight: latent in, lattice out."""

    def __init__(self, bits: int | None, group: int | None) -> None:
        """`bits` of a code; None: ternary."""
        super().__init__()
        self.bits, self.group, self.strength = bits, group, 1.0

    @torch.no_grad()
    def lattice(self, latent_OI: torch.Tensor) -> Lattice:
        """The point of the lattice that stands for a latent weight."""
        return ternary(latent_OI, self.group) if self.bits is None else absmax(latent_OI, self.bits, self.group)

    def forward(self, latent_OI: torch.Tensor) -> torch.Tensor:
        """(O, I) what the model computes with."""
        return straight_through(latent_OI, self.lattice(latent_OI).dequantise().to(latent_OI.dtype), self.strength)


class RoundedInputs:
    """Rounds what goes into some layers of a model to 8 bits a token, from here until `remove`."""

    def __init__(self, model: Any, layers: Iterable[nn.Module]) -> None:
        self.strength = 1.0
        self._read: tuple[torch.Tensor, torch.Tensor] | None = None
        self._hooks = [layer.register_forward_pre_hook(self._round) for layer in layers]
        self._hooks.append(model.base_model.register_forward_hook(self._forget))

    def _round(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        x, *rest = args
        # Queries, keys and values read the same tensor, and so do the two halves of a gated layer.
        if self._read is None or self._read[0] is not x:
            self._read = (x, straight_through(x, quantise_activations(x.detach()), self.strength))
        return self._read[1], *rest

    def _forget(self, *_: object) -> None:
        self._read = None

    def remove(self) -> None:
        """Round no more."""
        for hook in self._hooks:
            hook.remove()


class Quantised:
    """A model whose weights train through their lattices, from here until `fold`."""

    def __init__(self, model: Any, quantisation: Quantisation, latent: Mapping[str, torch.Tensor] = EMPTY) -> None:
        """Put estimators on the weights of `model`, which start from `latent` where it has them.

        Raises `CheckpointError` for layers that are not linear.
        """
        self.model, self.quantisation = model, quantisation
        self.ternary = ternary_names(model)
        self.embeddings = embedding_names(model) if quantisation.embedding_bits else ()
        self.strength = 1.0
        self._latent = {n: p for n, p in model.named_parameters() if n in {*self.ternary, *self.embeddings}}
        for name in self._latent.keys() & latent.keys():
            self._latent[name].data.copy_(latent[name])
        self._modules = [m for m in model.modules() if self._name(m)]
        self._estimators = {n: Estimator(None, quantisation.group) for n in self.ternary}
        self._estimators |= {n: Estimator(quantisation.embedding_bits, quantisation.group) for n in self.embeddings}
        ternary_layers = [module for module in self._modules if self._name(module) in self.ternary]
        self._inputs = RoundedInputs(model, ternary_layers if quantisation.activations else [])
        for module in self._modules:
            name = self._name(module)
            # unsafe: shape and type stay as they are; the check would quantise everything once more.
            parametrize.register_parametrization(module, "weight", self._estimators[name], unsafe=True)

    def _name(self, module: nn.Module) -> str:
        weight = module._parameters.get("weight")
        return next((name for name, p in self._latent.items() if p is weight), "")

    def set_strength(self, strength: float) -> None:
        """λ of all weights and activations, 0 … 1."""
        self.strength = self._inputs.strength = strength
        for estimator in self._estimators.values():
            estimator.strength = strength

    def lattices(self) -> dict[str, Lattice]:
        """Codes and scales of every tensor as they are now."""
        return {name: self._estimators[name].lattice(latent) for name, latent in self._latent.items()}

    def latent(self) -> dict[str, torch.Tensor]:
        """Copies of the latent weights by name."""
        return {name: latent.detach().clone() for name, latent in self._latent.items()}

    def fold(self) -> None:
        """Make the model a plain one again, whose weights are the lattice exactly."""
        self.set_strength(1.0)
        self._inputs.remove()
        for module in self._modules:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        self.model.tie_weights()
