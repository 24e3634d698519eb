"""What a weight codec is: a tensor in, stored tensors out, and back; everything that decoding needs is counted.

    codec = SeedLM(latent=3)
    encoded = codec.encode(weight_OI, importance_I=hessian_I)
    encoded.bits_a_weight, relative_error(weight_OI, codec.decode(encoded))

Codecs are pure: equal weights, settings and seed give equal bytes, and decoding is exact arithmetic in float32.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Encoded:
    """One encoded matrix."""

    codec: str
    shape: tuple[int, ...]
    tensors: Mapping[str, torch.Tensor]
    """What is stored, as it is stored: packed bytes, half-precision scales, codebooks."""

    @property
    def bytes(self) -> int:
        """Of everything that is stored."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    @property
    def bits_a_weight(self) -> float:
        """All side information included."""
        return 8 * self.bytes / math.prod(self.shape)


class Codec(Protocol):
    """Encodes matrices. Settings are the codec's own, and decoding needs the same ones."""

    name: str

    def encode(self, weight_OI: torch.Tensor, importance_I: torch.Tensor | None = None, seed: int = 0) -> Encoded:
        """(O, I) weights as stored tensors.

        `importance_I` ≥ 0 says how much an error in each input counts (the diagonal of the Hessian XᵀX); alike where
        none is given. Raises `ValueError` for what is not a finite matrix.
        """
        ...

    def decode(self, encoded: Encoded) -> torch.Tensor:
        """(O, I) float32. Raises `ValueError` for tensors that do not fit the shape or the settings."""
        ...


def relative_error(weight: torch.Tensor, decoded: torch.Tensor, importance_I: torch.Tensor | None = None) -> float:
    """Σ h (w − ŵ)² / Σ h w², in float64; h = 1 where no importance is given."""
    exact, wrong = weight.double(), (weight - decoded).double()
    h = torch.ones(weight.shape[-1], dtype=torch.float64) if importance_I is None else importance_I.double()
    return float((wrong.square() * h).sum() / (exact.square() * h).sum())


def check_matrix(weight_OI: torch.Tensor, importance_I: torch.Tensor | None) -> None:
    """Raise `ValueError` unless these are a finite matrix and fitting importances."""
    if weight_OI.ndim != 2 or not weight_OI.numel() or not torch.isfinite(weight_OI).all():
        raise ValueError(f"a tensor of shape {tuple(weight_OI.shape)} is not a finite matrix")
    if importance_I is None:
        return
    fits = importance_I.shape == weight_OI.shape[1:]
    if not fits or not torch.isfinite(importance_I).all() or (importance_I < 0).any():
        raise ValueError(
            f"importances {tuple(importance_I.shape)} of {tuple(weight_OI.shape)}: one >= 0 an input is needed"
        )
