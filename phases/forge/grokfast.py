"""Grokfast-EMA: amplify the slow part of the gradient (Lee et al. 2024, arXiv 2405.20233).

    μ ← α · μ + (1 − α) · g        ĝ = g + λ · μ        between the backward pass and clipping

μ starts at a parameter's first gradient, as in the authors' code, which the published results come from. The gain of a
gradient that stays the same is then 1 + λ from the first step on, but the first batch keeps a weight of αᵗ in μ: at
α = 0.98 a third after 50 steps. (Started at zero, μ would be too small by the factor 1 − αᵗ instead.)
"""

from collections.abc import Mapping

import torch

from phases.forge.config import Grokfast


class GradientFilter:
    """The gradients' running means μ, one for each parameter."""

    def __init__(self, module: torch.nn.Module, settings: Grokfast) -> None:
        """Of all parameters of `module`; `settings.enabled` is the caller's to heed."""
        self.parameters, self.settings = dict(module.named_parameters()), settings
        self.means: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def apply(self) -> None:
        """Turn every g into ĝ, in place; once a step. Parameters without a gradient are left out, and so is their μ."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            if name in self.means:
                self.means[name].mul_(self.settings.alpha).add_(parameter.grad, alpha=1 - self.settings.alpha)
            else:
                self.means[name] = parameter.grad.clone()
            parameter.grad.add_(self.means[name], alpha=self.settings.amplify)

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of every μ there is so far, by the name of its parameter."""
        return {name: mean.clone() for name, mean in self.means.items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `state`: the next step's gradients are the same bits. Raises `KeyError` for unknown names."""
        self.means = {name: mean.to(self.parameters[name].device, copy=True) for name, mean in state.items()}
