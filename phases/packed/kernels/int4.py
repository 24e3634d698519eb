"""What stands in for the C++ kernel where there is no compiler: torch's own 4-bit matmul for processors.

`aten::_weight_int4pack_mm_for_cpu` (tinygemm's port, torch ≥ 2.5) computes in bfloat16: activations on 255 levels and
ternary codes are exact in it, but scales and sums round to 8 bits (measured: relative error of a layer 0.3 %), and
weights take 4 bits instead of 2. It wants groups of 32, 64, 128 or 256 that fill the rows; other layers take the
exact path, which is logged. Still about 3 times as fast as float32 at batch 1 (figures in `__init__.py`).
"""

import logging
from typing import ClassVar

import torch
from torch.nn import functional

from phases.bitnet.lattice import Lattice
from phases.packed.kernels.activations import rounded
from phases.packed.kernels.exact import ExactKernel
from phases.packed.kernels.layout import Prepared

GROUPS = (256, 128, 64, 32)
BLOCK_ROWS = 64
ZERO = 8
"""The 4-bit code that stands for 0."""

log = logging.getLogger("phases.packed")


class Int4Kernel:
    """y = (codes of x) · (codes of W)ᵀ · scales + bias in bfloat16, with the activations on 255 levels."""

    name: ClassVar[str] = "int4"
    activations: ClassVar[str] = "int8"

    def __init__(self) -> None:
        self._exact = ExactKernel("int8")
        self._said: set[tuple[int, int]] = set()

    def prepare(self, lattice: Lattice) -> Prepared:
        """4 bits a weight; 2 where the exact path must do."""
        rows, columns = lattice.codes_OI.shape
        group = lattice.group or columns
        fitting = [size for size in GROUPS if columns % size == 0 and (lattice.group in (None, size))]
        if not fitting:
            if (columns, group) not in self._said:
                self._said.add((columns, group))
                log.warning("int4: no kernel for rows of %d in groups of %d; these run exact, slowly", columns, group)
            return self._exact.prepare(lattice)
        below = -rows % BLOCK_ROWS
        codes = functional.pad(lattice.codes_OI.int(), (0, 0, 0, below)) + ZERO
        scales = functional.pad(lattice.scale_OG.float().expand(rows, columns // fitting[0]), (0, 0, 0, below))
        scales_zeros = torch.stack([scales.t(), torch.zeros_like(scales.t())], -1).bfloat16().contiguous()
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        return Prepared("int4", packed, scales_zeros, rows, columns, fitting[0])

    def linear(self, x: torch.Tensor, prepared: Prepared, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(…, I) → (…, O) in the type of `x`."""
        if prepared.kernel != "int4":
            return self._exact.linear(x, prepared, bias)
        codes, step = rounded(x)
        flat = codes.reshape(-1, prepared.columns).bfloat16()
        y: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            flat, prepared.codes, prepared.group, prepared.scales
        )
        scaled = y[:, : prepared.rows].float().view(*x.shape[:-1], prepared.rows) * step
        return (scaled if bias is None else scaled + bias.float()).to(x.dtype)
