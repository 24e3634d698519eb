"""The fast kernel of processors: integer dot products on packed codes, in C++ (`ternary.cpp`).

It takes every shape, group and batch by the same path, so a token's result does not depend on how many came with it.
For AVX-512 VNNI (`vpdpbusd`, 256 weights in about 10 instructions) and AVX2; elsewhere a plain loop, which is logged.
"""

import ctypes
from typing import ClassVar

import torch

from phases.bitnet.lattice import Lattice
from phases.packed.kernels import build
from phases.packed.kernels.layout import Prepared, pack

INSTRUCTIONS = ("portable", "AVX2", "AVX-512 VNNI")
WEIGHTS_A_THREAD = 2**22
"""About 40 µs. A second thread would save a layer of 2048×2048 17 µs on a quiet machine, and the barrier at its end
costs 1 to 2 ms on a busy one (measured; waiting threads spin, then lose their turn)."""


class NativeKernel:
    """y = (codes of x) · (codes of W)ᵀ · scales + bias, with the activations on 255 levels."""

    name: ClassVar[str] = "native"
    activations: ClassVar[str] = "int8"

    def __init__(self, instructions: str | None = None) -> None:
        """Builds the library if need be. `instructions`: fewer than the processor has, for tests.

        Raises `MissingDependency` when it cannot be built.
        """
        library = build.load()
        best = library.ternary_instructions()
        self._level = best if instructions is None else INSTRUCTIONS.index(instructions)
        assert self._level <= best, f"this processor has no {instructions}"
        self._call = library.ternary_linear
        pointer, size, small = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        self._call.argtypes = [*[pointer] * 5, *[size] * 6, small, small]
        self._call.restype = None

    def __reduce__(self) -> tuple[type["NativeKernel"], tuple[str]]:
        return NativeKernel, (self.instructions,)  # a function of C cannot be copied, and models are

    @property
    def instructions(self) -> str:
        """What it computes with."""
        return INSTRUCTIONS[self._level]

    def prepare(self, lattice: Lattice) -> Prepared:
        """2 bits a weight."""
        return pack(lattice)

    def linear(self, x: torch.Tensor, prepared: Prepared, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(…, I) → (…, O) in the type of `x`. For inference: there is no gradient."""
        assert not (x.requires_grad and torch.is_grad_enabled()), "packed weights are for torch.inference_mode()"
        assert x.shape[-1] == prepared.columns, f"{x.shape[-1]} activations for {prepared.columns} columns"
        assert x.device == prepared.codes.device == torch.device("cpu"), "this kernel reads the memory of the processor"
        flat, addend = floats(x), None if bias is None else floats(bias)
        tokens = flat.numel() // prepared.columns
        y = torch.empty(*x.shape[:-1], prepared.rows)
        _, groups, steps, _ = prepared.codes.shape
        work = tokens * prepared.rows * prepared.columns
        self._call(
            flat.data_ptr(), prepared.codes.data_ptr(), prepared.scales.data_ptr(),
            None if addend is None else addend.data_ptr(), y.data_ptr(),
            tokens, prepared.rows, prepared.columns, prepared.group, groups, steps,
            max(1, min(torch.get_num_threads(), work // WEIGHTS_A_THREAD)), self._level,
        )  # fmt: skip
        return y if x.dtype == torch.float32 else y.to(x.dtype)


def floats(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous float32. The checks cost a tenth of the calls, which a layer of 10 µs would feel."""
    if tensor.dtype == torch.float32 and tensor.is_contiguous():
        return tensor
    return tensor.detach().float().contiguous()
