"""The 8-bit head of one or a few tokens on a processor: products straight from the codes.

To unpack a head costs more than to multiply with it, and when tokens are generated one by one that is what most of a
small model's time goes into. So the codes are multiplied as they are stored (`kernels/rows.py`). A head is not trained
with activations of 8 bits, so these stay float32: beside the way of the codes from memory, converting them in registers
costs little.

Milliseconds for N tokens (median of 9 rounds in turn, weights from memory; EPYC Zen 4, one thread on a busy machine):

    O × I           N   float32   AVX-512   AVX2   by slices   `torch._int_mm`, activations as two int8
    32,000 × 1024   1   11.0      2.5       3.0                10.6
    32,000 × 1024   4   44.4      5.0       5.5    24.4        16.6
    32,000 × 1024   8   38.2      12.5      17.7   25.6        22.0
    49,152 × 576    1   11.7      2.1       2.8                8.3
    32,000 × 384    1   5.8       1.0       1.3                3.3

Not kept: `_int_mm`, which wants every group of activations anew; activations as two int8 or one int16 in C++ with VNNI
(best of 12: 1.6 and 1.8 ms for 32,000 × 1024 where float32 takes 1.8 to 2.2): a fifth to a third quicker, but half a
millisecond of a token of six is not worth rounding the activations; four rows side by side (4.1 ms);
prefetching (no gain).
"""

import functools
import logging

import torch

from phases.errors import MissingDependency
from phases.packed.kernels.rows import RowsKernel

MOST_TOKENS = 8
"""Unpacking takes a fifth longer at 16 tokens and as long at 32, and prompts ask a head for their last token."""

log = logging.getLogger("phases.packed")


def has_row_products(device: torch.device) -> bool:
    """Whether `row_products` runs on a device; builds it if need be. Where not, the log says why, once."""
    return device.type == "cpu" and _kernel() is not None


def row_products(x_ND: torch.Tensor, codes_OI: torch.Tensor, scale_OG: torch.Tensor, group: int | None) -> torch.Tensor:
    """(N, O) float32 products of activations with a matrix of int8 codes."""
    kernel = _kernel()
    assert kernel is not None, "ask has_row_products first"
    return kernel.linear(x_ND, codes_OI, scale_OG, group)


@functools.cache
def _kernel() -> RowsKernel | None:
    try:
        return RowsKernel()
    except MissingDependency as error:
        log.warning("8-bit heads are unpacked for every token, slowly: %s", error)
        return None
