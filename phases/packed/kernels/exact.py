"""The reference: dequantise, then `F.linear`. Any device, any shape; the dense matrix lives for one call.

The integer sums come out exact in float32 as long as they stay below 2²⁴; only scales and their sum round.
"""

from typing import ClassVar

import torch
from torch.nn import functional

from phases.bitnet.lattice import Lattice
from phases.packed.kernels.activations import Activations, rounded
from phases.packed.kernels.layout import Prepared, pack, unpack


class ExactKernel:
    """y = x · dequantised Wᵀ + bias: in the type of `x` as it comes, in float32 where x is rounded."""

    name: ClassVar[str] = "exact"

    def __init__(self, activations: Activations) -> None:
        """`activations`: whether x is rounded to 255 levels first."""
        self.activations = activations

    def prepare(self, lattice: Lattice) -> Prepared:
        """2 bits a weight."""
        return pack(lattice)

    def linear(self, x: torch.Tensor, prepared: Prepared, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(…, I) → (…, O) in the type of `x`."""
        if self.activations == "exact":
            return functional.linear(x, unpack(prepared, x.dtype), None if bias is None else bias.to(x.dtype))
        codes, step = rounded(x)
        y = functional.linear(codes, unpack(prepared)) * step
        return (y if bias is None else y + bias.float()).to(x.dtype)
