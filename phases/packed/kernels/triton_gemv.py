"""The kernel of GPUs for a few tokens: a dot product of packed codes in Triton; many tokens unpack and use `F.linear`.

One program does one tile of 16 rows for one token. It reads the same tiles as the C++ kernel (`layout.py`), each step
as 16 words of 32 bits, so that neighbouring threads read neighbouring memory; 2 bits a weight is what bounds decoding.
Sums are in float32: with activations on 255 levels their integers are exact below 2²⁴.

Imported by `choice.py` only where Triton is (torch's CUDA wheels bring it).
"""

import importlib
from typing import Any, ClassVar

import torch

from phases.bitnet.lattice import Lattice
from phases.packed.kernels.activations import Activations, rounded
from phases.packed.kernels.exact import ExactKernel
from phases.packed.kernels.layout import Prepared, pack

triton: Any = importlib.import_module("triton")
tl: Any = importlib.import_module("triton.language")

MOST_TOKENS = 8
"""Beyond, reading the codes again for every token costs more than unpacking them once."""
BLOCK_STEPS = 32


@triton.jit  # type: ignore[untyped-decorator]
def _tile(x_NP, words, scales, y_NO, rows, groups, steps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    tile, token = tl.program_id(0), tl.program_id(1)
    all_steps = groups * steps
    row = tl.arange(0, 16)
    total = tl.zeros((BLOCK, 16), tl.float32)
    for first in range(0, all_steps, BLOCK):
        step = first + tl.arange(0, BLOCK)
        inside = step < all_steps
        where = (tile * all_steps + step).to(tl.int64)
        word = tl.load(words + where[:, None] * 16 + row[None, :], inside[:, None], 0)
        dot = tl.zeros((BLOCK, 16), tl.float32)
        for column in tl.static_range(16):
            # Column 4 p + j lies at bits 2 p of byte j.
            code = ((word >> (8 * (column % 4) + 2 * (column // 4))) & 3) - 1
            x = tl.load(x_NP + token.to(tl.int64) * all_steps * 16 + step * 16 + column, inside, 0.0)
            dot += code.to(tl.float32) * x[:, None]
        group = tile * groups + step // steps
        scale = tl.load(scales + group[:, None] * 16 + row[None, :], inside[:, None], 0.0)
        total += dot * scale.to(tl.float32)
    out = tile * 16 + row
    tl.store(y_NO + token.to(tl.int64) * rows + out, tl.sum(total, 0), out < rows)


class TritonKernel:
    """y = x · Wᵀ + bias from packed codes."""

    name: ClassVar[str] = "triton"

    def __init__(self, activations: Activations) -> None:
        """`activations`: whether x is rounded to 255 levels first."""
        self.activations = activations
        self._many = ExactKernel(activations)

    def prepare(self, lattice: Lattice) -> Prepared:
        """2 bits a weight."""
        return pack(lattice)

    def linear(self, x: torch.Tensor, prepared: Prepared, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(…, I) → (…, O) in the type of `x`. For inference: there is no gradient."""
        assert not (x.requires_grad and torch.is_grad_enabled()), "packed weights are for torch.inference_mode()"
        tokens = x.numel() // prepared.columns
        if not 0 < tokens <= MOST_TOKENS:
            return self._many.linear(x, prepared, bias)
        flat, step = rounded(x) if self.activations == "int8" else (x.float(), None)
        tiles, groups, steps, _ = prepared.codes.shape
        y = torch.empty(tokens, prepared.rows, device=x.device)
        words = prepared.codes.view(torch.int32)
        padded = _padded(flat.reshape(tokens, -1), prepared.group, groups, steps)
        _tile[(tiles, tokens)](padded, words, prepared.scales, y, prepared.rows, groups, steps, BLOCK=BLOCK_STEPS)
        y = y.view(*x.shape[:-1], prepared.rows)
        y = y if step is None else y * step
        return (y if bias is None else y + bias.float()).to(x.dtype)


def _padded(x_NI: torch.Tensor, group: int, groups: int, steps: int) -> torch.Tensor:
    """(N, G · steps · 16): the columns where the tiles have them, zeros between."""
    x = torch.nn.functional.pad(x_NI, (0, groups * group - x_NI.shape[1])).view(len(x_NI), groups, group)
    return torch.nn.functional.pad(x, (0, steps * 16 - group)).flatten(1).contiguous()
