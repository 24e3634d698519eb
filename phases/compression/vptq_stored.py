"""What VPTQ stores of matrices, opened: codes and what scales them, from which training of codebooks goes on.

    found = codec.unpack(shared.matrices["up"])
    found.weight(codebook_RKV).backward()       # differentiable in the codebook

Shapes as in `phases.compression.vptq`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from phases.compression.codec import Encoded
from phases.compression.kmeans import sum_of

LEAST_IMPORTANCE = 1e-6
"""Of the mean one: an input that was never seen still gets weights that are near."""


@dataclass(frozen=True)
class Assigned:
    """An encoded matrix, unpacked for training its codebook: `weight` is differentiable in it."""

    shape: tuple[int, int]
    codes_RN: torch.Tensor
    """int64."""
    scale_S1: torch.Tensor
    """float32; S is O, or 1 for the whole matrix."""
    columns_C: torch.Tensor
    """int64, ascending: the inputs that are stored as they are."""
    outliers_OC: torch.Tensor
    """float32."""

    def weight(self, codebook_RKV: torch.Tensor) -> torch.Tensor:
        """(O, I) in the dtype of the codebook."""
        rows, width = self.shape
        vectors = sum_of(codebook_RKV, self.codes_RN).flatten()
        rest = vectors[: rows * (width - len(self.columns_C))].view(rows, -1) * self.scale_S1
        if not len(self.columns_C):
            return rest
        order = torch.cat((others(self.columns_C, width), self.columns_C)).argsort()
        return torch.cat((rest, self.outliers_OC.to(rest.dtype)), 1)[:, order]


@dataclass(frozen=True)
class Shared:
    """Matrices of one codebook."""

    codebook_RKV: torch.Tensor
    """float16."""
    matrices: Mapping[str, Encoded]

    @property
    def bytes(self) -> int:
        """Of everything that is stored, the codebook once."""
        return 2 * self.codebook_RKV.numel() + sum(matrix.bytes for matrix in self.matrices.values())

    @property
    def bits_a_weight(self) -> float:
        """All side information included."""
        return 8 * self.bytes / sum(math.prod(matrix.shape) for matrix in self.matrices.values())


def others(columns_C: torch.Tensor, width: int) -> torch.Tensor:
    """The inputs that are not outliers, ascending."""
    kept = torch.ones(width, dtype=torch.bool, device=columns_C.device)
    kept[columns_C] = False
    return kept.nonzero().flatten()


def around_one(importance_I: torch.Tensor | None, weight_OI: torch.Tensor) -> torch.Tensor:
    """(I,) float64 importances of mean one, or ones where none are given."""
    if importance_I is None or not importance_I.any():
        return torch.ones(weight_OI.shape[1], dtype=torch.float64, device=weight_OI.device)
    h = importance_I.detach().double().to(weight_OI.device)
    return (h / h.max() / (h / h.max()).mean()).clamp(min=LEAST_IMPORTANCE)


def pairs_of(
    weights: Mapping[str, torch.Tensor], importances: Mapping[str, torch.Tensor] | None
) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    """Every matrix with its importances, if it has any."""
    given = importances or {}
    if not weights or given.keys() - weights.keys():
        raise ValueError(f"{len(weights)} matrices, importances of {sorted(given.keys() - weights.keys())} besides")
    return {name: (weight, given.get(name)) for name, weight in weights.items()}
