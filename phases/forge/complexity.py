"""How complex a model is: the width of its weights, the rank of its matrices and states, its learning coefficient.

Pure measures; none of them says whether a model is good. Self-modelling is said to lower the first and the last
(arXiv 2407.10188).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phases.training.optimizer import is_layer_matrix

Loss = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Width:
    """How wide a distribution of weights is; no units, since both are shares of the mean magnitude."""

    deviation: float
    """Standard deviation over mean |w|: 1.25 for a Gaussian, 1.15 for a uniform, more for heavy tails."""
    interdecile: float
    """Distance of the 10 % and 90 % quantiles over mean |w|: 3.21 for a Gaussian, 3.2 for a uniform."""


def weight_width(tensors: Iterable[torch.Tensor]) -> Width:
    """The width of all elements of tensors of any shape together.

    arXiv 2407.10188 takes the standard deviation of the last layer's weights; relative to the mean magnitude it does
    not shrink by weight decay alone.
    """
    flat = torch.cat([t.detach().flatten().double().cpu() for t in tensors]).numpy()
    magnitude = np.abs(flat).mean()
    low, high = np.quantile(flat, [0.1, 0.9])
    return Width(float(flat.std() / magnitude), float((high - low) / magnitude))


def matrices(model: torch.nn.Module) -> dict[str, list[torch.Tensor]]:
    """The trained matrices of a language model: those in its `layers`, its `embeddings` (the head is one), `all`.

    Of a model that trains through a lattice these are the latent weights.
    """
    named = [(n, p.detach()) for n, p in model.named_parameters() if p.ndim == 2]
    inner = [p for n, p in named if is_layer_matrix(n, p)]
    ends = [p for n, p in named if not is_layer_matrix(n, p)]
    return {"layers": inner, "embeddings": ends, "all": [*inner, *ends]}


def effective_rank(matrix: torch.Tensor) -> float:
    """exp of the entropy of the singular values as shares of their sum (Roy & Vetterli 2007): 1 … min(N, D).

    0 for a matrix (N, D) of zeros.
    """
    values = torch.linalg.svdvals(matrix.detach().double())
    if not values.any():
        return 0.0
    share = values / values.sum()
    return math.exp(-float(torch.special.xlogy(share, share).sum()))


def activation_rank(hidden_ND: torch.Tensor) -> float:
    """The effective rank of N hidden states around their mean; 0 when they have collapsed to one point."""
    hidden = hidden_ND.detach().double()
    return effective_rank(hidden - hidden.mean(0))


def mean_rank(tensors: Sequence[torch.Tensor]) -> float:
    """The mean effective rank of matrices, each as a share of the largest that it could have."""
    return sum(effective_rank(t) / min(t.shape) for t in tensors) / len(tensors)


@dataclass(frozen=True)
class LearningCoefficient:
    """An estimate of the local learning coefficient λ."""

    value: float
    """λ̂; d/2 for d parameters at a regular minimum, less at a degenerate one, below 0 where there is no minimum."""
    standard_error: float
    """Of the mean over the chains; 0 for a single one."""


def local_learning_coefficient(
    losses: Sequence[Loss],
    parameters: Sequence[torch.Tensor],
    n: int,
    *,
    step_size: float,
    localisation: float,
    chains: int = 4,
    burn_in: int = 100,
    draws: int = 100,
    seed: int = 0,
) -> LearningCoefficient:
    """λ̂ = nβ · (E[L(w)] − L(w*)) with β = 1 / ln n (Lau et al. 2023, arXiv 2308.12108).

    w is sampled around the parameters' present values w* from exp(−nβ · L(w) − γ/2 · |w − w*|²) by stochastic gradient
    Langevin dynamics, w ← w − ε/2 · (nβ · ∇L(w) + γ · (w − w*)) + √ε · noise, where γ is `localisation` and ε
    `step_size` (small against 1 / (nβ · the largest curvature)). `losses` give the mean loss (nats) of one batch each,
    with gradients, and are taken in turn; a draw is compared with the same batch at w*. `n` is how many samples the
    mean loss stands for. Leaves the parameters as they were, and gradients alone. Raises `ValueError` if a chain
    diverges.
    """
    scale = n / math.log(n)
    start = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        before = [float(loss()) for loss in losses]
    generator = torch.Generator(parameters[0].device).manual_seed(seed)
    means = []
    try:
        for _ in range(chains):
            _put(parameters, start)
            rises = []
            for step in range(burn_in + draws):
                which = step % len(losses)
                loss = losses[which]()
                if step >= burn_in:
                    rises.append(float(loss.detach()) - before[which])
                gradients = torch.autograd.grad(loss, parameters)
                _langevin(parameters, start, gradients, scale, localisation, step_size, generator)
            means.append(scale * float(np.mean(rises)))
    finally:
        _put(parameters, start)
    if not np.isfinite(means).all():
        raise ValueError(f"the chains diverged; lower step_size={step_size} or raise localisation={localisation}")
    error = float(np.std(means, ddof=1)) / math.sqrt(chains) if chains > 1 else 0.0
    return LearningCoefficient(float(np.mean(means)), error)


@torch.no_grad()
def _put(parameters: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


@torch.no_grad()
def _langevin(
    parameters: Sequence[torch.Tensor],
    start: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    scale: float,
    localisation: float,
    step_size: float,
    generator: torch.Generator,
) -> None:
    """One step of a chain, in place."""
    for parameter, centre, gradient in zip(parameters, start, gradients, strict=True):
        drift = scale * gradient + localisation * (parameter - centre)
        noise = torch.randn(parameter.shape, generator=generator, device=parameter.device, dtype=parameter.dtype)
        parameter.add_(drift, alpha=-step_size / 2).add_(noise, alpha=math.sqrt(step_size))
