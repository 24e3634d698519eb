"""How complex a model is: the width of its weights, the rank of its matrices and states.

Pure measures; none of them says whether a model is good. Self-modelling is said to narrow the weights (arXiv
2407.10188). The learning coefficient (arXiv 2308.12108), which it is also said to lower, is defined at a minimum of
the loss; models that trained for minutes are at none, and estimates of it come out below 0 (docs/log.md).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phases.training.optimizer import is_layer_matrix


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
