"""A matrix of 8-bit codes as it is stored, times activations in float32, in C++ (`rows.cpp`): the head's kernel.

No copy and no other layout: an embedding and its tied head share the codes. For AVX-512 and AVX2.
"""

import ctypes

import torch

from phases.errors import MissingDependency
from phases.packed.kernels import build
from phases.packed.kernels.native import INSTRUCTIONS, floats

WEIGHTS_A_THREAD = 2**24
"""About 1 ms, which a second thread costs on a busy machine (a quiet one was not measured): there 32,000 × 1024
took 1.7 ms with one and 2.8 with two, and whole models wrote 75 tokens a second against 65."""


class RowsKernel:
    """y = Σ over groups of scale · (codes · x): float32, fused, rounded nowhere else."""

    def __init__(self, instructions: str | None = None) -> None:
        """Builds the library if need be. `instructions`: fewer than the processor has, for tests.

        Raises `MissingDependency` when it cannot be built, or runs nowhere on this processor.
        """
        library = build.load()
        best = library.ternary_instructions()
        self._level = best if instructions is None else INSTRUCTIONS.index(instructions)
        assert self._level <= best, f"this processor has no {instructions}"
        if not self._level:
            raise MissingDependency("the kernel of 8-bit heads needs AVX2; run on a newer x86-64 processor")
        self._call = library.rows_linear
        self._call.argtypes = [*[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 6, ctypes.c_int, ctypes.c_int]
        self._call.restype = None

    def linear(
        self, x_ND: torch.Tensor, codes_OI: torch.Tensor, scale_OG: torch.Tensor, group: int | None
    ) -> torch.Tensor:
        """(N, O) float32 from (N, I) of any float type, int8 codes, and float16 scales: (1, 1) for a group of None."""
        assert not (x_ND.requires_grad and torch.is_grad_enabled()), "packed weights are for torch.inference_mode()"
        (tokens, width), (rows, columns) = x_ND.shape, codes_OI.shape
        groups = 1 if group is None else -(-columns // group)
        assert width == columns, f"{width} activations for {columns} columns"
        assert scale_OG.shape == ((1, 1) if group is None else (rows, groups)), "scales of another matrix"
        # The C++ reads addresses: what lies there has to be this.
        for tensor, dtype in ((codes_OI, torch.int8), (scale_OG, torch.float16)):
            assert tensor.dtype == dtype and tensor.is_contiguous() and tensor.device == x_ND.device
        assert x_ND.device == torch.device("cpu"), "this kernel reads the memory of the processor"
        x, y = floats(x_ND), torch.empty(tokens, rows)
        work = tokens * rows * columns
        self._call(
            x.data_ptr(), codes_OI.data_ptr(), scale_OG.data_ptr(), y.data_ptr(),
            tokens, rows, columns, group or columns, groups, 0 if group is None else groups,
            max(1, min(torch.get_num_threads(), work // WEIGHTS_A_THREAD)), self._level,
        )  # fmt: skip
        return y
