"""The 8-bit head of one or a few tokens on a processor: products straight from the codes.

To unpack a head costs more than to multiply with it, and when tokens are generated one by one that is what most of a
small model's time goes into. So the codes are multiplied as they are stored (`kernels/rows.py`). A head is not trained
with activations of 8 bits, so these stay float32: beside the weights' way from memory, to convert codes in registers
costs little.
"""

import functools
import logging

import torch

from phases.errors import MissingDependency
from phases.packed.kernels.rows import RowsKernel

MOST_TOKENS = 8
"""From here on, unpacking is as fast."""

log = logging.getLogger("phases.packed")


def has_integer_products(device: torch.device) -> bool:
    """Whether `integer_linear` runs on a device; builds it if need be. Where not, the log says why, once."""
    return device.type == "cpu" and _kernel() is not None


def integer_linear(
    x_ND: torch.Tensor, codes_OI: torch.Tensor, scale_OG: torch.Tensor, group: int | None
) -> torch.Tensor:
    """(N, O) float32 products of activations with a matrix of int8 codes."""
    kernel = _kernel()
    assert kernel is not None, "ask has_integer_products first"
    return kernel.linear(x_ND, codes_OI, scale_OG, group)


@functools.cache
def _kernel() -> RowsKernel | None:
    try:
        return RowsKernel()
    except MissingDependency as error:
        log.warning("8-bit heads are unpacked for every token, slowly: %s", error)
        return None
